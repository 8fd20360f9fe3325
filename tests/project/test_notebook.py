"""The notebook for newcomers runs from top to bottom as it stands, on the tiny model, and ends in a checkpoint that stock software opens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.kit.project import ROOT

NOTEBOOK = ROOT / "notebooks" / "first-steps.ipynb"


def cells(kind: str) -> list[str]:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    return [str(cell.source) for cell in notebook.cells if cell.cell_type == kind]


def test_it_is_kept_without_what_it_printed() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


def test_its_links_lead_to_files() -> None:
    links = [link for text in cells("markdown") for link in re.findall(r"\]\(([^)#]+)", text)]
    assert links and all((NOTEBOOK.parent / link).is_file() for link in links)


@pytest.mark.parametrize(
    ("given", "lacking"),
    [
        ({"MODEL": "here"}, "INSTRUCTIONS, TEXT"),
        ({"INSTRUCTIONS": "here", "TEXT": "here"}, "MODEL"),
        ({"MODEL": "nowhere", "INSTRUCTIONS": "here", "TEXT": "here"}, "MODEL"),
        ({"MODEL": "here", "INSTRUCTIONS": "here", "TEXT": "here"}, ""),
    ],
)
def test_what_a_user_names_is_looked_for_before_anything_is_done(given: dict[str, str], lacking: str, tmp_path: Path) -> None:
    """Rows that were named without a model were passed over, a model that is not there was asked of the hub."""
    (tmp_path / "here").mkdir()
    (first, *_) = cells("code")
    for name, place in given.items():
        first = re.sub(rf"^{name} = None", f"{name} = {str(tmp_path / place)!r}", first, flags=re.MULTILINE)
    names: dict[str, Any] = {}
    if lacking:
        with pytest.raises(FileNotFoundError, match=rf"^{lacking}: not given, or not there"):
            exec(first, names)
        return
    exec(first, names)
    assert [names[name] for name in ("MODEL", "INSTRUCTIONS", "TEXT")] == 3 * [tmp_path / "here"]


@pytest.mark.lengthy
def test_it_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setenv("FIRST_STEPS_FOLDER", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, Any] = {}
    for number, source in enumerate(cells("code")):
        exec(compile(source, f"{NOTEBOOK.name}, code cell {number}", "exec"), names)
    course, found = names["course"], names["found"]
    assert course.open[0] > 0 and course.open[-1] == 0 and course.losses[-1] < max(course.losses)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "smaller").config.hidden_size == 32
    assert set(found) == {"whole", "pruned while tuning", "cut at once, then tuned"} and all(1 < each < 1000 for each in found.values())
    assert "32 of 64 channels are kept" in capsys.readouterr().out
