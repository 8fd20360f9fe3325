"""Checks across an experiment file's fields: names, methods, overrides, widths.

They read the raw file and step over what the schema refuses already, so that a user sees all problems at once and not the first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeGuard

from pydantic import BaseModel, ValidationError

from pat.benchmark.checks import benchmark_problems
from pat.depth import layers_to_drop
from pat.experiment import (
    FIGURES_OF_MASKS,
    FIGURES_OF_TASKS,
    TUNED_ROW,
    Resources,
    called,
    distils,
    merged_job,
    overridden,
)
from pat.methods import MASKED_TUNERS, METHODS, Method
from pat.settings import EvaluationSettings, PruneSettings, TuneJob, TuningSettings, nearest, problems, shown
from pat.sizes import Kept, kept_of_llama
from pat.sources import WORLD_TASKS, WORLD_TEXTS
from pat.width import target_width

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
CORPUS_NAME = "pretrain"  # the pretraining corpus lies beside the held-out texts
RESERVED_MODELS = ("data", "models", "rotated", "refitted", "tables", "figures", "logs", "benchmark", "benchmarks", "text")
RESERVED_EXPERIMENTS = ("reference",)
ROW_COLUMNS = ("ratio", "method", "label", "mode")  # they name a row in the CSV of every table
SHAPE_KEYS = ("vocab_size", "hidden_size", "layers", "heads", "kv_heads", "intermediate_size")
SHORTEST_MILESTONE = 2  # steps: the gate needs a first and a last one


def check_grid(raw: Mapping[str, Any]) -> list[str]:
    """Return what is wrong between the fields of a raw experiment file, one line a problem."""
    checks = (_names, _rows, _seeds, _teachers, _searches, _tables, _data, _overrides, _widths, _depths, _sizes, _benchmark, _figures)
    return list(dict.fromkeys(problem for check in checks for problem in check(raw)))


def _part(raw: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Return the mapping below `keys`, empty where the file has none or something else there."""
    part: Any = raw
    for key in keys:
        part = part.get(key) if isinstance(part, Mapping) else None
    return {str(key): value for key, value in part.items()} if isinstance(part, Mapping) else {}


def _names(raw: Mapping[str, Any]) -> Iterator[str]:
    named = [("name", raw.get("name"))]
    for section in (("models",), ("methods",), ("data", "tasks"), ("data", "text"), ("tables", "ablations"), ("benchmark", "shapes")):
        named += [(".".join(section), name) for name in _part(raw, *section)]
    for field, name in named:
        if isinstance(name, str) and not SAFE_NAME.fullmatch(name):
            yield (
                f"{field}: the name {shown(name)} is not allowed: it becomes part of a path and must be of letters, digits, "
                "'.', '_' and '-', at most 64, the first a letter or digit"
            )
    reserved = {"models": RESERVED_MODELS, "name": RESERVED_EXPERIMENTS, "data.text": (CORPUS_NAME,)}
    for field, name in named:
        if name in reserved.get(field, ()):
            yield f"{field}: the name {shown(name)} is reserved for something else in the results; choose another"


def _methods(raw: Mapping[str, Any]) -> dict[str, Method]:
    """Return row -> registry entry for all rows whose method exists."""
    rows = _part(raw, "methods")
    named = {row: _part(rows, row).get("method") or row for row in rows}
    return {row: METHODS[name] for row, name in named.items() if isinstance(name, str) and name in METHODS}


def _rows(raw: Mapping[str, Any]) -> Iterator[str]:
    rows, methods = _part(raw, "methods"), _methods(raw)
    for row in rows:
        name = _part(rows, row).get("method") or row
        if isinstance(name, str) and name not in METHODS:
            yield f"methods.{row}: {shown(name)} is not a method{nearest(name, METHODS)}"
    yield from _labels(raw, methods)
    after_tuning = [row for row, method in methods.items() if method.order == "tune-prune"]
    if after_tuning and TUNED_ROW not in rows:
        yield f"methods.{after_tuning[0]}: prunes what the row {TUNED_ROW!r} has tuned: the experiment needs that row too"
    yield from _without_effect(rows, methods)
    if TUNED_ROW in methods and methods[TUNED_ROW].name != TUNED_ROW:
        yield f"methods.{TUNED_ROW}: the row of this name must be the method {TUNED_ROW!r}, is {methods[TUNED_ROW].name!r}"
    if any(method.prunes for method in methods.values()) and not raw.get("ratios"):
        yield "ratios: is empty, though the experiment has methods that prune: must name at least one ratio between 0 and 1"


