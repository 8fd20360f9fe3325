"""Lays out what is not accuracy: perplexities, sizes, and the tidy list of every number with its origin. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from study.results.cells import UNITS, Cell, Row, models_of, rows_of
from study.results.grid import Grid, texts_of
from study.statistics.intervals import Estimate
from study.tables.accuracy import percent, perplexity, perplexity_notes, seed_note
from study.tables.layouts import HOLE, Layout
from study.tables.shares import pruned, removed

SIZE_TEXTS = 3
"""Columns of the table of sizes that hold names, before those that hold figures."""
RANGE = " – "
KL_OF_USE = 1e-3
"""Nats per token that the writing of models of use stays below (`pat.checkpoints.fidelity`)."""
OF_ROUNDING = (
    "KL on text above 1e-3: roundings of the weights that fall at random make about as much of such a model, which what was done to it has "
    "upset. What is further off than that is refused."
)
PHASES = ("prune", "tune", "merge", "evaluate")
TIDY_COLUMNS = (
    "experiment", "model", "method", "base_method", "label", "mode", "ratio_requested", "ratio_effective", "seed", "kind", "name", "metric",
    "value", "stderr", "items", "chance", "json", *(f"config_hash_{phase}" for phase in PHASES), "git_commit", "git_dirty",
)  # fmt: skip


def perplexities(grid: Grid) -> tuple[Layout, pd.DataFrame]:
    """Return the perplexity of every text per token and per byte with its 95 % interval; lower is better."""
    models, rows, texts = models_of(grid.cells), rows_of(grid.cells), texts_of(grid.cells)
    columns = [(model, text, unit) for model in models for text in texts for unit in UNITS]
    body, frames, found = [], [], list[Estimate | None]()
    for row in rows:
        values = {column: grid.perplexity(column[0], row, column[1], column[2]) for column in columns}
        found += values.values()
        body.append(
            [
                pruned(grid.cells, row),
                row.label,
                row.mode,
                *(perplexity(value, digits=2 if unit == "token" else 3) for (_, _, unit), value in values.items()),
            ]
        )
        record: dict[str, object] = {"ratio": row.ratio, "method": row.method, "label": row.label, "mode": row.mode}
        for (model, text, unit), value in values.items():
            record[f"{model} {text} {unit}"] = None if value is None else value.mean
            record[f"{model} {text} {unit} ci95"] = None if value is None else value.half_width
        frames.append(record)
    layout = Layout(
        f"{grid.cells[0].experiment}: perplexity of held-out text, lower is better. Those per UTF-8 byte compare between tokenizers, "
        "those per token do not.",
        ["Pruned", "Method", "Mode", *(f"{model}, {text}, per {unit}" for model, text, unit in columns)],
        body, text_columns=3, notes=[*perplexity_notes(found), *_fewer_seeds(grid)],
    )  # fmt: skip
    return layout, pd.DataFrame(frames)


def _fewer_seeds(grid: Grid) -> list[str]:
    """Say which rows have fewer seeds than others, nothing where all have as many."""
    found = _seeds_of_rows(grid)
    return [seed_note(found)] if len(set(found.values())) > 1 else []


def _seeds_of_rows(grid: Grid) -> dict[tuple[str, Row], int]:
    members = {(model, row): len(grid.members(model, row)) for model in models_of(grid.cells) for row in rows_of(grid.cells)}
    return {place: number for place, number in members.items() if number}


def sizes(grid: Grid) -> tuple[Layout, pd.DataFrame]:
    """Return the ratio asked for, the share removed, width, parameters and trainable parameters of every model and row."""
    groups = [(model, grid.members(model, row)) for model in models_of(grid.cells) for row in rows_of(grid.cells)]
    by_kl = any(cell.kl_on_text is not None for cell in grid.cells)  # results of earlier versions have none
    frames = [_size(model, cells, by_kl=by_kl) for model, cells in groups if cells]
    body = [_size_entries(frame, "kl_on_text" if by_kl else "logit_gap") for frame in frames]
    header = ["Model", "Method", "Mode", "asked for", "removed", "width", "parameters", "without embeddings",
              "removed of these", "trainable", "KL on text" if by_kl else "logit gap"]  # fmt: skip
    caption = (
        f"{grid.cells[0].experiment}: sizes. asked for: the ratio. removed: share of all the base model's parameters, each tensor counted "
        "once. width: the hidden size, rounded to what the architecture accepts, the narrowest where a method cuts it block by block. "
        "without embeddings: parameters that are neither embedding nor head; removed of these: the share that is gone. "
        + (
            "KL on text: divergence in nats per token between a written model's predictions and those of what it stands for."
            if by_kl
            else "logit gap: largest difference between the logits before and after the merge."
        )
    )
    has_range = any(RANGE in entry for entries in body for entry in entries[SIZE_TEXTS:])
    rounded = any((cell.kl_on_text or 0.0) > KL_OF_USE for cell in grid.cells)
    notes = [*(["A range: the seeds differ."] if has_range else []), *([OF_ROUNDING] if rounded else []), *_fewer_seeds(grid)]
    return Layout(caption, header, body, text_columns=SIZE_TEXTS, notes=notes), pd.DataFrame(frames)


def _size(model: str, cells: Sequence[Cell], *, by_kl: bool) -> dict[str, Any]:
    """Return one row's sizes; each is (smallest, largest) over the seeds as two columns."""
    row = cells[0].row
    record: dict[str, Any] = {"model": model, "method": row.method, "label": row.label, "mode": row.mode, "ratio_requested": row.ratio}
    figures: dict[str, Sequence[float | None]] = {
        "ratio_effective": [cell.ratio_effective for cell in cells],
        "width_before": [cell.hidden_size.before for cell in cells],
        "width": [cell.hidden_size.after for cell in cells],
        "parameters_before": [cell.parameters.before.unique for cell in cells],
        "parameters": [cell.parameters.after.unique for cell in cells],
        "removed": [removed(cell) for cell in cells],
        "without_embeddings_before": [cell.parameters.before.without_embeddings for cell in cells],
        "without_embeddings": [cell.parameters.after.without_embeddings for cell in cells],
        "removed_without_embeddings": [
            1 - cell.parameters.after.without_embeddings / cell.parameters.before.without_embeddings for cell in cells
        ],
        "trainable_parameters": [cell.trainable_parameters for cell in cells],
        "logit_gap": [cell.logit_gap for cell in cells],
        **({"kl_on_text": [cell.kl_on_text for cell in cells]} if by_kl else {}),
    }
    for name, values in figures.items():
        known = [value for value in values if value is not None]
        record[f"{name}_min"] = min(known) if known else None
        record[f"{name}_max"] = max(known) if known else None
    return record


