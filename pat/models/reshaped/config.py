"""The config of a reshaped model: its stock model's fields, and each layer's own sizes beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

OWN_FIELDS = ("stock_type", "layer_groups", "layer_neurons", "stream_widths")


class ReshapedConfig(PreTrainedConfig):
    """Fields of the stock type `stock_type`, and sizes per layer: key-value heads, neurons, widths of the stream.

    `stream_widths` has 2L + 1 entries, before each block's norm and before the last; None where the stream is the stock model's. An
    embedding that is the head too keeps the hidden size, and a shortcut leads from it to the first block.
    Raises ValueError where a list does not fit the number of layers.
    """

    model_type = "pat_reshaped"
    keys_to_ignore_at_inference = ["past_key_values"]

    def __init__(
        self,
        stock_type: str = "llama",
        layer_groups: Sequence[int] = (),
        layer_neurons: Sequence[int] = (),
        stream_widths: Sequence[int] | None = None,
        **fields: Any,
    ) -> None:
        self.stock_type = stock_type
        self.layer_groups = list(layer_groups)
        self.layer_neurons = list(layer_neurons)
        self.stream_widths = None if stream_widths is None else list(stream_widths)
        layers = fields.get("num_hidden_layers", 0)
        wanted = {"layer_groups": layers, "layer_neurons": layers, "stream_widths": 2 * layers + 1}
        for name, length in wanted.items():
            values = getattr(self, name)
            if values is not None and len(values) != length:
                raise ValueError(f"{name} has {len(values)} entries: must have {length} at num_hidden_layers={layers}")
        super().__init__(**fields)

    @classmethod
    def of(cls, stock: Any, groups: Sequence[int], neurons: Sequence[int], widths: Sequence[int] | None = None) -> ReshapedConfig:
        """Return the config of a stock model whose layers, and with `widths` whose stream, have these sizes."""
        fields = {name: value for name, value in stock.to_dict().items() if name not in ("model_type", "architectures")}
        return cls(stock.model_type, groups, neurons, widths, **fields)

    @property
    def narrowest_stream(self) -> int:
        """The hidden size, or the least of the stream's widths."""
        widths: list[int] = self.stream_widths or [self.hidden_size]
        return min(widths)

    @property
    def layers_alike(self) -> bool:
        """Whether all layers have tensors of the same shapes."""
        widths = self.stream_widths
        streams = [tuple(widths[2 * layer : 2 * layer + 3]) for layer in range(len(self.layer_groups))] if widths else self.layer_groups
        first_has_a_shortcut = widths is not None and bool(self.tie_word_embeddings) and len(self.layer_groups) > 1
        return not first_has_a_shortcut and len(set(zip(self.layer_groups, self.layer_neurons, streams, strict=True))) <= 1

    def stock_config(self) -> Any:
        """Return the config of the stock model that this one was made from."""
        unknown = (*OWN_FIELDS, "model_type", "architectures", "transformers_version")
        return AutoConfig.for_model(self.stock_type, **{name: value for name, value in self.to_dict().items() if name not in unknown})
