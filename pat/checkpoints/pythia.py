"""Pythia in Phi's class, whose heads need not fill the hidden size, so that channels of it can go.

Both read a layer's stream once for attention and feed-forward block. Pythia does so through two norms, Phi through one: what the norms
multiply by and add goes into the layers behind them, W·(γ ⊙ n + β) + b = (W·diag(γ))·n + (W·β + b), and the one norm is left plain.
Axes: D channels, O outputs, H heads, S a head's size.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PhiConfig

from pat.checkpoints import checkpoint
from pat.checkpoints.base_checks import check_model
from pat.checkpoints.fidelity import LARGEST_FOLD_GAP, LARGEST_KL, mean_kl
from pat.checkpoints.lineage import lineage_of, write_lineage
from pat.checkpoints.merge import check_fits
from pat.checkpoints.probe_text import probe_for
from pat.checkpoints.rope_fields import write_both_ways
from pat.errors import UserError
from pat.families.known import GPT_NEOX, PHI, Block, family_of
from pat.io.artefacts import check_if_listed, new_folder, write_json
from pat.io.marks import FOLDERS
from pat.io.progress import say
from pat.models.submodules import linear_named
from pat.models.wide_arithmetic import wide_logits

RECORD_NAME = "conversion.json"
logger = logging.getLogger(__name__)
SAME_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "hidden_act",
    "layer_norm_eps", "attention_dropout", "initializer_range", "tie_word_embeddings", "rope_parameters", "bos_token_id", "eos_token_id",
    "pad_token_id", "dtype",
)  # fmt: skip


def import_as_phi(source: Path, out: Path, *, force: bool = False) -> dict[str, Any]:
    """Write a Pythia to `out` as a stock Phi in the same dtype, and return how far its predictions are from the source's.

    Raises UserError where the source is no Pythia or cannot be used, RuntimeError where what was written computes something else.
    """
    check_model(source)
    check_if_listed(source)
    config = checkpoint.load_config(source)
    if family_of(config) != GPT_NEOX:
        raise UserError(f"{source}: its architecture is {config.model_type}; --as phi takes a Pythia ({GPT_NEOX.model_type}), leave it out")
    checkpoint.check_finite(source)
    with new_folder(out, FOLDERS["import-model"], force=force) as folder:
        model: Any = checkpoint.load_model(source)
        checkpoint.write_shards(folder, _that_fit(converted(model), source), checkpoint.weights_size(source))
        phi_config(config).save_pretrained(folder)
        write_both_ways(folder)
        checkpoint.copy_companions(source, folder)
        record = _check(source, folder)
        write_json(folder / RECORD_NAME, record)
        write_lineage(folder, lineage_of(source))
        checkpoint.note_import(folder, {"path": str(source), "as": "phi"}, {"model": source})
    say(f"{out}: a Phi; its predictions on text differ from the Pythia's by {record['kl_on_text']:.1e} nats per token")
    return record


def _that_fit(tensors: Iterable[tuple[str, Tensor]], source: Path) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in tensors:
        check_fits(name, tensor, source)
        yield name, tensor


def phi_config(config: Any) -> PhiConfig:
    """Return the config of the Phi that a Pythia becomes."""
    fields = {name: getattr(config, name) for name in SAME_FIELDS}
    dropout = getattr(config, "hidden_dropout", 0.0)
    return PhiConfig(**fields, resid_pdrop=dropout, embd_pdrop=dropout, architectures=["PhiForCausalLM"])


@torch.no_grad()
def converted(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a Pythia in memory as those of a Phi, in its dtype; products are formed in fp64."""
    yield f"{PHI.embedding}.weight", model.get_parameter(f"{GPT_NEOX.embedding}.weight").detach()
    for place in range(model.config.num_hidden_layers):
        layer = model.get_submodule(f"{GPT_NEOX.layers}.{place}")
        for name, tensor in _layer(layer, model.config.num_attention_heads):
            yield PHI.in_layer(place, name), tensor.contiguous()
    for parameter in ("weight", "bias"):
        yield f"{PHI.final_norm}.{parameter}", model.get_parameter(f"{GPT_NEOX.final_norm}.{parameter}").detach()
    head = model.get_parameter(f"{GPT_NEOX.head}.weight").detach()
    if not model.config.tie_word_embeddings:
        yield f"{PHI.head}.weight", head
    yield f"{PHI.head}.bias", head.new_zeros(len(head))


