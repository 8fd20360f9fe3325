"""The figures over cells: their data, their files and that equal data give equal bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.cbook import is_math_text

from pat.errors import UserError
from pat.settings.fields import GIB
from study.cli import main
from study.figures import accuracy as figures
from study.figures import gate as gate_figure
from study.figures import memory as memory_figure
from study.figures import methods as methods_figure
from study.figures import perplexity as perplexity_figure
from study.figures import speedup as speedup_figure
from study.figures import trainable as trainable_figure
from study.figures.heading import heading
from study.figures.style import as_written, below, few_at_a_time, figure, look_of, save
from study.figures.trainable_perplexity import write_trainable_perplexity
from study.results.grid import headline_grid
from study.results.published import Printed
from tests.kit.cell_maker import cell, write_cell


def test_accuracy_figure_shows_what_its_csv_says(tmp_path: Path) -> None:
    contents = [cell("lora", 0.0), cell("pat", 0.25), cell("pat", 0.5), cell("pat", 0.25, model="other")]
    paths = [write_cell(tmp_path, content) for content in contents]
    assert figures.write_figures(paths, tmp_path / "out") == "first_capital"
    frame = pd.read_csv(tmp_path / "out" / "accuracy.csv")
    points = list(zip(frame["model"], frame["method"], frame["ratio"], strict=True))
    assert points == [("other", "pat", 0.25), ("tiny", "lora", 0.0), ("tiny", "pat", 0.25), ("tiny", "pat", 0.5)]
    assert set(frame["accuracy"]) == {0.6} and set(frame["chance"]) == {0.25}


def test_accuracy_figure_says_of_no_ratio_that_it_is_of_the_hidden_width(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pruner of layers or channels, and a budget, is asked for a share of the parameters."""
    drawings: list[Any] = []
    monkeypatch.setattr(figures, "save", lambda drawing, *_: drawings.append(drawing))
    figures.write_figures([write_cell(tmp_path, cell(method, 0.25)) for method in ("pat", "shortgpt-pft")], tmp_path / "out")
    assert [axes.get_xlabel() for axes in drawings[0].axes] == ["asked to be removed (%)"]


