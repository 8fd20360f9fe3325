"""SliceGPT as published: a principal basis of the stream for every block, cut to its leading directions, shortcuts where two bases meet.

Bases are found block by block on the stream that the cuts so far leave, so that later ones compensate for earlier cuts. Heads and neurons
stay, and so do the last layer's output and the head; an embedding that is the head too stays whole, with a shortcut behind it.
Departures: sizes are solved for the share of all parameters that goes unless `nominal` is asked for; the last basis, of full width, is
the identity, which is as exact as any; nothing is centred, for RMS norms do not centre either. Axes: B batch, T tokens, D channels,
K kept directions, N tokens that count.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pat.bases.directions import Basis, principal
from pat.checkpoints import checkpoint
from pat.checkpoints.fidelity import gap_to_changed
from pat.checkpoints.merge import record_of, write_changed
from pat.checkpoints.unrounded import Written
from pat.data.calibration import Calibration, blocks_for
from pat.families.known import EMBEDDING_SHORTCUT, Family, Role, family_of, residual_factor
from pat.models.reshaped import ReshapedConfig
from pat.models.sizes import matched_width, nominal_width, slicing_of, step_of
from pat.models.stream import Stream, enter, written_by
from pat.pruners.job import PruneJob

logger = logging.getLogger(__name__)


def prune_block_by_block(job: PruneJob, folder: Path) -> dict[str, Any]:
    """Write the source with its stream cut to the leading directions of each block into `folder`, a reshaped model; return the record.

    `ratio_effective` in it is the share of all parameters removed, shortcuts counted; `captured` the kept share of the second moment
    before each block.
    """
    text, config = job.text(), checkpoint.load_config(job.source)
    width = width_for(job)
    model = checkpoint.load_to_measure(job.source, text.device)
    measured = block_bases(model, calibration_batches(job.source, text), width)
    del model
    captured = [basis.captured(width) for basis in measured]
    logger.info("the leading %d of %d directions hold %.4f of the stream at least", width, config.hidden_size, min(captured))
    bases = [*(basis.directions_DD[:, :width] for basis in measured), torch.eye(config.hidden_size, dtype=torch.float64)]
    written = write_sliced(job.source, folder, bases, text.device)
    gap = gap_to_changed(written, lambda model: project_stream(model, bases))
    record = record_of(job.source, folder, job.ratio, share_of="parameters") | gap
    return record | {"captured": captured}


def width_for(job: PruneJob) -> int:
    """Return d', how many directions are kept. Raises ValueError where the ratio cannot be reached."""
    config = checkpoint.load_config(job.source)
    family, hidden_size, step = family_of(config), config.hidden_size, step_of(config.hidden_size, job.align)
    if job.settings.size == "nominal":
        return nominal_width(hidden_size, job.ratio, step)
    tied = bool(config.tie_word_embeddings)
    parameters = checkpoint.parameter_counts(job.source, config)["unique"]
    slicing = slicing_of(checkpoint.tensor_shapes(job.source), family, config.num_hidden_layers, hidden_size, tied=tied)
    return matched_width(parameters, slicing, hidden_size, job.ratio, step)


def calibration_batches(source: Path, calibration: Calibration) -> Iterator[dict[str, Tensor]]:
    """Yield a model's arguments: 128 sequences of 2048 tokens as in the paper, less where the model or the text is smaller."""
    return blocks_for(checkpoint.load_config(source), calibration, checkpoint.load_tokenizer(source)).batches()


@torch.no_grad()
def block_bases(model: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]], width: int) -> list[Basis]:
    """Return the principal bases of the stream before each block, each measured behind the earlier ones' cuts to `width`.

    One layer's activations of one batch are on the device at a time, the stream of all batches is on the CPU.
    """
    streams = enter(model, batches)
    bases: list[Basis] = []
    family = family_of(model.config)
    layers: Any = model.get_submodule(family.layers)
    for index, layer in enumerate(layers):
        for place, block in enumerate(family.blocks):
            bases.append(stream_basis(streams, model.device))
            kept_DK = bases[-1].directions_DD[:, :width].to(model.device)
            for stream in streams:
                x_BTD = projected(stream.x_BTD.to(model.device), kept_DK)
                stream.x_BTD = (x_BTD + written_by(block, model, layer, x_BTD, stream.beside[index][place])).cpu()
            bases[-1] = Basis(bases[-1].directions_DD.cpu(), bases[-1].importance_D.cpu())
    return bases


def stream_basis(streams: Sequence[Stream], device: torch.device) -> Basis:
    """Return the principal directions of the stream as it is: eigenvectors of Σ x xᵀ over real tokens, in fp64, not centred."""
    size = streams[0].x_BTD.shape[-1]
    moment_DD = torch.zeros(size, size, dtype=torch.float64, device=device)
    for stream in streams:
        wide_ND = stream.real().to(device).double()
        moment_DD.addmm_(wide_ND.T, wide_ND)
    return principal(moment_DD)


