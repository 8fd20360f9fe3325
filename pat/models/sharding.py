"""A frozen base model in shards, one on each process of a tuning (FSDP2), loaded by transformers as such: no process ever holds it whole.

Only what is frozen is sharded. What is trained is small beside it and lies whole on every process, where the Trainer averages its
gradients; so losses, clipping, the mask's schedule, checkpoints and adapters know nothing of the shards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.distributed import DistributedConfig  # type: ignore[attr-defined]  # exported lazily

from pat.errors import UserError
from pat.families.known import family_of
from pat.io.progress import say
from pat.machine import processes

if TYPE_CHECKING:
    from pat.training.request import TuningRequest


def reason_not_to(request: TuningRequest) -> str | None:
    """Return why a tuning does not shard its base, None where it does."""
    if not request.tuning.shard:
        return "tuning.shard is false"
    if request.with_dora:
        return "DoRA takes norms of whole weights"
    return "the job is one process" if processes.count() == 1 else None


def check_sharding(request: TuningRequest) -> None:
    """Say where sharding has no effect. Raises UserError where a tuner or a device cannot be had with it."""
    if not request.tuning.shard:
        return
    reason = reason_not_to(request)
    if request.with_dora:
        plain = "pat" if request.masked else "lora"
        raise UserError(f"tuning.shard with --tuner {request.tuner}: is not possible, {reason}; use {plain}")
    if reason:
        say(f"tune: tuning.shard has no effect: {reason}")
    elif request.device == "cpu" and torch.cuda.is_available():
        raise UserError("tuning.shard with device: cpu: shards lie on the GPUs where there are some; hide them (CUDA_VISIBLE_DEVICES=)")


def sharding_of(model_config: Any) -> DistributedConfig:
    """Return how a model is cut: every decoder layer is gathered for its own work and let go, the head stays for its backward."""
    family = family_of(model_config)
    let_go, kept = "free_full_weight", "keep_full_weight"
    plan = {**dict.fromkeys(family.entrance, let_go), f"{family.layers}.*": let_go, family.final_norm: kept, family.head: kept}
    return DistributedConfig(fsdp_size=processes.count(), fsdp_plan=plan)


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor that may be in shards as one; all processes have to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def leave_out_shards(model: nn.Module) -> None:
    """Keep the base out of what a model says of its state, for whoever saves it: PEFT would gather it whole on every process first."""
    model.register_state_dict_post_hook(_without_shards)


def _without_shards(_module: nn.Module, state: dict[str, Any], _prefix: str, _metadata: object) -> None:
    for name in [name for name, tensor in state.items() if isinstance(tensor, DTensor)]:
        del state[name]


class AskForCheckpoints(TrainerCallback):
    """Has a checkpoint written every so many steps, in a trainer that plans none itself.

    The Trainer plans none for a sharded model, because it could not save the state of an optimizer of shards. Ours has none.
    """

    def __init__(self, every_steps: int) -> None:
        self.every_steps = every_steps

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.every_steps == 0:
            control.should_save = True
