"""The evaluation against stock transformers, against models that are rigged, and against its own batch size."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM

from pat.data.items import Item, write_items
from pat.data.prompts import ANSWER_JOINT, first_capital_prompt, letters, log_likelihood_prompt
from pat.errors import UserError
from pat.io.artefacts import read_json, write_jsonl
from pat.machine.threads import PARALLEL, WORKERS
from pat.scoring import harness
from pat.scoring.answers import task_figures
from pat.scoring.batched_lm import BatchedLM
from pat.scoring.evaluation import evaluate
from pat.scoring.examinee import load_examinee
from pat.scoring.tokenizing import tokens_of
from tests.kit.evaluations import CPU, TEXTS, run
from tests.kit.tiny_checkpoint import CONTEXT, byte_tokenizer, some_items, write_tiny_checkpoint

pytestmark = pytest.mark.lengthy


class Rigged(LM):  # type: ignore[misc]  # lm_eval ships no types
    """Answers every item with the place that `choose` names: right where it is the answer."""

    def __init__(self, items: list[Item], choose: Any) -> None:
        super().__init__()
        self.letters = {first_capital_prompt(i.question, i.choices): letters(len(i.choices))[choose(i)] for i in items}
        self.choices = {log_likelihood_prompt(i.question): i.choices[choose(i)] for i in items}

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        pairs = [request.args for request in requests]
        return [(0.0 if self.choices[prompt] == ending.removeprefix(" ") else -100.0, False) for prompt, ending in pairs]

    def generate_until(self, requests: list[Any]) -> list[str]:
        return [f"so: {self.letters[request.args[0]]}" for request in requests]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        raise NotImplementedError


def scores_of(items: list[Item], choose: Any) -> dict[str, float]:
    outcomes = harness.answers(Rigged(items, choose), {"toy": items}, generate=True, log_likelihood=True, max_new_tokens=4)
    return {metric: one["value"] for metric, one in task_figures(outcomes["toy"])["scores"].items()}


def test_a_model_that_knows_scores_one_and_one_that_guesses_scores_chance() -> None:
    items = some_items(40)
    assert set(scores_of(items, lambda item: item.answer).values()) == {1.0}
    assert set(scores_of(items, lambda _: 2).values()) == {0.25}
    assert set(scores_of(items, lambda item: (item.answer + 1) % 4).values()) == {0.0}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def evaluated(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return run(checkpoint, tmp_path_factory.mktemp("out"), CPU, some_items(8, groups=("x", "y")))


def test_the_record_holds_what_is_promised(evaluated: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    record, samples = evaluated
    assert set(record) == {"tasks", "mean", "perplexity", "harness", "wall_s", "provenance"}
    toy = record["tasks"]["toy"]
    assert (toy["items"], toy["chance"], toy["truncated_items"], set(toy["groups"])) == (8, 0.25, 0, {"x", "y"})
    assert set(toy["scores"]) == set(record["mean"]) == {"first_capital", "first_capital_word", "acc", "acc_norm"}
    assert set(record["perplexity"]["heldout"]) == {"token_perplexity", "byte_perplexity", "tokens", "bytes", "documents"}
    for metric, score in toy["scores"].items():
        assert score["value"] == sum(sample["correct"][metric] for sample in samples) / 8 == record["mean"][metric]


def test_log_likelihoods_are_those_of_stock_transformers(checkpoint: Path, evaluated: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(checkpoint), byte_tokenizer()
    for item, sample in zip(some_items(8), evaluated[1], strict=True):
        prompt = tokenizer(log_likelihood_prompt(item.question))["input_ids"]
        expected = []
        for choice in item.choices:
            ending = tokenizer(f" {choice}")["input_ids"]
            with torch.no_grad():
                logits = model(torch.tensor([prompt + ending])).logits[0, len(prompt) - 1 : -1]
            expected.append(float(torch.log_softmax(logits, -1).gather(1, torch.tensor(ending)[:, None]).sum()))
        assert sample["log_likelihoods"] == pytest.approx(expected, abs=1e-3)
        lengths = [len(choice) for choice in item.choices]
        by_character = [value / length for value, length in zip(expected, lengths, strict=True)]
        assert sample["predictions"]["acc"] == expected.index(max(expected))
        assert sample["predictions"]["acc_norm"] == by_character.index(max(by_character))
        assert sample["gold"] == item.answer


def test_generated_text_is_that_of_stock_greedy_search(checkpoint: Path, evaluated: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(checkpoint), byte_tokenizer()
    texts = []
    for item in some_items(8):
        prompt = tokenizer(first_capital_prompt(item.question, item.choices), return_tensors="pt")["input_ids"]
        with torch.no_grad():
            tokens = model.generate(prompt, max_new_tokens=5, do_sample=False, pad_token_id=0)[0, prompt.shape[1] :]  # type: ignore[misc]
        texts.append(tokenizer.decode(tokens, skip_special_tokens=True))
    assert [sample["generated"] for sample in evaluated[1]] == texts
    assert len(set(texts)) > 1


@pytest.mark.parametrize("batch_size", [1, 8])
def test_the_batch_size_changes_no_answer(
    checkpoint: Path, evaluated: tuple[dict[str, Any], list[dict[str, Any]]], tmp_path: Path, batch_size: int
) -> None:
    settings = CPU.model_copy(update={"batch_size": batch_size})
    record, samples = run(checkpoint, tmp_path, settings, some_items(8, groups=("x", "y")))
    assert record["tasks"] == evaluated[0]["tasks"]
    for one, other in zip(samples, evaluated[1], strict=True):
        assert one["log_likelihoods"] == pytest.approx(other["log_likelihoods"], abs=1e-4)
        assert one["generated"] == other["generated"]


def repeatable(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record without the time it took and without where its inputs lay; what they held stays."""
    origin = record["provenance"]
    inputs = {name: it["sha256"] for name, it in origin["inputs"].items()}
    return record | {"wall_s": 0, "provenance": origin | {"inputs": inputs}}


