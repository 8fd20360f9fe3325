"""Seals: swapped results are noticed, what a run itself changes or a kill leaves behind is not taken for a swap, damage is named."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from pat.errors import UserError
from pat.io.artefacts import new_folder, write_text
from pat.io.marks import SEAL
from study.results.sealed import foreign
from study.versions import seals
from study.versions.seals import check, seal


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of the first two phases in an otherwise empty workspace."""
    monkeypatch.chdir(tmp_path)
    folder = Path("results/toy")
    write_text(folder / "data/instruct.jsonl", "{}\n")
    with new_folder(folder / "checkpoints/m/pat/0.5/seed0/merged") as merged:
        write_text(merged / "model.safetensors", "weights")
    seal(folder)
    return folder


def test_every_folder_of_a_phase_that_has_begun_is_sealed_and_no_other(results: Path) -> None:
    sealed = {path.parent.name for path in results.rglob(SEAL)}
    assert sealed == {"data", "models", "rotated", "refitted", "encoded", "checkpoints"}
    assert foreign(results) == []
    check(results, sorted(sealed))


def test_a_seal_is_a_list_that_sha256sum_can_check(results: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", SEAL], cwd=results / "data", check=True, capture_output=True)


def test_results_swapped_for_others_are_foreign_until_the_first_ones_are_back(results: Path) -> None:
    shutil.copytree(results, "first")
    write_text(results / "data/instruct.jsonl", '{"other": 1}\n')
    seal(results)
    shutil.copytree(results / "data", "second")
    shutil.rmtree(results / "data")
    shutil.copytree("first/data", results / "data")
    assert foreign(results) == [results / "data"]
    shutil.rmtree(results / "data")
    shutil.copytree("second", results / "data")
    assert foreign(results) == []


def test_without_snakemakes_record_every_sealed_folder_is_foreign(results: Path) -> None:
    shutil.rmtree(".snakemake")
    assert {path.name for path in foreign(results)} == {"data", "models", "rotated", "refitted", "encoded", "checkpoints"}


def test_what_a_killed_run_has_changed_is_not_foreign(results: Path) -> None:
    write_text(results / "data/instruct.jsonl", '{"new": 1}\n')
    write_text(results / "checkpoints/m/pat/0.5/seed0/run/checkpoint-4/state", "half")
    assert foreign(results) == []


@pytest.mark.parametrize("stop_at", [1, 2, 3, 4])
def test_a_kill_between_any_two_writes_of_sealing_is_not_foreign(results: Path, stop_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(results / "data/instruct.jsonl", '{"new": 1}\n')
    write_text(results / "models/tiny/config.json", "{}")
    writes = 0

    def counted(path: Path, text: str) -> None:
        nonlocal writes
        writes += 1
        if writes == stop_at:
            raise KeyboardInterrupt
        write_text(path, text)

    monkeypatch.setattr(seals, "write_text", counted)
    monkeypatch.setattr(seals, "write_json", lambda path, value: counted(path, json.dumps(value)))
    with pytest.raises(KeyboardInterrupt):
        seal(results)
    assert foreign(results) == []


def test_sealing_again_writes_nothing_where_nothing_has_changed(results: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*")}
    seal(results)
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*")} == before


@pytest.mark.parametrize("name", ["data/instruct.jsonl", "checkpoints/m/pat/0.5/seed0/merged/model.safetensors"])
def test_a_changed_a_truncated_and_a_missing_file_are_named(results: Path, name: str) -> None:
    path = results / name
    whole = path.read_bytes()
    for damaged in (bytes([whole[0] ^ 1]) + whole[1:], whole[:-1], None):
        path.unlink()
        if damaged is not None:
            path.write_bytes(damaged)
        with pytest.raises(UserError, match=path.name):
            check(results, ["data", "checkpoints"])
        path.write_bytes(whole)
    check(results, ["data", "checkpoints"])


def test_single_files_of_a_phase_are_in_its_first_folders_seal(results: Path) -> None:
    write_text(results / "tables/table1.md", "| 1 |\n")
    write_text(results / "metrics.json", "{}\n")
    seal(results)
    write_text(results / "metrics.json", "{ }\n")
    with pytest.raises(UserError, match=r"results/toy/metrics\.json"):
        check(results, ["tables"])
