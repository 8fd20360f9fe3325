"""Writers refitted after a cut: each layer that writes to the stream compensates, in order, for units, layers and channels that went.

In turn, from the first block to the last, the write of the pruned model is changed so that from what it is really given there (errors of
earlier layers included) the stream comes as near as can be to the whole model's at the same place, in the channels that are left and at the
scale that a narrowed stream has (fold.py). Behind a layer after which others were dropped that place is in front of the next one that
stayed, so that it takes their part over. Shapes stay; only writes change.
Axes: N rows of text, T tokens, D channels of the pruned model.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pat.bases.text_gap import perplexity, said
from pat.bases.writer_fit import Sums, change_of_write, weights_of
from pat.bases.writer_text import check_streams_fit, held_batches, text_to_fit
from pat.checkpoints import checkpoint
from pat.checkpoints.fidelity import gap_between
from pat.checkpoints.merge import write_changed
from pat.data.calibration import Blocks, Calibration
from pat.errors import UserError
from pat.families.known import Family, family_of, residual_factor
from pat.io.progress import Progress, say
from pat.method.fold import stream_scale
from pat.models.held_stream import HeldStream
from pat.models.layer_walk import LayerWalk
from pat.models.submodules import linear_named
from pat.models.writer_streams import norms_inside

CUT_FOLDER = "cut"
WHOLE_FOLDER = "whole"
"""In the cut's folder, where a pruner that puts the model into another basis leaves the whole one for this; `prune` removes it."""


@dataclass(frozen=True)
class WriterFit:
    """The change of one write, (D, I) in fp32 on the CPU, and the share of the stream that is missed without and with it, held out."""

    write: str
    change_DI: Tensor
    error_plain: float
    error: float

    @property
    def helps(self) -> bool:
        """Whether the change makes the error on held-out text smaller."""
        return self.error < self.error_plain


