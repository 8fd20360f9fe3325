"""The data sets of the hub that a model was trained on: told to the tuning, and on the card of whatever is made of the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from pat.checkpoints.lineage import lineage_of, tuned_on
from pat.checkpoints.merge import merge
from pat.checkpoints.push import Published, files_to_send
from pat.errors import UserError
from pat.io.artefacts import read_json, write_json, write_jsonl
from pat.pruners.pruning import prune
from pat.settings.jobs import PretrainSettings
from pat.training.pretraining import pretrain
from tests.kit.commands import outcome, run
from tests.kit.tiny_world import write_world

JOB = json.dumps({"tuning": {"max_steps": 6, "learning_rate": 1e-3, "batch_size": 2, "lora": {"rank": 2}}, "pat": {"hio_rank": 2}})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tuned adapter, the model merged of it, and that model pruned once more (tuned, then pruned)."""
    folder = tmp_path_factory.mktemp("datasets")
    base, rows = write_world(folder)
    named = ["--dataset", "someone/rows", "--dataset", "someone/more"]
    arguments = ["tune", "--base", str(base), "--data", str(rows), "--tuner", "pat", "--ratio", "0.25", "--settings", JOB, *named]
    with pytest.raises(SystemExit) as ended:
        run([*arguments, "--run-dir", str(folder / "run"), "--out", str(folder / "adapter")])
    assert not ended.value.code
    merge(base, folder / "adapter", folder / "merged")
    prune(folder / "merged", "channel-magnitude", 0.5, 8, folder / "pruned")
    return folder


def test_they_are_in_the_tunings_record_and_change_nothing_else_of_it(made: Path) -> None:
    record = read_json(made / "adapter" / "tuning.json")
    assert record["datasets"] == ["someone/rows", "someone/more"]
    assert "datasets" not in record["provenance"]["settings"]


@pytest.mark.parametrize("model", ["merged", "pruned"])
def test_every_card_of_what_is_made_of_it_names_them(model: str, made: Path) -> None:
    card: Any = ModelCard.load(made / model / "README.md")
    assert card.data.datasets == ["someone/rows", "someone/more"] == lineage_of(made / model)["datasets"]
    assert "Trained on [someone/rows](https://huggingface.co/datasets/someone/rows), [someone/more](" in card.text


def test_what_is_sent_names_them_without_an_option_and_a_given_one_wins(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin, log = tmp_path / "mine.py", tmp_path / "push.log"
    plugin.write_text("LOADED = True\n")
    options = ["--dry-run", "--plugin", str(plugin), "--log", str(log)]
    with pytest.raises(SystemExit) as ended:
        run(["push", str(made / "pruned"), "me/narrow", *options])
    assert not ended.value.code
    said = capsys.readouterr().out
    assert "note: the card says nothing of what these would: --license" in said and "--dataset" not in said
    assert "pat push, version" in log.read_text()
    sent = files_to_send(made / "pruned", "me/narrow", Published(datasets=["an/other"]))["README.md"]
    assert isinstance(sent, bytes)
    card: Any = ModelCard(sent.decode())
    assert card.data.datasets == ["an/other"]


def test_a_base_pretrained_on_the_hubs_texts_passes_them_on(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "texts.jsonl", [{"body": f"the number {number} is followed by {number + 1}"} for number in range(60)])
    settings = PretrainSettings(
        vocab_size=300, hidden_size=16, layers=1, heads=2, intermediate_size=16, context_length=16, steps=2, batch_size=2, learning_rate=1e-3
    )  # fmt: skip
    with pytest.raises(UserError, match="text"):
        pretrain(tmp_path / "texts.jsonl", settings, tmp_path / "run", tmp_path / "base", ["a/corpus"])
    record = pretrain(tmp_path / "texts.jsonl", settings, tmp_path / "run", tmp_path / "base", ["a/corpus"], text_column="body")
    assert record["provenance"]["settings"]["text_column"] == "body"
    assert lineage_of(tmp_path / "base") == {"datasets": ["a/corpus"]}
    assert tuned_on(lineage_of(tmp_path / "base"), ["someone/rows", "a/corpus"]) == {"datasets": ["a/corpus", "someone/rows"]}


def test_what_others_trained_their_model_on_stays_on_their_card(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\ndatasets: [their/rows]\n---\n")
    assert lineage_of(tmp_path) == {"license": "mit"}


def test_a_name_that_the_hub_cannot_have_is_refused_before_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, rows = write_world(tmp_path)
    arguments = ["tune", "--base", str(base), "--data", str(rows), "--tuner", "lora", "--settings", JOB, "--dataset", "a//b"]
    code, said = outcome([*arguments, "--run-dir", str(tmp_path / "run"), "--out", str(tmp_path / "out")], capsys)
    assert code == 1 and "--dataset 'a//b': must be the name of a data set on the hub" in said and not (tmp_path / "run").exists()


def test_a_record_that_names_no_list_is_told(made: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for path in (made / "adapter").iterdir():
        if path.name != "manifest.json":
            (adapter / path.name).write_bytes(path.read_bytes())
    write_json(adapter / "tuning.json", read_json(adapter / "tuning.json") | {"datasets": "someone/rows"})
    with pytest.raises(UserError, match=r"tuning.json: datasets: must be a list of names"):
        merge(made / "base", adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
