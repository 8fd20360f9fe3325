"""A stock decoder with layers of other sizes: the stock modules with other linear layers in them, under the stock tensor names.

Attention, rotary positions, masks and cache are the stock model's own. Axes: B batch, T tokens, D channels of a stream, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, GenerationMixin, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

from pat.families import family_of
from pat.reshaped.config import ReshapedConfig


class ReshapedForCausalLM(PreTrainedModel, GenerationMixin):
    """A causal language model of a stock family whose layers have the sizes that its config lists."""

    config_class = ReshapedConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _skip_keys_device_placement = ["past_key_values"]
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: ReshapedConfig) -> None:
        super().__init__(config)
        self.model: Any = AutoModel.from_config(config.stock_config(), attn_implementation=config._attn_implementation)
        resize_layers(self.model, config)
        if config.stream_widths is not None:
            rotate_stream(self.model, config.stream_widths, tied=bool(config.tie_word_embeddings))
        widths = config.stream_widths or [config.hidden_size]
        self.lm_head = nn.Linear(widths[-1], config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Return logits (B, T, V), of the last `logits_to_keep` tokens where that is not 0, and the loss where there are labels."""
        of_stock = {name: kwargs.pop(name) for name in ("position_ids", "past_key_values", "inputs_embeds", "use_cache") if name in kwargs}
        outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, **of_stock)
        wanted = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits_BTV = self.lm_head(outputs.last_hidden_state[:, wanted])
        kwargs.pop("return_dict", None)
        loss = None if labels is None else self.loss_function(logits=logits_BTV, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(loss=loss, logits=logits_BTV, past_key_values=outputs.past_key_values)


def resize_layers(model: Any, config: ReshapedConfig) -> None:
    """Give the linear layers of a stock decoder as many heads and neurons as the config lists, in place."""
    family = family_of(config)
    for layer, groups, neurons in zip(model.layers, config.layer_groups, config.layer_neurons, strict=True):
        for name in family.linears:
            linear = layer.get_submodule(name)
            rows, columns = linear.out_features, linear.in_features
            if name in family.head_rows:
                rows = rows // config.num_key_value_heads * groups
            elif name in family.neuron_rows:
                rows = neurons
            elif name == family.attention_output:
                columns = columns // config.num_key_value_heads * groups
            else:
                columns = neurons
            layer.set_submodule(name, _resized(linear, rows, columns))


def rotate_stream(model: Any, widths: list[int], *, tied: bool) -> None:
    """Give the stream of a stock decoder these widths before every norm, with shortcuts between their bases, in place."""
    config = model.config
    family = family_of(config)
    for index, layer in enumerate(model.layers):
        before, between, after = widths[2 * index : 2 * index + 3]
        for (_, readers), width in zip(family.readers_of_norm, (before, between), strict=True):
            for name in readers:
                linear = layer.get_submodule(name)
                layer.set_submodule(name, _resized(linear, linear.out_features, width))
        for name, width in ((family.attention_output, between), (family.mlp_output, after)):
            linear = layer.get_submodule(name)
            layer.set_submodule(name, _resized(linear, width, linear.in_features))
        model.layers[index] = RotatedLayer(layer, before, between, after, config)
    if tied:  # what is embedded and what the head reads stay in the stock basis
        model.layers[0].embedding_shortcut = nn.Linear(config.hidden_size, widths[0], bias=False)
        return
    model.embed_tokens.weight = nn.Parameter(torch.empty(config.vocab_size, widths[0]))
    model.embed_tokens.embedding_dim = widths[0]
    model.norm = GainlessNorm(config.hidden_size, config.rms_norm_eps)


def _resized(linear: nn.Linear, rows: int, columns: int) -> nn.Linear:
    if (rows, columns) == (linear.out_features, linear.in_features):
        return linear
    return nn.Linear(columns, rows, bias=linear.bias is not None, device=linear.weight.device, dtype=linear.weight.dtype)


class RotatedLayer(GradientCheckpointingLayer):
    """A stock layer's attention and feed-forward block, each with a basis of the stream of its own (SliceGPT).

    y = x·S_attn + attention(norm(x)), then y·S_mlp + mlp(norm(y)): the shortcuts S take the stream to the next block's basis.
    """

    def __init__(self, layer: Any, before: int, between: int, after: int, config: Any) -> None:
        super().__init__()
        self.self_attn = layer.self_attn
        self.mlp = layer.mlp
        self.input_layernorm = GainlessNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = GainlessNorm(config.hidden_size, config.rms_norm_eps)
        self.embedding_shortcut: nn.Module = nn.Identity()
        self.attention_shortcut = nn.Linear(before, between, bias=False)
        self.mlp_shortcut = nn.Linear(between, after, bias=False)

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """Return the stream behind the layer; further arguments are the attention's."""
        hidden_states = self.embedding_shortcut(hidden_states)
        attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)
        between = self.attention_shortcut(hidden_states) + attended
        behind: Tensor = self.mlp_shortcut(between) + self.mlp(self.post_attention_layernorm(between))
        return behind


class GainlessNorm(nn.Module):
    """x / sqrt(Σ x² / D + eps) with D the width before slicing: directions that were cut count as zeros. Computed in fp32."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the normed stream in the dtype of `x`."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return (wide * (wide.square().sum(-1, keepdim=True) / self.hidden_size + self.eps).rsqrt()).to(x.dtype)