def _without_effect(rows: Mapping[str, Any], methods: Mapping[str, Method]) -> Iterator[str]:
    """Check that no row gives settings of a step that its method does not take."""
    for row, method in methods.items():
        own, masked = _part(rows, row), _part(rows, row, "pat")
        if method.pruner is None and own.get("prune"):
            yield f"methods.{row}.prune: has no effect: the method {method.name!r} has no pruner; remove it"
        for key in ("basis", "readers"):
            if method.tuner not in MASKED_TUNERS and masked.get(key):
                yield f"methods.{row}.pat.{key}: has no effect: the method {method.name!r} trains no mask; remove it"
        for key in ("tuning", "lora"):
            if method.order == "tune-prune" and own.get(key):
                yield f"methods.{row}.{key}: has no effect: the row prunes what {TUNED_ROW!r} has tuned; remove it"


def _labels(raw: Mapping[str, Any], methods: Mapping[str, Method]) -> Iterator[str]:
    """Check that rows can be told apart in a table: by label, or by the mode beside it."""
    taken: dict[tuple[object, str], str] = {}
    for row, method in methods.items():
        own = _part(raw, "methods", row)
        distilled = distils(row, method, _part(raw, "tuning"), _part(own, "tuning"))
        label = called(str(own.get("label") or method.label), distilled=distilled)
        if first := taken.get((shown(label), method.mode)):
            yield f"methods.{row}: is called {shown(label)} in the tables, as is {first!r}: give it a label of its own"
        taken.setdefault((shown(label), method.mode), row)


def _seeds(raw: Mapping[str, Any]) -> Iterator[str]:
    """Check that rows run with seeds of the experiment, and with those of the tuned row where they need its models."""
    rows, every = _part(raw, "methods"), _list(raw.get("seeds"))
    of_row = {row: _list(_part(rows, row).get("seeds")) or every for row in rows}
    for row, own in of_row.items():
        if unknown := [seed for seed in own if seed not in every]:
            yield f"methods.{row}.seeds: {shown(unknown)} is not allowed: must be among the experiment's seeds, {shown(every)}"
    tuned = of_row.get(TUNED_ROW, every)
    for row, method in _methods(raw).items():
        needs_tuned = method.order == "tune-prune" or distils(row, method, _part(raw, "tuning"), _part(rows, row, "tuning"))
        lacking = [seed for seed in of_row[row] if seed in every and seed not in tuned]
        if needs_tuned and lacking:
            yield (
                f"methods.{row}.seeds: {shown(lacking)} is not allowed: the row needs the model of the row {TUNED_ROW!r} of the same seed, "
                f"which runs with {shown(tuned)}"
            )


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else []


def _tables(raw: Mapping[str, Any]) -> Iterator[str]:
    """Check which row is the reference, and that every row with factors has its own place in an ablation table."""
    rows, reference = _part(raw, "methods"), _part(raw, "tables").get("reference")
    if isinstance(reference, str) and reference not in rows:
        yield f"tables.reference: {shown(reference)} is not a row of methods{nearest(reference, rows)}"
    ablations = {name: _texts(factors) for name, factors in _part(raw, "tables", "ablations").items()}
    known = {factor for factors in ablations.values() for factor in factors}
    for row in rows:
        own = _part(rows, row, "factors")
        unknown = [factor for factor in own if factor not in known]
        for factor in unknown:
            no_tables = "" if known else "; no table shows factors: name them in tables.ablations"
            yield f"methods.{row}.factors.{factor}: unknown factor{nearest(factor, known)}{no_tables}"
        placed = {factor for factors in ablations.values() if own.keys() >= set(factors) for factor in factors}
        if alone := [factor for factor in own if factor not in placed and factor not in unknown]:
            listed = " or ".join(f"{', '.join(factors)} ({name})" for name, factors in ablations.items() if set(factors) & set(alone))
            yield f"methods.{row}.factors: gives {', '.join(alone)} alone: must give all factors of a table: {listed}"
    for name, factors in ablations.items():
        for factor in (factor for factor in factors if factor in ROW_COLUMNS):
            yield f"tables.ablations.{name}: the factor {shown(factor)} is not allowed: a column of every table is called so"
        yield from _places(name, factors, {(row, method.prunes): _part(rows, row, "factors") for row, method in _methods(raw).items()})


