"""Every verb and script against files that are not what they should be: one message that names the file, status 1, no traceback.

The table is files × contents. Everything runs in this process, through the same doors as on the command line.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from pat.data.items import write_items
from pat.io.artefacts import MANIFEST, write_jsonl
from pat.settings.jobs import TuneJob
from pat.training.tuning import tune
from tests.kit.cell_maker import cell, write_cell
from tests.kit.commands import outcome
from tests.kit.experiments import SMOKE
from tests.kit.tiny_checkpoint import some_items
from tests.kit.tiny_world import write_world
from tests.kit.tuning_requests import asked

TUNING: dict[str, dict[str, Any]] = {
    "tuning": {"max_steps": 4, "learning_rate": 1e-3, "batch_size": 4, "checkpoint_steps": 2, "lora": {"rank": 2}}
}
PAT = TUNING | {"pat": {"hio_rank": 2, "milestone_fraction": 1.0}}
SEARCH = {"tuning": {"max_steps": 4, "batch_size": 4, "lora": {"rank": 2}, "search": {"learning_rates": [1e-3, 1e-2], "dev_rows": 8}}}
SHAPE = '{"vocab_size": 64, "hidden_size": 8, "layers": 1, "heads": 2, "intermediate_size": 16}'
PRETRAIN = {
    "vocab_size": 300, "hidden_size": 8, "layers": 1, "heads": 2, "intermediate_size": 16, "context_length": 16, "steps": 1,
    "batch_size": 1, "learning_rate": 0.1,
}  # fmt: skip
CONTENTS: dict[str, bytes | None] = {
    "missing": None,
    "empty": b"",
    "truncated": b'{"schema": 1, "tasks": {"capitals": [1, 2',
    "binary": bytes(range(256)) * 4,
    "not UTF-8": '{"text": "caf\xe9"}\n'.encode("latin-1"),
    "a list": b"[1, 2]",
    "a text": b'"text"',
    "null": b"null",
    "a huge number": b'{"schema": 1' + b"0" * 5000 + b"}",
    "an infinite number": b'{"schema": 1e999, "seed": -1e999}',
    "an unknown field": b'{"no-such-field": 1}',
    "deeply nested": b"[" * 100_000,
}
FOLDER = "a folder"


@dataclass(frozen=True)
class Place:
    """A file that a command reads: `<bad>` in its arguments is that file, or the folder whose file `inside` is bad; `<w>` is a workspace."""

    arguments: tuple[str, ...]
    name: str = "bad.json"
    inside: tuple[str, str] | None = None

    def __str__(self) -> str:
        return " ".join((self.arguments[0], *(it for it in self.arguments if "<bad>" in it), *(self.inside or (self.name,))))


CONFIG, WEIGHTS, TOKENIZER, INDEX = "config.json", "model.safetensors", "tokenizer.json", "model.safetensors.index.json"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "pat_config.json", "hsm.safetensors")
LORA = ("--tuner", "lora", "--settings", json.dumps(TUNING))
SEARCHED = ("--tuner", "lora", "--settings", json.dumps(SEARCH))
BASE, DATA, TEXT = ("--base", "<w>/base"), ("--data", "<w>/instruct.jsonl"), ("--text", "<w>/text.jsonl")
BAD_BASE, FOLDER_OUT, FILE_OUT = ("--base", "<bad>"), ("--out", "<w>/out"), ("--out", "<w>/out.json")
RUN = ("--run-dir", "<w>/run", *FOLDER_OUT)
HALF = ("--ratio", "0.5")
COLLECT = (
    "collect", "--cell", "{}", "--tuning", "<w>/adapter/tuning.json", "--step", "<w>/merge.json", "--evaluation", "<w>/evaluation.json",
    "--samples", "<w>/samples.jsonl", *FILE_OUT,
)  # fmt: skip
RESULT = "evaluation/tiny/pat/0.25/seed0/cell.json"
PART = (
    "reference", "--unfinished", "--experiment", "<w>/experiment.yaml", *FOLDER_OUT, "--machine", "m", "--readme", "<w>/README.md",
)  # fmt: skip
REFERENCE = ("reference", "--results", "<w>/results", *FOLDER_OUT, "--machine", "m", "--readme", "<w>/README.md")


def prepared(kind: str, source: dict[str, str], name: str) -> Place:
    """Return the preparation of a set from a bad file."""
    task = ("--task", "toy") if kind == "task" else ()
    return Place((f"prepare-{kind}", *task, "--source", json.dumps(source | {"path": "<bad>"}), *FILE_OUT), name)


PLACES = [
    Place(("validate", "<bad>"), "bad.yaml"),
    Place(("pretrain", "--corpus", "<bad>", "--settings", json.dumps(PRETRAIN), *RUN), "bad.jsonl"),
    Place(("pretrain", "--corpus", "<w>/text.jsonl", "--settings", "<bad>", *RUN)),
    Place(("encode", *BASE, "--data", "<bad>", "--max-length", "64", *FOLDER_OUT), "bad.jsonl"),
    Place(("tune", *BASE, "--data", "<bad>", *LORA, *RUN), "bad.jsonl"),
    Place(("tune", *BASE, *DATA, "--tuner", "lora", "--settings", "<bad>", *RUN)),
    Place(("tune", *BASE, *DATA, *SEARCHED, "--rate-from", "<bad>", *RUN)),
    Place(("search-rate", *BASE, "--data", "<bad>", *SEARCHED, *RUN), "bad.jsonl"),
    *[Place(("tune", *BAD_BASE, *DATA, *LORA, *RUN), inside=("base", name)) for name in (CONFIG, WEIGHTS, TOKENIZER, MANIFEST, INDEX)],
    *[Place(("import-model", "--path", "<bad>", *FOLDER_OUT), inside=("base", name)) for name in (CONFIG, INDEX)],
    *[Place(("merge", *BASE, "--adapter", "<bad>", *FOLDER_OUT), inside=("adapter", name)) for name in (*ADAPTER_FILES, MANIFEST)],
    Place(("prune", *BAD_BASE, "--pruner", "channel-magnitude", *HALF, *FOLDER_OUT), inside=("base", WEIGHTS)),
    Place(("prune", *BASE, "--pruner", "slicegpt", *HALF, "--calibration", "<bad>", *FOLDER_OUT), "bad.jsonl"),
    Place(("prune", *BASE, "--pruner", "llm-pruner", *HALF, "--settings", "<bad>", *FOLDER_OUT)),
    Place(("rotate", *BASE, "--basis", "pca", "--calibration", "<bad>", *FOLDER_OUT), "bad.jsonl"),
    Place(("evaluate", "--model", "<w>/base", "--settings", "{}", "--task", "<bad>", *FILE_OUT), "bad.jsonl"),
    Place(("evaluate", "--model", "<w>/base", "--settings", "{}", "--text", "<bad>", *FILE_OUT), "bad.jsonl"),
    Place(("evaluate", "--model", "<w>/base", "--settings", "<bad>", *TEXT, *FILE_OUT)),
    *[Place(("evaluate", "--model", "<bad>", "--settings", "{}", *TEXT, *FILE_OUT), inside=("base", name)) for name in (CONFIG, TOKENIZER)],
    Place(("benchmark", "inference", "--shape", "<bad>", *FILE_OUT)),
    Place(("benchmark", "inference", "--shape", SHAPE, "--settings", "<bad>", *FILE_OUT)),
    Place(("benchmark", "tune", "--shape", SHAPE, "--settings", "<bad>", *FILE_OUT)),
    *[prepared("task", {"source": "json"}, name) for name in ("bad.jsonl", "bad.json", "bad.json.xz")],
    prepared("task", {"source": "release"}, "bad.json"),
    *[prepared("task", {"source": "hub", "layout": layout}, "bad.jsonl") for layout in ("boolq", "arc_easy", "mmlu")],
    *[prepared(kind, {"source": "json"}, "bad.jsonl") for kind in ("instruct", "text")],
    Place(("world", "--settings", "<bad>", *FOLDER_OUT)),
    Place(("tables", *FOLDER_OUT, "<bad>"), "cell.json"),
    Place(("tables", *FOLDER_OUT, "--settings", "<bad>", "<w>/cell.json")),
    Place(("tables", *FOLDER_OUT, "--cells-from", "<bad>"), "list.txt"),
    Place(("figure", "health", *FOLDER_OUT, "--tuning", "<bad>")),
    Place(("figure", "speedup", *FOLDER_OUT, "--benchmark", "<bad>")),
    *[Place((*COLLECT, option, "<bad>")) for option in ("--tuning", "--step", "--evaluation")],
    Place((*COLLECT, "--samples", "<bad>"), "bad.jsonl"),
    Place(("summary", "--results", "<bad>"), inside=("results", "tables/cells.csv")),
    Place((*REFERENCE, "--experiment", "<bad>"), "bad.yaml"),
    Place((*REFERENCE, "--unfinished", "--experiment", "<bad>"), "unfinished.yaml"),
    Place((*PART, "--results", "<bad>"), inside=("results", RESULT)),
]
OPTIONAL = (MANIFEST, INDEX)
"""Files that a folder need not have."""
UNSEEN = {("reference <bad> bad.yaml", "an infinite number"), ("reference <bad> bad.yaml", "an unknown field")}
"""What a command copies without looking at it: the experiment has run, so it was checked."""
RECIPES: list[dict[str, Any]] = [
    {"max_steps": -1},
    {"max_steps": 0},
    {"max_steps": 1e9},
    {"max_steps": "4"},
    {"learning_rate": -1},
    {"learning_rate": "fast"},
    {"batch_size": 0},
    {"batch_size": None},
    {"max_length": 1},
    {"threads": 0},
    {"device": "tpu"},
    {"lora": {"rank": 0}},
    {"lora": 3},
    {"no_such_key": 1},
    {"schedule": ["cosine"]},
    {"epochs": 1.0},
    {"precision": "fp8"},
    {"micro_batch_size": 3},
]
ARGUMENTS = [
    *[("tune", *BASE, *DATA, *LORA, *RUN, *wrong) for wrong in [
        ("--ratio", "1.5"), ("--ratio", "-1"), ("--ratio", "nan"), ("--ratio", "0.5"), ("--ratio", "half"), ("--seed", "-1"),
        ("--seed", "9" * 30), ("--seed", "1.5"), ("--tuner", "nothing"), ("--tuner", ""), ("--base", "<w>/adapter"),
        ("--base", "<w>/text.jsonl"), ("--base", "/dev/null"), ("--data", "<w>"), ("--data", "<w>/task.jsonl"), ("--teacher", "<w>/base"),
        ("--settings", "[]"), ("--settings", "{"), ("--settings", ""), ("--settings", "no-such-file"), ("--out", "<w>/text.jsonl/out"),
        ("--run-dir", "<w>/text.jsonl/run"), ("--out", "/proc/out"), ("--log", "<w>/text.jsonl/log"), ("--no-such-option",),
    ]],
    *[("tune", *BASE, *DATA, *LORA[:2], *RUN, "--settings", json.dumps({"tuning": TUNING["tuning"] | wrong})) for wrong in RECIPES],
    *[("prune", *BASE, "--pruner", "channel-magnitude", *FOLDER_OUT, *wrong) for wrong in [
        ("--ratio", "0"), ("--ratio", "1"), ("--ratio", "-0.5"), ("--ratio", "nan"), ("--ratio", "inf"),
        (*HALF, "--align", "0"), (*HALF, "--align", "-8"), (*HALF, "--align", "1000"), (*HALF, "--threads", "0"),
        (*HALF, "--pruner", "nothing"), (*HALF, "--pruner", "slicegpt"), (*HALF, "--base", "<w>/adapter"), (*HALF, "--base", "<w>"),
    ]],
    ("merge", *BASE, "--adapter", "<w>/base", *FOLDER_OUT),
    ("merge", "--base", "<w>/adapter", "--adapter", "<w>/base", *FOLDER_OUT),
    ("merge", *BASE, "--adapter", "<w>/adapter/tuning.json", *FOLDER_OUT),
    ("rotate", *BASE, "--basis", "nothing", "--calibration", "<w>/text.jsonl", *FOLDER_OUT),
    ("rotate", *BASE, "--basis", "pca", "--calibration", "<w>/text.jsonl", "--device", "tpu", *FOLDER_OUT),
    ("rotate", *BASE, "--basis", "pca", "--calibration", "<w>/text.jsonl", "--calibration-tokens", "0", *FOLDER_OUT),
    ("evaluate", "--model", "<w>/adapter", "--settings", "{}", *TEXT, *FILE_OUT),
    ("evaluate", "--model", "<w>/base", "--settings", '{"perplexity_context": 100000}', *TEXT, *FILE_OUT),
    ("evaluate", "--model", "<w>/base", "--settings", '{"batch_size": -1}', *TEXT, *FILE_OUT),
    ("evaluate", "--model", "<w>/base", "--settings", "{}", "--task", "<w>/task.jsonl", "--task", "<w>/task.jsonl", *FILE_OUT),
    ("import-model", "--path", "<w>/nothing", *FOLDER_OUT),
    ("import-model", "--path", "<w>/adapter", *FOLDER_OUT),
    ("benchmark", "inference", "--shape", "llama-2-7x", *FILE_OUT),
    ("benchmark", "inference", "--shape", SHAPE, "--settings", '{"widths": [7]}', *FILE_OUT),
    ("benchmark", "inference", "--shape", SHAPE, "--settings", '{"ratios": [2]}', *FILE_OUT),
    ("benchmark", "tune", "--shape", SHAPE, "--settings", '{"ratio": 0.0001, "precision": "fp32"}', *FILE_OUT),
    ("prepare-task", "--task", "toy", "--source", "", *FILE_OUT),
    ("prepare-task", "--task", "toy", "--source", '{"source": "pickle", "path": "x"}', *FILE_OUT),
    ("prepare-task", "--task", "toy", "--source", '{"source": ["json"]}', *FILE_OUT),
    ("prepare-text", "--source", '{"source": "text", "path": 3}', *FILE_OUT),
    ("world", "--settings", '{"seed": -1}', *FOLDER_OUT),
    ("world", "--settings", "{}", "--out", "<w>/text.jsonl/out"),
    ("tables", *FOLDER_OUT),
    ("tables", *FOLDER_OUT, "<w>/cell.json", "--settings", '{"accuracy": "table9"}'),
    ("summary", "--results", "<w>/nothing"),
    (*COLLECT, "--cell", "["),
]  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole one of everything that the commands read."""
    folder = tmp_path_factory.mktemp("workspace")
    base, data = write_world(folder)
    tune(asked(base, data, "pat", 0.5, 0, TuneJob.model_validate(PAT), folder / "run", folder / "adapter"))
    (folder / "adapter" / MANIFEST).unlink()  # so that a bad file of the adapter is met by its reader and not by the checksums
    write_jsonl(folder / "text.jsonl", [{"text": "one two three " * 20}])
    write_items(folder / "task.jsonl", some_items())
    shutil.copy(write_cell(folder / "results", cell()), folder / "cell.json")
    (folder / "README.md").write_text("<!-- out:start -->\n<!-- out:end -->\n")
    (folder / "experiment.yaml").write_text(yaml.safe_dump(SMOKE | {"name": "demo", "ratios": [0.25], "methods": {"pat": None}}))
    (folder / "results/tables").mkdir()
    (folder / "results/tables/cells.csv").write_text("json\nresults/demo/evaluation/tiny/pat/0.25/seed0/cell.json\n")
    step = {"hidden_size": {"before": 8, "after": 4}, "parameters": {"before": {}, "after": {}}, "logit_gap": None, "ratio_effective": 0.5}
    (folder / "merge.json").write_text(json.dumps(step | {"provenance": {}}))
    scored = {"tasks": {"toy": {"items": 1, "scores": {}}}, "mean": {}, "perplexity": {}, "harness": {}, "provenance": {}}
    (folder / "evaluation.json").write_text(json.dumps(scored))
    write_jsonl(folder / "samples.jsonl", [{"task": "toy", "id": "1", "gold": 1, "correct": {}}])
    return folder


