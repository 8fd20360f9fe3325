"""What a base was read from is told wherever its model is named: in cells, below tables, on cards; and a GGUF base is a model like any."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from pat.checkpoints.gguf_import import import_gguf
from pat.errors import UserError
from pat.pruners.pruning import prune
from study.experiment.file import load_experiment
from study.plan.jobs import Plan
from study.results.cells import read_cells
from study.results.quantised import quantised_models
from study.tables import writing as tables
from tests.kit.cell_maker import cell, write_cell
from tests.kit.gguf_files import random_model, write_gguf
from tests.kit.project import ROOT, planned

ORIGIN = {"file": "small.Q4_1.gguf", "dtype": "bf16", "quantised": ["Q4_1", "Q8_0"]}


def with_gguf(**more: object) -> dict[str, Any]:
    raw: dict[str, Any] = deepcopy(yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text()))
    raw["models"] = {"tiny": {"gguf": "here/tiny.gguf", **more}}
    return raw


@pytest.mark.parametrize(("origin", "said"), [(ORIGIN, True), ({**ORIGIN, "quantised": []}, False), (None, False)])
def test_every_table_says_that_a_model_is_quantised(tmp_path: Path, origin: dict[str, Any] | None, said: bool) -> None:
    names = tables.write_tables([write_cell(tmp_path, cell(origin=origin))], tmp_path / "tables", tables.DEFAULTS)
    note = "tiny: quantised. It was read from a GGUF file; its weights are the values that Q4_1 and Q8_0 left of the original's."
    texts = [(tmp_path / "tables" / f"{name}.md").read_text().replace("\\", "") for name in names if name != "cells"]
    assert len(texts) > 2
    assert all((note in text) is said for text in texts)


def test_a_cell_without_an_origin_does_not_silence_the_others(tmp_path: Path) -> None:
    """As of a checkpoint that was made elsewhere."""
    cells = [cell("lora", 0.0, origin=ORIGIN), cell("pat", 0.25, origin=None)]
    assert quantised_models(read_cells([write_cell(tmp_path, each) for each in cells])) == {"tiny": "Q4_1 and Q8_0"}


def test_records_and_cards_of_what_is_made_from_it_say_so(tmp_path: Path) -> None:
    import_gguf(write_gguf(tmp_path / "tiny.gguf", random_model("llama-tied"), "Q8_0"), tmp_path / "base")
    record = prune(tmp_path / "base", "channel-magnitude", 0.25, 8, tmp_path / "pruned")
    assert record["origin"]["quantised"] == ["Q8_0"]
    card = (tmp_path / "pruned" / "README.md").read_text()
    assert "The base model is quantised: it was read from the GGUF file tiny.gguf into bf16" in card
    assert card.endswith("left of the original's.\n")


def test_the_plan_reads_it_by_the_verb(workflow_copy: Path) -> None:
    plan = Plan(load_experiment(with_gguf(dtype="fp32") | {"root": "data"}, "test"))
    wildcards: Any = SimpleNamespace(model="tiny")
    assert (plan.models.gguf_file(wildcards), plan.models.gguf_dtype(wildcards)) == ("data/here/tiny.gguf", "fp32")
    assert plan.models.come_from("gguf") == ["tiny"]
    assert "read the base model tiny from its GGUF file" in planned(workflow_copy, with_gguf())


def test_a_dtype_without_a_gguf_file_and_two_places_are_refused() -> None:
    raw = with_gguf()
    raw["models"] = {"tiny": {"path": "here", "dtype": "bf16"}}
    with pytest.raises(UserError, match=r"models.tiny.dtype: \"bf16\" is not allowed: must be left out without gguf"):
        load_experiment(raw, "test")
    with pytest.raises(UserError, match="give exactly one of pretrain, path, gguf and hub"):
        load_experiment(with_gguf(path="there"), "test")
