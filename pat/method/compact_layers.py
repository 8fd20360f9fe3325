"""Stand-ins for PEFT's LoRA layers where the residual stream has been cut to its living channels.

Whatever is trained keeps its full size and its name, and is indexed in the forward pass. So its gradient, zero where a channel is
dead, is the masked model's, and optimizer, clipping, checkpoints and the saved adapter know nothing of the cut.
Axes: D all channels, K living ones, I inputs, R operator rank, A LoRA rank.
"""

from __future__ import annotations

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional

from pat.method.hsm import HybridSparsificationModule

RANK_STEP = 8
"""What a LoRA rank is filled up to a multiple of: sixteen bytes of bf16, without which a GPU's products take kernels half as fast."""


class CompactLayer(nn.Module, LoraLayer):
    """A layer that takes over the trained parts of PEFT's, under their names. It computes in the dtype of its input, as an HSM does."""

    index_K: Tensor

    def __init__(self, layer: LoraLayer, index_K: Tensor) -> None:
        nn.Module.__init__(self)
        LoraLayer.__init__(self, layer.base_layer)
        self.lora_dropout, self.lora_A, self.lora_B = layer.lora_dropout, layer.lora_A, layer.lora_B
        self.r, self.lora_alpha, self.scaling = layer.r, layer.lora_alpha, layer.scaling
        [self.adapter] = layer.active_adapters
        self.register_buffer("index_K", index_K, persistent=False)

    @property
    def frozen(self) -> nn.Linear:
        """The base layer."""
        assert isinstance(self.base_layer, nn.Linear)
        return self.base_layer

    def _low(self, x: Tensor, down_AI: Tensor) -> Tensor:
        """Return s·A·dropout(x), its rank filled up with zeros."""
        scaling: float = self.scaling[self.adapter]
        return functional.linear(self.lora_dropout[self.adapter](x), filled_rows(down_AI).to(x.dtype)) * scaling


class CompactReader(CompactLayer):
    """W·x + s·B·A·x for x of the living channels; the base weight's columns of dead ones are gone."""

    def __init__(self, layer: LoraLayer, index_K: Tensor) -> None:
        super().__init__(layer, index_K)
        keep_inputs(self.frozen, index_K)

    def forward(self, x: Tensor) -> Tensor:
        down_AK = _weight(self.lora_A[self.adapter]).index_select(1, self.index_K)
        update = functional.linear(self._low(x, down_AK), filled_columns(_weight(self.lora_B[self.adapter])).to(x.dtype))
        output: Tensor = self.frozen(x) + update
        return output


class CompactWriter(CompactLayer):
    """The living rows of g ⊙ D·(W + s·B·A)·x for D = I or D = I + L1·diag(v)·L0, without ever forming the dead ones.

    With P the living rows, P·D·y = P·y + P·L1·diag(v)·(L0·y), and L0·y = (L0·W)·x + s·(L0·B)·A·x needs no row of y either: L0·W is
    one product a forward pass, small where tokens outnumber channels. All rows of W stay, the living ones first, unless D = I.
    """

    rows: Tensor

    def __init__(self, layer: LoraLayer, hsm: HybridSparsificationModule, index_K: Tensor) -> None:
        super().__init__(layer, index_K)
        self._hsm = (hsm,)  # in a tuple, so that its parameters do not appear a second time under this layer
        dead_D = torch.ones(self.frozen.out_features, dtype=torch.bool, device=index_K.device)
        dead_D[index_K] = False
        rows = index_K if hsm.operator.factors() is None else torch.cat([index_K, dead_D.nonzero().flatten()])
        self.register_buffer("rows", rows, persistent=False)
        keep_outputs(self.frozen, rows)

    def forward(self, x: Tensor) -> Tensor:
        [hsm] = self._hsm
        width, weight, bias = self.index_K.numel(), self.frozen.weight, self.frozen.bias
        up_DA = filled_columns(_weight(self.lora_B[self.adapter]))
        low, up_K = self._low(x, _weight(self.lora_A[self.adapter])), up_DA.index_select(0, self.index_K)
        factors = hsm.operator.factors()
        if factors is not None:
            down_RD, up_DR = factors
            through_lora = functional.linear(low, (down_RD @ up_DA).to(x.dtype))
            low = torch.cat([low, self._through_base(x, down_RD) + through_lora], dim=-1)
            up_K = torch.cat([up_K, up_DR.index_select(0, self.index_K)], dim=1)
        z = functional.linear(x, weight[:width], None if bias is None else bias[:width]) + functional.linear(low, up_K.to(x.dtype))
        if hsm.output_scale is None:
            return z
        scale_K = hsm.output_scale.index_select(0, self.index_K)
        return z * (scale_K if torch.is_autocast_enabled(z.device.type) else scale_K.to(z.dtype))

    def _through_base(self, x: Tensor, down_RD: Tensor) -> Tensor:
        """Return L0·(W·x + b)."""
        weight, bias = self.frozen.weight, self.frozen.bias
        ordered_RD = down_RD.index_select(1, self.rows).to(weight.dtype)
        return functional.linear(x, ordered_RD @ weight, None if bias is None else ordered_RD @ bias)


def filled_rows(down_AI: Tensor) -> Tensor:
    """Return a factor with zero rows up to the next full rank, itself where it is full: padding by nothing would copy it."""
    missing = -len(down_AI) % RANK_STEP
    return functional.pad(down_AI, (0, 0, 0, missing)) if missing else down_AI


def filled_columns(up_OA: Tensor) -> Tensor:
    """Return a factor with zero columns up to the next full rank, or itself."""
    missing = -up_OA.shape[1] % RANK_STEP
    return functional.pad(up_OA, (0, missing)) if missing else up_OA


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def keep_inputs(linear: nn.Linear, index_K: Tensor) -> None:
    """Cut a frozen layer to some of its inputs, in place."""
    linear.weight = nn.Parameter(linear.weight.detach().index_select(1, index_K), requires_grad=False)
    linear.in_features = index_K.numel()


def keep_outputs(linear: nn.Linear, index_K: Tensor) -> None:
    """Cut a frozen layer to some of its outputs, in place, and put them into the given order."""
    linear.weight = nn.Parameter(linear.weight.detach().index_select(0, index_K), requires_grad=False)
    if linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias.detach().index_select(0, index_K), requires_grad=False)
    linear.out_features = index_K.numel()