def _places(name: str, factors: Sequence[str], rows: Mapping[tuple[str, bool], Mapping[str, Any]]) -> Iterator[str]:
    """Check one ablation table: that it has rows, and that its factors tell those apart that all prune, or all do not."""
    taken: dict[tuple[str, bool], str] = {}
    for (row, prunes), own in rows.items():
        if not factors or not own.keys() >= set(factors):
            continue
        place = ", ".join(f"{factor} {shown(own[factor])}" for factor in factors)
        if first := taken.get((place, prunes)):
            yield f"methods.{row}.factors: has the place of {first!r} in tables.ablations.{name} ({place}): must differ in a factor"
        taken[place, prunes] = row
    if factors and not taken:
        yield f"tables.ablations.{name}: no row has its factors ({', '.join(factors)}); give them to rows as methods.<row>.factors"


def _texts(value: object) -> list[str]:
    return [entry for entry in value if isinstance(entry, str)] if isinstance(value, list | tuple) else []


def _teachers(raw: Mapping[str, Any]) -> Iterator[str]:
    """Check that whoever distils has a teacher, and not itself. A model may not decide: a row has one name for all models."""
    for model in _part(raw, "models"):
        if "distillation" in _part(raw, "models", model, "tuning"):
            yield f"models.{model}.tuning.distillation: is not allowed: must stand in the experiment's `tuning` or in a method's row"
    rows = _part(raw, "methods")
    if _part(rows, TUNED_ROW, "tuning").get("distillation") is not None:
        yield (
            f"methods.{TUNED_ROW}.tuning.distillation: is not allowed: the row {TUNED_ROW!r} is what the others learn from and would be "
            "its own teacher; give a row of another name `method: lora`"
        )
    for row, method in _methods(raw).items():
        if TUNED_ROW not in rows and distils(row, method, _part(raw, "tuning"), _part(rows, row, "tuning")):
            yield f"methods.{row}: distils from what the row {TUNED_ROW!r} has tuned: the experiment needs that row too"
            return


def _data(raw: Mapping[str, Any]) -> Iterator[str]:
    for section, known in (("tasks", WORLD_TASKS), ("text", WORLD_TEXTS)):
        for name in _part(raw, "data", section):
            if _part(raw, "data", section, name).get("source") == "world" and name not in known:
                yield f"data.{section}.{name}: the embedded world has nothing of this name{nearest(name, known)}"
    pretrained = [model for model in _part(raw, "models") if _part(raw, "models", model, "pretrain")]
    if pretrained and "data" in raw and not _part(raw, "data", "pretrain"):
        yield f"data.pretrain: is required, because models.{pretrained[0]} is pretrained"
    if _part(raw, "data").get("calibration") == "pretrain" and not _part(raw, "data", "pretrain"):
        yield "data.pretrain: is required, because data.calibration is 'pretrain'"
    scored = _part(raw, "data", "tasks") or _part(raw, "data", "text") or _part(raw, "evaluation").get("harness_tasks")
    if "data" in raw and not scored:
        yield "data.tasks: is empty, and so are data.text and evaluation.harness_tasks: name at least one thing to evaluate on"


@dataclass(frozen=True)
class _Layer:
    """Part of a merged value: `written` stands in the file below `place` and is laid into the value below `under`."""

    place: tuple[str, ...]
    under: tuple[str, ...]
    written: Mapping[str, Any]


def _overrides(raw: Mapping[str, Any]) -> Iterator[str]:
    """Check every cell's settings after all overrides; a problem is reported where the user wrote the value."""
    for model in _part(raw, "models"):
        for row in _methods(raw):
            yield from _tune_problems(raw, model, row)
            places: list[tuple[str, ...]] = [("prune",), ("models", model, "prune"), ("methods", row, "prune")]
            layers = [_Layer(place, (), _part(raw, *place)) for place in places]
            yield from _blamed(PruneSettings, {key: value for layer in layers for key, value in layer.written.items()}, layers)
        for key, kind in (("evaluation", EvaluationSettings), ("resources", Resources)):
            places = [(key,), ("models", model, key)]
            layers = [_Layer(place, (), _part(raw, *place)) for place in places]
            if layers[-1].written:
                yield from _blamed(kind, overridden(layers[0].written, layers[1].written), layers)


