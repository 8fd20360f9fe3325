"""Widths that real software accepts: from a pruning ratio to a hidden size (docs/method.md, "Widths"). No torch."""

from __future__ import annotations

import math
from typing import Any, Literal

from pat.errors import SettingError
from pat.families.known import family_of, head_size
from pat.models.bounds import just_above, just_below
from pat.settings.config import PatConfig

LARGEST_ALIGN = 64
STEPS_AT_LEAST = 16
"""A width must be choosable in at least this many steps, or small models could not be pruned at all."""


def width_step(hidden_size: int, heads: int, align: int | Literal["auto"]) -> int:
    """Return the number of channels a width must be a multiple of: lcm(heads, align).

    Stock configs refuse widths that the heads do not divide, and matrix kernels want multiples of 64. `"auto"` takes the largest
    power of two up to 64 that leaves at least 16 steps.
    """
    if align != "auto":
        return math.lcm(heads, align)
    candidate = LARGEST_ALIGN
    while candidate > 1 and math.lcm(heads, candidate) * STEPS_AT_LEAST > hidden_size:
        candidate //= 2
    return math.lcm(heads, candidate)


def target_width(hidden_size: int, heads: int, ratio: float, align: int | Literal["auto"] = "auto") -> int:
    """Return N_target: the multiple of `width_step` nearest to (1 − ratio)·hidden_size; the whole size at ratio 0.

    Raises SettingError where the ratio is outside [0, 1), the alignment leaves no smaller width, or the nearest one is all or nothing.
    """
    if not 0.0 <= ratio < 1.0:
        raise SettingError(f"pruning ratio {ratio!r}: must lie in [0, 1)")
    if ratio == 0.0:
        return hidden_size
    step = width_step(hidden_size, heads, align)
    largest = (hidden_size - 1) // step
    if largest < 1:
        raise no_width(hidden_size, step, align)
    wanted = round((1.0 - ratio) * hidden_size / step)
    if not 1 <= wanted <= largest:
        nearest = "all of it stays" if wanted else "nothing stays"
        low, high = (1.0 - step * (count + 0.5) / hidden_size for count in (largest, 0))
        raise SettingError(
            f"pruning ratio {ratio:g}: the nearest width to it in steps of {step} of hidden_size={hidden_size} is {step * wanted}: "
            f"{nearest}; ratios from {just_above(max(low, 0.0)):g} to {just_below(high):g} are possible, others with a lower align"
        )
    return step * wanted


def no_width(hidden_size: int, step: int, align: int | Literal["auto"]) -> SettingError:
    """Return the mistake of an alignment that leaves no smaller width."""
    return SettingError(f"align={align!r}: widths are multiples of {step}, and hidden_size={hidden_size} has none below it")


def planned_width(model_config: Any, config: PatConfig) -> int:
    """Return the number of channels that will survive: the config's own, else the ratio's after rounding (docs/method.md, "Widths").

    Raises SettingError where it cannot be.
    """
    if config.width is not None:
        return config.width
    return width_at(model_config, config.ratio, config.align)


def width_at(model_config: Any, ratio: float, align: int | Literal["auto"]) -> int:
    """Return the width that a ratio comes to in a model. Raises SettingError where there is none, or its stock class refuses it."""
    width = target_width(model_config.hidden_size, model_config.num_attention_heads, ratio, align)
    if width == model_config.hidden_size:
        return width
    from huggingface_hub.errors import StrictDataclassError  # it is there with the config's class, and slow to load alone

    try:
        merged_config(model_config, width)
    except (StrictDataclassError, ValueError) as error:
        said = " ".join(str(error).split())
        raise SettingError(
            f"pruning ratio {ratio:g}: transformers takes no {model_config.model_type} of hidden_size={width}, so that no width can be "
            f"pruned of this model: {said}"
        ) from None
    return width


def merged_config(model_config: Any, width: int) -> Any:
    """Return the config with the hidden size `width` and the head size written out, which must not follow it; as it is where it has to."""
    if family_of(model_config).heads_fill_width:
        return type(model_config).from_dict(model_config.to_dict() | {"hidden_size": width})
    return type(model_config).from_dict(model_config.to_dict() | {"hidden_size": width, "head_dim": head_size(model_config)})


def check_rounding(ratio: float, removed: float) -> None:
    """Raise SettingError where a ratio is so small that the least that can go, the share `removed`, is more than twice as much."""
    if removed > 2.0 * ratio:
        least = just_above(removed / 2.0, 4)
        raise SettingError(f"ratio {ratio:g}: the least that can go is {removed:.2%}, more than twice as much; ask for {least:.2%} or more")
