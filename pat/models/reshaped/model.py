"""A stock decoder with layers of other sizes: the stock modules with other linear layers in them, under the stock tensor names.

Attention, rotary positions, masks and cache are the stock model's own. Axes: B batch, T tokens, D channels of a stream, V vocabulary.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, GenerationMixin, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

from pat.families.known import EMBEDDING_SHORTCUT, Family, family_of, norm_eps, residual_factor
from pat.models.reshaped.config import ReshapedConfig
from pat.models.submodules import linear_named


class ReshapedForCausalLM(PreTrainedModel, GenerationMixin):
    """A causal language model of a stock family whose layers have the sizes that its config lists. Its modules have the family's names."""

    config_class = ReshapedConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _skip_keys_device_placement = ["past_key_values"]

    def __init__(self, config: ReshapedConfig) -> None:
        super().__init__(config)
        family = family_of(config)
        self.base_model_prefix, _, _ = family.layers.partition(".")
        self._tied_weights_keys = {f"{family.head}.weight": f"{family.embedding}.weight"}
        self.add_module(self.base_model_prefix, self._stock_body(config))
        resize_layers(self, config)
        if config.stream_widths is not None:
            rotate_stream(self, config, config.stream_widths)
        widths = config.stream_widths or [config.hidden_size]
        self.add_module(family.head, nn.Linear(widths[-1], config.vocab_size, bias=False))
        self.post_init()  # type: ignore[no-untyped-call]

    def _stock_body(self, config: ReshapedConfig) -> Any:
        """Return the stock model below the head, with the attention that was chosen, or the plain one where the family has no other."""
        try:
            return AutoModel.from_config(config.stock_config(), attn_implementation=config._attn_implementation)
        except ValueError:
            if config._attn_implementation != "sdpa":  # which is what transformers chooses by itself
                raise
        self.set_attn_implementation("eager")
        return AutoModel.from_config(config.stock_config(), attn_implementation="eager")

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
        outputs = self.base_model(input_ids=input_ids, attention_mask=attention_mask, **of_stock)
        wanted = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        head = self.get_submodule(family_of(self.config).head)
        logits_BTV = way_to_logits(self.config, head(outputs.last_hidden_state[:, wanted]))
        kwargs.pop("return_dict", None)
        loss = None if labels is None else self.loss_function(logits=logits_BTV, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(loss=loss, logits=logits_BTV, past_key_values=outputs.past_key_values)


def resize_layers(model: nn.Module, config: ReshapedConfig) -> None:
    """Give the linear layers of a stock decoder as many heads and neurons as the config lists, in place."""
    family = family_of(config)
    before = {"groups": config.num_key_value_heads, "neurons": config.intermediate_size}
    for index in range(config.num_hidden_layers):
        after = {"groups": config.layer_groups[index], "neurons": config.layer_neurons[index]}
        for block in family.blocks:
            share = (before[block.kind], after[block.kind])
            for name in block.reader_names:
                _resize(model, family.in_layer(index, name), rows=share)
            _resize(model, family.in_layer(index, block.write), columns=share)


def rotate_stream(model: nn.Module, config: ReshapedConfig, widths: list[int]) -> None:
    """Give the stream of a stock decoder these widths before every norm, with shortcuts between their bases, in place."""
    family, count = family_of(config), len(family_of(config).blocks)
    for index in range(config.num_hidden_layers):
        before = widths[count * index : count * (index + 1) + 1]
        for place, block in enumerate(family.blocks):
            for name in block.reader_names:
                _resize(model, family.in_layer(index, name), columns=(config.hidden_size, before[place]))
            _resize(model, family.in_layer(index, block.write), rows=(config.hidden_size, before[place + 1]))
        name = f"{family.layers}.{index}"
        model.set_submodule(name, RotatedLayer(model.get_submodule(name), family, before, config))
    if config.tie_word_embeddings:  # what is embedded and what the head reads stay in the stock basis
        shortcut = nn.Linear(config.hidden_size, widths[0], bias=False)
        model.get_submodule(f"{family.layers}.0").add_module(EMBEDDING_SHORTCUT, shortcut)
        return
    embedding = model.get_submodule(family.embedding)
    assert isinstance(embedding, nn.Embedding)
    embedding.weight = nn.Parameter(torch.empty(config.vocab_size, widths[0]))
    embedding.embedding_dim = widths[0]
    model.set_submodule(family.final_norm, GainlessNorm(config.hidden_size, norm_eps(config)))


def _resize(model: nn.Module, name: str, rows: tuple[int, int] = (1, 1), columns: tuple[int, int] = (1, 1)) -> None:
    """Give a linear layer other numbers of rows and columns, in place: each before and after, in units that the layer holds evenly."""
    linear = linear_named(model, name)
    outputs, inputs = (size // before * after for size, (before, after) in ((linear.out_features, rows), (linear.in_features, columns)))
    if (outputs, inputs) != (linear.out_features, linear.in_features):
        resized = nn.Linear(inputs, outputs, bias=linear.bias is not None, device=linear.weight.device, dtype=linear.weight.dtype)
        model.set_submodule(name, resized)


def way_to_logits(config: Any, logits_BTV: Tensor) -> Tensor:
    """Return logits as the stock model makes them of what its head says: Granite's scaling, Gemma 2's soft cap."""
    scaling, softcap = getattr(config, "logits_scaling", None), getattr(config, "final_logit_softcapping", None)
    if scaling is not None:
        logits_BTV = logits_BTV / scaling
    if softcap is not None:
        logits_BTV = torch.tanh(logits_BTV / softcap) * softcap
    return logits_BTV


class RotatedLayer(GradientCheckpointingLayer):
    """A stock layer's blocks, each with a basis of the stream of its own (SliceGPT), under the names that the stock layer has for them.

    y = x·S_attn + attention(norm(x)), then y·S_mlp + mlp(norm(y)): the shortcuts S take the stream to the next block's basis. `widths`
    are those of the stream before each block, and behind the last.
    """

    def __init__(self, layer: nn.Module, family: Family, widths: list[int], config: Any) -> None:
        super().__init__()
        self.blocks = family.blocks
        self.factor = residual_factor(config)
        for name in dict.fromkeys(block.module.partition(".")[0] for block in family.blocks):
            self.add_module(name, layer.get_submodule(name))
        self.add_module(EMBEDDING_SHORTCUT, nn.Identity())
        self.norms = nn.ModuleList(GainlessNorm(config.hidden_size, norm_eps(config)) for _ in family.blocks)
        for block, before, behind in zip(family.blocks, widths, widths[1:], strict=False):
            self.add_module(block.shortcut, nn.Linear(before, behind, bias=False))
        self.takes = [_takes(self.get_submodule(block.module)) for block in family.blocks]

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """Return the stream behind the layer; further arguments are given to the blocks that take them."""
        stream: Tensor = self.get_submodule(EMBEDDING_SHORTCUT)(hidden_states)
        for block, norm, takes in zip(self.blocks, self.norms, self.takes, strict=True):
            named = kwargs if takes is None else {name: value for name, value in kwargs.items() if name in takes}
            output = self.get_submodule(block.module)(norm(stream), **named)
            written = output[0] if isinstance(output, tuple) else output
            stream = self.get_submodule(block.shortcut)(stream) + (written if self.factor == 1.0 else self.factor * written)
        return stream


def _takes(module: nn.Module) -> frozenset[str] | None:
    """Return the names of the arguments that a module takes; None where it takes any."""
    parameters = inspect.signature(module.forward).parameters
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    return None if takes_any else frozenset(parameters)


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
