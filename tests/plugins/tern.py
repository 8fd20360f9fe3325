"""A plugin: a family of invented names, whose blocks read side by side and whose projections are fused, and a pruner.

Nothing in it has the name that another family has for it; positions are told by the causal mask alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    DynamicCache,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from pat import families, pruners
from pat.checkpoints.checkpoint import load_config
from pat.pruners.channels import keep_most_important
from pat.pruners.job import PruneJob

LOOK = families.Block("groups", "look", (families.Reader("look.ask", ("query", "key", "value")),), "look.give", norm="calm_look")
THINK = families.Block("neurons", "think", (families.Reader("think.open", ("gate", "up")),), "think.close", norm="calm_think")
families.register(
    families.Family(
        "tern",
        (LOOK, THINK),
        embedding="trunk.words",
        layers="trunk.floors",
        final_norm="trunk.calm",
        head="speak",
        eps="calm_eps",
        parallel=True,
    )
)


def keep_the_last(job: PruneJob, folder: Path) -> dict[str, Any]:
    """Write the source without its first channels."""
    return keep_most_important(job, folder, torch.arange(load_config(job.source).hidden_size))


pruners.register(
    pruners.Pruner(
        "last-channels", "Last channels", keep_the_last, cuts="width", measures="weights", reach="all",
        summary="the first hidden channels go", when="never",
    )
)  # fmt: skip


class TernConfig(PreTrainedConfig):
    model_type = "tern"
    keys_to_ignore_at_inference = ["past_key_values"]

    def __init__(
        self, vocab_size: int = 97, hidden_size: int = 48, intermediate_size: int = 80, num_hidden_layers: int = 3, num_attention_heads: int = 4,
        num_key_value_heads: int = 2, head_dim: int = 12, max_position_embeddings: int = 128, calm_eps: float = 1e-5,
        initializer_range: float = 0.02, tie_word_embeddings: bool = False, **fields: Any,
    ) -> None:  # fmt: skip
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads
        self.head_dim = head_dim
        self.max_position_embeddings = max_position_embeddings
        self.calm_eps = calm_eps
        self.initializer_range = initializer_range
        super().__init__(**fields | {"tie_word_embeddings": tie_word_embeddings})


class Calm(nn.Module):
    """An RMS norm."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt())


class Look(nn.Module):
    """Attention."""

    def __init__(self, config: TernConfig, place: int) -> None:
        super().__init__()
        self.config, self.place, self.is_causal = config, place, True
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        heads = config.num_attention_heads + 2 * config.num_key_value_heads
        self.ask = nn.Linear(config.hidden_size, heads * config.head_dim, bias=False)
        self.give = nn.Linear(config.num_attention_heads * config.head_dim, config.hidden_size, bias=False)

    def forward(self, seen: Tensor, mask: Tensor | None = None, memory: Any = None, **_others: Any) -> Tensor:
        config = self.config
        counts = [config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads]
        parts = self.ask(seen).split([count * config.head_dim for count in counts], dim=-1)
        query, key, value = (part.unflatten(-1, (-1, config.head_dim)).transpose(1, 2) for part in parts)
        if memory is not None:
            key, value = memory.update(key, value, self.place)
        attend = ALL_ATTENTION_FUNCTIONS["sdpa"]
        attended, _ = attend(self, query, key, value, mask, dropout=0.0, scaling=config.head_dim**-0.5)
        given: Tensor = self.give(attended.flatten(-2))
        return given


class Think(nn.Module):
    """The feed-forward block."""

    def __init__(self, config: TernConfig) -> None:
        super().__init__()
        self.open = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.close = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, seen: Tensor) -> Tensor:
        gate, up = self.open(seen).chunk(2, dim=-1)
        closed: Tensor = self.close(silu(gate) * up)
        return closed


class Floor(GradientCheckpointingLayer):
    """A decoder layer whose blocks read side by side."""

    def __init__(self, config: TernConfig, place: int) -> None:
        super().__init__()
        self.look, self.think = Look(config, place), Think(config)
        self.calm_look, self.calm_think = (Calm(config.hidden_size, config.calm_eps) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor | None = None, memory: Any = None) -> Tensor:
        behind: Tensor = x + self.look(self.calm_look(x), mask=mask, memory=memory) + self.think(self.calm_think(x))
        return behind


class TernPreTrained(PreTrainedModel):
    config_class = TernConfig
    base_model_prefix = "trunk"
    supports_gradient_checkpointing = True
    _supports_sdpa = True


class Trunk(TernPreTrained):
    def __init__(self, config: TernConfig) -> None:
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.floors = nn.ModuleList(Floor(config, place) for place in range(config.num_hidden_layers))
        self.calm = Calm(config.hidden_size, config.calm_eps)
        self.gradient_checkpointing = False
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        return self.words

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.words = value  # type: ignore[assignment]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        **_others: Any,
    ) -> BaseModelOutputWithPast:
        x: Tensor = self.words(input_ids)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        seen = past_key_values.get_seq_length() if past_key_values is not None else 0
        positions = torch.arange(seen, seen + x.shape[1], device=x.device)[None]
        mask = create_causal_mask(
            config=self.config, inputs_embeds=x, attention_mask=attention_mask, past_key_values=past_key_values, position_ids=positions
        )
        for floor in self.floors:
            x = floor(x, mask=mask, memory=past_key_values)
        return BaseModelOutputWithPast(last_hidden_state=self.calm(x), past_key_values=past_key_values)


class TernForCausalLM(TernPreTrained, GenerationMixin):
    _tied_weights_keys = {"speak.weight": "trunk.words.weight"}

    def __init__(self, config: TernConfig) -> None:
        super().__init__(config)
        self.trunk = Trunk(config)
        self.speak = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_output_embeddings(self) -> nn.Module:
        return self.speak

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.speak = value  # type: ignore[assignment]

    def forward(
        self, input_ids: Tensor, labels: Tensor | None = None, logits_to_keep: int | Tensor = 0, **named: Any
    ) -> CausalLMOutputWithPast:
        items = named.pop("num_items_in_batch", None)
        outputs = self.trunk(input_ids, **named)
        wanted = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.speak(outputs.last_hidden_state[:, wanted])
        counted = {} if items is None else {"num_items_in_batch": items}
        loss = None if labels is None else self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **counted)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=outputs.past_key_values)


AutoConfig.register("tern", TernConfig)
AutoModel.register(TernConfig, Trunk)
AutoModelForCausalLM.register(TernConfig, TernForCausalLM)