def test_accuracy_figure_is_the_same_in_any_order_of_cells(tmp_path: Path) -> None:
    paths = [write_cell(tmp_path, cell("pat", ratio, seed)) for ratio in (0.25, 0.5) for seed in range(2)]
    figures.write_figures(paths, tmp_path / "one")
    figures.write_figures(paths[::-1], tmp_path / "two")
    for name in ("accuracy.csv", "accuracy.png", "accuracy.pdf"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_accuracy_figure_refuses_cells_without_accuracies(tmp_path: Path) -> None:
    path = write_cell(tmp_path, cell() | {"tasks": {}})
    with pytest.raises(UserError, match="no cell has an accuracy"):
        figures.write_figures([path], tmp_path / "out")


def test_a_figure_of_accuracies_says_where_its_scoring_orders_nothing(tmp_path: Path) -> None:
    for right, doubt in ((0.2, "\nno row is shown to be better than guessing"), (0.9, "")):
        paths = [write_cell(tmp_path / str(right), cell("pat", 0.5, scores={"sums": {"acc": right}}))]
        assert (
            heading(headline_grid(paths), ["items", ""], "small; ")
            == f"demo: small; log-likelihood, acc{doubt}\nbars: 95 % interval over items"
        )


def test_the_titles_of_panels_do_not_run_into_each_other(tmp_path: Path) -> None:
    """The model, whose name may be long, stands at the side."""
    paths = [write_cell(tmp_path, cell("pat", ratio, model="a-model-with-a-name-that-is-long")) for ratio in (0.25, 0.5)]
    data = methods_figure.points(headline_grid(paths), Printed("table1"))
    with figure(6.4, 3.0) as drawing:
        methods_figure.draw(data, drawing, "title")
        save(drawing, tmp_path, "methods")
        boxes = [axes.title.get_window_extent() for axes in drawing.axes]
    assert boxes[0].x1 < boxes[1].x0 and boxes[1].x1 <= drawing.bbox.x1
    assert drawing.axes[0].get_ylabel() == "a-model-with-a-name-that-is-long"


ODD = ("costs $5 and $6", r"a $\frac$ b", "_x", "<b>&amp; | é 100 %")


def test_names_are_drawn_as_they_are_written(tmp_path: Path) -> None:
    """Dollars are no formula, and a name that begins with an underscore stands in the legend too."""
    with figure(4.6, 3.0) as drawing:
        axes = drawing.subplots()
        for name in ODD:
            axes.plot([0, 1], [0, 1], label=as_written(name))
        below(drawing, [axes])
        save(drawing, tmp_path, "names")
        shown = [text.get_text() for text in drawing.legends[0].get_texts()]
    assert not any(is_math_text(text) for text in shown)
    assert [text.replace(r"\$", "$").strip() for text in shown] == list(ODD)


@pytest.mark.parametrize(
    "write",
    [
        figures.write_figures,
        lambda paths, out: methods_figure.write_methods(paths, None, out),
        perplexity_figure.write_perplexity,
        lambda paths, out: trainable_figure.write_trainable(paths, None, out),
        write_trainable_perplexity,
    ],
)
def test_every_figure_takes_any_label(write: Callable[[list[Path], Path], object], tmp_path: Path) -> None:
    """A broken formula was a traceback."""
    contents = [cell("channel-fisher-pft", 0.25, label=name) | {"method": f"row{number}"} for number, name in enumerate(ODD)]
    write([write_cell(tmp_path / str(number), content) for number, content in enumerate(contents)], tmp_path / "out")
    assert list((tmp_path / "out").glob("*.png"))


def test_gate_figure_starts_at_one_and_ends_as_a_step() -> None:
    data = gate_figure.gate_values()
    assert (data["0"] == 1).all()
    assert set(data["1"]) == {0, 1}
    for share in gate_figure.SHARES:
        assert data[f"{share:g}"].is_monotonic_increasing
    assert data["0.5"].iloc[len(data) // 2] == pytest.approx(0.5)  # the offset is gone half-way


def test_no_two_of_many_methods_look_alike() -> None:
    looks = [look_of(position) for position in range(49)]
    assert len(set(looks)) == 49
    assert len({colour for colour, _ in looks[:7]}) == len({marker for _, marker in looks[:7]}) == 7


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, [0]), (1, [1]), (7, [7]), (8, [4, 4]), (22, [6, 6, 6, 4]), (50, [7, 7, 7, 7, 7, 7, 7, 1])]
)
def test_a_panel_shows_no_more_series_than_there_are_colours(count: int, sizes: list[int]) -> None:
    groups = few_at_a_time(range(count))
    assert [len(group) for group in groups] == sizes and [it for group in groups for it in group] == list(range(count))


def many_cells(folder: Path) -> list[Path]:
    """Return an unpruned row and nine others at two ratios; the last of these is uncertain by far the most."""
    methods = ["pat", "pat-g", "slicegpt-pft", "slicegpt-ftp", "slicegpt-1q-pft", "llm-pruner-pft", "wanda-sp-pft", "shortgpt-pft"]
    contents = [cell("lora", 0.0), *(cell(method, ratio) for method in methods for ratio in (0.25, 0.5))]
    uncertain = ({"capitals": {"first_capital": 0.2 + 0.4 * seed, "acc": 0.7}} for seed in (0, 1))
    spread = [cell("minitron-width-pft", 0.25, seed, scores=scores) for seed, scores in enumerate(uncertain)]
    return [write_cell(folder, content) for content in [*contents, *spread]]


