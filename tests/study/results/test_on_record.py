"""Cells by their records: those of kept references are what their experiments ask for, and whatever is changed in one is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pat.errors import UserError
from study.experiment.extends import read_resolved
from study.experiment.file import load_experiment
from study.experiment.schema import Experiment
from study.results.archive import ARCHIVE
from study.results.on_record import MOST_SHOWN, on_record
from study.results.unpack import unpack_reference
from tests.kit.part_of_a_grid import CELLS, PART, RAW, M, keep_cells, write_part
from tests.kit.project import ROOT

REFERENCES = ROOT / "results" / "reference"
FILE = "x.yaml"


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_part(tmp_path_factory.mktemp("part"))


@pytest.fixture
def own(part: Path, tmp_path: Path) -> Path:
    """A copy of the part's records that a test may change."""
    shutil.copytree(part, tmp_path / "own")
    return tmp_path / "own"


def experiment(change: Callable[[dict[str, Any]], object] | None = None, reference: Path = PART) -> Experiment:
    """Return the experiment of a reference, with a change to its file's contents."""
    raw = read_resolved(reference / "experiment.yaml")
    if change is not None:
        change(raw)
    return load_experiment(raw, FILE)


def refusal(results: Path, asked: Experiment) -> list[str]:
    """Return the lines by which records are refused, without the folder."""
    with pytest.raises(UserError) as error:
        on_record(asked, results, FILE)
    return str(error.value).replace(f"{results}/", "").splitlines()


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a record in place."""
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


@pytest.mark.lengthy
@pytest.mark.parametrize("reference", sorted(path.parent for path in REFERENCES.glob(f"*/{ARCHIVE}")), ids=lambda path: path.name)
def test_the_records_of_a_kept_run_say_what_its_experiment_asks_for(reference: Path, tmp_path: Path) -> None:
    """Whatever the order of its steps: of each method that the references have, and of several versions."""
    unpack_reference(reference, tmp_path / "records")
    found = on_record(experiment(reference=reference), tmp_path / "records", FILE)
    assert sorted(each.path for each in found) == sorted((tmp_path / "records").rglob("cell.json"))


def test_a_part_has_its_cells_with_the_records_that_they_were_made_from(part: Path) -> None:
    found = {each.cell.path.as_posix(): each for each in on_record(experiment(), part, FILE)}
    assert sorted(found) == sorted(f"{M}/{cell}" for cell in CELLS)
    checkpoints = part / "checkpoints" / M
    made_from = {name: sorted(str(path.relative_to(checkpoints)) for path in found[f"{M}/{name}"].parts) for name in (
        "base/0/seed0", "lora/0/seed1", "slicegpt-ftp/0.25/seed0", "shortgpt-refitted/0.5/seed2",
    )}  # fmt: skip
    assert made_from == {
        "base/0/seed0": [],
        "lora/0/seed1": ["lora/0/rate.json", "lora/0/seed1/adapter/tuning.json", "lora/0/seed1/merged/merge.json"],
        "slicegpt-ftp/0.25/seed0": [
            "lora/0/rate.json", "lora/0/seed0/adapter/tuning.json", "lora/0/seed0/merged/merge.json", "slicegpt-ftp/0.25/seed0/merged/prune.json",
        ],
        "shortgpt-refitted/0.5/seed2": [
            "shortgpt-refitted/0.5/rate.json", *(f"shortgpt-refitted/0.5/seed2/{name}" for name in (
                "adapter/tuning.json", "merged/merge.json", "pruned/prune.json",
            )),
        ],
    }  # fmt: skip


LIMIT, PAT_ROW = RAW["evaluation"]["limit"], RAW["methods"]["pat"]


def change_row(name: str, **settings: object) -> Callable[[dict[str, Any]], object]:
    """Return what gives a row settings of its own."""
    return lambda raw: raw["methods"].update({name: {**(raw["methods"][name] or {}), **settings}})


@pytest.mark.parametrize(
    ("change", "cells", "told"),
    [
        (lambda raw: raw["evaluation"].update(limit=7), 10, f"base/0/seed0/cell.json: was made with other settings, evaluate: limit is {LIMIT}, in {FILE} 7"),
        (lambda raw: raw["tuning"].update(max_steps=777), 9, f"tune: tuning.max_steps is {RAW['tuning']['max_steps']}, in {FILE} 777"),
        (lambda raw: raw["tuning"]["search"].update(steps=77), 9, f"tune: tuning.search.steps is {RAW['tuning']['search']['steps']}, in {FILE} 77"),
        (change_row("pat", pat={"hio_rank": 7}), 2, f"tune: pat.hio_rank is {PAT_ROW['pat']['hio_rank']}, in {FILE} 7"),
        (change_row("pat", lora=PAT_ROW["lora"] | {"rank": 7}), 2, f"tune: tuning.lora.rank is {PAT_ROW['lora']['rank']}, in {FILE} 7"),
        (change_row("slicegpt-ftp", prune={"size": "nominal"}), 1, f'prune: size is "matched", in {FILE} "nominal"'),
        (change_row("shortgpt-refitted", prune={}), 2, f'prune: writers is "refitted", in {FILE} not set'),
        (change_row("pat", factors={"mask": "other", "operators": True}), 2, f'is of something else: factors.mask is "trained", in {FILE} "other"'),
        (change_row("pat-g", label="G"), 1, f'is of something else: label is "PAT-G", in {FILE} "G"'),
    ],
)  # fmt: skip
def test_other_settings_are_refused_and_named(part: Path, change: Callable[[dict[str, Any]], object], cells: int, told: str) -> None:
    """`cells` is how many cells of the part hang on them: tuned ones, those of a row."""
    lines = refusal(part, experiment(change))
    assert told in lines[0], lines
    shown = min(cells, MOST_SHOWN)
    assert lines[shown:] == ([f"and {cells - shown} more like these"] if cells > shown else [])


def test_cells_that_the_experiment_does_not_list_are_refused(part: Path) -> None:
    lines = refusal(part, experiment(lambda raw: raw.update(seeds=[0])))
    names = [f"evaluation/{M}/{cell}/cell.json" for cell in ("lora/0/seed1", "shortgpt-refitted/0.5/seed2")]
    assert lines == [f"{name}: is no cell of {FILE}; move it away, or name the file of its experiment" for name in names]


def test_where_no_cell_is_finished_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "evaluation" / M / "pat/0.5/seed0").mkdir(parents=True)
    assert "holds no cell that is finished" in refusal(tmp_path, experiment())[0]
    with pytest.raises(UserError, match="mistyped: no such folder"):
        on_record(experiment(), tmp_path / "mistyped", FILE)


PAT, SLICEGPT, LORA = (f"checkpoints/{M}/{row}" for row in ("pat/0.5/seed0", "slicegpt-ftp/0.25/seed0", "lora/0"))
OF_LORA = 3
"""Cells that were made from LoRA's first seed: its own, and two that prune it. One more has its rate."""


