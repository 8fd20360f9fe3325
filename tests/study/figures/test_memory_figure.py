"""The memory figure puts its points where its CSV has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from study.figures import memory as memory_figure
from study.figures.style import figure
from study.results.grid import headline_grid
from tests.kit.cell_maker import cell, write_cell


def test_points_stand_at_their_ratios_however_many_methods_there_are(tmp_path: Path) -> None:
    rows = [("lora", 0.0), *((method, ratio) for method in ("pat", "slicegpt-1q-pft", "channel-magnitude-pft") for ratio in (0.25, 0.5))]
    data = memory_figure.points(headline_grid([write_cell(tmp_path, cell(method, ratio)) for method, ratio in rows]), [])
    with figure(6, 5) as drawing:
        memory_figure.draw(data, memory_figure._columns(data), drawing, "x")
        drawn = {float(x) for axes in drawing.axes for line in axes.lines for x in np.asarray(line.get_xdata())}
    assert sorted(drawn) == pytest.approx([0.0, 25.0, 50.0])
