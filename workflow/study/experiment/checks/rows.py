"""The rows of the tables: methods, labels, seeds, and the tuned row that some of them need."""

from __future__ import annotations

from collections.abc import Iterator

from pat.settings.mistakes import nearest, shown
from study.experiment.methods import CHECKPOINT, MASKED_TUNERS, METHODS
from study.experiment.schema import TUNED_ROW, Experiment


def row_problems(experiment: Experiment) -> Iterator[str]:
    """Check that rows are methods, can be distinguished, and have what their methods need and nothing without effect."""
    rows = experiment.known_rows
    for row in experiment.methods:
        if row not in rows:
            name = experiment.method_name(row)
            yield f"methods.{row}: {shown(name)} is not a method{nearest(name, METHODS)}"
    yield from _labels(experiment)
    after_tuning = [row for row, method in rows.items() if method.order == "tune-prune"]
    if after_tuning and TUNED_ROW not in experiment.methods:
        yield f"methods.{after_tuning[0]}: prunes what the row {TUNED_ROW!r} has tuned: the experiment needs that row too"
    yield from _without_effect(experiment)
    yield from _checkpoints(experiment)
    if TUNED_ROW in rows and rows[TUNED_ROW].name != TUNED_ROW:
        yield f"methods.{TUNED_ROW}: the row of this name must be the method {TUNED_ROW!r}, is {rows[TUNED_ROW].name!r}"
    if any(method.prunes for method in rows.values()) and not experiment.ratios:
        yield "ratios: is empty, though the experiment has methods that prune: must name at least one ratio between 0 and 1"


def _without_effect(experiment: Experiment) -> Iterator[str]:
    """Check that no row gives settings of a step that its method does not take."""
    for row, method in experiment.known_rows.items():
        own, named = experiment.row(row), f"the method {method.name!r}"
        untuned = "nothing is tuned" if method.order == "given" else f"the row prunes what {TUNED_ROW!r} has tuned"
        unused: dict[str, tuple[bool, str]] = {"prune": (bool(own.prune) and method.pruner is None, f"{named} has no pruner")}
        for key in ("basis", "tie", "readers"):
            unused[f"pat.{key}"] = bool(own.pat.get(key)) and method.tuner not in MASKED_TUNERS, f"{named} trains no mask"
        for key in ("tuning", "lora"):
            unused[key] = bool(getattr(own, key)) and not method.tunes, untuned
        unused["ratios"] = bool(own.ratios) and not method.prunes, f"{named} does not prune"
        yield from (f"methods.{row}.{key}: has no effect: {why}; remove it" for key, (idle, why) in unused.items() if idle)


def _checkpoints(experiment: Experiment) -> Iterator[str]:
    """Check that rows of checkpoints name one, and of which model it is, and that no other row does."""
    models = experiment.models
    for row, method in experiment.known_rows.items():
        given = experiment.row(row).checkpoint
        if given is None:
            if method.name == CHECKPOINT:
                yield f"methods.{row}.checkpoint: is required: {{path: folder of a model}}"
        elif method.name != CHECKPOINT:
            yield f"methods.{row}.checkpoint: has no effect on the method {method.name!r}; remove one of them"
        elif given.of is not None and given.of not in models:
            yield f"methods.{row}.checkpoint.of: {shown(given.of)} is not a model of the experiment{nearest(given.of, models)}"
        elif given.of is None and len(models) > 1:
            yield f"methods.{row}.checkpoint.of: is required: which of the models was it made from? {', '.join(models)}"


def _labels(experiment: Experiment) -> Iterator[str]:
    """Check that rows can be distinguished in a table: by label, or by the mode beside it."""
    taken: dict[tuple[str, str], str] = {}
    for row, method in experiment.known_rows.items():
        label = experiment.label(row)
        if first := taken.get((label, method.mode)):
            yield f"methods.{row}: is called {shown(label)} in the tables, as is {first!r}: give it a label of its own"
        taken.setdefault((label, method.mode), row)


def seed_problems(experiment: Experiment) -> Iterator[str]:
    """Check that rows run with seeds and at ratios of the experiment, and with those of the tuned row where they need its models."""
    every = experiment.seeds
    for row in experiment.methods:
        own = experiment.row(row)
        for key, asked, known in (("seeds", own.seeds, every), ("ratios", own.ratios, experiment.ratios)):
            if unknown := [value for value in asked or () if value not in known]:
                yield f"methods.{row}.{key}: {shown(unknown)} is not allowed: must be among the experiment's {key}, {shown(known)}"
    of_row = {row: experiment.row(row).seeds or every for row in experiment.methods}
    tuned = of_row.get(TUNED_ROW, every)
    for row, method in experiment.known_rows.items():
        needs_tuned = method.order == "tune-prune" or experiment.distils(row)
        lacking = [seed for seed in of_row[row] if seed in every and seed not in tuned]
        if needs_tuned and lacking:
            yield (
                f"methods.{row}.seeds: {shown(lacking)} is not allowed: the row needs the model of the row {TUNED_ROW!r} of the same seed, "
                f"which runs with {shown(tuned)}"
            )


def teacher_problems(experiment: Experiment) -> Iterator[str]:
    """Check that whoever distils has a teacher, and not itself. A model may not decide: a row has one name for all models."""
    for model, source in experiment.models.items():
        if "distillation" in source.tuning:
            yield f"models.{model}.tuning.distillation: is not allowed: must stand in the experiment's `tuning` or in a method's row"
    if TUNED_ROW in experiment.methods:
        if experiment.row(TUNED_ROW).tuning.get("distillation") is not None:
            yield (
                f"methods.{TUNED_ROW}.tuning.distillation: is not allowed: the row {TUNED_ROW!r} is what the others learn from and would "
                "be its own teacher; give a row of another name `method: lora`"
            )
        return
    for row in [row for row in experiment.known_rows if experiment.distils(row)][:1]:
        yield f"methods.{row}: distils from what the row {TUNED_ROW!r} has tuned: the experiment needs that row too"