def spoilt(place: Place, workspace: Path, folder: Path, kind: str) -> Path:
    """Return `<bad>`: the file, or a copy of a workspace's folder with the bad file in it."""
    top = folder / (place.inside[0] if place.inside else place.name)
    if place.inside:
        shutil.copytree(workspace / place.inside[0], top)
    file = top / place.inside[1] if place.inside else top
    file.unlink(missing_ok=True)
    content = CONTENTS.get(kind)
    if kind == FOLDER:
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)
    return top


def filled(arguments: Sequence[str], workspace: Path, bad: Path) -> list[str]:
    """Return the arguments with the paths that stand in them."""
    return [it.replace("<bad>", str(bad)).replace("<w>", str(workspace)) for it in arguments]


@pytest.fixture
def own_workspace(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of links to the workspace's files, in which a command may write, and a log of its own."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    (tmp_path / "w").mkdir()
    for each in workspace.iterdir():
        (tmp_path / "w" / each.name).symlink_to(each)
    return tmp_path / "w"


CASES = [
    pytest.param(place, kind, id=f"{place} is {kind}")
    for place in PLACES
    for kind in (*CONTENTS, FOLDER)
    if not (kind == "missing" and place.inside and place.inside[1] in OPTIONAL) and (str(place), kind) not in UNSEEN
]


@pytest.mark.parametrize(("place", "kind"), CASES)
def test_a_bad_file_is_one_message_that_names_it(
    place: Place, kind: str, workspace: Path, own_workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = spoilt(place, workspace, tmp_path, kind)
    code, said = outcome(filled(place.arguments, own_workspace, bad), capsys)
    assert code == 1, said
    assert "error: " in said and bad.name in said


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=" ".join)
def test_a_bad_argument_is_one_message(arguments: tuple[str, ...], own_workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = outcome(filled(arguments, own_workspace, own_workspace), capsys)
    assert code in (1, 2), said
    assert "rror" in said and "given more than once" not in said
