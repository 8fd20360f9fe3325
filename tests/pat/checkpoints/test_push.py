"""What is sent to the hub: the model's files, a card that its libraries read, results as they are there. The sending is in test_hub.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from huggingface_hub import HfApi, ModelCard, parse_eval_result_entries

from pat.checkpoints.card import model_card
from pat.checkpoints.lineage import lineage_of
from pat.checkpoints.push import Published, files_to_send, pairs, push
from pat.errors import UserError
from pat.io.artefacts import read_json, write_json
from tests.kit.commands import run
from tests.kit.sendable import published, write_sendable


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and its evaluation."""
    folder = tmp_path_factory.mktemp("push")
    write_sendable(folder)
    return folder


def test_licence_language_and_base_travel_from_the_first_card_through_every_step(work: Path) -> None:
    inherited = {
        "base_model": "someone/tiny",
        "license": "other",
        "license_name": "tiny",
        "license_link": "LICENSE.md",
        "language": ["en", "de"],
    }
    assert lineage_of(work / "imported") == lineage_of(work / "pruned") == inherited
    card: Any = ModelCard.load(work / "pruned" / "README.md")
    assert {name: card.data.get(name) for name in inherited} == inherited
    assert "Made of [someone/tiny]" in card.text and "AutoModelForCausalLM" in card.text and "are removed" in card.text
    assert (work / "pruned" / "LICENSE.md").read_text() == "terms"


def test_the_hubs_own_readers_read_the_card_and_the_results(work: Path) -> None:
    sent = files_to_send(work / "pruned", "me/narrow", published(work))
    written = sent["README.md"]
    assert isinstance(written, bytes)
    card: Any = ModelCard(written.decode())
    assert card.data.base_model == "someone/tiny" and card.data.datasets == ["my/rows"] and card.data.model_name == "narrow"
    figures = read_json(work / "evaluation.json")["tasks"]["toy"]
    found = {str(result.metric_name).split(" ")[0]: result.metric_value for result in card.data.eval_results or []}
    assert found["acc_norm"] == pytest.approx(figures["scores"]["acc_norm"]["value"], abs=1e-6) and "token_perplexity" in found
    assert f"| toy | {figures['items']} | {figures['chance']:.1%} |" in card.text
    results = sent[".eval_results/toy.yaml"]
    assert isinstance(results, bytes)
    [entry] = parse_eval_result_entries(yaml.safe_load(results))
    assert (entry.dataset_id, entry.task_id) == ("some/benchmark", "toy_task")
    assert entry.value == pytest.approx(100 * figures["scores"]["acc_norm"]["value"], abs=0.01)


def test_a_perplexity_too_large_for_a_number_is_told_as_such(work: Path, tmp_path: Path) -> None:
    record = read_json(work / "evaluation.json")
    record["perplexity"]["held"] |= {"token_perplexity": None, "byte_perplexity": 2.5}
    write_json(tmp_path / "evaluation.json", record)
    sent = files_to_send(work / "pruned", "me/narrow", Published(tmp_path / "evaluation.json"))["README.md"]
    assert isinstance(sent, bytes) and b"| held | too large | 2.5 |" in sent


def test_all_that_an_evaluation_found_stands_in_the_card(work: Path, tmp_path: Path) -> None:
    """Tasks of any name, that were not all scored alike, and lm-eval's own, in its figures."""
    scored = read_json(work / "evaluation.json")
    figures = scored["tasks"]["toy"]
    scored["tasks"]["a|b"] = {**figures, "scores": {"acc": figures["scores"]["acc"]}}
    scored["tasks"]["whole"] = {**figures, "scores": {**figures["scores"], "exact": {"value": 0.125, "stderr": None}}}
    scored["harness"] = {"arc_easy": {"items": 2376, "version": 1.0, "scores": {"acc,none": 0.25, "acc_stderr,none": 0.01}}}
    write_json(tmp_path / "scored.json", scored)
    card = files_to_send(work / "pruned", "me/narrow", Published(evaluation=tmp_path / "scored.json"))["README.md"]
    assert isinstance(card, bytes)
    lines, read = card.decode().splitlines(), cast(Any, ModelCard(card.decode()))
    (odd,) = (line for line in lines if line.startswith(r"| a\|b |"))
    (whole,) = (line for line in lines if line.startswith("| whole |"))
    assert odd.endswith("| – |") and whole.endswith("| 12.5% |")
    assert "| arc_easy | 2376 | acc,none | 0.2500 | 0.0100 |" in lines
    found = {result.metric_name: result.metric_value for result in read.data.eval_results or []}
    assert found["acc,none (lm-eval)"] == 0.25 and "acc_stderr,none (lm-eval)" not in found