def test_equal_settings_give_equal_bytes_but_for_time_and_place(
    checkpoint: Path, evaluated: tuple[dict[str, Any], list[dict[str, Any]]], tmp_path: Path
) -> None:
    record, samples = run(checkpoint, tmp_path, CPU, some_items(8, groups=("x", "y")))
    assert json.dumps([repeatable(record), samples]) == json.dumps([repeatable(evaluated[0]), evaluated[1]])


def test_questions_are_tokenized_in_the_threads_that_were_asked_for(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = list[tuple[str, str]]()

    def noting(lm: Any, texts: Any) -> Any:
        found.append((os.environ[PARALLEL], os.environ[WORKERS]))
        return tokens_of(lm, texts)

    monkeypatch.setattr("pat.scoring.batched_lm.tokens_of", noting)
    before = dict(os.environ)
    for threads in (1, 2):
        run(checkpoint, tmp_path, CPU.model_copy(update={"generate": False, "threads": threads}), some_items(2))
        assert set(found) == {("true" if threads > 1 else "false", str(threads))} and dict(os.environ) == before
        found.clear()
        (tmp_path / "evaluation.json").unlink()


def test_each_scoring_can_be_left_out_and_items_limited(checkpoint: Path, tmp_path: Path) -> None:
    settings = CPU.model_copy(update={"generate": False, "limit": 2})
    record, samples = run(checkpoint, tmp_path, settings, some_items(8))
    assert set(record["mean"]) == {"acc", "acc_norm"}
    assert [sample["id"] for sample in samples] == ["toy-0", "toy-1"]


def test_items_beyond_the_context_are_counted(tmp_path: Path, checkpoint: Path) -> None:
    long_one = Item("toy-9", "word " * CONTEXT, ("yes", "no"), 0, "toy")
    record, _ = run(checkpoint, tmp_path, CPU, [*some_items(3), long_one])
    assert record["tasks"]["toy"]["truncated_items"] == 1


def test_the_choice_of_most_tokens_decides_whether_an_item_fits_not_that_of_most_characters(tmp_path: Path, checkpoint: Path) -> None:
    """A token is a byte here: the first choice has 15, and the second has 12, with more characters."""
    settings = CPU.model_copy(update={"generate": False})
    room = CONTEXT + 1 - len((log_likelihood_prompt("") + ANSWER_JOINT).encode()) - 12
    for number, (length, cut) in enumerate([(room, 1), (room - 3, 0)]):
        item = Item("toy-0", "x" * length, ("剪枝与微调", "twelve chars"), 0, "toy")
        record, _ = run(checkpoint, tmp_path / str(number), settings, [item])
        assert record["tasks"]["toy"]["truncated_items"] == cut


def test_answers_that_are_cut_are_counted_and_those_without_a_choice_are_told(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As transformers' own greedy search tells: an answer is cut where its last token does not end a text."""
    items = some_items(8)
    with caplog.at_level(logging.INFO):
        record, samples = run(checkpoint, tmp_path, CPU, items)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(checkpoint), byte_tokenizer()
    is_cut = []
    for item in items:
        prompt = tokenizer(first_capital_prompt(item.question, item.choices), return_tensors="pt")["input_ids"]
        with torch.no_grad():
            made = model.generate(prompt, max_new_tokens=5, do_sample=False, pad_token_id=0)[0, prompt.shape[1] :]  # type: ignore[misc]
        is_cut.append(int(made[-1]) != tokenizer.eos_token_id)
    wordless = sum(cut and sample["predictions"]["first_capital"] is None for cut, sample in zip(is_cut, samples, strict=True))
    assert record["tasks"]["toy"]["cut_answers"] == {"all": sum(is_cut), "without_choice": wordless}
    assert wordless and f"{wordless} of 8 answers were cut at evaluation.max_new_tokens=5 before they named a choice" in caplog.text


def test_an_answer_that_ends_by_itself_is_not_cut(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.get_parameter("lm_head.weight").zero_()
        model.get_parameter("lm_head.weight")[0] = -1.0  # with all others equal the first of them is the likeliest
    model.generation_config.eos_token_id = [1, 2]
    model.save_pretrained(folder)
    record, _ = run(folder, tmp_path, CPU, some_items(3))
    assert record["tasks"]["toy"]["cut_answers"] == {"all": 0, "without_choice": 0}


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"max_new_tokens": CONTEXT}, "evaluation.max_new_tokens"), ({"perplexity_context": CONTEXT + 1}, "evaluation.perplexity_context")],
)
def test_settings_that_do_not_fit_the_model_are_named(checkpoint: Path, tmp_path: Path, changes: dict[str, int], named: str) -> None:
    with pytest.raises(UserError, match=named):
        run(checkpoint, tmp_path, CPU.model_copy(update=changes), some_items(2))
    assert not (tmp_path / "evaluation.json").exists()


