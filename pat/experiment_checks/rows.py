"""The rows of the tables: methods, labels, seeds, and the tuned row that some of them need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pat.experiment import TUNED_ROW, called, distils, own_label
from pat.experiment_checks.raw_file import entries, methods_of, part
from pat.methods import CHECKPOINT, MASKED_TUNERS, METHODS, Method, method_name
from pat.mistakes import nearest, shown


def row_problems(raw: Mapping[str, Any]) -> Iterator[str]:
    """Check that rows are methods, can be told apart, and have what their methods need and nothing without effect."""
    rows, methods = part(raw, "methods"), methods_of(raw)
    for row in rows:
        name = method_name(row, part(rows, row))
        if isinstance(name, str) and name not in METHODS:
            yield f"methods.{row}: {shown(name)} is not a method{nearest(name, METHODS)}"
    yield from _labels(raw, methods)
    after_tuning = [row for row, method in methods.items() if method.order == "tune-prune"]
    if after_tuning and TUNED_ROW not in rows:
        yield f"methods.{after_tuning[0]}: prunes what the row {TUNED_ROW!r} has tuned: the experiment needs that row too"
    yield from _without_effect(rows, methods)
    yield from _checkpoints(raw, methods)
    if TUNED_ROW in methods and methods[TUNED_ROW].name != TUNED_ROW:
        yield f"methods.{TUNED_ROW}: the row of this name must be the method {TUNED_ROW!r}, is {methods[TUNED_ROW].name!r}"
    if any(method.prunes for method in methods.values()) and not raw.get("ratios"):
        yield "ratios: is empty, though the experiment has methods that prune: must name at least one ratio between 0 and 1"


def _without_effect(rows: Mapping[str, Any], methods: Mapping[str, Method]) -> Iterator[str]:
    """Check that no row gives settings of a step that its method does not take."""
    for row, method in methods.items():
        own, masked = part(rows, row), part(rows, row, "pat")
        if method.pruner is None and own.get("prune"):
            yield f"methods.{row}.prune: has no effect: the method {method.name!r} has no pruner; remove it"
        for key in ("basis", "tie", "readers"):
            if method.tuner not in MASKED_TUNERS and masked.get(key):
                yield f"methods.{row}.pat.{key}: has no effect: the method {method.name!r} trains no mask; remove it"
        for key in ("tuning", "lora"):
            if not method.tunes and own.get(key):
                why = "nothing is tuned" if method.order == "given" else f"the row prunes what {TUNED_ROW!r} has tuned"
                yield f"methods.{row}.{key}: has no effect: {why}; remove it"
        if not method.prunes and own.get("ratios"):
            yield f"methods.{row}.ratios: has no effect: the method {method.name!r} does not prune; remove it"


def _checkpoints(raw: Mapping[str, Any], methods: Mapping[str, Method]) -> Iterator[str]:
    """Check that rows of checkpoints name one, and of which model it is, and that no other row does."""
    models = part(raw, "models")
    for row, method in methods.items():
        given = part(raw, "methods", row, "checkpoint")
        if method.name == CHECKPOINT and not given:
            yield f"methods.{row}.checkpoint: is required: {{path: folder of a model}}"
        elif method.name != CHECKPOINT and given:
            yield f"methods.{row}.checkpoint: has no effect on the method {method.name!r}; remove one of them"
        elif given.get("of") is not None and given["of"] not in models:
            yield f"methods.{row}.checkpoint.of: {shown(given['of'])} is not a model of the experiment{nearest(str(given['of']), models)}"
        elif given and given.get("of") is None and len(models) > 1:
            yield f"methods.{row}.checkpoint.of: is required: which of the models was it made from? {', '.join(models)}"


def _labels(raw: Mapping[str, Any], methods: Mapping[str, Method]) -> Iterator[str]:
    """Check that rows can be told apart in a table: by label, or by the mode beside it."""
    taken: dict[tuple[object, str], str] = {}
    for row, method in methods.items():
        label = called(str(own_label(row, part(raw, "methods", row), method)), distilled=_distils(raw, row, method))
        if first := taken.get((shown(label), method.mode)):
            yield f"methods.{row}: is called {shown(label)} in the tables, as is {first!r}: give it a label of its own"
        taken.setdefault((shown(label), method.mode), row)


def seed_problems(raw: Mapping[str, Any]) -> Iterator[str]:
    """Check that rows run with seeds and at ratios of the experiment, and with those of the tuned row where they need its models."""
    rows, every = part(raw, "methods"), entries(raw.get("seeds"))
    of_row = {row: entries(part(rows, row).get("seeds")) or every for row in rows}
    for row, own in of_row.items():
        if unknown := [seed for seed in own if seed not in every]:
            yield f"methods.{row}.seeds: {shown(unknown)} is not allowed: must be among the experiment's seeds, {shown(every)}"
        ratios = entries(raw.get("ratios"))
        if unknown := [ratio for ratio in entries(part(rows, row).get("ratios")) if ratio not in ratios]:
            yield f"methods.{row}.ratios: {shown(unknown)} is not allowed: must be among the experiment's ratios, {shown(ratios)}"
    tuned = of_row.get(TUNED_ROW, every)
    for row, method in methods_of(raw).items():
        needs_tuned = method.order == "tune-prune" or _distils(raw, row, method)
        lacking = [seed for seed in of_row[row] if seed in every and seed not in tuned]
        if needs_tuned and lacking:
            yield (
                f"methods.{row}.seeds: {shown(lacking)} is not allowed: the row needs the model of the row {TUNED_ROW!r} of the same seed, "
                f"which runs with {shown(tuned)}"
            )


def teacher_problems(raw: Mapping[str, Any]) -> Iterator[str]:
    """Check that whoever distils has a teacher, and not itself. A model may not decide: a row has one name for all models."""
    for model in part(raw, "models"):
        if "distillation" in part(raw, "models", model, "tuning"):
            yield f"models.{model}.tuning.distillation: is not allowed: must stand in the experiment's `tuning` or in a method's row"
    rows = part(raw, "methods")
    if part(rows, TUNED_ROW, "tuning").get("distillation") is not None:
        yield (
            f"methods.{TUNED_ROW}.tuning.distillation: is not allowed: the row {TUNED_ROW!r} is what the others learn from and would be "
            "its own teacher; give a row of another name `method: lora`"
        )
    for row, method in methods_of(raw).items():
        if TUNED_ROW not in rows and _distils(raw, row, method):
            yield f"methods.{row}: distils from what the row {TUNED_ROW!r} has tuned: the experiment needs that row too"
            return


def _distils(raw: Mapping[str, Any], row: str, method: Method) -> bool:
    return distils(row, method, part(raw, "tuning"), part(raw, "methods", row, "tuning"))