@pytest.mark.parametrize(
    ("gone", "cells"),
    [
        (f"{PAT}/adapter/tuning.json", 1),
        (f"{PAT}/merged/merge.json", 1),
        (f"{SLICEGPT}/merged/prune.json", 1),
        (f"{LORA}/seed0/adapter/tuning.json", OF_LORA),
        (f"{LORA}/rate.json", OF_LORA + 1),
    ],
)
def test_a_record_that_a_cell_was_made_from_and_that_is_not_there_is_named(own: Path, gone: str, cells: int) -> None:
    (own / gone).unlink()
    lines = refusal(own, experiment())
    assert len(lines) == cells and all(f"{gone} is not there, though the cell was made from it" in line for line in lines)


def test_a_record_of_another_making_than_the_cell_names_is_told(own: Path) -> None:
    """As where the second of two parts has tuned a row again that the first has pruned: tables would be of both."""
    rewrite(own / LORA / "seed0/adapter/tuning.json", lambda record: record["provenance"].update(git_commit="0" * 40))
    lines = refusal(own, experiment())
    assert len(lines) == OF_LORA
    assert all(f"was made from another {LORA}/seed0/adapter/tuning.json than the one that is there" in line for line in lines)


def test_a_row_that_was_made_again_with_the_same_weights_is_the_same_row(own: Path) -> None:
    """As where a later part has tuned LoRA again, to the same bytes, to prune it: its cells name the record of their own tuning and merge."""
    path = own / "evaluation" / M / "slicegpt-ftp/0.25/seed0/cell.json"

    def tuned_again(record: dict[str, Any]) -> None:
        for step in ("tune", "merge"):
            record["provenance"][step].update(git_commit="0" * 40)

    rewrite(path, tuned_again)
    assert len(on_record(experiment(), own, FILE)) == len(CELLS)
    rewrite(
        path, lambda record: record["provenance"]["merge"]["inputs"]["adapter"]["sha256"].update({"adapter_model.safetensors": "other"})
    )
    line = refusal(own, experiment())[0]
    assert "slicegpt-ftp" in line and f"was made from another {LORA}/seed0/adapter/tuning.json than the one that is there" in line
    rewrite(path, lambda record: record["provenance"]["merge"].pop("inputs"))
    assert "adapter/tuning.json" in refusal(own, experiment())[0]


