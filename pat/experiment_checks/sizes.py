"""Sizes that the ratios lead to, of models whose shape the file gives; those of other models are checked when they are there."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from pydantic import ValidationError

from pat.experiment_checks.raw_file import is_count, methods_of, overlaid, part, places_of, usable_ratios
from pat.families import FAMILIES
from pat.on_paper import Align, PaperModel
from pat.pruners import PRUNERS, Pruner
from pat.settings import PruneSettings
from pat.width import target_width

SHAPE_KEYS = ("vocab_size", "hidden_size", "layers", "heads", "kv_heads", "intermediate_size")


def width_problems(raw: Mapping[str, Any]) -> Iterator[str]:
    """Check the widths of the rows that narrow the stream, and that their operators' ranks fit it."""
    usable = usable_ratios(raw)
    for model in part(raw, "models"):
        shape = part(raw, "models", model, "pretrain")
        hidden, heads = shape.get("hidden_size"), shape.get("heads")
        if not (is_count(hidden) and is_count(heads) and hidden % heads == 0):
            continue
        aligns: dict[Any, str] = {}
        for row in (row for row, method in methods_of(raw).items() if method.narrows):
            pat = overlaid(raw, places_of(model, row), "pat")
            align = pat.get("align", "auto")
            if align == "auto" or is_count(align):
                aligns.setdefault(align, row)
            if is_count(pat.get("hio_rank")) and pat["hio_rank"] > hidden:
                yield f"methods.{row}, models.{model}: pat.hio_rank {pat['hio_rank']} is not allowed: must be at most {hidden}"
        for align, row in aligns.items():
            yield from _widths_at(f"methods.{row}, models.{model}", hidden, heads, align, usable)


def _widths_at(where: str, hidden: int, heads: int, align: Any, ratios: Sequence[float]) -> Iterator[str]:
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


def size_problems(raw: Mapping[str, Any]) -> Iterator[str]:
    """Check the sizes that pruners come to which say on paper how they meet a ratio."""
    pruners = {row: PRUNERS[method.pruner] for row, method in methods_of(raw).items() if method.pruner is not None}
    for row, pruner in pruners.items():
        for model, shape in _shapes(raw).items() if pruner.size is not None else ():
            masked, own = (overlaid(raw, places_of(model, row), key) for key in ("pat", "prune"))
            try:
                settings = PruneSettings.model_validate(own)
            except ValidationError:
                continue
            align: Align = found if is_count(found := masked.get("align")) else "auto"
            size_at = partial(_size_at, pruner, shape, settings, align)
            same = partial(pruner.same.format, layers=shape.layers)
            yield from _sizes_at(f"methods.{row}, models.{model}", size_at, usable_ratios(raw, row), same)


def _size_at(pruner: Pruner, shape: PaperModel, settings: PruneSettings, align: Align, ratio: float) -> Hashable | None:
    assert pruner.size is not None
    return pruner.size(shape, ratio, settings, align)


def _sizes_at(where: str, size_at: Callable[[float], Any], ratios: Sequence[float], same: Callable[..., str]) -> Iterator[str]:
    """Check that every ratio leads to a size, and no two to the same; `same` says in words which, None is none."""
    by_size: dict[Any, float] = {}
    for ratio in ratios:
        try:
            size = size_at(ratio)
        except ValueError as error:
            yield f"{where}: {error}"
            continue
        if size in by_size:
            yield f"{where}: the ratios {by_size[size]:g} and {ratio:g} both {same(size=size)}"
        if size is not None:
            by_size[size] = ratio


def _shapes(raw: Mapping[str, Any]) -> dict[str, PaperModel]:
    """Return the models whose shape the file gives in full."""
    found = {}
    for model in part(raw, "models"):
        shape = part(raw, "models", model, "pretrain")
        written = {"kv_heads": shape.get("heads")} | {key: value for key, value in shape.items() if value is not None}
        sizes = {key: value for key in SHAPE_KEYS if is_count(value := written.get(key))}
        family = FAMILIES.get(str(written.get("family", "llama")))
        if family is not None and len(sizes) == len(SHAPE_KEYS) and sizes["hidden_size"] % sizes["heads"] == 0:
            found[model] = PaperModel(family, **sizes, tied=bool(shape.get("tie_embeddings")))
    return found
