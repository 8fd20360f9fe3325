"""Model families as data: who writes to the residual stream, who reads it, which norms stand on it.

The only module that knows tensor names. A new architecture is one entry in FAMILIES and one row in the test table. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from pat.errors import UserError

SHORTCUTS = ("attention_shortcut", "mlp_shortcut")
"""In a reshaped model's layer: from the basis before a block to the one behind it."""
EMBEDDING_SHORTCUT = "embedding_shortcut"
"""In a reshaped model's first layer: from the basis of an embedding that is the head too to the one before the first block."""


class Role(Enum):
    """What a tensor does with the residual stream."""

    EMBEDDING = auto()
    """Writes: rows are tokens, columns are channels."""
    WRITE = auto()
    """Writes: output rows are channels."""
    READ = auto()
    """Reads: input columns are channels."""
    NORM = auto()
    """Gain over the channels, before readers inside a layer."""
    FINAL_NORM = auto()
    """Gain over the channels, before the head."""
    HEAD = auto()
    """Reads: rows are tokens, columns are channels."""
    INSIDE = auto()
    """Does not touch the stream, such as a norm over a head."""


@dataclass(frozen=True)
class Family:
    """Names of one architecture's modules. Layer modules are relative to `layers.<index>`.

    `gain_offset` is 1 where the norm multiplies by 1 + g instead of g. `embedding_factor` says that the model multiplies its
    embedding by sqrt(hidden_size). `uneven_heads_as` is a model type with the same arithmetic for weights without biases, where the
    family's own config refuses a head count that does not divide the hidden size. `tied_by_default` is what a config without
    `tie_word_embeddings` means.
    """

    model_type: str
    attention_output: str = "self_attn.o_proj"
    mlp_output: str = "mlp.down_proj"
    readers_of_norm: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
        ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
    )
    inside: tuple[str, ...] = ()
    embedding: str = "model.embed_tokens"
    layers: str = "model.layers"
    final_norm: str = "model.norm"
    head: str = "lm_head"
    gain_offset: float = 0.0
    embedding_factor: bool = False
    uneven_heads_as: str | None = None
    tied_by_default: bool = False

    @property
    def norms(self) -> tuple[str, ...]:
        """The norms on the stream inside a decoder layer."""
        return tuple(norm for norm, _ in self.readers_of_norm)

    @property
    def readers(self) -> tuple[str, ...]:
        """The linear layers that read the stream inside a decoder layer."""
        return tuple(reader for _, readers in self.readers_of_norm for reader in readers)

    @property
    def head_rows(self) -> tuple[str, ...]:
        """The linear layers whose output rows belong to attention heads: queries, keys and values."""
        return self.readers_of_norm[0][1]

    @property
    def neuron_rows(self) -> tuple[str, ...]:
        """The linear layers whose output rows are neurons of the feed-forward block."""
        return self.readers_of_norm[1][1]

    @property
    def linears(self) -> tuple[str, ...]:
        """The linear layers inside a decoder layer: what LoRA adapts."""
        return (*self.readers, self.attention_output, self.mlp_output)

    def writes(self, layer_count: int) -> tuple[str, ...]:
        """Module names of all 2L + 1 writes to the stream, in the order of the computation."""
        in_layers = [
            f"{self.layers}.{layer}.{output}" for layer in range(layer_count) for output in (self.attention_output, self.mlp_output)
        ]
        return (self.embedding, *in_layers)

    def stream_norms(self, layer_count: int) -> tuple[str, ...]:
        """Module names of all norms on the stream, in the order of the computation."""
        return (*(f"{self.layers}.{layer}.{norm}" for layer in range(layer_count) for norm in self.norms), self.final_norm)

    def norm_before(self, module: str) -> str:
        """Return the norm whose output `module`, a reader or the head, gets. Raises KeyError for any other module."""
        if module == self.head:
            return self.final_norm
        for norm, readers in self.readers_of_norm:
            for reader in readers:
                if module.startswith(f"{self.layers}.") and module.endswith(f".{reader}"):
                    return module.removesuffix(reader) + norm
        raise KeyError(module)

    def role(self, tensor: str) -> Role:
        """Return what a checkpoint's tensor does. Raises UserError on a name this family does not have."""
        module, _, _ = tensor.rpartition(".")
        outside = {self.embedding: Role.EMBEDDING, self.final_norm: Role.FINAL_NORM, self.head: Role.HEAD}
        if module in outside:
            return outside[module]
        if match := re.fullmatch(re.escape(self.layers) + r"\.\d+\.(.+)", module):
            for role, modules in self._roles_in_layer():
                if match[1] in modules:
                    return role
        raise UserError(
            f"tensor {tensor!r} is not part of a {self.model_type!r} model as pat knows it; "
            "its entry in pat/families.py has to name every module"
        )

    def _roles_in_layer(self) -> tuple[tuple[Role, tuple[str, ...]], ...]:
        return (
            (Role.WRITE, (self.attention_output, self.mlp_output)),
            (Role.READ, self.readers),
            (Role.NORM, self.norms),
            (Role.INSIDE, (*self.inside, *SHORTCUTS, EMBEDDING_SHORTCUT)),
        )


FAMILIES = {
    family.model_type: family
    for family in (
        Family("llama", uneven_heads_as="mistral"),  # also Yi, whose checkpoints are Llama's
        Family("mistral"),
        Family("qwen2"),
        Family("qwen3", inside=("self_attn.q_norm", "self_attn.k_norm")),
        Family("gemma", gain_offset=1.0, embedding_factor=True, tied_by_default=True),
    )
}


def family_of(config: Any) -> Family:
    """Return the family of a Hugging Face config, a reshaped model's by its stock type. Raises UserError where it has no entry."""
    return _family(getattr(config, "stock_type", None) or getattr(config, "model_type", None))


def family_of_fields(fields: Mapping[str, Any]) -> Family:
    """As family_of, from the fields of a config.json."""
    return _family(fields.get("stock_type") or fields.get("model_type"))


def is_passed_over(tensor: str) -> bool:
    """Return whether a tensor is one that transformers computes anew, and so leaves in the file: rotary frequencies of old checkpoints."""
    return tensor.endswith(".rotary_emb.inv_freq")


def _family(model_type: Any) -> Family:
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise UserError(
            f"architecture {model_type!r} is not known; known are {', '.join(sorted(FAMILIES))}. A new one is an entry in "
            "pat/families.py that names its writes, readers and norms, the offset of its norm gain, and whether it scales its embedding"
        )
    return FAMILIES[model_type]


def head_size(config: Any) -> int:
    """Size of one attention head: the config's own, else hidden size over heads, which is the stock default."""
    explicit = getattr(config, "head_dim", None)
    return int(explicit or config.hidden_size // config.num_attention_heads)


def attention_window(config: Any) -> int | None:
    """Return how many tokens back attention reaches, None where nothing but the text's beginning ends it."""
    window: int | None = getattr(config, "sliding_window", None)
    return window
