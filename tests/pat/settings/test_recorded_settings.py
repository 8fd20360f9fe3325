"""Settings of the kept demo read as they were written: a changed hash, or a changed argument, would make every cell of a user anew."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from pat.io.provenance import config_hash
from pat.settings.jobs import EvaluationSettings, PruneSettings, TuneJob
from pat.settings.mistakes import load
from study.experiment.file import load_experiment
from study.plan.values import as_json
from study.results.archive import ARCHIVE, packed
from tests.kit.project import ROOT

KEPT = ROOT / "results/reference/demo"
CELLS = {name: record for name, record in packed(KEPT / ARCHIVE) if Path(name).name == "cell.json"}


def told(record: dict[str, object], phase: str) -> tuple[str, dict[str, str]]:
    """Return the text of --settings that a phase of a cell was given, and its other options."""
    provenance = record["provenance"]
    assert isinstance(provenance, dict)
    words = shlex.split(provenance[phase]["command"])
    options = dict(zip(words[2::2], words[3::2], strict=False))
    return options.pop("--settings"), options


def test_the_kept_run_has_cells() -> None:
    assert len(CELLS) == 13 and {"lora", "pat", "pat-g", "channel-fisher-pft"} <= {record["method"] for record in CELLS.values()}


@pytest.mark.parametrize("name", CELLS)
def test_a_cells_tuning_has_its_recorded_hash(name: str) -> None:
    provenance = CELLS[name]["provenance"]["tune"]
    text, options = told(CELLS[name], "tune")
    job = load(TuneJob, text)
    settings = job.model_dump(mode="json") | {"tuner": options["--tuner"], "ratio": float(options["--ratio"])}
    assert settings == provenance["settings"] and config_hash(settings) == provenance["config_hash"]


@pytest.mark.parametrize("name", CELLS)
def test_the_experiment_gives_a_cell_the_arguments_that_it_was_made_with(name: str) -> None:
    experiment, record = load_experiment(KEPT / "experiment.yaml", "the kept demo"), CELLS[name]
    model, row = record["model"], record["method"]
    after_tuning = experiment.method(row).order == "tune-prune"
    assert as_json(experiment.tune_job(model, "lora" if after_tuning else row)) == told(record, "tune")[0]
    assert as_json(experiment.evaluation_of(model)) == told(record, "evaluate")[0]
    assert load(EvaluationSettings, told(record, "evaluate")[0]) == experiment.evaluation_of(model)
    if experiment.method(row).pruner is not None:
        assert as_json(experiment.prune_settings(model, row)) == told(record, "prune")[0]
        assert load(PruneSettings, told(record, "prune")[0]) == experiment.prune_settings(model, row)