def _tune_problems(raw: Mapping[str, Any], model: str, row: str) -> Iterator[str]:
    places: list[tuple[str, ...]] = [(), ("models", model), ("methods", row)]
    layers = [_Layer((*place, key), (key,), _part(raw, *place, key)) for place in places for key in ("tuning", "pat")]
    layers.append(_Layer(("methods", row, "lora"), ("tuning", "lora"), _part(raw, "methods", row, "lora")))
    job = merged_job([_part(raw, *place) for place in places])
    found = list(_blamed(TuneJob, job, layers))
    yield from found
    if found:
        return
    yield from _shared_batch(raw, model, TuneJob.model_validate(job).tuning)
    if job["tuning"].get("shard") and _methods(raw)[row].order != "tune-prune":
        yield from _shards(raw, model, row)
    if _methods(raw)[row].tuner in MASKED_TUNERS:
        yield from _milestone(TuneJob.model_validate(job), row)


def _shared_batch(raw: Mapping[str, Any], model: str, tuning: TuningSettings) -> Iterator[str]:
    """Check that the GPUs of a tuning can have equal shares of its batch."""
    asked = _gpus(raw, model)
    if asked > 1 and tuning.batch_size % (asked * (tuning.micro_batch_size or 1)):
        shares = f"{asked} GPUs" + (f" × micro_batch_size {tuning.micro_batch_size}" if tuning.micro_batch_size else "")
        yield f"resources.tune.gpu: {asked} is not allowed: models.{model}'s batch_size {tuning.batch_size} cannot be shared by {shares}"


def _shards(raw: Mapping[str, Any], model: str, row: str) -> Iterator[str]:
    """Check that a base that is to be sharded has GPUs to lie on, and a method that does not need it whole."""
    if _gpus(raw, model) < 2:
        yield f"tuning.shard: has no effect on models.{model}, which is tuned on one GPU: set its resources.tune.gpu, or remove it"
    if _methods(raw)[row].tuner.endswith("dora"):
        yield f"methods.{row}: is not possible with tuning.shard on models.{model}: DoRA takes norms of whole weights; give another method"


def _gpus(raw: Mapping[str, Any], model: str) -> int:
    """Return for how many GPUs a model's tunings ask by name; 0 where the experiment does not say, or says no number."""
    asked = {**_part(raw, "resources", "tune"), **_part(raw, "models", model, "resources", "tune")}.get("gpu")
    return asked if isinstance(asked, int) else 0


def _searches(raw: Mapping[str, Any]) -> Iterator[str]:
    """Check that all rows whose learning rate is searched have the same budget for it, or their comparison would favour one."""
    for model in _part(raw, "models"):
        budgets = {row: found for row, method in _methods(raw).items() if (found := _budget(raw, model, row, method))}
        for row, found in budgets.items():
            first, expected = next(iter(budgets.items()))
            if found != expected:
                yield f"methods.{row}.tuning: searches its learning rate among {found}, the row {first!r} among {expected}: must agree"


def _budget(raw: Mapping[str, Any], model: str, row: str, method: Method) -> str | None:
    """Return in words what a row may spend on its search; None where it has none, or settings that are refused already."""
    places: list[tuple[str, ...]] = [(), ("models", model), ("methods", row)]
    try:
        tuning = TuneJob.model_validate(merged_job([_part(raw, *place) for place in places])).tuning
    except ValidationError:
        return None
    if tuning.search is None or method.order == "tune-prune":
        return None
    steps = tuning.search.steps or tuning.max_steps
    length = f"{steps} steps" if steps else f"{tuning.epochs:g} epoch(s)"
    return f"{len(tuning.search.learning_rates)} rates, {length} each, by {tuning.search.dev_rows} rows"


def _milestone(job: TuneJob, row: str) -> Iterator[str]:
    if job.pat.closing == "at-once":
        return
    search, fraction = job.tuning.search, job.pat.milestone_fraction
    lengths = {"max_steps": job.tuning.max_steps, "search.steps": search.steps if search else None}
    for name, steps in lengths.items():
        if steps is None or round(steps * fraction) >= SHORTEST_MILESTONE:
            continue
        yield (
            f"methods.{row}: {name} {steps} with milestone_fraction {fraction:g} is not allowed: "
            f"must leave the mask at least {SHORTEST_MILESTONE} steps to close"
        )