@pytest.mark.parametrize("script", [figures, memory_figure, trainable_figure])
def test_many_methods_are_spread_over_panels_each_with_the_unpruned_row(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All on one scale, which holds the widest bar."""
    seen: list[list[Any]] = []

    def keep(drawing: Any, out: Path, name: str) -> None:
        seen.append([axes for axes in drawing.axes if axes.axison and axes.containers])

    monkeypatch.setattr(script, "save", keep)
    write = {figures: figures.write_figures, trainable_figure: lambda paths, out: trainable_figure.write_trainable(paths, None, out)}.get(
        script
    )
    paths = many_cells(tmp_path)
    if write:
        write(paths, tmp_path / "out")
    else:
        memory_figure.write_memory(paths, [], tmp_path / "out")
    [panels] = seen
    shown = [[bars.get_label() for bars in axes.containers] for axes in panels]
    parts = {tuple(names) for names in shown}
    assert all(sum("LoRA" in name for name in names) == 1 and len(names) <= 8 for names in parts)
    assert len({name for names in parts for name in names}) == 10
    assert len({axes.get_ylim() for axes in panels}) == 1
    assert panels[0].get_ylim()[1] > 100  # ± 254 points around 40


PAPER_CELLS = {"lora": 0.0, "pat": 0.25, "llm-pruner-pft": 0.25}


def paper_cells(folder: Path) -> list[Path]:
    """Return three methods' cells of a model that the paper has, over two seeds whose accuracies are 0.5 and 0.7."""
    return [
        write_cell(folder, cell(method, ratio, seed, "llama2-7b", {"a": {"first_capital": 0.5 + 0.2 * seed}}))
        for method, ratio in PAPER_CELLS.items()
        for seed in (0, 1)
    ]


def test_methods_figure_has_the_unpruned_row_in_every_panel_and_the_papers_number(tmp_path: Path) -> None:
    half = cell("pat", 0.5, model="llama2-7b", scores={"a": {"first_capital": 0.4}})
    methods_figure.write_methods([*paper_cells(tmp_path), write_cell(tmp_path, half)], None, tmp_path / "out")
    lines = drawn(tmp_path / "out", "methods")
    assert [(it["panel"], it["method"], it["accuracy"]) for it in lines] == [
        (0.25, "lora", 0.6), (0.25, "llm-pruner-pft", 0.6), (0.25, "pat", 0.6), (0.5, "lora", 0.6), (0.5, "pat", 0.4),
    ]  # fmt: skip
    assert [it["paper"] for it in lines[:4]] == [0.5876, 0.525, 0.6002, 0.5876]
    assert pd.isna(lines[4]["paper"])


def test_figures_of_models_tuned_on_the_tasks_have_no_zero_shot_number_of_the_paper(tmp_path: Path) -> None:
    """Table 3 prints 72.85 for LoRA and 72.05 for PAT; figure 4 has nothing of it."""
    paths = [str(path) for path in paper_cells(tmp_path)]
    for name in ("methods", "trainable"):
        with pytest.raises(SystemExit) as ended:
            main(["figure", name, "--accuracy", "table3", "--out", str(tmp_path / "out"), *paths])
        assert not ended.value.code
    shown = {it["method"]: it["paper"] for it in drawn(tmp_path / "out", "methods")}
    assert (shown["lora"], shown["pat"]) == (0.7285, 0.7205) and pd.isna(shown["llm-pruner-pft"])
    assert trainable_figure.PAPER not in {it["name"] for it in drawn(tmp_path / "out", "trainable")}


def test_perplexity_figure_has_the_best_methods_first_and_bars_over_seeds_alone(tmp_path: Path) -> None:
    values = {("lora", 0.0, 0): 10.0, ("pat", 0.25, 0): 11.0, ("pat", 0.25, 1): 13.0, ("pat", 0.5, 0): 100.0, ("shortgpt-pft", 0.5, 0): 9.0}
    paths = [
        write_cell(tmp_path, cell(*key, perplexity={"heldout": {"token_perplexity": value, "byte_perplexity": 2.0, "tokens": 9}}))
        for key, value in values.items()
    ]
    assert perplexity_figure.write_perplexity(paths, tmp_path / "out") == 4
    lines = drawn(tmp_path / "out", "perplexity")
    assert [(it["method"], it["ratio"], it["perplexity"]) for it in lines] == [
        ("lora", 0.0, 10.0), ("shortgpt-pft", 0.5, 9.0), ("pat", 0.25, 12.0), ("pat", 0.5, 100.0),
    ]  # fmt: skip
    assert lines[2]["ci95"] == pytest.approx(12.7062, rel=1e-4), "Student's quantile of one degree of freedom, times the standard error, 1"
    assert all(pd.isna(lines[place]["ci95"]) for place in (0, 1, 3))


def test_perplexity_figure_orders_methods_by_how_far_they_are_behind_the_best_of_each_ratio() -> None:
    found = {
        ("early", 0.25): 11.0,
        ("best", 0.25): 10.0,
        ("best", 0.5): 100.0,
        ("late", 0.5): 105.0,
        ("worst", 0.25): 20.0,
        ("worst", 0.5): 101.0,
    }
    unpruned = {("base", 0.0): 9.0, ("tuned", 0.0): 5.0}
    data = pd.DataFrame(
        {"model": "m", "text": "t", "method": method, "ratio": ratio, "perplexity": value}
        for (method, ratio), value in (found | unpruned).items()
    )
    assert perplexity_figure.best_first(data) == ["tuned", "base", "best", "late", "early", "worst"]


def test_perplexity_figure_shows_every_point_in_its_panel_or_as_a_number_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"c4": {"lora": 10.0, "pat": 20.0, "shortgpt-pft": 900.0}, "held": {"lora": 5.0, "pat": 8.0, "shortgpt-pft": 9.0}}
    paths = [
        write_cell(tmp_path, cell(method, ratio, perplexity={
            text: {"token_perplexity": values[method], "byte_perplexity": 2.0, "tokens": 9} for text, values in texts.items()
        }))
        for method, ratio in (("lora", 0.0), ("pat", 0.5), ("shortgpt-pft", 0.5))
    ]  # fmt: skip
    drawings: list[Any] = []
    monkeypatch.setattr(perplexity_figure, "save", lambda drawing, *_: drawings.append(drawing))
    perplexity_figure.write_perplexity(paths, tmp_path / "out")
    c4, held = drawings[0].axes
    assert [axes.get_title(loc="left") for axes in (c4, held)] == ["c4", "held"]
    for axes, shown, behind in ((c4, [10.0, 20.0], ["→ 900"]), (held, [5.0, 8.0, 9.0], [])):
        left, right = axes.get_xlim()
        places = [x for points in axes.containers for x in points[0].get_xdata()]
        assert sorted(places) == shown and left < min(shown) and max(shown) < right
        assert [text.get_text() for text in axes.texts] == behind
    bold = [label.get_text() for label in c4.get_yticklabels() if label.get_fontweight() == "bold"]
    assert bold == ["PAT"]
    assert [text.get_text() for text in drawings[0].legends[0].get_texts()] == [
        "best with nothing removed",
        "nothing removed",
        "50 % removed",
    ]


