"""Tasks as files: lm-eval alone, with its own `hf`, gets from them the very numbers of `pat evaluate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from pat.data.items import write_items
from pat.errors import UserError
from pat.io.artefacts import read_json, read_jsonl
from pat.io.marks import samples_path
from pat.scoring.evaluation import evaluate
from pat.scoring.task_files import write_task_files
from pat.settings.jobs import EvaluationSettings
from tests.kit.tiny_checkpoint import some_items, write_tiny_checkpoint

NAMES = {"toy": ["pat_toy", "pat_toy_generated"], "of-groups": ["pat_of-groups", "pat_of-groups_generated"]}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of task files, moved once it is written, beside our own figures of a tiny model."""
    folder = tmp_path_factory.mktemp("tasks")
    model = write_tiny_checkpoint(folder / "model", seed=5)
    first, *others = some_items(12)
    write_items(folder / "toy.jsonl", [replace(first, question="Which\u2028comes\x85after 0?"), *others])  # ends of lines, to Unicode
    write_items(folder / "of-groups.jsonl", some_items(10, task="of-groups", groups=("x", "y")))
    paths = [folder / "toy.jsonl", folder / "of-groups.jsonl"]
    settings = EvaluationSettings(batch_size=4, max_new_tokens=6, limit=4, group_limit=3, device="cpu")
    evaluate(model, paths, [], settings, 0, folder / "evaluation.json")
    assert write_task_files(paths, folder / "written", limit=4, group_limit=3, max_new_tokens=6) == NAMES
    (folder / "written").rename(folder / "moved")
    return folder


@pytest.fixture(scope="module")
def theirs(work: Path) -> dict[str, Any]:
    manager = TaskManager(include_path=str(work / "moved"), include_defaults=False)
    found: dict[str, Any] = simple_evaluate(
        model="hf",
        model_args={"pretrained": str(work / "model"), "dtype": "float32"},
        tasks=["pat"],
        task_manager=manager,
        batch_size=1,
        device="cpu",
        bootstrap_iters=0,
        log_samples=True,
    )
    return found


def test_lm_eval_gets_the_same_numbers(work: Path, theirs: dict[str, Any]) -> None:
    ours = read_json(work / "evaluation.json")["tasks"]
    assert ours["of-groups"]["items"] == 6 and ours["toy"]["items"] == 4
    for name, labels in NAMES.items():
        merged = {key.split(",")[0]: value for label in labels for key, value in theirs["results"][label].items()}
        for metric, score in ours[name]["scores"].items():
            assert merged[metric] == score["value"], (name, metric)


def test_every_answer_is_the_same(work: Path, theirs: dict[str, Any]) -> None:
    """Equal means may hide different answers."""
    ours = read_jsonl(samples_path(work / "evaluation.json"), ["task"])
    for name, (likelihoods, generated) in NAMES.items():
        mine = [row for row in ours if row["task"] == name]
        for row, sample in zip(mine, theirs["samples"][likelihoods], strict=True):
            values = [value for value, _ in sample["filtered_resps"]]
            assert values == pytest.approx(row["log_likelihoods"], abs=1e-4)
            assert row["correct"]["acc_norm"] == bool(sample["acc_norm"])
        for row, sample in zip(mine, theirs["samples"][generated], strict=True):
            assert sample["filtered_resps"][0] == row["generated"]
            assert row["correct"]["first_capital"] == bool(sample["first_capital"])


def test_two_tasks_that_would_have_one_name_are_refused(work: Path) -> None:
    for name in ("one", "one_generated"):
        write_items(work / f"{name}.jsonl", some_items(2, task=name))
    with pytest.raises(UserError, match="one asked for an answer is called one_generated too"):
        write_task_files([work / "one.jsonl", work / "one_generated.jsonl"], work / "both")


def test_a_folder_of_tasks_is_replaced_and_nothing_else_is(work: Path) -> None:
    write_task_files([work / "toy.jsonl"], work / "again")
    assert write_task_files([work / "toy.jsonl"], work / "again") == {"toy": NAMES["toy"]}
    (work / "own").mkdir()
    (work / "own" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="own"):
        write_task_files([work / "toy.jsonl"], work / "own")