def _layer(layer: nn.Module, heads: int) -> Iterator[tuple[str, Tensor]]:
    """Yield a layer's tensors by their names in a Phi's layer."""
    (attention, feed_forward), (phi_attention, phi_feed_forward) = GPT_NEOX.blocks, PHI.blocks
    [fused], [up], [phi_up] = attention.reader_names, feed_forward.reader_names, phi_feed_forward.reader_names
    weight_OD, bias_O = _behind(_norm(layer, attention), linear_named(layer, fused))
    yield f"{phi_attention.norm}.weight", weight_OD.new_ones(weight_OD.shape[1])
    yield f"{phi_attention.norm}.bias", weight_OD.new_zeros(weight_OD.shape[1])
    by_head_H3SD, bias_H3S = (each.unflatten(0, (heads, 3, -1)) for each in (weight_OD, bias_O))  # a head's three parts lie together
    for part, name in enumerate(phi_attention.reader_names):
        yield f"{name}.weight", by_head_H3SD[:, part].flatten(0, 1)
        yield f"{name}.bias", bias_H3S[:, part].flatten()
    weight_OD, bias_O = _behind(_norm(layer, feed_forward), linear_named(layer, up))
    yield f"{phi_up}.weight", weight_OD
    yield f"{phi_up}.bias", bias_O
    for block, phi_block in zip(GPT_NEOX.blocks, PHI.blocks, strict=True):
        write = linear_named(layer, block.write)
        yield f"{phi_block.write}.weight", write.weight.detach()
        yield f"{phi_block.write}.bias", write.weight.new_zeros(write.out_features) if write.bias is None else write.bias.detach()


def _norm(layer: nn.Module, block: Block) -> nn.LayerNorm:
    found = layer.get_submodule(block.norm or "")
    assert isinstance(found, nn.LayerNorm)
    return found


def _behind(norm: nn.LayerNorm, reader: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a reader that has taken the gains and biases of its norm into itself."""
    weight_OD = reader.weight.double()
    bias_O = weight_OD @ norm.bias.double() + (0.0 if reader.bias is None else reader.bias.double())
    return (weight_OD * norm.weight.double()).to(reader.weight), bias_O.to(reader.weight)


def _check(source: Path, folder: Path) -> dict[str, Any]:
    probe = probe_for(source)
    expected_BTV, found_BTV = (wide_logits(checkpoint.load_model(each), probe.ids_BT) for each in (source, folder))
    gap, kl = _gap(expected_BTV, found_BTV), mean_kl(expected_BTV, found_BTV)
    wide = checkpoint.dtype_of(source) in (torch.float32, torch.float64)
    rounding = not wide and LARGEST_KL < kl < math.inf and _gap_before_rounding(source, probe.ids_BT, expected_BTV) <= LARGEST_FOLD_GAP
    if rounding:
        logger.warning("%s: rounding changes predictions on text by %.2g nats per token; fp32 weights would keep them", source, kl)
    elif not kl <= LARGEST_KL or (wide and not gap <= LARGEST_FOLD_GAP):
        raise RuntimeError(f"{folder}: differs from {source} by {kl:.2g} nats per token, its logits by {gap:.2g}: the checkpoint is wrong")
    return {"kl_on_text": kl, "kl_probe": probe.kind, "fold_gap": gap}


def _gap_before_rounding(source: Path, ids_BT: Tensor, expected_BTV: Tensor) -> float:
    """Return how far the logits of the Phi in fp32 are from a Pythia's, of their size."""
    model: Any = checkpoint.load_model(source, torch.float32)
    phi: Any = AutoModelForCausalLM.from_config(phi_config(model.config), dtype=torch.float32)
    phi.load_state_dict(dict(converted(model)), strict=not model.config.tie_word_embeddings)
    phi.tie_weights()
    return _gap(expected_BTV, wide_logits(phi.eval(), ids_BT))


def _gap(expected_BTV: Tensor, found_BTV: Tensor) -> float:
    """Return the largest difference of a logit, of the largest logit."""
    return (expected_BTV - found_BTV).abs().max().item() / expected_BTV.abs().max().item()