def perplexities_drawn(contents: list[dict[str, Any]], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the figure of some cells, laid out."""
    drawings: list[Any] = []
    with monkeypatch.context() as patched:
        patched.setattr(perplexity_figure, "save", lambda drawing, *_: drawings.append(drawing))
        perplexity_figure.write_perplexity([write_cell(folder / str(n), it) for n, it in enumerate(contents)], folder / "out")
    drawings[0].draw_without_rendering()
    return drawings[0]


def of_text(**values: float) -> dict[str, Any]:
    return {name: {"token_perplexity": value, "byte_perplexity": 2.0, "tokens": 9} for name, value in values.items()}


def test_points_of_many_ratios_stay_on_their_method_s_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of nine ratios stood on the lines of the neighbours, and beyond the first and the last outside the panel."""
    contents = [cell(method, n / 10, perplexity=of_text(a=10.0 + n)) for method in ("pat", "shortgpt-pft", "pat-g") for n in range(1, 10)]
    [axes] = perplexities_drawn(contents, tmp_path, monkeypatch).axes
    places = [y for points in axes.containers for y in points[0].get_ydata()]
    assert len(places) == 27 and max(abs(y - round(y)) for y in places) < 0.5
    assert min(places) > axes.get_ylim()[1] and max(places) < axes.get_ylim()[0]


@pytest.mark.filterwarnings("error")
def test_the_longest_names_and_the_largest_perplexities_leave_the_panels_their_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(method, n) for n, method in enumerate(("pat", "shortgpt-pft", "pat-g"))]
    contents = [
        cell(method, ratio, label="a_name " * 11 + method, perplexity=of_text(a=10.0 ** (1 + 9 * n), b=10.0 ** (1 + 9 * n)))
        for method, n in rows
        for ratio in (0.25, 0.5, 0.75)
    ]
    drawing = perplexities_drawn(contents, tmp_path, monkeypatch)
    left, right = drawing.axes
    assert {text.get_text() for text in left.texts} == {"→ 1e+10, 1e+10, 1e+10", "→ 1e+19, 1e+19, 1e+19"}
    end = max(text.get_window_extent().x1 for text in left.texts)
    assert left.bbox.x1 < end < right.bbox.x0
    assert min(label.get_window_extent().x0 for label in left.get_yticklabels()) > 0


def test_an_axis_over_many_decades_has_labels_that_stand_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [cell("lora", 0.0, perplexity=of_text(a=8.6)), cell("pat", 0.5, perplexity=of_text(a=2e6))]
    [axes] = perplexities_drawn(contents, tmp_path, monkeypatch).axes
    left, right = axes.get_xlim()
    shown = [tick.label1.get_window_extent() for tick in axes.xaxis.get_major_ticks() if left <= tick.get_loc() <= right]
    assert len(shown) > 2 and all(one.x1 < other.x0 for one, other in pairwise(shown))