SIZES: dict[str, Any] = {
    "base": {"hidden_size": 32, "parameters": {"unique": 100, "without_embeddings": 80}},
    "hidden_size": {"after": 24}, "parameters": {"after": {"unique": 75, "without_embeddings": 60}},
    "kl_dtype": "float32", "kl_on_text": 0.0, "kl_probe": "text", "fold_gap": 0.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "removed", "how", "title", "said", "tagged"),
    [
        (0.25, 0.25, "tuned and pruned with PAT", "tuned and pruned with PAT", "Requested ratio 25.00%; 25.00% of", True),
        (0.0, 0.25, "tuned", "pruned and tuned", "\n25.00% of the base model's parameters are removed.", True),
        (0.0, 0.0, "tuned", "tuned", "\nNone of the base model's parameters are removed.", False),
    ],
)
def test_a_card_says_what_was_removed_before_its_own_step_too(
    asked: float, removed: float, how: str, title: str, said: str, *, tagged: bool
) -> None:
    """A model that a pruner made and a tuning followed was called tuned, with a requested ratio of nothing; every model was tagged as pruned."""
    card = model_card(SIZES | {"ratio_requested": asked, "removed": removed}, how, None)
    assert f"# A {title} model\n" in card and said in card
    assert ("structured-pruning" in cast(Any, ModelCard(card)).data.tags) is tagged


def test_a_dry_run_lists_every_file_and_sends_nothing(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HfApi, "create_commit", lambda *_, **__: pytest.fail("sent"))
    before = sorted(path.name for path in (work / "pruned").iterdir())
    options = ["--dry-run", "--evaluation", str(work / "evaluation.json"), "--benchmark", "toy=some/benchmark"]
    with pytest.raises(SystemExit) as ended:
        run(["push", str(work / "pruned"), "me/narrow", *options])
    assert not ended.value.code
    said = capsys.readouterr().out
    for name in (
        "model.safetensors",
        "config.json",
        "chat_template.jinja",
        "LICENSE.md",
        "prune.json",
        "README.md",
        ".eval_results/toy.yaml",
    ):
        assert f"  {name}\n" in said, name
    assert "manifest.json" not in said and "--dataset" in said and "--license" not in said
    assert sorted(path.name for path in (work / "pruned").iterdir()) == before


@pytest.mark.parametrize("chats", [True, False])
def test_the_lines_that_load_it_do(chats: bool, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(work / "pruned", folder)
    (folder / "manifest.json").unlink()
    if not chats:
        (folder / "chat_template.jinja").unlink()
    written = files_to_send(folder, "me/narrow", Published())["README.md"]
    assert isinstance(written, bytes)
    code = written.decode().split("```python\n")[1].split("```")[0]
    assert ("apply_chat_template" in code) == chats
    exec(code.replace("me/narrow", str(folder)), {})
    assert capsys.readouterr().out.startswith("What is the capital" if chats else "The capital of France is")


def test_an_earlier_cards_results_give_way_and_its_other_fields_stay(work: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(work / "pruned", folder)
    (folder / "manifest.json").unlink()
    index = [
        {"name": "old", "results": [{"task": {"type": "x"}, "dataset": {"name": "d", "type": "d"}, "metrics": [{"type": "m", "value": 1}]}]}
    ]
    fields = {"license": "mit", "thumbnail": "a.png", "model-index": index}
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(fields)}---\n# Own words\n", encoding="utf-8")
    written = files_to_send(folder, "me/narrow", published(work))["README.md"]
    assert isinstance(written, bytes)
    card: Any = ModelCard(written.decode())
    assert card.data.model_name == "narrow" and {result.dataset_name for result in card.data.eval_results} == {"toy", "held"}
    assert card.data.license == "mit" and card.data.get("thumbnail") == "a.png" and card.data.base_model == "someone/tiny"
    assert "# Own words" in card.text and "## Results" in card.text


def test_what_cannot_be_sent_is_named(work: Path, tmp_path: Path) -> None:
    evaluation = read_json(work / "evaluation.json")
    evaluation["provenance"]["inputs"]["model"]["sha256"] = {"model.safetensors": "0"}
    write_json(tmp_path / "other.json", evaluation)
    (tmp_path / "none.json").write_text(json.dumps({"x": 1}))
    for folder, name, given, said in (
        (work / "pruned", "me//narrow", Published(), "is no name of a repository"),
        (tmp_path / "gone", "me/narrow", Published(), "gone: no such folder"),
        (work / "pruned", "me/narrow", Published(tmp_path / "other.json"), "is of other weights than those in"),
        (work / "pruned", "me/narrow", Published(tmp_path / "none.json"), "is no evaluation of `pat evaluate`: it lacks tasks"),
        (
            work / "pruned",
            "me/narrow",
            Published(work / "evaluation.json", benchmarks={"arc": "a/b"}),
            "has no task of this name; it has toy",
        ),
    ):
        with pytest.raises(UserError, match=said):
            push(folder, name, given, dry_run=True)
    with pytest.raises(UserError, match="--benchmark: toy is given twice"):
        pairs(["toy=a/b", "arc=a/b", "toy=a/c"], "--benchmark")
