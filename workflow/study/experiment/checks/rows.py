"""The rows of the tables: methods, labels, seeds, the tuned row that some of them need, and their places in tables of ablations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pat.pruners import PRUNERS, Pruner
from pat.settings.jobs import PruneSettings
from pat.settings.mistakes import nearest, shown
from study.experiment.checks.settings import taken
from study.experiment.methods import CHECKPOINT, METHODS, Method, name_of_row
from study.experiment.schema import TUNED_ROW, Experiment

ROW_COLUMNS = ("ratio", "method", "label", "mode")  # they name a row in the CSV of every table


def row_problems(experiment: Experiment) -> Iterator[str]:
    """Check that rows are methods, can be distinguished, and have what their methods need and nothing without effect."""
    rows = experiment.known_rows
    for row in experiment.methods:
        if (name := experiment.method_name(row)) not in METHODS:
            yield f"methods.{row}: {shown(name)} is not a method{nearest(name, METHODS)}"
    names: dict[str, str] = {}
    for row, method in rows.items():
        name = name_of_row(experiment.label(row), method.mode)
        if (first := names.setdefault(name, row)) != row:
            yield f"methods.{row}: is called {shown(name)} in the tables, as is {first!r}: give it a label of its own"
        unused = _without_effect(experiment, row, method)
        yield from (f"methods.{row}.{key}: has no effect: {why}; remove it" for key, why in unused)
        yield from (f"methods.{row}.checkpoint{problem}" for problem in _checkpoint(experiment, row, method))
    if any(method.prunes for method in rows.values()) and not experiment.ratios:
        yield "ratios: is empty, though the experiment has methods that prune: must name at least one ratio between 0 and 1"


def _without_effect(experiment: Experiment, row: str, method: Method) -> Iterator[tuple[str, str]]:
    """Yield what a row sets of a step that its method does not take, and why that has no effect."""
    own, named = experiment.row(row), f"the method {method.name!r}"
    if own.prune and method.pruner is None:
        yield "prune", f"{named} has no pruner"
    elif method.pruner is not None:
        yield from _unused_by_pruner(experiment, row, PRUNERS[method.pruner])
    for key in own.pat:
        if not method.masked and key not in (known := _mask_keys(method)):
            taken = f"; of pat it takes {' and '.join(known)}" if known else ""
            yield f"pat.{key}", f"{named} trains no mask{taken}"
    for key in ("tuning", "lora"):
        if getattr(own, key) and not method.tunes:
            yield key, "nothing is tuned" if method.order == "given" else f"the row prunes what {TUNED_ROW!r} has tuned"
    if own.ratios and not method.prunes:
        yield "ratios", f"{named} does not prune"


def _unused_by_pruner(experiment: Experiment, row: str, pruner: Pruner) -> Iterator[tuple[str, str]]:
    """Yield the keys of a row's `prune` that have no effect on its pruner on any model, and why."""
    on_models = [settings for model in experiment.models if (settings := taken(experiment.prune_settings, model, row)) is not None]
    for key in (key for key, value in experiment.row(row).prune.items() if key in PruneSettings.model_fields and value is not None):
        reasons = [pruner.why_idle(key, settings) for settings in on_models]
        if reasons and None not in reasons:
            yield f"prune.{key}", str(reasons[0])


def _mask_keys(method: Method) -> tuple[str, ...]:
    """Return the keys of `pat` that have an effect on a method without a mask."""
    return (*(["align"] if method.prunes else []), *(["milestone_fraction"] if method.in_two_parts else []))


def _checkpoint(experiment: Experiment, row: str, method: Method) -> Iterator[str]:
    """Check that a row of a checkpoint names one, and of which model it is, and that no other row does."""
    models, given = experiment.models, experiment.row(row).checkpoint
    if given is None:
        if method.name == CHECKPOINT:
            yield ": is required: {path: folder of a model}"
    elif method.name != CHECKPOINT:
        yield f": has no effect on the method {method.name!r}; remove one of them"
    elif given.of is not None and given.of not in models:
        yield f".of: {shown(given.of)} is not a model of the experiment{nearest(given.of, models)}"
    elif given.of is None and len(models) > 1:
        yield f".of: is required: which of the models was it made from? {', '.join(models)}"


