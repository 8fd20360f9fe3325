"""Compaction: once the mask is 0/1, training goes on with a residual stream of the living channels alone, at about a narrow model's cost.

Cuts the frozen tensors of a PatModel in place; what is trained stays whole (compact_layers.py), so the run's course is the masked
model's to rounding. Axes: D all channels, K living ones.

The norms stay exact. With dead channels at zero, x / sqrt(mean_D x² + eps) = sqrt(D/K) · x / sqrt(mean_K x² + eps·D/K): a stock norm
with that eps and gains times sqrt(D/K). So the stream itself is not scaled, as the merge does, and no frozen weight is rounded again.
Norms that followed the gate, to subtract the mean of the living channels alone, do so by themselves now.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from pat.errors import UserError
from pat.families.known import Family, family_of, norm_eps
from pat.io.progress import say
from pat.method.compact_layers import CompactReader, CompactWriter, keep_inputs
from pat.method.hsm import DenseOperator, HybridSparsificationModule, IdentityOperator
from pat.method.sparsifier import Sparsifier
from pat.models import compiled
from pat.models.width import planned_width
from pat.settings.config import PatConfig

if TYPE_CHECKING:
    from pat.training.request import TuningRequest

PAYS_FROM_WIDTH = 1024
"""Without compiling: compacted, a step takes 1.4 times as long at 576, 0.77 times at 4096 (docs/performance.md); between lies a guess."""


def obstacle(config: PatConfig, hidden_size: int, width: int) -> str | None:
    """Return why a model cannot be compacted, None where it can."""
    if width == hidden_size:
        return "nothing is pruned"
    if config.variant == "release" and not config.fixed_mask:
        return "the released code's mask stays soft to the last step"
    if config.use_dora:
        return "DoRA's row norms run over the columns of dead channels too"
    return None


def compacts(request: TuningRequest) -> bool:
    """Return whether a tuning compacts its model once the mask is closed, and say why where it was not forbidden and does not.

    Raises UserError where it is asked for and cannot be.
    """
    choice, reason = request.tuning.compact, reason_not_to(request)
    if choice is False or not request.masked:
        return False
    if choice is True and request.ratio and (impossible := _obstacle_to(request)):
        raise UserError(f"tuning.compact: true is not possible: {impossible}; leave it at auto")
    if reason:
        say(f"tune: the model is not compacted: {reason}")
    return reason is None


def reason_not_to(request: TuningRequest) -> str | None:
    """Return why a tuning does not compact its model, None where it does."""
    if request.tuning.compact is False:
        return "tuning.compact is false"
    if not request.masked:
        return "nothing is pruned"
    if impossible := _obstacle_to(request):
        return impossible
    if request.sharded:
        return "the base is in shards"
    return _no_gain(request) if request.tuning.compact == "auto" else None


def _no_gain(request: TuningRequest) -> str | None:
    if request.device == "cpu":
        return "on a CPU it gains little"
    if request.model_config.hidden_size < PAYS_FROM_WIDTH and compiled.reason_not_to(request) is not None:
        return "a step of so narrow a model is held up by launching its kernels, and compacted it has more of them"
    return None


def _obstacle_to(request: TuningRequest) -> str | None:
    config = request.pat_config
    return family_of(request.model_config).compaction_obstacle or obstacle(
        config, request.model_config.hidden_size, planned_width(request.model_config, config)
    )


@torch.no_grad()
def compact(base: PreTrainedModel, family: Family, sparsifier: Sparsifier, embedding_hook: RemovableHandle) -> None:
    """Cut the model below a PatModel to the channels of its closed mask, in place: readers, norms, head, embedding and writers.

    `embedding_hook` is the one by which the embedding's HSM acts; it is removed where the cut embedding has done its work.
    """
    config: Any = base.config
    index_K = sparsifier.mask.kept.nonzero().flatten()
    layers: int = config.num_hidden_layers
    for name in (*family.stream_norms(layers), *family.norms_behind(layers)):
        base.set_submodule(name, narrower_norm(base.get_submodule(name), index_K, family.gain_offset, norm_eps(config)))
    for site in family.sites(layers)[:-1]:
        for name in site.readers:
            base.set_submodule(name, CompactReader(lora_layer(base, name), index_K))
    for write, hsm in sparsifier.by_write().items():
        if write == family.embedding:
            _compact_ends(base, family, hsm, index_K, embedding_hook)
        elif isinstance(hsm.operator, DenseOperator):
            _select_after(base.get_submodule(write), index_K)
        else:
            base.set_submodule(write, CompactWriter(lora_layer(base, write), hsm, index_K))


def narrower_norm(norm: nn.Module, index_K: Tensor, gain_offset: float, eps: float) -> nn.Module:
    """Return a stock norm over the living channels that gives what `norm` gives where the others are zero, and sum to nothing if it
    subtracts the mean (models/living_norms.py).
    """
    gain_D = norm.get_parameter("weight")
    ratio = gain_D.numel() / index_K.numel()
    narrower: nn.Module = type(norm)(index_K.numel(), eps=eps * ratio)
    gain_K = math.sqrt(ratio) * (gain_D.detach().index_select(0, index_K).double() + gain_offset) - gain_offset
    narrower.register_parameter("weight", nn.Parameter(gain_K.to(gain_D), requires_grad=False))
    if getattr(norm, "bias", None) is not None:
        narrower.register_parameter("bias", nn.Parameter(norm.get_parameter("bias").detach().index_select(0, index_K), requires_grad=False))
    return narrower.train(norm.training)


def lora_layer(base: PreTrainedModel, name: str) -> LoraLayer:
    """Return PEFT's layer of a linear layer."""
    layer = base.get_submodule(name)
    assert isinstance(layer, LoraLayer)
    return layer


def _compact_ends(base: PreTrainedModel, family: Family, hsm: HybridSparsificationModule, index_K: Tensor, hook: RemovableHandle) -> None:
    """Cut embedding and head; an embedding with an operator of its own stays whole, and its output is cut."""
    embedding, head = base.get_submodule(family.embedding), base.get_submodule(family.head)
    assert isinstance(embedding, nn.Embedding) and isinstance(head, nn.Linear)
    tied = head.weight is embedding.weight
    keep_inputs(head, index_K)
    if not isinstance(hsm.operator, IdentityOperator) or hsm.output_scale is not None:
        _select_after(embedding, index_K)
        return
    hook.remove()
    embedding.weight = head.weight if tied else nn.Parameter(embedding.weight.index_select(1, index_K), requires_grad=False)
    embedding.embedding_dim = index_K.numel()


def _select_after(write: nn.Module, index_K: Tensor) -> None:
    """Let a write that stays whole pass on its living channels alone; runs after its HSM, where the others are zero."""
    write.register_forward_hook(partial(_select, index_K))


def _select(index_K: Tensor, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return output.index_select(-1, index_K)
