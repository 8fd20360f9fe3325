"""Every figure of a model that is quantised says so, of that model alone, and its heading covers no panel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pat.io.artefacts import write_json
from study.figures import accuracy, health, memory, methods, perplexity, trainable, trainable_perplexity
from study.figures.heading import marked_heading
from study.figures.style import figure, save
from study.results.cells import read_cells
from tests.kit.cell_maker import cell, write_cell

Q4 = {"file": "a.gguf", "dtype": "bf16", "quantised": ["Q4_1", "Q8_0"]}
F16 = {"file": "b.gguf", "dtype": "bf16", "quantised": []}
WRITERS: dict[Any, Callable[[list[Path], Path], object]] = {
    accuracy: accuracy.write_figures,
    memory: lambda paths, out: memory.write_memory(paths, [], out),
    methods: lambda paths, out: methods.write_methods(paths, None, out),
    perplexity: perplexity.write_perplexity,
    trainable: lambda paths, out: trainable.write_trainable(paths, None, out),
    trainable_perplexity: trainable_perplexity.write_trainable_perplexity,
}


def of_models(folder: Path, **origins: dict[str, Any] | None) -> list[Path]:
    """Write cells of models that were read from such files, or from none."""
    return [
        write_cell(folder, cell(method, ratio, model=model) | ({"origin": origin} if origin else {}))
        for model, origin in origins.items()
        for method, ratio in (("lora", 0.0), ("pat", 0.25))
    ]


@pytest.mark.parametrize("script", WRITERS, ids=lambda script: script.__name__.rpartition(".")[2])
def test_a_figure_says_which_of_its_models_is_quantised(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawings: list[Any] = []
    monkeypatch.setattr(script, "save", lambda drawing, *_: drawings.append(drawing))
    said = []
    for name, origins in (
        ("none", {"small": None, "plain": F16}),
        ("one", {"small": Q4, "plain": F16}),
        ("both", {"small": Q4, "large": Q4}),
    ):
        WRITERS[script](of_models(tmp_path / name, **origins), tmp_path / "out")
        drawings[-1].draw_without_rendering()
        title = drawings[-1]._suptitle.get_window_extent()
        assert title.y1 <= drawings[-1].bbox.y1 and not any(axes.get_tightbbox().overlaps(title) for axes in drawings[-1].axes)
        said.append([line for line in drawings[-1].get_suptitle().splitlines() if "quantised" in line])
    assert said == [
        [],
        ["small is quantised (Q4_1 and Q8_0)"],
        ["large is quantised (Q4_1 and Q8_0)", "small is quantised (Q4_1 and Q8_0)"],
    ]


def test_what_is_unfinished_is_said_first(tmp_path: Path) -> None:
    cells = read_cells(of_models(tmp_path, small=Q4))
    assert marked_heading(cells, "accuracies", 3) == "UNFINISHED, 2 of 3 cells\ndemo: accuracies\nsmall is quantised (Q4_1 and Q8_0)"
    assert marked_heading(cells, "accuracies", 2) == marked_heading(cells, "accuracies", None)


@pytest.mark.parametrize(("origin", "said"), [(Q4, ["its base is quantised (Q4_1 and Q8_0)"]), (F16, []), (None, [])])
def test_a_run_s_health_says_that_its_base_is_quantised(origin: dict[str, Any] | None, said: list[str], tmp_path: Path) -> None:
    steps = [{"step": step, "instruct_loss": 0.5, "learning_rate": 1e-3} for step in (50, 100)]
    record = {"hidden_size": 96, "width": 96, "history": steps, "health": None} | ({"origin": origin} if origin else {})
    write_json(tmp_path / "tuning.json", record)
    record, history = health.read_run(tmp_path / "tuning.json")
    with figure(7.0, 2.6) as drawing:
        health.draw(record, history, drawing, "small, lora")
        save(drawing, tmp_path, "health")
        lines = drawing.get_suptitle().splitlines()
    assert lines[0] == "small, lora" and [line for line in lines if "quantised" in line] == said
