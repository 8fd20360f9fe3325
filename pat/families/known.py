"""The model families that can be pruned: the one place that names the layers of an architecture.

A new architecture is one entry here, or `register` from a module of one's own, and one row in the test table. What an entry says is in
blocks.py. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import AfterValidator

from pat.errors import UserError
from pat.families.blocks import EMBEDDING_SHORTCUT, Block, Experts, Kind, Reader, Role, Site
from pat.families.family import Family

__all__ = [
    "ARCHITECTURE",
    "EMBEDDING_SHORTCUT",
    "FAMILIES",
    "GPT_NEOX",
    "PHI",
    "Block",
    "Experts",
    "Family",
    "Kind",
    "ModelType",
    "Reader",
    "Role",
    "Site",
    "attention_window",
    "family_named",
    "family_of",
    "family_of_fields",
    "head_size",
    "is_passed_over",
    "is_told_by_sizes",
    "kv_heads",
    "neurons",
    "norm_eps",
    "register",
    "residual_factor",
]

ATTENTION = Block(
    kind="groups",
    module="self_attn",
    readers=(Reader("self_attn.q_proj", ("query",)), Reader("self_attn.k_proj", ("key",)), Reader("self_attn.v_proj", ("value",))),
    write="self_attn.o_proj",
    norm="input_layernorm",
)
FEED_FORWARD = Block(
    kind="neurons",
    module="mlp",
    readers=(Reader("mlp.gate_proj", ("gate",)), Reader("mlp.up_proj", ("up",))),
    write="mlp.down_proj",
    norm="post_attention_layernorm",
)
ATTENTION_BEHIND = replace(ATTENTION, norm=None, norm_behind="post_attention_layernorm")
FEED_FORWARD_BEHIND = replace(FEED_FORWARD, norm=None, norm_behind="post_feedforward_layernorm")
"""Blocks that take the stream as it is, and whose norm stands behind the write."""
ATTENTION_BETWEEN = replace(ATTENTION, norm_behind="post_attention_layernorm")
FEED_FORWARD_BETWEEN = replace(FEED_FORWARD, norm="pre_feedforward_layernorm", norm_behind="post_feedforward_layernorm")
"""Blocks between two norms."""
FUSED_ATTENTION = replace(ATTENTION, readers=(Reader("self_attn.qkv_proj", ("query", "key", "value")),))
FUSED_FEED_FORWARD = replace(FEED_FORWARD, readers=(Reader("mlp.gate_up_proj", ("gate", "up")),))
EXPERTS = Experts("mlp.experts", (("gate_up_proj", ("gate_proj", "up_proj")),), (("down_proj", ("down_proj",)),))
SPARSE = replace(
    FEED_FORWARD, readers=(Reader("mlp.gate", adapted=False),), write="mlp", writers=(), experts=EXPERTS,
)  # fmt: skip
"""Experts behind a router."""
SHARED = tuple(Reader(f"mlp.shared_expert.{name}_proj") for name in ("gate", "up"))
SPARSE_AND_SHARED = replace(
    SPARSE,
    readers=(*SPARSE.readers, *SHARED, Reader("mlp.shared_expert_gate", adapted=False)),
    writers=("mlp.shared_expert.down_proj",),
)
"""Beside them one that every token goes through."""
ALL_SPARSE: tuple[tuple[str, object], ...] = (("decoder_sparse_step", 1), ("mlp_only_layers", []))
HEAD_NORMS = ("self_attn.q_norm", "self_attn.k_norm")

LLAMA = Family(
    "llama",
    blocks=(ATTENTION, FEED_FORWARD),
    embedding="model.embed_tokens",
    layers="model.layers",
    final_norm="model.norm",
    head="lm_head",
    uneven_heads_as="mistral",
)
"""Also Yi, whose checkpoints are Llama's."""
PLAIN = replace(LLAMA, uneven_heads_as=None)
GEMMA = replace(PLAIN, model_type="gemma", gain_offset=1.0, embedding_factor=True, tied_by_default=True)

