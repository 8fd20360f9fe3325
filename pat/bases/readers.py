"""Readers that compensate for dead channels: what a norm would pass on of the whole stream, predicted from what it passes on of the kept.

A reader computes W·n. With dead channels at zero it gets n_kept (K) instead of n (D), from a norm that divides by the root mean square of
the kept part. Where B (D × K) minimises E‖n − B·n_kept‖², W·B is the reader that needs the kept channels alone: no parameter is added.
n is that of the model as it was. n_kept is taken from one of two streams, and which is better differs by model (refit.py tries both):

- the unpruned one, of which the dead channels are taken away before each norm. B then predicts these and nothing else;
- the pruned one, behind readers that are refitted already, so that later readers compensate for what is left of earlier errors. On small
  models that was better throughout. But each fit makes the calibration text's stream a little truer than that of any other text, and the
  next one trusts it: over thirty layers this ends in nonsense (docs/experiments.md).

The map of one norm is reader_fit.py's. On the CPU lie the unpruned stream of the text, the pruned one too where that is fitted to, and the
maps B; on the device the model, one batch and the moments of one norm.
Axes: B batch, T tokens, N tokens that count, D channels, K kept channels, O outputs of a reader.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pat.bases.reader_fit import RIDGE, RIDGES, Fit, Moments, fitted
from pat.checkpoints import checkpoint
from pat.checkpoints.merge import write_changed
from pat.checkpoints.unrounded import Written
from pat.families.known import Block, Family, Role, Site, family_of
from pat.io.progress import Progress
from pat.models.stream import Stream, enter, written_by

Seen = Literal["unpruned", "pruned"]
"""The streams that n_kept can be taken from."""
MASSIVE = 5.0
"""Times the median norm of the stream: tokens above it are read as before whatever is fitted to the others (reader_fit.py)."""
Fits = dict[str, Fit]
"""The fit of each site where the stream is read, by its name."""


@torch.no_grad()
def fit_to_unpruned(
    model: PreTrainedModel,
    batches: Iterable[Mapping[str, Tensor]],
    kept_D: Tensor,
    held_out: Iterable[Mapping[str, Tensor]] = (),
    ridges: Sequence[float] = RIDGES,
) -> dict[float, Fits]:
    """Return, for each ridge, the fit of each site to the unpruned stream, for one that has the channels `kept_D` (boolean) alone.

    The text is read once for all ridges, on which what is measured does not depend. On `held_out` the fits' errors are measured too.
    Sites have a name; the final norm has no fit where embedding and head are one matrix, which B would split: a second matrix of the
    vocabulary costs more than the pruning saves. The model stays as it is.
    """
    found: dict[float, Fits] = {ridge: {} for ridge in ridges}
    index_K = kept_D.nonzero().flatten().to(model.device)
    whole, fitted_to = _enter(model, batches, held_out)
    for step in _steps(model):
        sums = moments(_norm_of(model, step.site), whole, _without(whole, ~kept_D), index_K, fitted_to)
        for ridge, fits in found.items():
            fits[step.site.name] = fitted(*sums, index_K, ridge)
        _pass_through(step, model, whole)
    return found


@torch.no_grad()
def fit_to_pruned(
    model: PreTrainedModel,
    batches: Iterable[Mapping[str, Tensor]],
    kept_D: Tensor,
    held_out: Iterable[Mapping[str, Tensor]] = (),
    ridge: float = RIDGE,
) -> Fits:
    """As `fit_to_unpruned`, to the pruned stream and for one ridge. The readers of `model` are refitted on the way, but for its head.

    Each ridge has a pass of its own: behind the first fit the pruned streams of two ridges differ. One pass for both, or with the unpruned
    one's, would hold a third stream of the text, or a third fit.
    """
    fits: Fits = {}
    index_K = kept_D.nonzero().flatten().to(model.device)
    whole, fitted_to = _enter(model, batches, held_out)
    pruned = list(_without(whole, ~kept_D))
    for step in _steps(model):
        fits[step.site.name] = fitted(*moments(_norm_of(model, step.site), whole, pruned, index_K, fitted_to), index_K, ridge)
        if step.block is None:
            break  # its reader is the head, which stays
        _pass_through(step, model, whole)
        _refit_site(model, step.site, fits, index_K)
        _pass_through(step, model, pruned, kept_D)
    return fits


def _enter(
    model: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]], held_out: Iterable[Mapping[str, Tensor]]
) -> tuple[list[Stream], int]:
    """Return the streams of all batches before the first layer, and how many of them are those to fit to."""
    to_fit_to = enter(model, batches)
    return to_fit_to + enter(model, held_out), len(to_fit_to)


@dataclass(frozen=True)
class _Step:
    """A place where the stream is read, and the block behind it; none behind the last."""

    site: Site
    layer: int
    place: int
    block: Block | None


def _steps(model: PreTrainedModel) -> Iterator[_Step]:
    """Yield the sites that are fitted, in the order of the computation."""
    family, layers = family_of(model.config), model.config.num_hidden_layers
    progress = Progress("refitting readers, layers", layers)
    *inside, last = family.sites(layers)
    for number, site in enumerate(inside):
        layer, place = divmod(number, len(family.blocks))
        progress.update(layer)
        yield _Step(site, layer, place, family.blocks[place])
    if not model.config.tie_word_embeddings:
        yield _Step(last, layers, 0, None)


def _without(streams: Iterable[Stream], dead_D: Tensor) -> Iterator[Stream]:
    """Yield the streams with some channels at zero."""
    return (dataclasses.replace(stream, x_BTD=stream.x_BTD.masked_fill(dead_D, 0.0)) for stream in streams)


def _norm_of(model: PreTrainedModel, site: Site) -> nn.Module:
    return nn.Identity() if site.norm is None else model.get_submodule(site.norm)


def moments(
    norm: nn.Module, whole: Sequence[Stream], pruned: Iterable[Stream], index_K: Tensor, fitted_to: int
) -> tuple[Moments, Moments, Moments]:
    """Return the moments of what `norm` passes on of the whole stream and of the pruned one: of ordinary, massive and held-out tokens.

    The first `fitted_to` streams are those to fit to. Of the others the massive tokens count nowhere: the fit is exact on such anyway.
    """
    device, (channels, kept) = index_K.device, (whole[0].x_BTD.shape[-1], len(index_K))
    ordinary, massive, held_out = (Moments.none(channels, kept, device) for _ in range(3))
    sizes = [stream.real().float().norm(dim=-1) for stream in whole]
    limit = MASSIVE * torch.cat(sizes).median()
    for place, (full, narrow, size_N) in enumerate(zip(whole, pruned, sizes, strict=True)):
        n_ND, kept_NK = (norm(stream.real().to(device)).double() for stream in (full, narrow))
        kept_NK, huge_N = kept_NK[:, index_K], (size_N > limit).to(device)
        (ordinary if place < fitted_to else held_out).add(n_ND[~huge_N], kept_NK[~huge_N])
        if place < fitted_to:
            massive.add(n_ND[huge_N], kept_NK[huge_N])
    return ordinary, massive, held_out


def _pass_through(step: _Step, model: PreTrainedModel, streams: Sequence[Stream], written_D: Tensor | None = None) -> None:
    """Take the streams on through a step's block, which writes to all channels or to `written_D` alone."""
    if step.block is None:
        return
    family = family_of(model.config)
    layer = model.get_submodule(f"{family.layers}.{step.layer}")
    for stream in streams:
        x_BTD = stream.x_BTD.to(model.device)
        written_BTD = written_by(step.block, model, layer, x_BTD, stream.beside[step.layer][step.place])
        stream.take_up(written_BTD if written_D is None else written_BTD * written_D.to(x_BTD), parallel=family.parallel)
        if step.place == len(family.blocks) - 1:
            stream.end_layer()