def _blamed(kind: type[BaseModel], value: Mapping[str, Any], layers: Sequence[_Layer]) -> Iterator[str]:
    """Yield the problems of a merged value, each under the place in the file that wrote it last."""
    try:
        kind.model_validate(dict(value))
    except ValidationError as error:
        for problem in problems(kind, error):
            field, _, message = problem.partition(":")
            yield f"{_origin(tuple(field.split('.')), layers)}:{message}"


def _origin(field: tuple[str, ...], layers: Sequence[_Layer]) -> str:
    """Return where in the file a merged value's field was written; where it is missing, the first layer that could hold it."""
    holders = [layer for layer in layers if field[: len(layer.under)] == layer.under]
    writers = [layer for layer in holders if _writes(layer.written, field[len(layer.under) :])]
    if not holders:
        return ".".join(field)
    layer = (writers or holders[:1])[-1]
    return ".".join((*layer.place, *field[len(layer.under) :]))


def _writes(written: Mapping[str, Any], field: Sequence[str]) -> bool:
    part: Any = written
    for key in field:
        if not isinstance(part, Mapping) or key not in part:
            return False
        part = part[key]
    return True


def _widths(raw: Mapping[str, Any]) -> Iterator[str]:
    """Check the widths of models whose shape the file gives; other models' widths are checked when they are there."""
    usable = _usable_ratios(raw)
    for model in _part(raw, "models"):
        shape = _part(raw, "models", model, "pretrain")
        hidden, heads = shape.get("hidden_size"), shape.get("heads")
        if not (_is_count(hidden) and _is_count(heads) and hidden % heads == 0):
            continue
        aligns: dict[Any, str] = {}
        for row in (row for row, method in _methods(raw).items() if method.narrows):
            pat = {**_part(raw, "pat"), **_part(raw, "models", model, "pat"), **_part(raw, "methods", row, "pat")}
            align = pat.get("align", "auto")
            if align == "auto" or _is_count(align):
                aligns.setdefault(align, row)
            if _is_count(pat.get("hio_rank")) and pat["hio_rank"] > hidden:
                yield f"methods.{row}, models.{model}: pat.hio_rank {pat['hio_rank']} is not allowed: must be at most {hidden}"
        for align, row in aligns.items():
            yield from _width_problems(f"methods.{row}, models.{model}", hidden, heads, align, usable)


def _width_problems(where: str, hidden: int, heads: int, align: Any, ratios: Sequence[float]) -> Iterator[str]:
    by_width: dict[int, float] = {}
    for ratio in ratios:
        try:
            width = target_width(hidden, heads, ratio, align)
        except ValueError as error:
            yield f"{where}: ratio {ratio:g} is not allowed: {error}"
            return
        if width in by_width:
            pair = f"{by_width[width]:g} and {ratio:g}"
            yield f"{where}: the ratios {pair} both give width {width} of {hidden}: must differ; keep one, or lower pat.align"
        by_width[width] = ratio


def _depths(raw: Mapping[str, Any]) -> Iterator[str]:
    """Check the numbers of layers of models whose shape the file gives, where a row drops layers."""
    rows = [row for row, method in _methods(raw).items() if method.pruner == "shortgpt"]
    for model, (sizes, tied) in _shapes(raw).items() if rows else ():
        share = _share_of_a_layer(**sizes, tied=tied)
        yield from _depth_problems(f"methods.{rows[0]}, models.{model}", sizes["layers"], share, _usable_ratios(raw))


def _shapes(raw: Mapping[str, Any]) -> dict[str, tuple[dict[str, int], bool]]:
    """Return the sizes of the models whose shape the file gives in full, and whether embedding and head are one."""
    found = {}
    for model in _part(raw, "models"):
        shape = _part(raw, "models", model, "pretrain")
        written = {"kv_heads": shape.get("heads")} | {key: value for key, value in shape.items() if value is not None}
        sizes = {key: value for key in SHAPE_KEYS if _is_count(value := written.get(key))}
        if len(sizes) == len(SHAPE_KEYS) and sizes["hidden_size"] % sizes["heads"] == 0:
            found[model] = (sizes, bool(shape.get("tie_embeddings")))
    return found


