"""From a pruning ratio to a number of decoder layers, alone or with neurons of the others. No torch."""

from __future__ import annotations

import math
from typing import Literal

from pat.errors import SettingError
from pat.models.bounds import just_above, just_below
from pat.models.sizes import step_of


def layers_to_drop(layers: int, share: float, ratio: float) -> int:
    """Return how many of `layers` layers, each `share` of all parameters, come nearest to `ratio`; the more where two are as near.

    Raises SettingError where that is none of them, or all.
    """
    dropped = math.floor(ratio / share + 0.5)
    if not 1 <= dropped < layers:
        least, most = just_above(share / 2), just_below(share * (layers - 0.5))
        raise SettingError(
            f"ratio {ratio:g}: the nearest number of layers to drop is {dropped} of {layers}, but at least one has to go and one to stay; "
            f"each is {share:.1%} of all parameters: ratios from {least:.1%} to {most:.1%} are possible"
        )
    return dropped


def neurons_beside(wanted: float, of_a_neuron: float, neurons: int, step: int) -> int | None:
    """Return how many of `neurons` a layer keeps, a multiple of `step`, so that `wanted` parameters go with the others.

    `of_a_neuron` parameters go with one neuron of every layer. The size is the multiple nearest to the wish. None where there is none
    between one step and all neurons, or where what is wanted is less than half a step's.
    """
    if wanted <= -of_a_neuron * step / 2:
        return None
    kept = math.floor((neurons - wanted / of_a_neuron) / step + 0.5) * step
    return min(kept, neurons) if kept > 0 else None


def neurons_by_layers(
    layers: int, parameters: int, of_a_layer: float, of_a_neuron: float, neurons: int, ratio: float, align: int | Literal["auto"]
) -> dict[int, int]:
    """Return how many neurons a layer keeps by how many layers go, for each number of layers with which `ratio` is met.

    A model has `parameters`, of which each of its `layers` has `of_a_layer` and one neuron of a layer `of_a_neuron`. Raises SettingError
    where the ratio is met by none, or the neurons are fewer than a step.
    """
    wanted, step = ratio * parameters, step_of(neurons, align)
    if step > neurons:
        raise SettingError(f"align={align!r}: a layer keeps neurons in steps of {step}, and has {neurons}; lower it")
    found = {
        dropped: kept
        for dropped in range(layers)
        if (kept := neurons_beside(wanted - dropped * of_a_layer, of_a_neuron * (layers - dropped), neurons, step)) is not None
    }
    if not found:
        most = ((layers - 1) * of_a_layer + of_a_neuron * (neurons - step / 2)) / parameters
        raise SettingError(
            f"ratio {ratio:g}: layers and neurons hold too little of the model for that; with one layer and {step} of its neurons left, "
            f"ratios up to {just_below(most):.1%} are possible"
        )
    return found
