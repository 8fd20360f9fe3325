"""From a pruning ratio to a number of decoder layers. No torch."""

from __future__ import annotations

import math

from pat.errors import SettingError


def layers_to_drop(layers: int, share: float, ratio: float) -> int:
    """Return how many of `layers` layers, each `share` of all parameters, come nearest to `ratio`; the more where two are as near.

    Raises SettingError where that is none of them, or all.
    """
    dropped = math.floor(ratio / share + 0.5)
    if not 1 <= dropped < layers:
        raise SettingError(
            f"ratio {ratio:g}: the nearest number of layers to drop is {dropped} of {layers}, but at least one has to go and one to stay; "
            f"each is {share:.1%} of all parameters: ratios from {share / 2:.1%} to {share * (layers - 0.5):.1%} are possible"
        )
    return dropped