def projected(x_BTD: Tensor, kept_DK: Tensor) -> Tensor:
    """Return the part of the stream in the kept directions, x Q Qᵀ, in the basis it came in; products one precision up."""
    wide = torch.promote_types(x_BTD.dtype, torch.float32)
    kept_DK = kept_DK.to(wide)
    return (x_BTD.to(wide) @ kept_DK @ kept_DK.T).to(x_BTD.dtype)


class BlockRotation:
    """Maps each tensor of a checkpoint to the sliced model's, in fp64 on `device`, cast and brought back at the end.

    `bases` (fp64) hold a kept direction in each column: before each block, in the order of the computation, and behind the last one.
    `gains_D` are the norms' effective gains by the norm's name; they go into the readers, and the norms have none. Where embedding and
    head are one matrix it stays as it is, with the final norm; the last of the bases has to be the identity then.
    """

    def __init__(self, family: Family, bases: Sequence[Tensor], gains_D: Mapping[str, Tensor], *, tied: bool, device: str) -> None:
        self.family = family
        self.tied = tied
        self.device = device
        self.gains_D = gains_D
        blocks = len(family.blocks)
        layers = len(bases) // blocks
        self.read_in = dict(zip(family.stream_norms(layers), bases, strict=True))
        self.written_in = dict(zip(family.writes(layers), bases, strict=True))
        self.bases_of_shortcut = {
            family.in_layer(layer, block.shortcut): (bases[blocks * layer + place], bases[blocks * layer + place + 1])
            for layer in range(layers)
            for place, block in enumerate(family.blocks)
        }

    def __call__(self, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the sliced tensor, none for a norm whose gain has gone elsewhere, and shortcuts with the write before them."""
        role = self.family.role(name)
        if self.tied and role in (Role.EMBEDDING, Role.FINAL_NORM):
            yield name, tensor
            if role is Role.EMBEDDING:
                first = f"{self.family.in_layer(0, EMBEDDING_SHORTCUT)}.weight"
                yield first, self.written_in[self.family.embedding].T.to(tensor).contiguous()
            return
        if role in (Role.NORM, Role.FINAL_NORM):
            return
        yield name, self._sliced(role, name, tensor)
        module, _, parameter = name.rpartition(".")
        if parameter == "weight" and (place := self.family.place(module)) and place[1] == self.family.blocks[-1].write:
            for block in self.family.blocks:
                shortcut = self.family.in_layer(place[0], block.shortcut)
                before_DK, behind_DK = self.bases_of_shortcut[shortcut]
                yield f"{shortcut}.weight", (behind_DK.to(self.device).T @ before_DK.to(self.device)).to(tensor).contiguous()

    def _sliced(self, role: Role, name: str, tensor: Tensor) -> Tensor:
        module, _, _ = name.rpartition(".")
        wide = tensor.to(self.device, torch.float64)
        match role:
            case Role.EMBEDDING:
                wide = wide @ self.written_in[module].to(self.device)
            case Role.WRITE:
                wide = self.written_in[module].to(self.device).T @ wide
            case Role.READ | Role.HEAD if wide.dim() == 2:
                norm = self.family.site_of(module)
                wide = (wide * self.gains_D[norm].to(self.device)) @ self.read_in[norm].to(self.device)
        return wide.to(tensor).contiguous()


def write_sliced(source: Path, folder: Path, bases: Sequence[Tensor], device: str = "cpu") -> Written:
    """Write `source` in these 2L + 1 bases into `folder`, a reshaped model whose stream has their widths.

    One tensor at a time is on `device`: on a CPU the products of a model of billions of parameters take many minutes.
    """
    config = checkpoint.load_config(source)
    family, layers = family_of(config), config.num_hidden_layers
    rotation = BlockRotation(family, bases, checkpoint.norm_gains(source, family), tied=bool(config.tie_word_embeddings), device=device)
    widths = [basis.shape[1] for basis in bases]
    groups, neurons = [config.num_key_value_heads] * layers, [config.intermediate_size] * layers
    return write_changed(source, folder, rotation, ReshapedConfig.of(config, groups, neurons, widths), "prune")


def project_stream(model: Any, bases: Sequence[Tensor]) -> None:
    """Take the dropped directions out of the stream of a stock model before each block; all its sizes stay."""
    family = family_of(model.config)
    count = len(family.blocks)
    for index, layer in enumerate(model.get_submodule(family.layers)):
        _project_layer(layer, [block.module for block in family.blocks], bases[count * index : count * (index + 1)], model)


def _project_layer(layer: Any, modules: Sequence[str], bases: Sequence[Tensor], model: Any) -> None:
    """Project the stream before a layer's blocks. The layer adds what a block writes, times a factor, to what the block before left."""
    stream: list[Tensor] = []
    factor = residual_factor(model.config)

    def on_entry(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        stream[:] = [projected(inputs[0], bases[0])]
        return (stream[0], *inputs[1:])

    def behind(next_DK: Tensor) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            written = output[0] if isinstance(output, tuple) else output
            after = projected(stream[0] + factor * written, next_DK)
            changed, stream[0] = (after - stream[0]) / factor, after
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return hook

    layer.register_forward_pre_hook(on_entry)
    for module, next_DK in zip(modules, bases[1:], strict=False):
        layer.get_submodule(module).register_forward_hook(behind(next_DK))