def refit_after_cut(source: Path, folder: Path, record: Mapping[str, Any], calibration: Calibration) -> dict[str, Any]:
    """Write into `folder` the checkpoint in its subfolder `cut` with refitted writes, and take that folder away; return the record of it.

    `source` is the model before the cut, in whose place comes what lies in `cut/whole`, and `record` what the pruner said. The writes
    stay as they are (`applied`) where the fit does not make held-out text likelier. `errors` are, a write, the shares of the stream
    missed with plain and with refitted writes. Raises UserError where the text is too short to keep a part of it back, where the machine
    cannot hold its streams, and where the record does not tell the cut.
    """
    cut = folder / CUT_FOLDER
    whole_folder = cut / WHOLE_FOLDER if (cut / WHOLE_FOLDER).is_dir() else source
    base, pruned = (checkpoint.load_to_measure(path, calibration.device) for path in (whole_folder, cut))
    layers, kept = _surviving(base, record), record.get("kept")
    _check_told(base, pruned, layers, kept)
    ids_NT, rows = text_to_fit(pruned, calibration, source)
    check_streams_fit(base, pruned, ids_NT.numel())
    held = slice(len(ids_NT) - held_batches(len(ids_NT) // rows) * rows, len(ids_NT))
    check = Blocks(ids_NT[held], torch.ones_like(ids_NT[held]))
    whole, plain = (perplexity(said(model, check)) for model in (base, pruned))
    fits = list(fitted_writes(base, pruned, layers, ids_NT, rows, kept))
    refitted = perplexity(said(pruned, check))
    del base, pruned
    applied = refitted < plain
    changes = {f"{fit.write}.weight": fit.change_DI for fit in fits if fit.helps} if applied else {}
    found = {
        "applied": applied,
        "changed": len(changes),
        "tokens": ids_NT[: held.start].numel(),
        "errors": {fit.write: {"plain": fit.error_plain, "refitted": fit.error} for fit in fits},
        "text": {"tokens": check.ids_NT[:, 1:].numel(), "base": whole, "plain": plain, "refitted": refitted},
    }
    found |= _write(cut, folder, changes)
    shutil.rmtree(cut)
    say(_told(found))
    return found


def _told(found: Mapping[str, Any]) -> str:
    text = found["text"]
    figures = (
        f"perplexity on held-out text is {text['base']:.2f} whole, {text['plain']:.2f} cut, {text['refitted']:.2f} with refitted writers"
    )
    return f"prune: {found['changed']} writers refitted; {figures}" if found["applied"] else f"prune: writers stay plain; {figures}"


def fitted_writes(
    base: PreTrainedModel,
    pruned: PreTrainedModel,
    layers: Sequence[int],
    ids_NT: Tensor,
    rows: int,
    kept: Sequence[int] | None = None,
) -> Iterator[WriterFit]:
    """Yield the fit of every write that can be fitted, in the order of the computation; `pruned` has those that help when it has ended.

    A write before a norm cannot: what reaches the stream does not follow it linearly.
    `layers` says which layer of `base` each of `pruned` was, `kept` which channels it has, None for all. The last eighth of `ids_NT` is
    held out; `rows` are worked through at once.
    """
    with torch.no_grad():
        ahead, behind = LayerWalk(base, ids_NT, rows), LayerWalk(pruned, ids_NT, rows)
        family, factor = family_of(pruned.config), residual_factor(pruned.config)
        inside = {norm: HeldStream(base.device) for norm in norms_inside(family)}
        aim = _aim(base, kept)
        progress = Progress("refitting writers, layers", len(layers))
        for place, layer in enumerate(layers):
            while ahead.place < layer:
                ahead.advance()
            ahead.advance(inside)
            following = layers[place + 1] if place + 1 < len(layers) else len(ahead.layers)
            while ahead.place < following:
                ahead.advance()
            for index, target in _targets(family, inside, ahead.stream).items():
                yield _fit(behind, family, index, target, aim, factor)
            behind.advance()
            progress.update(place + 1)
        progress.finish()


def _aim(base: PreTrainedModel, kept: Sequence[int] | None) -> Callable[[Tensor], Tensor]:
    """Return what makes of the whole model's stream that of a narrowed one if nothing but its other channels were gone."""
    if kept is None:
        return lambda stream_BTD: stream_BTD
    index_K, scale = torch.tensor(kept, device=base.device), stream_scale(len(kept), base.config.hidden_size)
    return lambda stream_BTD: stream_BTD[..., index_K] * scale


def _targets(family: Family, inside: Mapping[str, HeldStream], behind: HeldStream) -> dict[int, HeldStream]:
    """Return what the whole model's stream is behind each block of a layer whose write can be fitted, by the block's place."""
    found = {place: inside[norm] for place, block in enumerate(family.blocks[1:]) if (norm := block.norm) is not None and norm in inside}
    return found | ({len(family.blocks) - 1: behind} if family.blocks[-1].writes_linearly else {})


def _fit(walk: LayerWalk, family: Family, index: int, target: HeldStream, aim: Callable[[Tensor], Tensor], factor: float) -> WriterFit:
    """Return the fit of one block's write in the layer before which `walk` stands, which has it where it helps.

    The text goes through the layer once a write, as far as the block, and once more to go on: what a block is given, and what comes
    behind it, is another with each write that has changed, and to keep what the write was given would take a third stream, and a wider one.
    """
    block = family.blocks[index]
    write = linear_named(walk.layers[walk.place], block.write)
    name = family.in_layer(walk.place, block.write)
    fitted, held_out = (Sums.none(write.in_features, write.out_features, walk.stream.device) for _ in range(2))
    median = torch.cat([aim(stream_BTD).float().norm(dim=-1).cpu() for stream_BTD in target]).median()
    held_from = len(target) - held_batches(len(target))
    following = None if index == len(family.blocks) - 1 else family.blocks[index + 1].norm
    for batch, behind_BTD, inputs in walk.run((block.write,), to=following):
        target_BTD = aim(target[batch])
        weight_BT = weights_of(target_BTD, median)
        there_ND = behind_BTD.view_as(target_BTD).flatten(0, 1)
        sums = fitted if batch < held_from else held_out
        sums.add(inputs[block.write].flatten(0, -2), target_BTD.flatten(0, 1), there_ND, weight_BT.flatten())
    change_DI = change_of_write(fitted)
    fit = WriterFit(name, (change_DI / factor).float().cpu(), held_out.error(), held_out.error(change_DI))
    if fit.helps:
        write.weight.data += (change_DI / factor).to(write.weight.dtype)
    return fit


def _surviving(base: PreTrainedModel, record: Mapping[str, Any]) -> list[int]:
    dropped = record.get("layers", {}).get("dropped", ())
    return [layer for layer in range(base.config.num_hidden_layers) if layer not in dropped]


def _check_told(base: PreTrainedModel, pruned: PreTrainedModel, layers: Sequence[int], kept: Sequence[int] | None) -> None:
    """Raise UserError where a record, that of a pruner of one's own, does not tell what the cut model has of the whole one."""
    told = (len(layers), base.config.hidden_size if kept is None else len(kept))
    found = (pruned.config.num_hidden_layers, pruned.config.hidden_size)
    if told != found:
        raise UserError(
            f"prune.writers: refitted: the cut model has {found[0]} layers and {found[1]} channels, by its pruner's record {told[0]} and "
            f"{told[1]}: the record has to say which channels are `kept`, and in `layers` which are `dropped`"
        )


def _write(cut: Path, folder: Path, changes: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write the checkpoint with the changes added to its tensors; return how far it is from the model it stands for."""

    def change(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        yield name, (tensor.float() + changes[name]).to(tensor.dtype) if name in changes else tensor

    written = write_changed(cut, folder, change, checkpoint.load_config(cut), "refit")

    def changed(dtype: torch.dtype) -> nn.Module:
        model = checkpoint.load_model(cut, dtype)
        for name, change_DI in changes.items():
            write = linear_named(model, name.removesuffix(".weight"))
            write.weight = nn.Parameter(write.weight.float() + change_DI, requires_grad=False)
        return model

    return gap_between(changed, written)
