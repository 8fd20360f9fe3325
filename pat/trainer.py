"""PatTrainer: the stock Trainer for models whose mask is learned at a rate of its own, and for distillation.

Owns what differs from the stock loop: the optimizer's groups, their schedule, and the loss with a teacher.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer

from pat.distillation import Distillation, kullback_leibler
from pat.model import PatModel


class PatTrainer(Trainer):
    """The stock Trainer, with a constant rate of its own for the mask's proxy (method section 11.4), and distillation where given.

    A stock Trainer would move the proxy at the recipe's rate and with its schedule, by which a mask is hardly learned.
    """

    def __init__(self, *, distillation: Distillation | None = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.distillation = distillation
        if distillation is not None and isinstance(self.model, PatModel):
            self.model.instruct_weight = 1.0 - distillation.settings.weight

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Tensor | int | None = None
    ) -> Any:
        """Return the stock loss; with distillation, (1 - w) · L_instruct + w · KL(teacher ‖ student) and the mask's own terms."""
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if self.distillation is not None:
            loss = self._distilled(loss, outputs.logits, inputs, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def _distilled(self, loss: Tensor, student_BTV: Tensor, inputs: dict[str, Any], items: Tensor | int | None) -> Tensor:
        distillation = self.distillation
        assert distillation is not None
        weight, temperature = distillation.settings.weight, distillation.settings.temperature
        teacher_BTV = distillation.teacher_logits(inputs["input_ids"], inputs.get("attention_mask"))
        divergence = kullback_leibler(student_BTV, teacher_BTV, inputs["labels"], temperature, items)
        averaged = self.accelerator.num_processes if items is not None else 1  # items are of all processes, whose gradients are averaged
        stock = self.accelerator.unwrap_model(self.model)
        instruct_loss = stock.loss_terms["instruct_loss"] if isinstance(stock, PatModel) else loss.detach() / averaged
        distillation.terms = {"instruct_loss": instruct_loss, "distillation_loss": divergence.detach()}
        rest = loss if isinstance(stock, PatModel) else (1.0 - weight) * loss
        return rest + weight * averaged * divergence

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: the stock count, which nobody reads here, walks through all modules for every batch."""
        return 0

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Return AdamW over the groups of `parameter_groups` where a mask is trained, else the stock optimizer."""
        if not isinstance(self.model, PatModel):
            optimizer: torch.optim.Optimizer = super().create_optimizer(model)
            return optimizer
        self.model.plan(self.state.max_steps)
        args = self.args
        groups = parameter_groups(self.model, args.learning_rate, args.weight_decay)
        fused = True if args.optim == "adamw_torch_fused" else None  # None: as torch sees fit
        self.optimizer = torch.optim.AdamW(groups, betas=(args.adam_beta1, args.adam_beta2), eps=args.adam_epsilon, fused=fused)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Return the recipe's schedule, which leaves out all groups but the first: the proxy's rate stays as it is."""
        recipe: Any = super().create_scheduler(num_training_steps, optimizer)
        if isinstance(self.model, PatModel):
            assert self.optimizer is not None
            rest = len(self.optimizer.param_groups) - 1
            self.lr_scheduler = LambdaLR(self.optimizer, [recipe.lr_lambdas[0], *[_constant] * rest])
        return self.lr_scheduler


def parameter_groups(model: PatModel, learning_rate: float, weight_decay: float = 0.0) -> list[dict[str, Any]]:
    """Return optimizer groups: LoRA and operators at the recipe's rate, then the proxy at its own, without decay."""
    proxy = model.sparsifier.mask.proxy
    others = [parameter for parameter in model.parameters() if parameter.requires_grad and parameter is not proxy]
    groups: list[dict[str, Any]] = [{"params": others, "lr": learning_rate, "weight_decay": weight_decay}]
    if proxy.requires_grad:
        rate = model.pat_config.mask_learning_rate or 0.5 / model.pat_config.milestone_step
        groups.append({"params": [proxy], "lr": rate, "weight_decay": 0.0})
    return groups


def _constant(_step: int) -> float:
    return 1.0
