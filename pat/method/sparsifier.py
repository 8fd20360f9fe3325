"""All HSMs of one model with their shared mask, independent of the model itself: built, saved and loaded by write name.

`hsm.safetensors` holds a tensor per parameter under `<write>.<parameter>` and the mask's state under `mask.<name>`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pat.errors import UserError
from pat.io.tensors import check_numbers, read_tensors
from pat.method.hsm import HybridSparsificationModule, IdentityOperator, make_operator
from pat.method.mask import UnifiedMask
from pat.method.orthogonality import identity_loss
from pat.method.release_mask import ReleaseMask
from pat.settings.config import PatConfig
from pat.settings.limits import MOST

HSM_WEIGHTS_NAME = "hsm.safetensors"


class Sparsifier(nn.Module):
    """The mask and the 2L + 1 HSMs of a model, one for each of `writes` in the order of the computation.

    On a tied model the embedding's HSM is the mask alone: a D there would reach the embedding and not the head.
    `empty` leaves the operators' numbers to `load`: orthogonal factors for a wide model take seconds to draw.
    """

    def __init__(
        self,
        hidden_size: int,
        width: int,
        writes: Sequence[str],
        *,
        tied: bool,
        config: PatConfig,
        importance_D: Tensor | None = None,
        empty: bool = False,
    ) -> None:
        super().__init__()
        self.writes = tuple(writes)
        released = config.variant == "release" and not config.fixed_mask
        self.mask = (ReleaseMask if released else UnifiedMask)(hidden_size, width, config, importance_D)
        self.hsms = nn.ModuleList(self._make(hidden_size, bare=tied and index == 0, empty=empty) for index in range(len(self.writes)))

    def _make(self, hidden_size: int, *, bare: bool, empty: bool) -> HybridSparsificationModule:
        if bare:
            return HybridSparsificationModule(IdentityOperator())
        scaled = hidden_size if self.config.variant == "release" else None
        with torch.device("meta") if empty else nullcontext():
            operator = make_operator(hidden_size, self.config)
        if empty:
            operator.to_empty(device="cpu")
        return HybridSparsificationModule(operator, output_scale_size=scaled)

    @property
    def config(self) -> PatConfig:
        """The run's choices."""
        return self.mask.config

    def identity_loss(self) -> Tensor:
        """The identity loss summed over the HSMs; under `release` over the embedding's and the last layer's two alone.

        In fp32 also where autocast would multiply in bf16, whose rounding is larger than the distance that is measured.
        """
        with torch.autocast(self.mask.proxy.device.type, enabled=False):
            return self._identity_loss()

    def _identity_loss(self) -> Tensor:
        hsms = list(self.by_write().values())
        counted = [hsms[0], *hsms[-2:]] if self.config.variant == "release" else hsms
        held = [factor for hsm in counted for factor in hsm.operator.held_factors()]
        if not held:  # D = I, or a free one
            return self.mask.proxy.new_zeros((), dtype=torch.float32)
        loss = identity_loss(held, "norm" if self.config.operators == "pinned" else "mean-square")
        return loss.to(self.mask.proxy.device)

    def by_write(self) -> dict[str, HybridSparsificationModule]:
        """Return the HSMs by the module name of the write each one stands behind."""
        pairs = zip(self.writes, self.hsms, strict=True)
        return {write: hsm for write, hsm in pairs if isinstance(hsm, HybridSparsificationModule)}

    def named_state(self) -> dict[str, Tensor]:
        """Return every tensor under the name it has in `hsm.safetensors`."""
        state = {f"mask.{name}": tensor for name, tensor in self.mask.state_dict().items()}
        for write, hsm in self.by_write().items():
            state |= {f"{write}.{name}": tensor for name, tensor in hsm.state_dict().items()}
        return state

    def load_named_state(self, state: Mapping[str, Tensor], source: str) -> None:
        """Take over the tensors of `named_state`. Raises UserError unless the names match exactly.

        Only what a mask remembers of its learning may be missing: adapters from before it learned by itself have none.
        """
        own = self.named_state()
        remembered = {name: torch.zeros_like(tensor) for name, tensor in own.items() if name.startswith("mask.learner.")}
        state = {**remembered, **state}
        missing, unexpected = sorted(set(own) - set(state)), sorted(set(state) - set(own))
        if missing or unexpected:
            raise UserError(f"{source}: does not fit this model: missing {missing[:5]}, unexpected {unexpected[:5]}")
        if wrong := [name for name in own if own[name].shape != state[name].shape]:
            raise UserError(f"{source}: wrong shape of {wrong[:5]}")
        if wrong := [name for name in own if own[name].is_floating_point() != state[name].is_floating_point()]:
            raise UserError(f"{source}: wrong kind of number in {wrong[:5]}")
        check_numbers({name: state[name] for name in own if own[name].is_floating_point()}, source)
        if not 0 <= (steps := int(state["mask.step_count"])) <= MOST:
            raise UserError(f"{source}: mask.step_count is {steps}, which is no number of steps")
        self.mask.load_state_dict(_below("mask", state))
        self._check_count(source)
        for write, hsm in self.by_write().items():
            hsm.load_state_dict(_below(write, state))

    def _check_count(self, source: str) -> None:
        """Raise UserError where a finished mask keeps another number of channels than its run was to; the release's own may."""
        mask = self.mask
        kept, every = int(mask.kept.sum()), mask.kept.numel()
        if mask.finished and (kept != mask.width if self.config.exact_count else kept == 0):
            raise UserError(
                f"{source}: its mask keeps {kept} of {every} channels, by pat_config.json and the base it is to keep {mask.width}"
            )

    def save(self, folder: Path) -> None:
        """Write `hsm.safetensors` and `pat_config.json` into `folder`."""
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.named_state().items()}
        save_file(state, folder / HSM_WEIGHTS_NAME, metadata={"format": "pt"})
        self.config.save(folder)

    def load(self, folder: Path) -> None:
        """Take over the tensors of `hsm.safetensors` in `folder`. Raises UserError where it is missing or does not fit."""
        path = folder / HSM_WEIGHTS_NAME
        if not path.is_file():
            raise UserError(f"{path}: no such file; is {folder} the adapter of a PAT run?")
        self.load_named_state(read_tensors(path), str(path))


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): tensor for name, tensor in state.items() if name.startswith(f"{prefix}.")}
