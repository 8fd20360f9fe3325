"""The stream's channels scaled so that a model whose embedding is its head too can be rotated and stay tied.

Owns the scale, the choice of the channels that stay out of the rotation, and the error that this makes. The rotation is tied_rotation.py's.

Logits are E·(γ ⊙ x / rms(x)) with the final norm's gain γ, which does not commute with a rotation and cannot go into E alone. With the
channels scaled by a = sqrt(γ / c), embedding and writes alike, the gain that is left is γ / a² = c, a constant, which does. What is
not exact is the norms' denominator, rms(a ⊙ x) in place of rms(x): on the mean it is put right by a factor a norm; what is left differs
from token to token. Channels whose gain is far off, or below zero, would make it large. They keep scale and gain, and stay where they are.
Axes: B batch, T tokens, N tokens that count, D channels, S norms on the stream, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pat.errors import UserError
from pat.families.known import family_of, norm_eps
from pat.models.second_moment import visit_norm_inputs

OUTLIER = 0.5
"""Share of a token's energy in one channel. Such a channel is what attention sinks are made of, and stays out while there is room."""
LEAST_GAIN = 0.25
"""Of the median gain. A channel below it stays out whatever its energy: its scale would be near zero, or not real."""
MOST_APART = 1 / 8
"""Of all channels. More of them out would leave too little to rotate."""
NUMBERS_TRIED = 8
SMALL_ERROR = 2e-3
"""Root mean square over tokens of log(denominator / right one), the mean over norms. A larger one is seen in the perplexity."""


@dataclass(frozen=True)
class Scaling:
    """How the channels are scaled before a rotation.

    `squares_D` is a², `apart` are the channels that stay out of the rotation, by descending energy, `corrections` what each norm's output
    is to be multiplied by, `error` the denominators' relative error that is left (root mean square over tokens, mean over norms).
    `gain_D` is the final norm's gain that belongs to it, its correction included. All fp64.
    """

    squares_D: Tensor
    apart: Tensor
    corrections: Mapping[str, float]
    gain_D: Tensor
    error: float

    @property
    def rotated(self) -> Tensor:
        """The channels that are rotated, ascending."""
        free_D = torch.ones_like(self.squares_D, dtype=torch.bool)
        free_D[self.apart] = False
        return free_D.nonzero().flatten()

    def stored_in(self, dtype: torch.dtype, gain_offset: float) -> Scaling:
        """Return the scaling whose final gain is what `dtype` can hold: rounded alone, it would not fit the scale any more.

        For the rotated channels the scale changes by one factor. It is given to all channels, and the corrections take it out again.
        """
        gain_D = (self.gain_D - gain_offset).to(dtype).to(self.gain_D) + gain_offset
        common = float((self.gain_D / gain_D)[self.rotated[0]])
        gain_D = (self.gain_D / common - gain_offset).to(dtype).to(self.gain_D) + gain_offset
        squares_D = self.squares_D * (self.gain_D / gain_D) * common
        corrections = {norm: correction * common for norm, correction in self.corrections.items()}
        return Scaling(squares_D, self.apart, corrections, gain_D, self.error)


def most_apart(channels: int) -> int:
    """Return how many of so many channels can stay out of a rotation."""
    return int(MOST_APART * channels)


