"""The sentences that sum an experiment up: LoRA against guessing, PAT against LoRA and against the baselines. Facts, no promises.

Every difference is over the seeds both methods have; where its interval covers zero, the sentence says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from study.results.cells import Cell, Row, models_of, rows_of
from study.results.grid import Grid
from study.results.milestones import SHOCK, SHOCK_NATS, SHOCK_SHARE, UNDECIDED, choice, is_healthy, verdict
from study.statistics.intervals import Estimate, paired_difference
from study.tables.accuracy import percent
from study.tables.comparison import compared
from study.tables.pairs import RANDOM, REFERENCE, Pair

POINT = 100.0


def facts(grid: Grid) -> list[str]:
    """Return the sentences of one metric, model by model."""
    return [sentence for model in models_of(grid.cells) for sentence in _facts_of(grid, model)]


def _facts_of(grid: Grid, model: str) -> Iterator[str]:
    rows = [row for row in rows_of(grid.cells) if grid.mean(model, row) is not None]
    unpruned = next((row for row in rows if row.base_method == "lora"), None)
    if unpruned is not None:
        yield _above_chance(grid, model, unpruned)
    for row in rows:
        if row.mode != "PAT":
            continue
        baselines = [other for other in rows if other.ratio == row.ratio and other.mode not in ("", "PAT")]
        random = [other for other in rows if other.ratio == row.ratio and other.method == RANDOM and row.method == REFERENCE]
        for other in [*([unpruned] if unpruned is not None else []), *random, *baselines]:
            yield from _difference(grid, model, row, other)


def _above_chance(grid: Grid, model: str, row: Row) -> str:
    value = grid.mean(model, row)
    assert value is not None
    against = {"same": "; cannot be distinguished from guessing", "below": "; worse than guessing"}
    position = against.get(value.position(grid.chance) or "", "")
    return f"{model}: {row.name} − guessing: {_points(value, grid.chance)}{position}"


def _difference(grid: Grid, model: str, ours: Row, theirs: Row) -> Iterator[str]:
    value = paired_difference(grid.seed_means(model, ours), grid.seed_means(model, theirs))
    paired = compared(grid, Pair(model, ours, theirs))
    if value is not None:
        value = replace(value, over_items=paired.over_items.half_width) if paired else value
        names = f"{ours.name} at {percent(ours.ratio)} − {theirs.name} at {percent(theirs.ratio)}"
        yield f"{model}: {names}: {_points(value, 0.0)}{_doubt(value)}"


def _doubt(difference: Estimate) -> str:
    """Say which interval covers zero, so that ± beside the difference and the word after it never contradict each other."""
    if difference.position(0.0) != "same":
        return ""
    if difference.half_width is not None and difference.over_items is not None and abs(difference.mean) > difference.half_width:
        return f"; on other items it may be 0 (± {POINT * difference.over_items:.1f})"
    return "; cannot be distinguished from 0"


def _points(value: Estimate, reference: float) -> str:
    difference = f"{POINT * (value.mean - reference):+.1f}".replace("-", "−")
    width = "" if value.half_width is None else f" ± {POINT * value.half_width:.1f}"
    seeds = "1 seed" if value.seeds == 1 else f"{value.seeds} seeds"
    return f"{difference}{width} points ({seeds})"


def health_lines(cells: list[Cell]) -> list[str]:
    """Return one line on all milestones together and one for each run that is not healthy."""
    runs = [(cell, cell.tuning["health"]) for cell in cells if cell.tuning and cell.tuning.get("health")]
    if not runs:
        return []
    states = {cell.path: is_healthy(health, cell.hidden_size.after) for cell, health in runs}
    healthy = sum(state is True for state in states.values())
    unknown = sum(state is None for state in states.values())
    unlogged = f"; {unknown} logged nothing around it" if unknown else ""
    lines = [f"milestone: exact count, no shock and every gate decided in {healthy} of {len(runs)} runs{unlogged}"]
    judged = [(cell, verdict(health, cell.hidden_size.after)) for cell, health in runs if not states[cell.path]]
    lines += [_of_run(cell, said) for cell, said in judged]
    if any(SHOCK in said for _, said in judged):
        beyond = f"{SHOCK_NATS:g} nats and {SHOCK_SHARE:.0%} of itself"
        lines.append(f"{SHOCK}: when the mask closed the loss rose by more than {beyond}; usual where steps are few")
    if any(UNDECIDED in said for _, said in judged):
        lines.append(f"{UNDECIDED}: gates that neither kept nor removed their channel; what was merged and evaluated has them rounded")
    chosen = ((cell, choice(health)) for cell, health in runs)
    return lines + [_of_run(cell, said) for cell, said in chosen if said]


def _of_run(cell: Cell, said: str) -> str:
    return f"{cell.model}, {cell.row.name} at {percent(cell.ratio_requested)}, seed {cell.seed}: {said}"


def merge_line(cells: list[Cell]) -> list[str]:
    """Return a line on how far written models are from what they stand for, nothing where none was measured.

    Results of earlier versions have the largest difference of a logit over random tokens instead of the divergence on text.
    """
    kls = [cell.kl_on_text for cell in cells if cell.kl_on_text is not None]
    if kls:
        return [f"written models: KL on text at most {max(kls):.1e} nats per token (over {len(kls)} models)"]
    gaps = [cell.logit_gap for cell in cells if cell.logit_gap is not None]
    return [f"merge: largest difference of a logit {max(gaps):.1e} (over {len(gaps)} models)"] if gaps else []