def _size_entries(record: Mapping[str, Any], closeness: str) -> list[str]:
    def show(name: str, form: str) -> str:
        low, high = record[f"{name}_min"], record[f"{name}_max"]
        if low is None:
            return HOLE
        texts = [form.format(100 * value if "%" in form else value) for value in (low, high)]
        return texts[0] if texts[0] == texts[1] else RANGE.join(texts)

    share, count = "{:.1f} %", "{:,}"
    gap = record[f"{closeness}_max"]
    return [
        record["model"], record["label"], record["mode"], percent(record["ratio_requested"]), show("removed", share),
        show("width", "{}"), show("parameters", count), show("without_embeddings", count),
        show("removed_without_embeddings", share), show("trainable_parameters", count), HOLE if gap is None else f"{gap:.1e}",
    ]  # fmt: skip


def tidy(cells: Sequence[Cell]) -> pd.DataFrame:
    """Return one row per cell × task × metric, per cell × text × unit and per cell's size, each with the JSON, config hashes and commit
    behind it; so every cell has a row, whatever it was scored on.
    """
    frame = pd.DataFrame([line for cell in cells for line in _lines(cell)], columns=list(TIDY_COLUMNS))
    return frame.astype({"items": "Int64"})


def _lines(cell: Cell) -> Iterator[dict[str, object]]:
    origin = _origin(cell)
    for task, result in sorted(cell.tasks.items()):
        for metric, score in sorted(result.scores.items()):
            yield {
                **origin,
                "kind": "accuracy",
                "name": task,
                "metric": metric,
                "value": score.value,
                "stderr": score.stderr,
                "items": result.items,
                "chance": result.chance,
            }
    for text, value in sorted(cell.perplexity.items()):
        for unit, number in (("token_perplexity", value.token_perplexity), ("byte_perplexity", value.byte_perplexity)):
            yield {**origin, "kind": "perplexity", "name": text, "metric": unit, "value": number}
    for task, its in sorted(cell.harness.items()):
        for metric, number in sorted(its.scores.items()):
            yield {**origin, "kind": "lm-eval", "name": task, "metric": metric, "value": number, "items": its.items}
    yield {**origin, "kind": "size", "name": "parameters", "metric": "unique", "value": cell.parameters.after.unique}


def _origin(cell: Cell) -> dict[str, object]:
    phases = {name: phase or {} for name, phase in cell.provenance.items()}
    last = phases.get("evaluate", {})
    return {
        **{name: getattr(cell, name) for name in TIDY_COLUMNS[:9]},
        "json": cell.path.as_posix(),
        **{f"config_hash_{phase}": phases.get(phase, {}).get("config_hash") for phase in PHASES},
        "git_commit": last.get("git_commit"),
        "git_dirty": last.get("git_dirty"),
    }
