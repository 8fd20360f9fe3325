"""Pythia in Phi's class, whose heads need not fill the hidden size, so that channels of it can go.

Both read a layer's stream once for attention and feed-forward block. Pythia does so through two norms, Phi through one: what the norms
multiply by and add goes into the layers behind them, W·(γ ⊙ n + β) + b = (W·diag(γ))·n + (W·β + b), and the one norm is left plain.
Axes: D channels, O outputs, H heads, S a head's size.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PhiConfig

from pat.checkpoints import checkpoint
from pat.checkpoints.base_checks import check_model
from pat.checkpoints.dtypes import dtype_named
from pat.checkpoints.fidelity import gap_between
from pat.checkpoints.lineage import lineage_of, write_lineage
from pat.checkpoints.merge import write_changed
from pat.checkpoints.stored import stored_tensors
from pat.errors import UserError
from pat.families.known import GPT_NEOX, PHI, Block, Role, family_of
from pat.io.artefacts import check_if_listed, new_folder, write_json
from pat.io.marks import FOLDERS
from pat.io.progress import say

RECORD_NAME = "conversion.json"
SAME_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "hidden_act",
    "layer_norm_eps", "attention_dropout", "initializer_range", "tie_word_embeddings", "rope_parameters", "bos_token_id", "eos_token_id",
    "pad_token_id", "dtype",
)  # fmt: skip
ATTENTION, FEED_FORWARD = GPT_NEOX.blocks
PHI_ATTENTION, PHI_FEED_FORWARD = PHI.blocks
OUTSIDE = {GPT_NEOX.embedding: PHI.embedding, GPT_NEOX.final_norm: PHI.final_norm, GPT_NEOX.head: PHI.head}
"""What stands around the layers."""
WRITES = {ATTENTION.write: PHI_ATTENTION.write, FEED_FORWARD.write: PHI_FEED_FORWARD.write}


def import_as_phi(source: Path, out: Path, dtype: str | None = None, *, force: bool = False) -> dict[str, Any]:
    """Write a Pythia to `out` as a stock Phi, and return how far its predictions are from the source's.

    Its weights become `dtype`; None keeps theirs. Raises UserError where the source is no Pythia or cannot be used, RuntimeError where what
    was written computes something else.
    """
    weights_dtype = None if dtype is None else dtype_named(dtype)
    check_model(source)
    check_if_listed(source)
    config = checkpoint.load_config(source)
    if family_of(config) != GPT_NEOX:
        raise UserError(f"{source}: its architecture is {config.model_type}; --as phi takes a Pythia ({GPT_NEOX.model_type}), leave it out")
    checkpoint.check_opens(source)
    phi_config = _phi_config(config)
    if weights_dtype is not None:
        phi_config.dtype = weights_dtype
    with new_folder(out, FOLDERS["import-model"], force=force) as folder:
        written = write_changed(source, folder, AsPhi(source, config), phi_config, "import", dtype=weights_dtype)
        record = gap_between(lambda loaded: checkpoint.load_model(source, loaded), written)
        write_json(folder / RECORD_NAME, record)
        write_lineage(folder, lineage_of(source))
        checkpoint.note_import(folder, {"path": str(source), "as": "phi", "dtype": dtype}, {"model": source})
    say(f"{out}: a Phi; its predictions on text differ from the Pythia's by {record['kl_on_text']:.1e} nats per token")
    return record


def _phi_config(config: Any) -> PhiConfig:
    """Return the config of the Phi that a Pythia becomes."""
    fields = {name: getattr(config, name) for name in SAME_FIELDS}
    dropout = getattr(config, "hidden_dropout", 0.0)
    return PhiConfig(**fields, resid_pdrop=dropout, embd_pdrop=dropout, architectures=["PhiForCausalLM"])


class AsPhi:
    """Maps each tensor of a Pythia to those of a Phi, none where another takes it into itself; products are formed in fp64."""

    def __init__(self, source: Path, config: Any) -> None:
        self.heads: int = config.num_attention_heads
        self.says_words = GPT_NEOX.embedding if config.tie_word_embeddings else GPT_NEOX.head
        self.stored = stored_tensors(source)

    def __call__(self, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the Phi's tensors of which this one is the matrix, and their biases with them. Raises UserError on an unknown name."""
        module, _, parameter = GPT_NEOX.in_memory(name).rpartition(".")
        if module in OUTSIDE:
            yield f"{OUTSIDE[module]}.{parameter}", tensor
            if module == self.says_words:
                yield f"{PHI.head}.bias", tensor.new_zeros(len(tensor))
        elif (place := GPT_NEOX.place(module)) is not None:
            for new_name, made in self._in_layer(GPT_NEOX.role(name), *place, parameter, tensor):
                yield PHI.in_layer(place[0], new_name), made.contiguous()

    def _in_layer(self, role: Role, layer: int, name: str, parameter: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield what a tensor of a layer becomes, by the names in a Phi's layer."""
        if role is Role.NORM:
            if name == ATTENTION.norm:
                yield f"{PHI_ATTENTION.norm}.{parameter}", torch.full_like(tensor, float(parameter == "weight"))
        elif parameter == "weight" and role is Role.WRITE:
            bias_D = self._vector(layer, name, "bias")
            yield f"{WRITES[name]}.weight", tensor
            yield f"{WRITES[name]}.bias", tensor.new_zeros(len(tensor)) if bias_D is None else bias_D.to(tensor)
        elif parameter == "weight" and name in ATTENTION.reader_names:
            fused = [each.unflatten(0, (self.heads, 3, -1)) for each in self._behind_norm(ATTENTION, layer, name, tensor)]
            for part, new_name in enumerate(PHI_ATTENTION.reader_names):  # a head's three parts lie together
                yield f"{new_name}.weight", fused[0][:, part].flatten(0, 1)
                yield f"{new_name}.bias", fused[1][:, part].flatten()
        elif parameter == "weight":
            [new_name] = PHI_FEED_FORWARD.reader_names
            weight_OD, bias_O = self._behind_norm(FEED_FORWARD, layer, name, tensor)
            yield f"{new_name}.weight", weight_OD
            yield f"{new_name}.bias", bias_O

    def _behind_norm(self, block: Block, layer: int, reader: str, weight_OD: Tensor) -> tuple[Tensor, Tensor]:
        """Return weight and bias of a reader that has taken the gains and biases of its block's norm into itself."""
        assert block.norm is not None
        gain_D, shift_D, bias_O = (self._vector(layer, *each) for each in ((block.norm, "weight"), (block.norm, "bias"), (reader, "bias")))
        assert gain_D is not None and shift_D is not None
        return folded(weight_OD, bias_O, gain_D, shift_D)

    def _vector(self, layer: int, name: str, parameter: str) -> Tensor | None:
        """Return a layer's gains or biases in fp64, None where the checkpoint has none of this name."""
        full_name = f"{GPT_NEOX.in_layer(layer, name)}.{parameter}"
        stored = self.stored.get(full_name)
        return None if stored is None else checkpoint.tensor_in(stored.path, full_name).double()


def folded(weight_OD: Tensor, bias_O: Tensor | None, gain_D: Tensor, shift_D: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a linear layer that does itself what a norm before it multiplied by (`gain_D`) and added (`shift_D`)."""
    wide_OD = weight_OD.double()
    bias = wide_OD @ shift_D + (0.0 if bias_O is None else bias_O)
    return (wide_OD * gain_D).to(weight_OD), bias.to(weight_OD)