def test_a_model_without_one_of_the_texts_has_an_empty_panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was a traceback."""
    contents = [cell(model="one", perplexity=of_text(a=3.0)), cell(model="two", perplexity=of_text(b=4.0))]
    drawing = perplexities_drawn(contents, tmp_path, monkeypatch)
    assert [len(axes.containers) for axes in drawing.axes] == [1, 0, 0, 1]


def test_perplexity_figure_without_texts_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no cell has the perplexity of a text"):
        perplexity_figure.write_perplexity([write_cell(tmp_path, cell("lora", 0.0, perplexity={}))], tmp_path / "out")


def test_trainable_figure_divides_by_the_unpruned_model_and_what_is_added_to_it(tmp_path: Path) -> None:
    trainable_figure.write_trainable(paper_cells(tmp_path), None, tmp_path / "out")
    *ours, printed = drawn(tmp_path / "out", "trainable")
    assert [(it["trainable_share"], it["accuracy"]) for it in ours] == [(round(120 / 1120, 6), 0.6)] * 3
    assert (printed["label"], printed["trainable_share"], printed["accuracy"]) == ("dense HSM + LoRA-8", 0.1415, 0.6419)


def test_memory_figure_counts_two_bytes_a_parameter_and_adds_what_was_measured(tmp_path: Path) -> None:
    benchmark = write_benchmark(tmp_path / "llama2-7b.json")
    memory_figure.write_memory(paper_cells(tmp_path), [benchmark], tmp_path / "out")
    lines = drawn(tmp_path / "out", "memory")
    counted = next(it for it in lines if it["method"] == "pat")
    assert (counted["weights_gib"], counted["of_unpruned"]) == (pytest.approx(2 * 750 / GIB, rel=1e-5), 0.75)
    assert [it["of_unpruned"] for it in lines if it["method"] == memory_figure.MEASURED] == [1.0, 0.75]


def test_speedup_figure_shows_ratios_limits_and_what_did_not_fit(tmp_path: Path) -> None:
    assert speedup_figure.write_speedup([write_benchmark(tmp_path / "llama2-7b.json")], tmp_path / "out") == 1
    one, two = (it for it in drawn(tmp_path / "out", "speedup") if it["phase"] == "first_token")
    assert (one["batch_size"], one["speedup"], one["low"], one["high"]) == (1, 1.25, 1.2, 1.3)
    assert (one["limit"], one["paper"]) == (pytest.approx(1 / 0.75, rel=1e-5), 1.33)
    assert pd.isna(two["speedup"]) and two["missing"] == "unpruned: out of memory"


def test_a_file_that_is_no_benchmark_is_a_message(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"schema": 1, "kind": "tuning"}')
    with pytest.raises(UserError, match=r"x\.json: is not a record of `pat benchmark inference`: kind"):
        speedup_figure.write_speedup([path], tmp_path / "out")


def drawn(out: Path, name: str) -> list[dict[Hashable, Any]]:
    """Return the lines of a figure's CSV, once its two files are there and hold something."""
    assert all((out / f"{name}.{kind}").stat().st_size > 1000 for kind in ("png", "pdf"))
    return pd.read_csv(out / f"{name}.csv").to_dict("records")


def write_benchmark(path: Path) -> Path:
    """Write a record in which a quarter of the parameters is gone and the unpruned model does not fit at batch size 2."""
    models = [
        {
            "name": name,
            "hidden_size": width,
            "parameters": 10 * width,
            "ratio_effective": gone,
            "share_removed": gone,
            "weight_bytes": width,
        }
        for name, width, gone in (("unpruned", 4096, 0.0), ("width 3072", 3072, 0.25))
    ]
    measured = [
        {"model": model["name"], "against": "width 3072", "batch_size": size, "status": "measured"} for size in (1, 2) for model in models
    ]
    measured[2]["status"] = "out of memory"
    spread = {"median": 1.25, "low": 1.2, "high": 1.3, "samples": [1.2, 1.25, 1.3]}
    record = {
        "schema": 1, "kind": "inference", "weights": "random", "dtype": "bf16", "attention": "sdpa", "context": 128, "compiled": False,
        "models": models, "measurements": measured, "machine": {"name": "a GPU", "cores": 4},
        "shape": None, "provenance": {"git_commit": "0123456789", "versions": {}, "settings": {}},
        "speedups": [{"model": "width 3072", "batch_size": 1, "first_token": spread, "decode": spread}],
    }  # fmt: skip
    path.write_text(json.dumps(record))
    return path