OPT = Family(
    "opt",
    blocks=(
        replace(ATTENTION, write="self_attn.out_proj", norm="self_attn_layer_norm"),
        # No module of its own computes the second block; what its write is given and says is all that is asked of it.
        Block("neurons", module="fc2", readers=(Reader("fc1", ("up",)),), write="fc2", norm="final_layer_norm"),
    ),
    embedding="model.decoder.embed_tokens",
    positions="model.decoder.embed_positions",
    layers="model.decoder.layers",
    final_norm="model.decoder.final_layer_norm",
    head="lm_head",
    tied_by_default=True,
    neurons="ffn_dim",
    subtracts_mean=True,
    heads_fill_width=True,
    needed=(
        ("do_layer_norm_before", True, "norms behind the sum, as OPT-350M has them, are not known"),
        ("layer_norm_elementwise_affine", True, "norms without a gain are not known"),
        ("_remove_final_layer_norm", False, "a head without a norm before it is not known"),
        ("layerdrop", 0.0, "a tuning would leave out layers at random"),
    ),
)
GPT_NEOX = Family(
    "gpt_neox",
    blocks=(
        Block(
            "groups",
            module="attention",
            readers=(Reader("attention.query_key_value", ("query", "key", "value"), by_head=True),),
            write="attention.dense",
            norm="input_layernorm",
        ),
        Block(
            "neurons",
            module="mlp",
            readers=(Reader("mlp.dense_h_to_4h", ("up",)),),
            write="mlp.dense_4h_to_h",
            norm="post_attention_layernorm",
        ),
    ),
    embedding="gpt_neox.embed_in",
    layers="gpt_neox.layers",
    final_norm="gpt_neox.final_layer_norm",
    head="lm_head",
    head_in_files="embed_out",
    eps="layer_norm_eps",
    parallel=True,
    subtracts_mean=True,
    heads_fill_width=True,
    way_out="layers and feed-forward neurons can, and all three once `pat import-model --path FOLDER --as phi` has written it as a Phi",
    needed=(("use_parallel_residual", True, "blocks that read one after the other are not known of this family"),),
    older_positions=(("rope_theta", "rotary_emb_base"), ("partial_rotary_factor", "rotary_pct")),
)
"""Pythia."""
PHI = Family(
    "phi",
    blocks=(
        replace(ATTENTION, write="self_attn.dense"),
        Block("neurons", module="mlp", readers=(Reader("mlp.fc1", ("up",)),), write="mlp.fc2", norm="input_layernorm"),
    ),
    embedding="model.embed_tokens",
    layers="model.layers",
    final_norm="model.final_layernorm",
    head="lm_head",
    eps="layer_norm_eps",
    parallel=True,
    subtracts_mean=True,
    needed=(("qk_layernorm", False, "norms of queries and keys are not known of this family"),),
)
"""Phi-1 to Phi-2, and Pythia in a class whose heads need not fill the width (checkpoints/pythia.py)."""

FAMILIES: dict[str, Family] = {}


def register(family: Family) -> None:
    """Add a family to those that are known. Raises ValueError where another of its model type is known already."""
    if FAMILIES.setdefault(family.model_type, family) != family:
        raise ValueError(f"the model type {family.model_type!r} is registered already, as another family")


for _family in (
    LLAMA,
    replace(PLAIN, model_type="mistral"),
    replace(PLAIN, model_type="qwen2"),
    replace(PLAIN, model_type="qwen3", blocks=(replace(ATTENTION, inside=HEAD_NORMS), FEED_FORWARD)),
    GEMMA,
    replace(PLAIN, model_type="olmo2", blocks=(replace(ATTENTION_BEHIND, across=HEAD_NORMS), FEED_FORWARD_BEHIND)),
    replace(GEMMA, model_type="gemma2", blocks=(ATTENTION_BETWEEN, FEED_FORWARD_BETWEEN)),
    replace(GEMMA, model_type="gemma3_text", blocks=(replace(ATTENTION_BETWEEN, inside=HEAD_NORMS), FEED_FORWARD_BETWEEN)),
    replace(PLAIN, model_type="phi3", blocks=(FUSED_ATTENTION, FUSED_FEED_FORWARD)),
    replace(PLAIN, model_type="granite", residual_factor="residual_multiplier"),
    replace(PLAIN, model_type="qwen2_moe", blocks=(ATTENTION, SPARSE_AND_SHARED), alike=ALL_SPARSE),
    replace(PLAIN, model_type="qwen3_moe", blocks=(replace(ATTENTION, inside=HEAD_NORMS), SPARSE), alike=ALL_SPARSE),
    replace(PLAIN, model_type="smollm3", per_layer=("layer_types", "no_rope_layers"), tied_by_default=True),
    OPT,
    GPT_NEOX,
    PHI,
):
    register(_family)