def tied_scaling(model: PreTrainedModel, batches: Callable[[], Iterable[dict[str, Tensor]]], least_apart: int = 0) -> Scaling:
    """Return the scaling with the fewest channels out of the rotation, at least `least_apart`, whose denominators are right enough.

    `batches` gives the text again each time: it is gone through twice. Raises UserError where more channels than a rotation can do
    without have gains near or below zero.
    """
    gains_D = _final_gain(model)
    energies = _energies(model, batches())
    order, unusable, outliers = _order(gains_D, energies)
    most = most_apart(len(gains_D))
    if unusable > most:
        raise UserError(
            f"{unusable} of {len(gains_D)} channels have a gain of the final norm near or below zero, more than the {most} that can stay "
            "out of a rotation: embedding and head cannot stay one matrix; take them apart with tie: break, or keep the native basis"
        )
    least = max(min(unusable + outliers, most), least_apart)
    step = max(1, most // NUMBERS_TRIED)
    counts = [least, *(count for count in range(step, most + 1, step) if count > least)]
    squares_DC = torch.stack([_squares(gains_D, energies.mean_SD.sum(0), order[:count]) for count in counts], 1)
    means_SC = energies.mean_SD @ squares_DC
    errors_C = _errors(model, batches(), squares_DC, means_SC)
    small = (errors_C <= SMALL_ERROR).nonzero().flatten()
    chosen = int(small[0]) if len(small) else len(counts) - 1
    apart = order[: counts[chosen]]
    by_energy = energies.mean_SD.sum(0)[apart].argsort(descending=True, stable=True)
    corrections = dict(zip(energies.norms, means_SC[:, chosen].sqrt().tolist(), strict=True))
    squares_D = squares_DC[:, chosen]
    gain_D = gains_D / squares_D * corrections[energies.norms[-1]]
    return Scaling(squares_D.cpu(), apart[by_energy].cpu(), corrections, gain_D.cpu(), float(errors_C[chosen]))


@dataclass(frozen=True)
class _Energies:
    """Of a token's energy at a norm the shares x_d² / ‖x‖² of the channels: mean over tokens, (S, D), mean square and largest, (D,)."""

    norms: tuple[str, ...]
    mean_SD: Tensor
    square_D: Tensor
    peak_D: Tensor


def _final_gain(model: PreTrainedModel) -> Tensor:
    family = family_of(model.config)
    return model.get_parameter(f"{family.final_norm}.weight").detach().double() + family.gain_offset


def _shares(x_ND: Tensor) -> Tensor:
    energy_ND = x_ND.double().square()
    shares_ND: Tensor = energy_ND / energy_ND.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return shares_ND


def _energies(model: PreTrainedModel, batches: Iterable[dict[str, Tensor]]) -> _Energies:
    norms = family_of(model.config).stream_norms(model.config.num_hidden_layers)
    place = {norm: index for index, norm in enumerate(norms)}
    sums_SD, squares_SD = (torch.zeros(len(norms), model.config.hidden_size, dtype=torch.float64, device=model.device) for _ in range(2))
    tokens = torch.zeros(len(norms), 1, dtype=torch.float64, device=model.device)
    peak_D = torch.zeros_like(sums_SD[0])

    def add(norm: str, x_ND: Tensor) -> None:
        shares_ND = _shares(x_ND)
        torch.maximum(peak_D, shares_ND.amax(0), out=peak_D)
        sums_SD[place[norm]] += shares_ND.sum(0)
        squares_SD[place[norm]] += shares_ND.square().sum(0)
        tokens[place[norm]] += len(x_ND)

    visit_norm_inputs(model, batches, add)
    return _Energies(norms, sums_SD / tokens, (squares_SD / tokens).mean(0), peak_D)


def _order(gains_D: Tensor, energies: _Energies) -> tuple[Tensor, int, int]:
    """Return the channels in the order in which they stay out: unusable gains, outliers, then by the error that rotating them would make.

    Beside it stand the numbers of the first two.
    """
    mean_D = energies.mean_SD.sum(0)
    usable_D = gains_D > LEAST_GAIN * gains_D.median()
    typical = (gains_D * mean_D)[usable_D].sum() / mean_D[usable_D].sum()
    harm_D = (gains_D / typical - 1).abs() * energies.square_D.sqrt()
    outlier_D = usable_D & (energies.peak_D > OUTLIER)
    first_D = 2 * (~usable_D).long() + outlier_D.long()
    order = harm_D.argsort(descending=True, stable=True)
    order = order[first_D[order].argsort(descending=True, stable=True)]
    return order, int((~usable_D).sum()), int(outlier_D.sum())


def _squares(gains_D: Tensor, mean_D: Tensor, apart: Tensor) -> Tensor:
    """Return a²: γ / c for rotated channels, c their gains' mean weighted by their energy, 1 for those apart."""
    weights_D = mean_D.clone()
    weights_D[apart] = 0
    squares_D = gains_D * weights_D.sum() / (gains_D * weights_D).sum()
    squares_D[apart] = 1
    return squares_D


def _errors(model: PreTrainedModel, batches: Iterable[dict[str, Tensor]], squares_DC: Tensor, means_SC: Tensor) -> Tensor:
    """Return each candidate's root mean square over tokens of log(denominator / right one), the mean over norms, (C,)."""
    norms = family_of(model.config).stream_norms(model.config.num_hidden_layers)
    place = {norm: index for index, norm in enumerate(norms)}
    sums_SC, tokens_S1 = torch.zeros_like(means_SC), torch.zeros_like(means_SC[:, :1])

    def add(norm: str, x_ND: Tensor) -> None:
        ratios_NC = _shares(x_ND) @ squares_DC / means_SC[place[norm]]
        sums_SC[place[norm]] += (0.5 * ratios_NC.log()).square().sum(0)
        tokens_S1[place[norm]] += len(x_ND)

    visit_norm_inputs(model, batches, add)
    errors_C: Tensor = (sums_SC / tokens_S1).sqrt().mean(0).cpu()
    return errors_C


def scale_denominators(model: PreTrainedModel, scaling: Scaling) -> None:
    """Make each norm on the stream of `model` divide as in the scaled stream, in place: what the rotated model must compute exactly."""
    for norm, correction in scaling.corrections.items():
        model.get_submodule(norm).register_forward_hook(_dividing(scaling.squares_D, correction, norm_eps(model.config)))


def _dividing(squares_D: Tensor, correction: float, eps: float) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def hook(_norm: nn.Module, inputs: tuple[Tensor, ...], output_BTD: Tensor) -> Tensor:
        energy_BTD = inputs[0].double().square()
        right, scaled = (mean.mean(-1, keepdim=True) + eps for mean in (energy_BTD, energy_BTD * squares_D.to(energy_BTD)))
        return output_BTD * (correction * (right / scaled).sqrt()).to(output_BTD)

    return hook
