"""A section for each cell of the page: its numbers and sizes, the course and health of its tuning, and the steps that made it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from study.report.page.charts import Course, course
from study.report.page.run import Run, place
from study.results.cells import METRIC_LABELS, Cell, Score, metrics_of
from study.results.explain import Step, origin_lines
from study.results.milestones import judgement
from study.tables.accuracy import decimals, percent
from study.tables.layouts import HOLE, Layout
from study.tables.origins import number
from study.tables.shares import removed

COURSES = {"instruct_loss": "cross-entropy of the answers, in nats per token", "kept": "channels kept", "learning_rate": "learning rate"}
"""The figures of a tuning's log that are drawn, with their names."""

POINTS = 100.0


@dataclass(frozen=True)
class Made:
    """A step that made a cell: its verb, its command, and what is known of its code, machine and inputs."""

    verb: str
    command: str
    facts: Sequence[str]


@dataclass(frozen=True)
class Section:
    """All that the page says of a cell."""

    id: str
    title: str
    said: str
    facts: Sequence[tuple[str, str]]
    perplexities: Sequence[tuple[str, str]]
    accuracies: Layout | None
    health: str
    courses: Sequence[Course]
    steps: Sequence[Made]


@dataclass(frozen=True)
class Indexed:
    """A row of a model in the index of cells: at each ratio its seeds with the sections that they are in, none where it was not run."""

    model: str
    name: str
    seeds: Sequence[Sequence[tuple[int, str]]]


@dataclass(frozen=True)
class Index:
    """Which cells there are: the ratios asked for, and a line for each row."""

    ratios: Sequence[str]
    rows: Sequence[Indexed]
    models: int


def cell_index(run: Run) -> Index:
    """Return which seeds each row has at each ratio."""
    ratios = sorted({cell.ratio_requested for cell in run.cells})
    found: dict[tuple[str, str], dict[float, list[tuple[int, str]]]] = {}
    for cell in run.cells:
        at = found.setdefault((cell.model, cell.row.name), {})
        at.setdefault(cell.ratio_requested, []).append((cell.seed, _id(cell)))
    rows = [Indexed(model, name, [sorted(at.get(ratio, [])) for ratio in ratios]) for (model, name), at in found.items()]
    return Index([percent(ratio) for ratio in ratios], rows, len({cell.model for cell in run.cells}))


def _id(cell: Cell) -> str:
    return f"cell/{place(cell)}"


def sections(run: Run) -> list[Section]:
    """Return a section for every cell, in the order of the tables."""
    return [_section(run, cell) for cell in run.cells]


def _section(run: Run, cell: Cell) -> Section:
    history = run.history(cell)
    health = (cell.tuning or {}).get("health") or {}
    marks = {"milestone": health.get("milestone_step"), "the cut": (cell.tuning_before or {}).get("steps")}
    drawn = [course(name, history, key, marks) for key, name in COURSES.items()]
    perplexities = [*_perplexities(cell), *_harness(cell)]
    return Section(
        _id(cell),
        f"{cell.model}: {cell.row.name}, {percent(cell.ratio_requested)}, seed {cell.seed}",
        _glance(cell),
        list(_facts(cell)),
        perplexities,
        _accuracies(cell),
        judgement(health, cell.hidden_size.after) if cell.tuning else "",
        [it for it in drawn if it is not None],
        [_made(step) for step in run.steps(cell)],
    )


def _glance(cell: Cell) -> str:
    """Return the perplexities in one line, without what the section says of them."""
    said = ", ".join(f"{text} {decimals(value.token_perplexity, 2)}" for text, value in sorted(cell.perplexity.items()))
    return f"perplexity: {said}" if said else ""


def _perplexities(cell: Cell) -> list[tuple[str, str]]:
    return [
        (f"perplexity of {text}", f"{decimals(value.token_perplexity, 2)} per token, {decimals(value.byte_perplexity, 3)} per byte")
        for text, value in sorted(cell.perplexity.items())
    ]


def _harness(cell: Cell) -> list[tuple[str, str]]:
    return [
        (f"lm-eval's {task}", ", ".join(f"{name} {value:.4f}" for name, value in sorted(it.scores.items())))
        for task, it in sorted(cell.harness.items())
    ]


def _accuracies(cell: Cell) -> Layout | None:
    """Return the cell's tasks as a table, a column for each scoring; None where it has none."""
    metrics = metrics_of([cell])
    rows = [
        [task, f"{result.items:,}", f"{POINTS * result.chance:.1f}", *(_percent(result.scores.get(metric)) for metric in metrics)]
        for task, result in sorted(cell.tasks.items())
    ]
    header = ["Task", "items", "guessing", *(METRIC_LABELS.get(metric, metric) for metric in metrics)]
    return Layout("Accuracy in percent.", header, rows, text_columns=1) if rows else None


def _percent(score: Score | None) -> str:
    return HOLE if score is None else f"{POINTS * score.value:.1f}"


def _facts(cell: Cell) -> Iterator[tuple[str, str]]:
    before, after = cell.parameters.before, cell.parameters.after
    yield "parameters", f"{before.unique:,} → {after.unique:,} ({100 * removed(cell):.1f} % removed)"
    yield "without embeddings", f"{before.without_embeddings:,} → {after.without_embeddings:,}"
    yield "hidden size", f"{cell.hidden_size.before} → {cell.hidden_size.after}"
    yield "trainable parameters", number(cell.trainable_parameters, "{:,}")
    exact = cell.kl_on_text if cell.kl_on_text is not None else cell.logit_gap
    if exact is not None:
        what = "KL on text, nats per token" if cell.kl_on_text is not None else "largest difference of a logit"
        yield "written model against what it stands for", f"{exact:.1e} ({what})"
    if tunings := cell.tunings:
        told = [f"{number(it.get('steps'), '{:,}')} steps in {_minutes(it.get('wall_s'))} minutes" for it in tunings]
        peaks = [it["peak_memory_gib"] for it in tunings if it.get("peak_memory_gib") is not None]
        yield "tuning", ", pruned, ".join(told)
        yield "peak memory of the tuning", number(max(peaks, default=None), "{:.2f} GiB")
    for name, value in sorted(cell.factors.items()):
        yield name, str(value) if value is not None else HOLE


def _minutes(seconds: float | None) -> str:
    return number(None if seconds is None else seconds / 60, "{:.1f}")


def _made(step: Step) -> Made:
    lines = [line.strip() for line in origin_lines(step.provenance)]
    return Made(
        step.verb, str(step.provenance.get("command") or "not recorded"), [line for line in lines if not line.startswith("command: ")]
    )