def test_a_choice_longer_than_the_context_and_a_task_given_twice_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a choice of"):
        run(checkpoint, tmp_path, CPU, [Item("toy-0", "q", ("x" * (CONTEXT + 1), "y"), 0, "toy")])
    write_items(tmp_path / "toy.jsonl", some_items(2))
    with pytest.raises(UserError, match="given twice"):
        evaluate(checkpoint, [tmp_path / "toy.jsonl"] * 2, [], CPU, 0, tmp_path / "evaluation.json")


def test_a_tokenizer_that_ends_every_text_is_refused(tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    folder = write_tiny_checkpoint(tmp_path / "model")
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match="ends every text with EOS"):
        run(folder, tmp_path, CPU, some_items(2))


HARNESS_TASK = """
task: local_variant
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}, cache_dir: {cache}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""


def test_lm_evals_own_variants_stand_beside_ours(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_items(tmp_path / "rows.jsonl", some_items(6))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "local.yaml").write_text(
        HARNESS_TASK.format(rows=tmp_path / "rows.jsonl", cache=tmp_path / "cache"), encoding="utf-8"
    )
    monkeypatch.setattr(harness, "TaskManager", lambda **_: TaskManager(include_path=tmp_path / "tasks", include_defaults=False))
    lm = BatchedLM(*load_examinee(checkpoint, CPU, 0), batch_size=2)
    figures = harness.harness_variants(lm, ["local_variant"], limit=5, seed=0)["local_variant"]
    assert (figures["items"], figures["version"], set(figures["scores"])) == (5, 1.0, {"acc,none", "acc_stderr,none"})
    alone = CPU.model_copy(update={"harness_tasks": ("local_variant",), "limit": 5})
    with caplog.at_level("INFO"):
        evaluate(checkpoint, [], [], alone, 0, tmp_path / "evaluation.json")
    assert read_json(tmp_path / "evaluation.json")["harness"]["local_variant"]["scores"] == figures["scores"]
    said = f"evaluated 0 task(s) and 0 text(s) and 1 of lm-eval's own tasks: lm-eval's local_variant acc,none {figures['scores']['acc,none']:.4f}"
    assert said in caplog.messages
    with pytest.raises(UserError, match="near it: local_variant"):
        harness.harness_variants(lm, ["local_varian"], limit=None, seed=0)


def test_a_model_that_computes_no_numbers_is_a_message(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.get_parameter("lm_head.weight").fill_(3e38)  # finite, as it lies on the disk
    model.save_pretrained(folder)
    write_items(tmp_path / "toy.jsonl", some_items(2))
    write_jsonl(tmp_path / "heldout.jsonl", TEXTS)
    with pytest.raises(UserError, match=r"toy-0.*broken"):
        evaluate(folder, [tmp_path / "toy.jsonl"], [], CPU, 0, tmp_path / "evaluation.json")
    with pytest.raises(UserError, match=r"heldout.*broken"):
        evaluate(folder, [], [tmp_path / "heldout.jsonl"], CPU, 0, tmp_path / "evaluation.json")


def test_an_lm_eval_task_without_its_data_is_told_before_the_model_is_asked(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(names: Sequence[str]) -> None:
        raise UserError(f"no data of {', '.join(names)}")

    monkeypatch.setattr(harness, "own_tasks", missing)
    monkeypatch.setattr(harness, "answers", lambda *_, **__: pytest.fail("asked before it was told"))
    with pytest.raises(UserError, match="no data of arc_easy"):
        run(checkpoint, tmp_path, CPU.model_copy(update={"harness_tasks": ("arc_easy",)}), some_items(2))


@pytest.mark.slow  # lm-eval indexes its fourteen thousand tasks first
def test_an_unknown_harness_task_is_named_with_those_near_it(checkpoint: Path, tmp_path: Path) -> None:
    settings = CPU.model_copy(update={"harness_tasks": ("arc_easyy",)})
    with pytest.raises(UserError, match=r"arc_easyy.*arc_easy"):
        run(checkpoint, tmp_path, settings, some_items(2))
