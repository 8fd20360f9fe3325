"""`study explain`: the chain from a cell back to its base, out of the steps' own records; cells of earlier versions; wrong questions."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from pat.errors import UserError
from pat.io.artefacts import read_json, sha256, write_json, write_jsonl
from pat.io.provenance import provenance
from study.results.archive import ARCHIVE, pack
from study.results.explain import explain
from tests.kit.cell_maker import cell, write_cell

WANTED = {"model": "tiny", "method": "pat", "ratio_requested": 0.25, "seed": 0}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base, an adapter tuned on it, both merged, the merged model evaluated: each with the record that its step writes."""
    monkeypatch.chdir(tmp_path)
    folder = Path("results/demo")
    base, data = folder / "models/tiny", folder / "data.jsonl"
    own, scores = (folder / phase / "tiny/pat/0.25/seed0" for phase in ("checkpoints", "evaluation"))
    write_jsonl(data, [{"instruction": "i", "output": "o"}])
    steps: list[tuple[str, Path, dict[str, Path | None]]] = [
        ("pretrain", base / "pretraining.json", {"corpus": data}),
        ("tune", own / "adapter/tuning.json", {"base": base, "data": data, "teacher": None}),
        ("merge", own / "merged/merge.json", {"base": base, "adapter": own / "adapter"}),
        ("evaluate", scores / "evaluation.json", {"model": own / "merged", "task capitals": data}),
    ]
    origins = {}
    for verb, record, inputs in steps:
        monkeypatch.setattr(sys, "argv", ["/bin/pat", verb, "--settings", '{"a": 1}'])
        origins[verb] = provenance({"verb": verb}, 0, inputs=inputs)
        write_json(record, {"provenance": origins[verb]})
        (record.parent / "model.safetensors").write_bytes(verb.encode())
    write_cell(folder, cell(provenance={phase: origins[phase] for phase in ("tune", "merge", "evaluate")}))
    return folder


def test_the_chain_leads_from_the_base_to_the_number(results: Path) -> None:
    lines = explain(results, WANTED, "capitals")
    own, scores = (f"results/demo/{phase}/tiny/pat/0.25/seed0" for phase in ("checkpoints", "evaluation"))
    assert [line for line in lines if line[:1].isdigit()] == [
        "1. pretrain: results/demo/models/tiny/pretraining.json",
        f"2. tune: {own}/adapter/tuning.json",
        f"3. merge: {own}/merged/merge.json",
        f"4. evaluate: {scores}/evaluation.json",
    ]
    assert lines[0] == "demo: tiny, PAT, ratio 0.25, seed 0"
    assert lines[1] == "  capitals: acc 70.00%, first_capital 60.00% (100 items)"
    commands = [line.strip() for line in lines if "command:" in line]
    assert commands == [f"command: pat {verb} --settings '{{\"a\": 1}}'" for verb in ("pretrain", "tune", "merge", "evaluate")]


def test_inputs_are_named_with_their_checksums(results: Path) -> None:
    said = "\n".join(explain(results, WANTED, None))
    assert f"data: results/demo/data.jsonl (sha256 {sha256(results / 'data.jsonl')[:12]})" in said
    assert f"base: results/demo/models/tiny (model.safetensors {sha256(results / 'models/tiny/model.safetensors')[:12]})" in said
    assert "teacher" not in said


def test_a_cell_whose_checkpoints_are_elsewhere_is_explained_by_itself(results: Path) -> None:
    shutil.rmtree(results / "checkpoints")
    lines = explain(results, WANTED, "capitals")
    assert [line.partition(":")[0] for line in lines if line[:1].isdigit()] == ["1. tune", "2. merge", "3. evaluate"]
    assert sum("command: pat " in line for line in lines) == 3


def test_a_kept_reference_is_explained_by_its_own_records(results: Path) -> None:
    """Not by what another run has put in the same places since."""
    kept = Path("reference/demo")
    pack({"cells/tiny/pat/0.25/seed0/cell.json": results / "evaluation/tiny/pat/0.25/seed0/cell.json"}, kept / ARCHIVE)
    own = results / "checkpoints/tiny/pat/0.25/seed0/merged/merge.json"
    write_json(own, {"provenance": read_json(own)["provenance"] | {"command": "pat merge --of another-run"}})
    assert any("another-run" in line for line in explain(results, WANTED, "capitals"))
    lines = explain(kept, WANTED, "capitals")
    assert [line.partition(":")[0] for line in lines if line[:1].isdigit()] == ["1. tune", "2. merge", "3. evaluate"]
    assert not [line for line in lines if "another-run" in line]


