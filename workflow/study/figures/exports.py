"""Draws perplexity against bytes from records of `pat benchmark export`: a point per format; its data as CSV.

A line joins a model's formats which no smaller one of it beats.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pat.errors import UserError
from pat.io.artefacts import write_text
from pat.settings.fields import MIB
from study.figures.style import as_written, below, figure, grid_lines, look_of, save
from study.results.exports import read_exports
from study.results.quantised import quantised_lines, quantised_origins
from study.tables.layouts import csv_text


def write_exports(paths: Sequence[Path], out: Path) -> int:
    """Write exports.png, exports.pdf and exports.csv into `out`; returns the number of points. Raises UserError on broken files."""
    records = [read_exports(path) for path in paths]
    data = pd.DataFrame(
        {
            "model": it.model, "format": it.format, "hidden_size": it.hidden_size, "text": text,
            "mib": it.bytes / MIB, "left_in_f16": it.left_in_f16, "perplexity": value,
        }
        for record in records
        for it in record.measured
        for text, value in it.perplexity.items()
        if value is not None
    )  # fmt: skip
    if data.empty:
        raise UserError("--benchmark: no model was measured in any format; run `pat benchmark export` again")
    origins = list(dict.fromkeys(line for record in records for line in quantised_lines(quantised_origins(record.origins))))
    texts = list(dict.fromkeys(data["text"]))
    with figure(1.2 + 3.6 * len(texts), 3.4) as drawing:
        panels = drawing.subplots(1, len(texts), squeeze=False)[0]
        for axes, text in zip(panels, texts, strict=True):
            for place, (model, points) in enumerate(data[data["text"] == text].groupby("model", sort=False)):
                colour, sign = look_of(place)
                ordered = points.sort_values("mib")
                front = ordered[ordered["perplexity"] < ordered["perplexity"].cummin().shift(fill_value=float("inf"))]
                axes.plot(front["mib"], front["perplexity"], color=colour, linewidth=1)
                axes.plot(ordered["mib"], ordered["perplexity"], color=colour, marker=sign, linestyle="", label=as_written(model))
                for form, mib, value in zip(ordered["format"], ordered["mib"], ordered["perplexity"], strict=True):
                    aside = (2, -9) if form == "stored" else (2, 3)  # which lies where f16 does
                    axes.annotate(form, (mib, value), fontsize=6, xytext=aside, textcoords="offset points")
            axes.set(xscale="log", yscale="log", xlabel="weights, MiB", ylabel=f"perplexity, {as_written(text)}")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter("{x:g}")
                axis.set_minor_formatter("{x:g}")
            grid_lines(axes)
        below(drawing, panels)
        drawing.suptitle("\n".join(map(as_written, origins)), fontsize=9, x=0.01, ha="left")
        save(drawing, out, "exports")
    write_text(out / "exports.csv", csv_text(data, digits=6))
    return len(data)
