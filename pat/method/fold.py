"""The merge, one tensor at a time: fold LoRA and the HSM into the weight, cut dead channels, keep every norm exact.

A pure function of names and tensors; reading and writing checkpoints is merge.py's. Axes: D hidden channels, K kept ones.

Why the stream is scaled. A norm divides by sqrt(mean over D of x² + eps). With dead channels at zero the mean over the K kept ones is
D/K times larger. Scaling everything written to the stream by c = sqrt(K/D) makes the mean what it was, so eps stays as it is, also
for norms inside attention that share it (Qwen3), and a gain divided by c undoes the scale for the readers; a norm that subtracts the mean
subtracts that of the kept channels, as the masked model does (models/living_norms.py). A family that multiplies
its embedding by sqrt(hidden_size) brings that factor c along by itself. Where embedding and head are one matrix, the head gets the
embedding's c too and the final norm's gain takes it back. A norm between a write and the stream gets c times what was written, whose mean
of squares over the kept channels is what it was, and passes on c times what it did: its gain stays. A reader without a norm takes c back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pat.errors import UserError
from pat.families.known import Family, Role
from pat.method.hsm import HybridSparsificationModule
from pat.method.lora import LoraUpdate

WIDER = {torch.bfloat16: torch.float32, torch.float16: torch.float32, torch.float32: torch.float64, torch.float64: torch.float64}


def stream_scale(kept: int, channels: int) -> float:
    """Return c, the scale of a stream with `kept` of its channels beside the one that it was cut from."""
    return math.sqrt(kept / channels)


class Fold:
    """Maps each tensor of a base checkpoint to the merged model's; remembers which trained tensors it has used.

    `kept_D` says which channels survive (all of them where nothing is pruned). Products are formed one precision above the tensor's.
    """

    def __init__(
        self,
        family: Family,
        kept_D: Tensor,
        *,
        tied: bool,
        lora: Mapping[str, LoraUpdate] | None = None,
        hsms: Mapping[str, HybridSparsificationModule] | None = None,
    ) -> None:
        self.family = family
        self.tied = tied
        self.kept_D = kept_D
        self.index_K = kept_D.nonzero().flatten()
        self.stream_scale = stream_scale(self.index_K.numel(), kept_D.numel())
        self.lora = dict(lora or {})
        self.hsms = dict(hsms or {})
        self._cuts = bool(self.hsms) or not bool(kept_D.all())  # a reshaped model has other widths than `kept_D`, and takes LoRA alone
        self._unused = {f"LoRA of {module}" for module in self.lora} | {f"HSM of {module}" for module in self.hsms}

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        """Return the merged tensor in the given one's dtype and device. Raises UserError on a name the family does not have."""
        if tensor.dim() == 3:  # that of all experts, in memory
            return torch.stack([self(name, of_expert) for of_expert in tensor])
        module, _, parameter = name.rpartition(".")
        role = self.family.role(name)
        wide = tensor.to(WIDER[tensor.dtype])
        if parameter == "weight" and module in self.lora:
            wide = self.lora[module].fold(wide)
            self._unused.discard(f"LoRA of {module}")
        return (self._cut(role, module, parameter, wide) if self._cuts else wide).to(tensor.dtype).contiguous()

    def _cut(self, role: Role, module: str, parameter: str, wide: Tensor) -> Tensor:
        index_K = self.index_K.to(wide.device)
        match role:
            case Role.EMBEDDING:
                return self._sparsified(module, wide.T).T[:, index_K] * self._embedding_scale()
            case Role.WRITE:
                # A bias is a column: it is written to the stream as the weight's rows are.
                columns = wide if wide.dim() == 2 else wide[:, None]
                written = self._sparsified(module, columns)[index_K].mul_(self.stream_scale)
                return written.reshape(index_K.numel(), *wide.shape[1:])
            case Role.READ | Role.HEAD if wide.dim() == 2:
                raw = self.family.norm_before(module) is None
                return wide[:, index_K] / (self.stream_scale if raw else 1.0)
            case Role.NORM_BEHIND:
                return wide[index_K]
            case Role.NORM | Role.FINAL_NORM:
                return self._cut_norm(role, parameter, wide[index_K])
        return wide

    def _cut_norm(self, role: Role, parameter: str, wide_K: Tensor) -> Tensor:
        """Return a norm's gains without the stream's scale, and biases; a head that is the embedding brings a scale of its own to both."""
        shared = self._embedding_scale() if role is Role.FINAL_NORM and self.tied else 1.0
        return wide_K / shared if parameter == "bias" else self._gain(wide_K, 1.0 / (self.stream_scale * shared))

    def _sparsified(self, module: str, weight_DI: Tensor) -> Tensor:
        """Fold (M ⊙ D) into a weight whose rows are channels."""
        write = self.family.write_of(module)
        if write not in self.hsms:
            return weight_DI
        self._unused.discard(f"HSM of {write}")
        return self.hsms[write].fold(weight_DI, self.kept_D)

    def _embedding_scale(self) -> float:
        return 1.0 if self.family.embedding_factor else self.stream_scale

    def _gain(self, gain: Tensor, factor: float) -> Tensor:
        """Multiply the effective gain, offset + g, by `factor` and return what is stored (g of docs/method.md, equation 1)."""
        return factor * (gain + self.family.gain_offset) - self.family.gain_offset

    def check_all_used(self) -> None:
        """Raise UserError where a trained tensor found no base tensor to go into."""
        if self._unused:
            raise UserError(f"trained tensors that no tensor of the base model takes up: {', '.join(sorted(self._unused)[:8])}")
