"""`pat benchmark evaluation`: what is compared, what the record says, and what random items are. No timing is judged."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from pat import cli
from pat.benchmark import so_far
from pat.benchmark.evaluation import agreement, benchmark_evaluation, summary
from pat.benchmark.machine import OUT_OF_MEMORY
from pat.benchmark.random_items import TASK_LENGTHS, capital_tokenizer, random_tasks, word
from pat.benchmark.settings import EvaluationBenchmark, ModelShape
from pat.data.items import write_items
from pat.data.prompts import log_likelihood_prompt
from pat.errors import UserError
from pat.io.artefacts import read_json
from pat.scoring import harness
from pat.scoring.answers import Outcome
from pat.scoring.batched_lm import BatchedLM
from tests.kit.tiny_checkpoint import some_items, write_tiny_checkpoint

SIZES: dict[str, Any] = {"vocab_size": 120, "hidden_size": 32, "layers": 2, "heads": 4, "intermediate_size": 48}
SHAPE = ModelShape(**SIZES)
QUICK = EvaluationBenchmark(items=1, batch_sizes=(5, 2), max_new_tokens=3, rounds=2, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("benchmark") / "evaluation.json"
    record = benchmark_evaluation(SHAPE, None, [], QUICK, 0, out)
    assert read_json(out) == record
    return record


@pytest.mark.lengthy
def test_every_way_to_ask_is_measured_under_both_scorings(record: dict[str, Any]) -> None:
    found = [(it["scoring"], it["name"], it["batch_size"]) for it in record["measurements"]]
    ways = [("lm-eval hf", 1), ("pat", 2), ("pat", 5)]
    assert found == [(scoring, *way) for scoring in ("generated", "log_likelihood") for way in ways]
    assert (record["kind"], record["weights"], record["dtype"], sum(record["items"].values())) == ("evaluation", "random", "fp32", 14)
    for entry in record["measurements"]:
        assert entry["items_per_s"]["samples"] == pytest.approx([14 / time_s for time_s in entry["seconds"]["samples"]])
        assert len(entry["seconds"]["samples"]) == 2 and entry["peak_bytes"] > 0


def test_in_fp32_all_answers_are_those_of_lm_eval_one_by_one(record: dict[str, Any]) -> None:
    for entry in record["measurements"]:
        if entry["name"] == "pat":
            assert entry["same_answers"] == 1.0
            assert entry["same_texts"] == (1.0 if entry["scoring"] == "generated" else None)
            assert entry["scoring"] == "generated" or 0 <= entry["largest_log_likelihood_gap"] < 1e-4


def test_the_summary_has_a_line_a_measurement(record: dict[str, Any]) -> None:
    lines = summary(record)
    assert len(lines) == 6
    assert "same answers 100.0%, same texts 100.0%" in lines[1] and "log-likelihoods within" in lines[4]


def test_agreement_counts_items_not_metrics() -> None:
    items = some_items(4)
    was = [Outcome(item, {"acc": 0, "acc_norm": 1}, None, [-1.0, -2.0]) for item in items]
    now = [Outcome(item, {"acc": 0, "acc_norm": number % 2}, None, [-1.0, -2.0 - number / 8]) for number, item in enumerate(items)]
    assert agreement(was, now) == {"same_answers": 0.5, "same_texts": None, "largest_log_likelihood_gap": 0.375}
    was = [Outcome(item, {"first_capital": 0}, "A") for item in items]
    now = [Outcome(item, {"first_capital": 0}, text) for item, text in zip(items, ["A", "A", "A", "So A"], strict=True)]
    assert agreement(was, now) == {"same_answers": 1.0, "same_texts": 0.75, "largest_log_likelihood_gap": None}


@pytest.mark.lengthy
def test_what_does_not_fit_is_said_and_the_others_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = harness.answers

    def short_of_memory(lm: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(lm, BatchedLM) and lm.batch_size == 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return answers(lm, *arguments, **options)

    monkeypatch.setattr(harness, "answers", short_of_memory)
    record = benchmark_evaluation(SHAPE, None, [], QUICK.model_copy(update={"rounds": 1}), 0, tmp_path / "evaluation.json")
    assert [it["status"] == OUT_OF_MEMORY for it in record["measurements"]] == [False, False, True] * 2
    assert [line for line in summary(record) if line.endswith("batch 5: out of memory")]


def test_an_interrupted_run_leaves_its_whole_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, rounds = tmp_path / "evaluation.json", [0]
    whole = so_far.keep

    def interrupted(record: Any, place: Path) -> None:
        whole(record, place)
        rounds[0] += 1
        raise KeyboardInterrupt

    monkeypatch.setattr(so_far, "keep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        benchmark_evaluation(SHAPE, None, [], QUICK, 0, out)
    assert rounds == [1] and not out.exists()
    assert all(len(it["seconds"]["samples"]) == 1 for it in read_json(so_far.so_far(out))["measurements"])


def test_a_checkpoint_is_asked_the_first_items_of_task_files(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "model")
    write_items(tmp_path / "toy.jsonl", some_items(4))
    out = tmp_path / "evaluation.json"
    settings = QUICK.model_copy(update={"items": 3, "rounds": 1}).model_dump_json()
    arguments = ["--model", str(folder), "--task", str(tmp_path / "toy.jsonl"), "--settings", settings, "--out", str(out)]
    result = CliRunner().invoke(cli.app, ["benchmark", "evaluation", *arguments])
    assert result.exit_code == 0, result.output
    record = read_json(out)
    assert (record["weights"], record["items"], record["truncated_items"]) == ("checkpoint", {"toy": 3}, {"toy": 0})
    assert all(it["same_answers"] == 1.0 for it in record["measurements"] if it["name"] == "pat")


@pytest.mark.parametrize(
    "arguments",
    [[], ["--shape", json.dumps(SIZES), "--model", "folder"], ["--model", "folder"], ["--shape", json.dumps(SIZES), "--task", "t"]],
)
def test_one_model_and_its_items_are_asked_for(arguments: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, ["benchmark", "evaluation", *arguments, "--out", str(tmp_path / "evaluation.json")])
    assert isinstance(result.exception, UserError) and "exactly one of --shape" in str(result.exception)
    assert not (tmp_path / "evaluation.json").exists()


def test_random_items_are_as_long_as_said_in_tokens_of_their_own() -> None:
    tasks, tokenizer = random_tasks(300, 32000, 0), capital_tokenizer(32000)
    assert random_tasks(3, 99, 0) == random_tasks(3, 99, 0) != random_tasks(3, 99, 1)
    assert set(tasks) == set(TASK_LENGTHS) and len(TASK_LENGTHS) == 14
    for name, (question, count, choice) in TASK_LENGTHS.items():
        encoded = [tokenizer(item.question)["input_ids"] for item in tasks[name]]
        assert fmean(map(len, encoded)) == pytest.approx(question, rel=0.15)
        assert min(min(row) for row in encoded) >= 3  # no mark
        choices = [len(tokenizer(text)["input_ids"]) for item in tasks[name] for text in item.choices]
        assert fmean(choices) == pytest.approx(choice, rel=0.15) and len(choices) == 300 * count
    assert tokenizer.decode([3, 28, 31999]) == f"{word(3)} {word(28)} {word(31999)}"
    assert len(tokenizer) == 32000 and tokenizer(log_likelihood_prompt("x"))["input_ids"][0] == 0