@pytest.mark.parametrize(("step", "given"), [("merge", "adapter"), ("prune", "base"), ("merge", "base")])
def test_other_weights_of_a_shared_row_are_told_though_the_record_is_the_same(own: Path, step: str, given: str) -> None:
    """The last has no other reader than this cell: its tuning started from the base with which the adapter was not merged."""

    def other(record: dict[str, Any]) -> None:
        checksums = record["provenance"][step]["inputs"][given]["sha256"]
        checksums[next(iter(checksums))] = "other"

    cell = own / "evaluation" / M / "slicegpt-ftp/0.25/seed0/cell.json"
    rewrite(cell, other)
    record = json.loads(cell.read_text())
    path = record["provenance"][step]["inputs"][given]["path"]
    assert any("slicegpt-ftp" in line and f"was made from another {path} than" in line for line in refusal(own, experiment()))


def test_a_cell_whose_steps_read_the_same_place_otherwise_is_told(own: Path) -> None:
    keep_cells(own, "pat/0.5/seed0")
    cell = own / "evaluation" / M / "pat/0.5/seed0/cell.json"

    def other(record: dict[str, Any]) -> None:
        checksums = record["provenance"]["merge"]["inputs"]["base"]["sha256"]
        checksums[next(iter(checksums))] = "other"

    rewrite(cell, other)
    assert any("than by another of its steps" in line for line in refusal(own, experiment()))


def test_a_rate_that_another_search_has_found_is_told(own: Path) -> None:
    """But not that it was searched again with the same outcome: seeds on several machines share what was found."""
    rewrite(own / f"{PAT}/../rate.json", lambda record: record["provenance"].update(git_commit="0" * 40))
    assert len(on_record(experiment(), own, FILE)) == len(CELLS)
    rewrite(own / f"{PAT}/../rate.json", lambda record: record.update(learning_rate=0.002))
    cell = f"evaluation/{M}/pat/0.5/seed0/cell.json"
    assert refusal(own, experiment()) == [f"{cell}: was tuned at another rate than checkpoints/{M}/pat/0.5/rate.json has found"]


def test_other_data_than_the_rest_was_made_from_are_told(own: Path) -> None:
    path = own / "evaluation" / M / "pat/0.5/seed0/cell.json"
    rewrite(path, lambda record: record["provenance"]["evaluate"]["inputs"]["text c4"].update(sha256="other"))
    lines = refusal(own, experiment())
    assert len(lines) == 1 and f"pat/0.5/seed0/cell.json: was made from another results/{PART.name}/data/text/c4.jsonl than" in lines[0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda record: record.update(seed=1), "is of something else: seed is 1, in x.yaml 0"),
        (lambda record: record.update(schema=0), "this version reads schema 1"),
        (lambda record: record["provenance"].pop("tune"), "says nothing of the settings of its step tune"),
        (lambda record: record["provenance"].update(tune=None), "says nothing of the settings of its step tune"),
        (lambda record: record["provenance"]["tune"].update(settings=[1]), "says nothing of the settings of its step tune"),
        (lambda record: record["provenance"]["tune"]["settings"].update(tuning="all"), 'tuning is "all", in x.yaml not set'),
    ],
)
def test_a_broken_result_is_told(own: Path, change: Callable[[dict[str, Any]], object], told: str) -> None:
    rewrite(own / "evaluation" / M / "pat/0.5/seed0/cell.json", change)
    assert told in refusal(own, experiment())[0]