@pytest.mark.parametrize(("here", "given"), [(".", "old/results/demo"), ("old/results", "demo"), ("results", "../old/results/demo")])
def test_a_copied_run_is_followed_where_it_lies_now(results: Path, here: str, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the run of the same name in the folder where it is asked for, which has another model there."""
    shutil.copytree("results", "old/results")
    steps = [line.replace("results/demo", given) for line in explain(results, WANTED, None) if line[:1].isdigit()]
    (results / "checkpoints/tiny/pat/0.25/seed0/merged/model.safetensors").write_bytes(b"another")
    monkeypatch.chdir(here)
    assert [line for line in explain(Path(given), WANTED, None) if line[:1].isdigit()] == steps and len(steps) == 4


def test_records_of_what_was_made_again_since_are_not_those_of_the_cell(results: Path) -> None:
    """An adapter that was tuned again: the cell still tells of the one before."""
    own = results / "checkpoints/tiny/pat/0.25/seed0/adapter"
    (own / "model.safetensors").write_bytes(b"tuned again")
    write_json(own / "tuning.json", {"provenance": read_json(own / "tuning.json")["provenance"] | {"command": "pat tune --again"}})
    lines = explain(results, WANTED, None)
    assert [line.partition(":")[0] for line in lines if line[:1].isdigit()] == ["1. tune", "2. merge", "3. evaluate"]
    assert not [line for line in lines if "--again" in line]


def test_a_model_whose_weights_were_freed_is_a_step(results: Path) -> None:
    (results / "checkpoints/tiny/pat/0.25/seed0/merged/model.safetensors").unlink()
    assert sum(line[:1].isdigit() for line in explain(results, WANTED, None)) == 4


def test_the_search_of_a_learning_rate_is_a_step(results: Path) -> None:
    rate, tuned = Path("results/demo/checkpoints/tiny/pat/0.25/rate.json"), results / "checkpoints/tiny/pat/0.25/seed0/adapter/tuning.json"
    write_json(rate, {"provenance": provenance({}, 0, inputs={"data": results / "data.jsonl"})})
    write_json(tuned, {"provenance": provenance({}, 0, inputs={"base": results / "models/tiny", "rate": rate})})
    numbered = [line.partition(":")[0] for line in explain(results, WANTED, None) if line[:1].isdigit()]
    assert numbered == ["1. pretrain", "2. search-rate", "3. tune", "4. merge", "5. evaluate"]


def test_a_row_of_a_pruner_is_named_with_its_mode(tmp_path: Path) -> None:
    write_cell(tmp_path, cell(method="channel-fisher-ftpft", base_method="channel-fisher-ftpft", label="Channel Fisher", mode="FT→P→FT"))
    (line, *_) = explain(tmp_path, WANTED | {"method": "channel-fisher-ftpft"}, "capitals")
    assert line == "demo: tiny, Channel Fisher FT→P→FT, ratio 0.25, seed 0"


def test_cells_that_recorded_no_inputs_are_explained_as_far_as_they_know(tmp_path: Path) -> None:
    """As the first versions wrote them."""
    earlier = {"config_hash": "0123456789abcdef", "git_commit": "81cb19b5da81cb19b5da", "git_dirty": False, "seed": 0, "device": "cpu"}
    write_cell(tmp_path, cell(provenance=dict.fromkeys(("tune", "merge", "evaluate"), earlier)))
    lines = explain(tmp_path, WANTED, "capitals")
    assert [line.partition(":")[0] for line in lines if line[:1].isdigit()] == ["1. tune", "2. merge", "3. evaluate"]
    assert sum("command: not recorded" in line for line in lines) == 3
    assert any("commit 81cb19b5da" in line and "unchanged" in line for line in lines)


@pytest.mark.parametrize(
    ("change", "task", "message"),
    [
        ({"method": "lora"}, None, r"no cell fits; there are:\n  --model tiny --row pat --ratio 0.25 --seed 0"),
        ({"seed": 1}, None, "no cell fits"),
        ({}, "sums", "--task sums: the cell was not scored on it; its tasks are capitals"),
    ],
)
def test_a_wrong_question_is_answered_with_what_is_there(results: Path, change: dict[str, object], task: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        explain(results, WANTED | change, task)


def test_several_cells_are_listed(results: Path) -> None:
    write_cell(results, cell(seed=1))
    with pytest.raises(UserError, match=r"2 cells fit; say which:\n.*--seed 0\n.*--seed 1"):
        explain(results, WANTED | {"seed": None}, None)


def test_a_folder_without_cells_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no cell\.json"):
        explain(tmp_path, {}, None)


def test_only_the_packages_own_command_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert provenance({}, 0)["command"] is None
    monkeypatch.setattr(sys, "argv", [os.fspath(Path("/venv/bin/pat")), "merge", "--out", "a b"])
    assert provenance({}, 0)["command"] == "pat merge --out 'a b'"