@torch.no_grad()
def refit_in_place(model: PreTrainedModel, fits: Fits, kept_D: Tensor) -> None:
    """Give the model's readers their fits, but for its head, which can be the embedding too."""
    index_K = kept_D.nonzero().flatten().to(model.device)
    for site in family_of(model.config).sites(model.config.num_hidden_layers)[:-1]:
        _refit_site(model, site, fits, index_K)


def _refit_site(model: PreTrainedModel, site: Site, fits: Fits, index_K: Tensor) -> None:
    for weight in site.weights:
        weight_OD = model.get_parameter(weight)
        weight_OD.copy_(folded(weight_OD, fits[site.name].map_DK, index_K))


def folded(weight_OD: Tensor, map_DK: Tensor, index_K: Tensor) -> Tensor:
    """Return W·B in the kept columns and zero in the dead ones, formed in fp64, in the weight's dtype and device."""
    wide_OD = weight_OD.double()
    refitted_OD = torch.zeros_like(wide_OD)
    refitted_OD[..., index_K.to(wide_OD.device)] = wide_OD @ map_DK.to(wide_OD)
    return refitted_OD.to(weight_OD)


def refitted(family: Family, fits: Mapping[str, Fit], index_K: Tensor, name: str, tensor: Tensor) -> Tensor:
    """Return a tensor of the checkpoint, with B folded in where it is the weight of a reader whose norm has a fit."""
    module, _, parameter = name.rpartition(".")
    if family.role(name) not in (Role.READ, Role.HEAD) or parameter != "weight":
        return tensor
    fit = fits.get(family.site_of(module))
    return tensor if fit is None else folded(tensor, fit.map_DK, index_K)


def write_refitted(source: Path, folder: Path, fits: Mapping[str, Fit], kept_D: Tensor) -> Written:
    """Write `source` with its readers refitted into `folder`: a stock checkpoint of the same shape."""
    config = checkpoint.load_config(source)
    family, index_K = family_of(config), kept_D.nonzero().flatten()

    def change(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        yield name, refitted(family, fits, index_K, name, tensor)

    return write_changed(source, folder, change, config, "refit the readers")


def map_norms(model: PreTrainedModel, fits: Mapping[str, Fit], kept_D: Tensor) -> None:
    """Make each site of `model` pass on B·n_kept, in place: what refitted readers must compute, by another way."""
    for site in family_of(model.config).sites(model.config.num_hidden_layers):
        if (fit := fits.get(site.name)) is None:
            continue
        if site.norm is not None:
            model.get_submodule(site.norm).register_forward_hook(_mapping(fit.map_DK, kept_D))
            continue
        for reader in site.readers:
            model.get_submodule(reader).register_forward_pre_hook(_mapping_input(fit.map_DK, kept_D))


def _mapping(map_DK: Tensor, kept_D: Tensor) -> Any:
    def hook(_norm: nn.Module, _inputs: Any, output_BTD: Tensor) -> Tensor:
        return output_BTD[..., kept_D] @ map_DK.to(output_BTD).T

    return hook


def _mapping_input(map_DK: Tensor, kept_D: Tensor) -> Any:
    def hook(_reader: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][..., kept_D] @ map_DK.to(inputs[0]).T,)

    return hook