def seed_problems(experiment: Experiment) -> Iterator[str]:
    """Check that rows run with seeds and at ratios of the experiment."""
    for row in experiment.methods:
        own = experiment.row(row)
        for key, asked, known in (("seeds", own.seeds, experiment.seeds), ("ratios", own.ratios, experiment.ratios)):
            if unknown := [value for value in asked or () if value not in known]:
                yield f"methods.{row}.{key}: {shown(unknown)} is not allowed: must be among the experiment's {key}, {shown(known)}"


def tuned_row_problems(experiment: Experiment) -> Iterator[str]:
    """Check the row that others prune or learn from: that it is there, LoRA's, runs with their seeds, and learns from none itself."""
    rows, every = experiment.known_rows, experiment.seeds
    for model, source in experiment.models.items():
        if "distillation" in source.tuning:  # a row has one name for all models
            yield f"models.{model}.tuning.distillation: is not allowed: must stand in the experiment's `tuning` or in a method's row"
    pruning = [row for row, method in rows.items() if method.order == "tune-prune"]
    distilled = [row for row in rows if experiment.distils(row)]
    if TUNED_ROW not in experiment.methods:
        needs = [(row, "prunes") for row in pruning[:1]] + [(row, "distils from") for row in distilled[:1]]
        for row, does in needs:
            yield f"methods.{row}: {does} what the row {TUNED_ROW!r} has tuned: the experiment needs that row too"
        return
    tuned = experiment.row(TUNED_ROW)
    if TUNED_ROW in rows and rows[TUNED_ROW].name != TUNED_ROW:
        yield f"methods.{TUNED_ROW}: the row of this name must be the method {TUNED_ROW!r}, is {rows[TUNED_ROW].name!r}"
    if tuned.tuning.get("distillation") is not None:
        yield (
            f"methods.{TUNED_ROW}.tuning.distillation: is not allowed: the row {TUNED_ROW!r} is what the others learn from and would "
            "be its own teacher; give a row of another name `method: lora`"
        )
    there = tuned.seeds or every
    for row in (*pruning, *distilled):
        if lacking := [seed for seed in experiment.row(row).seeds or every if seed in every and seed not in there]:
            yield (
                f"methods.{row}.seeds: {shown(lacking)} is not allowed: the row needs the model of the row {TUNED_ROW!r} of the same seed, "
                f"which runs with {shown(there)}"
            )


def table_problems(experiment: Experiment) -> Iterator[str]:
    """Check which row is the reference, and that every row with factors has its own place in an ablation table."""
    rows, reference, ablations = experiment.methods, experiment.tables.reference, experiment.tables.ablations
    if reference is not None and reference not in rows:
        yield f"tables.reference: {shown(reference)} is not a row of methods{nearest(reference, rows)}"
    known = {factor for factors in ablations.values() for factor in factors}
    for row in rows:
        own = experiment.row(row).factors
        for factor in (factor for factor in own if factor not in known):
            no_tables = "" if known else "; no table shows factors: name them in tables.ablations"
            yield f"methods.{row}.factors.{factor}: unknown factor{nearest(factor, known)}{no_tables}"
        placed = {factor for factors in ablations.values() if own.keys() >= set(factors) for factor in factors}
        if alone := [factor for factor in own if factor in known - placed]:
            listed = " or ".join(f"{', '.join(factors)} ({name})" for name, factors in ablations.items() if set(factors) & set(alone))
            yield f"methods.{row}.factors: gives {', '.join(alone)} alone: must give all factors of a table: {listed}"
    for name, factors in ablations.items():
        for factor in (factor for factor in factors if factor in ROW_COLUMNS):
            yield f"tables.ablations.{name}: the factor {shown(factor)} is not allowed: a column of every table is called so"
        yield from _places(experiment, name, factors)


def _places(experiment: Experiment, name: str, factors: Sequence[str]) -> Iterator[str]:
    """Check one ablation table: that it has rows, and that its factors tell those apart that all prune, or all do not."""
    places: dict[tuple[str, bool], str] = {}
    for row, method in experiment.known_rows.items():
        own = experiment.row(row).factors
        if own.keys() >= set(factors):
            place = ", ".join(f"{factor} {shown(own[factor])}" for factor in factors)
            if (first := places.setdefault((place, method.prunes), row)) != row:
                yield f"methods.{row}.factors: has the place of {first!r} in tables.ablations.{name} ({place}): must differ in a factor"
    if not places:
        yield f"tables.ablations.{name}: no row has its factors ({', '.join(factors)}); give them to rows as methods.<row>.factors"
