"""A tuning run's health: what the losses and the mask did over the steps, and whether the milestone came as a shock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import reduce
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pat.io.progress import Progress
from pat.method.model import PatModel
from pat.method.operator_watch import FIELDS as OPERATOR_FIELDS
from pat.method.operator_watch import OperatorWatch
from pat.training.distillation import Distillation

ENTRIES_AFTER_MILESTONE = 3
MASK_FIELDS = (
    "identity_loss", "active_loss", "kept", "mask_mean", "mask_histogram", "proxy_min", "proxy_max", "proxy_std", "tau", "beta",
)  # fmt: skip
HISTOGRAM_STEP, HISTOGRAM_BINS = 0.1, 16
"""Bins of the mask's values around 0, 0.1, … 1.5: the gate is at most a sigmoid's 1 plus an offset of 1/2."""
UNDECIDED = slice(2, 9)
"""The bins of gates that neither keep their channel nor remove it: from 0.15 to 0.85."""


class HealthRecord(TrainerCallback):
    """Adds loss terms and mask figures to the trainer's log history, which its checkpoints keep, and shows progress."""

    def __init__(self, label: str, distillation: Distillation | None = None) -> None:
        self.label = label
        self.distillation = distillation
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._watch: OperatorWatch | None = None

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any) -> None:
        self._watch = OperatorWatch(model) if isinstance(model, PatModel) else None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._progress = Progress(self.label, state.max_steps)

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        self._add_losses(model)

    def on_pre_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._watch is not None and (state.global_step + 1) % state.logging_steps == 0:
            self._watch.look_at_gradients()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any) -> None:
        self._add_losses(model)
        self._steps += 1

    def _add_losses(self, model: Any) -> None:
        for name, term in self._data_terms(model).items():
            self._sums[name] = self._sums[name] + term if name in self._sums else term

    def _data_terms(self, model: Any) -> dict[str, Tensor]:
        """Return the terms of the last forward pass that the data brings, where they are not the whole loss."""
        if self.distillation is not None:
            return self.distillation.terms
        return {"instruct_loss": model.loss_terms["instruct_loss"]} if isinstance(model, PatModel) else {}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        entry: dict[str, Any] = state.log_history[-1]
        if "loss" not in entry:
            return
        entry["instruct_loss"] = entry["loss"]
        entry.update(dict.fromkeys((*MASK_FIELDS, *OPERATOR_FIELDS)))
        sums = {name: reduce(summed, reduction="sum") for name, summed in self._sums.items()}  # each process has seen its rows
        entry.update({name: float(summed) / max(self._steps, 1) for name, summed in sums.items()})
        if isinstance(model, PatModel):
            entry.update(mask_figures(model, state.global_step))
        if self._watch is not None:
            entry.update(self._watch.figures(entry.get("grad_norm"), args.max_grad_norm or 0.0))
        if logs is not None:  # trackers come after this; the step they are told beside it
            logs.update({name: value for name, value in entry.items() if name != "step" and isinstance(value, int | float)})
        self._sums, self._steps = {}, 0
        self._progress.update(state.global_step, loss=entry["instruct_loss"])

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._progress.finish()


@torch.no_grad()
def mask_figures(model: PatModel, step: int) -> dict[str, Any]:
    """Return the mask's state after `step` steps: losses, count, gate and proxy spread; τ is None once it is infinite."""
    mask = model.sparsifier.mask
    tau, beta = mask.schedule(step)
    proxy_D = mask.proxy.float()
    gate_D = mask()
    return {
        "identity_loss": float(model.sparsifier.identity_loss()),
        "active_loss": float(mask.active_loss()),
        "kept": mask.kept_count(),
        "mask_mean": float(gate_D.mean()),
        "mask_histogram": histogram(gate_D),
        "proxy_min": float(proxy_D.min()),
        "proxy_max": float(proxy_D.max()),
        "proxy_std": float(proxy_D.std()),
        "tau": tau if math.isfinite(tau) else None,
        "beta": beta,
    }


def histogram(gate_D: Tensor) -> list[int]:
    """Return how many channels' gates lie around each of 0, 0.1, … 1.5."""
    low, high = -HISTOGRAM_STEP / 2, (HISTOGRAM_BINS - 0.5) * HISTOGRAM_STEP
    return [int(count) for count in torch.histc(gate_D.detach().float().cpu(), bins=HISTOGRAM_BINS, min=low, max=high)]


def health_of(history: Sequence[dict[str, Any]], milestone_step: int) -> dict[str, float | int | None]:
    """Return what happened at the milestone: kept channels, the loss before it and the worst of the next entries, their difference.

    Beside it how many gates were `undecided` when last logged, which merging rounds; None before the milestone.
    """
    before = [entry for entry in history if entry["step"] <= milestone_step]
    after = [entry for entry in history if entry["step"] > milestone_step][:ENTRIES_AFTER_MILESTONE]
    loss_before = before[-1]["instruct_loss"] if before else None
    loss_after = max((entry["instruct_loss"] for entry in after), default=None)
    return {
        "milestone_step": milestone_step,
        "kept_at_milestone": after[0]["kept"] if after else None,
        "loss_before_milestone": loss_before,
        "loss_after_milestone": loss_after,
        "shock": None if loss_before is None or loss_after is None else loss_after - loss_before,
        "undecided": undecided(history[-1]) if after else None,
    }


def undecided(entry: dict[str, Any]) -> int | None:
    """Return how many channels' gates neither kept nor removed them in a logged step, None where it has no gates."""
    bins = entry.get("mask_histogram")
    return None if bins is None else sum(bins[UNDECIDED])
