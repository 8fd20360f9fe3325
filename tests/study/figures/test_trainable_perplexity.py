"""The figure of perplexities against trainable shares: which rows are a curve, what lies where, and which panels there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pat.errors import UserError
from study.figures import trainable_perplexity
from study.figures.trainable_perplexity import write_trainable_perplexity
from tests.kit.cell_maker import cell, write_cell

TEXTS = ("c4", "heldout")


def row(name: str, method: str, trainable: int, perplexity: float, ratio: float = 0.25, seed: int = 0) -> dict[str, Any]:
    """Return a cell of a row with so many trainable parameters, beside 1000 of the unpruned model, and twice the perplexity on C4."""
    texts = {text: {"token_perplexity": perplexity * (2 - place), "byte_perplexity": 2.0, "tokens": 9} for place, text in enumerate(TEXTS)}
    own = {"method": name, "base_method": method, "label": name, "trainable_parameters": trainable, "perplexity": texts}
    return cell(method, ratio, seed) | own


RANKS = [
    *(row(f"lora-{rank}", "lora", rank, 10 - 0.1 * rank, 0.0) for rank in (8, 16, 64)),
    *(row(f"pat-{rank}", "pat", rank, 20 - 0.1 * rank) for rank in (16, 32, 128)),
    row("base", "base", 0, 12.0, 0.0),
    *(row("shortgpt-pft", "shortgpt-pft", 40, 15.0 + seed, seed=seed) for seed in (0, 1)),
]


def written(contents: list[dict[str, Any]], folder: Path) -> Any:
    assert write_trainable_perplexity([write_cell(folder, content) for content in contents], folder / "out")
    assert all((folder / "out" / f"trainable_perplexity.{kind}").stat().st_size > 1000 for kind in ("png", "pdf"))
    return pd.read_csv(folder / "out" / "trainable_perplexity.csv")


def panels(contents: list[dict[str, Any]], folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the panels of a drawn figure, laid out."""
    drawings: list[Any] = []
    monkeypatch.setattr(trainable_perplexity, "save", lambda drawing, *_: drawings.append(drawing))
    write_trainable_perplexity([write_cell(folder, content) for content in contents], folder / "out")
    drawings[0].draw_without_rendering()
    return list(drawings[0].axes)


def test_rows_of_a_method_that_differ_in_size_are_one_curve(tmp_path: Path) -> None:
    data = written(RANKS, tmp_path).set_index(["text", "method"])
    assert len(data) == 2 * 8
    assert data.loc[("heldout", "pat-32"), "perplexity"] == pytest.approx(16.8) and data.loc[
        ("c4", "pat-32"), "perplexity"
    ] == pytest.approx(33.6)
    assert data.loc[("c4", "pat-128"), "trainable_share"] == pytest.approx(128 / 1128, abs=1e-6)
    assert data.loc[("heldout", "shortgpt-pft"), ["perplexity", "seeds"]].tolist() == [15.5, 2]
    series = data.loc["c4", "series"]
    assert series[["pat-16", "pat-128"]].nunique() == 1 and series[["lora-8", "lora-64"]].nunique() == 1
    assert series[["pat-16", "lora-8", "base", "shortgpt-pft"]].nunique() == 4


def test_a_panel_has_the_points_of_its_text_the_curves_and_what_is_not_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    c4, heldout = panels(RANKS, tmp_path, monkeypatch)
    assert [axes.get_title(loc="left") for axes in (c4, heldout)] == list(TEXTS) and c4.get_ylabel().startswith("tiny, 25 % removed")
    for axes, times in ((c4, 2), (heldout, 1)):
        drawn = {bars.get_label(): bars[0] for bars in axes.containers}
        assert list(drawn["PAT"].get_ydata()) == pytest.approx([times * value for value in (18.4, 16.8, 7.2)])
        assert list(drawn["PAT"].get_xdata()) == pytest.approx([100 * size / (1000 + size) for size in (16, 32, 128)])
        assert drawn["PAT"].get_linewidth() > 0 and drawn["shortgpt-pft P→FT"].get_linewidth() == 0
        assert [list(line.get_ydata()) for line in axes.get_lines() if line.get_label() == "base, not tuned"] == [[12.0 * times] * 2]
        low, high = axes.get_ylim()
        assert low < 3.6 * times and high > 18.4 * times and axes.get_yscale() == "log" == axes.get_xscale()


def test_names_of_rows_cover_neither_each_other_nor_a_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    near = [
        row(f"pat-{size}-and-more", "pat", size, perplexity) for size, perplexity in ((100, 20.0), (103, 20.5), (106, 24.0), (400, 90.0))
    ]
    for axes in panels([*RANKS, *near], tmp_path, monkeypatch):
        boxes = [name.get_window_extent() for name in axes.texts]
        assert len(boxes) == 3 + 3 + len(near)
        assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])
        points = [axes.transData.transform(name.xy) for name in axes.texts]
        assert not any(box.contains(*point) for box in boxes for point in points)
        assert all(axes.bbox.y0 < box.y0 and box.y1 < axes.bbox.y1 for box in boxes)


def test_there_is_a_line_of_panels_for_each_ratio_that_the_rows_of_a_part_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where rows are many they are shared out; a part none of whose rows was pruned so far would show the unpruned ones alone."""
    many = [row(f"r{number:02}", "shortgpt-pft", 40 + number, 15.0) for number in range(12)]
    drawn = panels([*RANKS, *many, row("r11", "shortgpt-pft", 40, 30.0, ratio=0.5)], tmp_path, monkeypatch)
    at = [axes.get_ylabel().split("\n")[0] for axes in drawn[::2]]
    assert at == ["tiny, 1 of 2, 25 % removed", "tiny, 2 of 2, 25 % removed", "tiny, 2 of 2, 50 % removed"]


def test_rows_of_an_experiment_that_prunes_nothing_have_a_panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = panels(RANKS[:3], tmp_path, monkeypatch)
    assert [axes.get_ylabel().split("\n")[0] for axes in drawn[::2]] == ["tiny, 0 % removed"]


def test_without_texts_it_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no cell has the perplexity of a text"):
        write_trainable_perplexity([write_cell(tmp_path, cell("lora", 0.0, perplexity={}))], tmp_path / "out")