def _share_of_a_layer(
    vocab_size: int, hidden_size: int, layers: int, heads: int, kv_heads: int, intermediate_size: int, *, tied: bool
) -> float:
    """Return which part of a Llama's parameters one layer has."""
    attention = 2 * hidden_size * hidden_size * (heads + kv_heads) // heads
    layer = attention + 3 * hidden_size * intermediate_size + 2 * hidden_size
    return layer / ((1 if tied else 2) * vocab_size * hidden_size + layers * layer + hidden_size)


def _depth_problems(where: str, layers: int, share: float, ratios: Sequence[float]) -> Iterator[str]:
    by_number: dict[int, float] = {}
    for ratio in ratios:
        try:
            dropped = layers_to_drop(layers, share, ratio)
        except ValueError as error:
            yield f"{where}: {error}"
            continue
        if dropped in by_number:
            yield f"{where}: the ratios {by_number[dropped]:g} and {ratio:g} both drop {dropped} of {layers} layers: must differ; keep one"
        by_number[dropped] = ratio


def _sizes(raw: Mapping[str, Any]) -> Iterator[str]:
    """Check the sizes that pruners of heads, neurons or blocks' widths come to, of models whose shape the file gives."""
    pruners = {row: method.pruner for row, method in _methods(raw).items() if method.pruner is not None}
    for row, pruner in pruners.items():
        for model, (sizes, tied) in _shapes(raw).items():
            places = [(), ("models", model), ("methods", row)]
            align, own = (_overlaid(raw, places, key) for key in ("pat", "prune"))
            try:
                settings = PruneSettings.model_validate(own)
            except ValidationError:
                continue
            step: int | Literal["auto"] = found if _is_count(found := align.get("align")) else "auto"
            kept_at = partial(kept_of_llama, pruner, sizes, own=settings, align=step, tied=tied)
            yield from _size_problems(f"methods.{row}, models.{model}", kept_at, _usable_ratios(raw))


def _overlaid(raw: Mapping[str, Any], places: Sequence[tuple[str, ...]], key: str) -> dict[str, Any]:
    """Return the block `key` of the first place with those of the later ones laid over it."""
    return {name: value for place in places for name, value in _part(raw, *place, key).items()}


def _size_problems(where: str, kept_at: Callable[..., Kept | int | None], ratios: Sequence[float]) -> Iterator[str]:
    by_size: dict[Kept | int, float] = {}
    for ratio in ratios:
        try:
            kept = kept_at(ratio=ratio)
        except ValueError as error:
            yield f"{where}: {error}"
            continue
        if kept in by_size:
            yield f"{where}: the ratios {by_size[kept]:g} and {ratio:g} both give the same sizes: must differ; keep one, or lower pat.align"
        if kept is not None:
            by_size[kept] = ratio


def _benchmark(raw: Mapping[str, Any]) -> Iterator[str]:
    block = _part(raw, "benchmark")
    if block:
        yield from benchmark_problems(block)


def _figures(raw: Mapping[str, Any]) -> Iterator[str]:
    """Check that there is data for every figure that the file names."""
    asked = raw.get("figures")
    masked = any(method.tuner in MASKED_TUNERS for method in _methods(raw).values())
    needs: dict[object, tuple[str, bool]] = {
        **dict.fromkeys(FIGURES_OF_TASKS, ("a task in data.tasks", bool(_part(raw, "data", "tasks")))),
        **dict.fromkeys(FIGURES_OF_MASKS, ("a method that trains a mask", masked)),
        "perplexity": ("a text in data.text", bool(_part(raw, "data", "text"))),
        "speedup": ("benchmark.inference", bool(_part(raw, "benchmark", "inference"))),
    }
    for name in asked if isinstance(asked, list) else ():
        need, there = needs.get(name, ("", True)) if isinstance(name, str) else ("", True)
        if not there:
            yield f"figures: {shown(name)} needs {need}, which the experiment does not have"


def _usable_ratios(raw: Mapping[str, Any]) -> list[float]:
    """Return the file's ratios that the schema takes."""
    ratios = raw.get("ratios")
    return [ratio for ratio in ratios if isinstance(ratio, float) and 0 < ratio < 1] if isinstance(ratios, list) else []


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
