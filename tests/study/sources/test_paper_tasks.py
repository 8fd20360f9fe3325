"""The paper's 14 tasks from local files: both scorings, MMLU by its subjects, and training splits as instructions (its table 3)."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from pat.data.items import read_items
from pat.data.prompts import lettered_question
from pat.io.artefacts import read_json, read_jsonl
from pat.scoring.evaluation import evaluate
from pat.settings.jobs import EvaluationSettings
from study.data.instruct import prepare as prepare_instruct
from study.data.task import prepare as prepare_task
from study.experiment.file import load_experiment
from study.sources.kinds import JsonFile, Tasks
from tests.kit.project import ROOT
from tests.kit.shared_data import shared_data
from tests.kit.tiny_checkpoint import write_tiny_checkpoint

LOCAL = load_experiment(ROOT / "config" / "smollm2-local.yaml", "smollm2-local.yaml")
DOWNSTREAM = load_experiment(ROOT / "config" / "smollm2-downstream.yaml", "smollm2-downstream.yaml")
PAPER = {"ARC-c", "ARC-e", "BoolQ", "COPA", "HellaSwag", "MMLU", "MultiRC", "OBQA", "PIQA", "RTE", "SIQA", "WiC", "WinoGrande", "WSC"}
ITEMS = {"HellaSwag": 10_042, "MMLU": 13_937, "MultiRC": 4_847}
SUBJECTS = 57
TRAINING_ROWS = 96_397
SAMPLE: list[dict[str, Any]] = [
    {"id": "a", "question": "Question: 1 + 1?", "choices": ["2", "3"], "answer": 0, "group": "sums"},
    {"id": "b", "question": "Question: 1 + 2?", "choices": ["2", "3"], "answer": 1, "group": "sums"},
    {"id": "c", "question": "Question: 3 + 3?", "choices": ["5", "6"], "answer": "B", "group": "sums"},
    {"question": "Question: Is it dark at night?", "choices": ["Yes", "No"], "answer": "A", "group": "days"},
]


def packed(path: Path, rows: list[dict[str, Any]]) -> Path:
    with lzma.open(path, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def source(**block: object) -> str:
    return json.dumps(block)


def test_the_local_experiment_has_all_fourteen_and_both_scorings() -> None:
    assert set(LOCAL.data.tasks) == PAPER
    assert LOCAL.evaluation.generate
    assert LOCAL.evaluation.log_likelihood


def test_a_packed_file_is_scored_both_ways_and_by_its_groups(tmp_path: Path) -> None:
    packed(tmp_path / "mmlu.jsonl.xz", SAMPLE)
    said = prepare_task("MMLU", source(source="json", path=str(tmp_path / "mmlu.jsonl.xz")), tmp_path / "MMLU.jsonl")
    assert "4 items in 2 groups" in said
    assert [item.answer for item in read_items(tmp_path / "MMLU.jsonl")] == [0, 1, 1, 0]
    checkpoint = write_tiny_checkpoint(tmp_path / "model")
    settings = EvaluationSettings.model_validate({"device": "cpu", "max_new_tokens": 2})
    evaluate(checkpoint, [tmp_path / "MMLU.jsonl"], [], settings, 0, tmp_path / "out.json")
    task = read_json(tmp_path / "out.json")["tasks"]["MMLU"]
    assert set(task["scores"]) == {"first_capital", "first_capital_word", "acc", "acc_norm"}
    assert {group: figures["items"] for group, figures in task["groups"].items()} == {"sums": 3, "days": 1}
    for metric, score in task["scores"].items():
        by_items = sum(figures["items"] * figures["scores"][metric]["value"] for figures in task["groups"].values()) / 4
        assert score["value"] == pytest.approx(by_items)  # as lm-eval weighs MMLU's subjects: every item counts once


def test_training_splits_are_instructions_answered_by_the_letter(tmp_path: Path) -> None:
    packed(tmp_path / "a.jsonl.xz", SAMPLE[:2])
    packed(tmp_path / "b.jsonl.xz", SAMPLE[3:])
    of = {name: {"source": "json", "path": str(tmp_path / f"{name}.jsonl.xz")} for name in ("a", "b")}
    prepare_instruct(source(source="tasks", of=of), 0, tmp_path / "instruct.jsonl")
    rows = read_jsonl(tmp_path / "instruct.jsonl", ("instruction", "input", "output"))
    assert [row["output"] for row in rows] == ["A", "B", "A"]
    assert rows[0]["instruction"] == lettered_question("Question: 1 + 1?", ["2", "3"])


@pytest.mark.parametrize("task", sorted(PAPER))
def test_every_real_file_is_read(tmp_path: Path, task: str) -> None:
    block = LOCAL.data.tasks[task].model_dump(mode="json")
    path = shared_data(block["path"])
    prepare_task(task, source(**block | {"path": str(path)}), tmp_path / "out.jsonl")
    items = read_items(tmp_path / "out.jsonl")
    assert len(items) == ITEMS.get(task, len(items)) > 90
    assert len({item.group for item in items} - {""}) == (SUBJECTS if task == "MMLU" else 0)


def test_every_real_training_split_is_read_and_none_is_what_is_scored(tmp_path: Path) -> None:
    instruct = DOWNSTREAM.data.instruct
    assert isinstance(instruct, Tasks)
    paths = {name: block.path for name, block in instruct.of.items() if isinstance(block, JsonFile)}
    assert len(paths) == len(instruct.of) == 11
    of = {name: {"source": "json", "path": str(shared_data(path))} for name, path in paths.items()}
    prepare_instruct(source(source="tasks", of=of), 0, tmp_path / "instruct.jsonl")
    rows = read_jsonl(tmp_path / "instruct.jsonl", ("instruction", "output"))
    assert len(rows) == TRAINING_ROWS
    assert {row["output"] for row in rows} <= set("ABCDE")
    assert not any("/test/" in path or "zero_shot" in path for path in paths.values())