def family_of(config: Any) -> Family:
    """Return the family of a Hugging Face config, a reshaped model's by its stock type. Raises UserError where it has no entry."""
    return _checked(
        family_named(getattr(config, "stock_type", None) or getattr(config, "model_type", None)), lambda field: getattr(config, field, None)
    )


def family_of_fields(fields: Mapping[str, Any]) -> Family:
    """As family_of, from the fields of a config.json."""
    return _checked(family_named(fields.get("stock_type") or fields.get("model_type")), fields.get)


def _checked(family: Family, value: Callable[[str], object]) -> Family:
    several = f"layers of several kinds in one {family.model_type} model are not known"
    for field, needed, reason in (*((field, needed, several) for field, needed in family.alike), *family.needed):
        if (found := value(field)) is not None and found != needed:
            raise UserError(f"{field}: {found!r}: {reason}; it must be {needed!r}")
    return family


def family_named(model_type: Any) -> Family:
    """Return the family of a model type. Raises UserError where it has no entry."""
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise UserError(
            f"architecture {model_type!r} is not known; known are {', '.join(sorted(FAMILIES))}. A new one is an entry in "
            "pat/families/known.py that names its writes, readers and norms, the offset of its norm gain, and whether it scales its "
            "embedding; or a module of yours that registers it, named by --plugin or `plugins`"
        )
    return FAMILIES[model_type]


def is_told_by_sizes(family: Family) -> bool:
    """Return whether settings that give a model's sizes say all of them: not of experts, nor of families that are not narrowed."""
    return not family.has_experts and family.width_obstacle is None


def _told_by_sizes() -> list[str]:
    return [name for name, family in FAMILIES.items() if is_told_by_sizes(family)]


def _known(model_type: str) -> str:
    if model_type not in _told_by_sizes():
        raise ValueError(f"must be one of {', '.join(_told_by_sizes())}, or a family that a plugin registers")
    return model_type


ModelType = Annotated[str, AfterValidator(_known)]
"""In settings that give a model's sizes: that of a known family of which they say all."""
ARCHITECTURE = f"architecture: {', '.join(_told_by_sizes())}, or one that a plugin registers"
PASSED_OVER = re.compile(r"\.rotary_emb\.inv_freq$|^gpt_neox\.layers\.\d+\.attention\.(masked_)?bias$")


def is_passed_over(tensor: str) -> bool:
    """Return whether transformers computes a tensor itself, and so leaves it in the file: frequencies and masks of old checkpoints."""
    return PASSED_OVER.search(tensor) is not None


def head_size(config: Any) -> int:
    """Size of one attention head: the config's own, else hidden size over heads, which is the stock default."""
    explicit = getattr(config, "head_dim", None)
    return int(explicit or config.hidden_size // config.num_attention_heads)


def kv_heads(config: Any) -> int:
    """Return how many key-value heads a layer has: as many as query heads where the config has no field for them."""
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def neurons(config: Any) -> int:
    """Return how many neurons a feed-forward block has."""
    count: int = getattr(config, family_of(config).neurons)
    return count


def norm_eps(config: Any) -> float:
    """What the norms of a model add to the mean of squares."""
    eps: float = getattr(config, family_of(config).eps)
    return eps


def residual_factor(config: Any) -> float:
    """What everything that a block writes is multiplied by before it is added to the stream."""
    field = family_of(config).residual_factor
    factor: float = 1.0 if field is None else getattr(config, field)
    return factor


def attention_window(config: Any) -> int | None:
    """Return how many tokens back attention reaches, None where nothing but the text's beginning ends it."""
    window: int | None = getattr(config, "sliding_window", None)
    return window or None  # Qwen2-MoE writes none as 0
