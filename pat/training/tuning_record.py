"""What a tuning writes down of itself, `tuning.json`: sizes, time, memory, the course of the losses and the mask, and its health."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import Trainer

from pat.data.instructions import Instructions
from pat.io.artefacts import read_json
from pat.machine import processes
from pat.method.model import PatModel
from pat.models.compiled import is_compiled
from pat.settings.jobs import SearchSettings
from pat.training.health import health_of
from pat.training.mask_choice import overlaps

TUNING_RECORD = "tuning.json"


def trainable_parameters(model: PeftModel) -> int:
    """Return how many of a model's parameters are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def tuning_record(trainer: Trainer, model: PeftModel, ratio: float) -> dict[str, Any]:
    """Return the record of a finished run but for what it took and its provenance."""
    history = [entry for entry in trainer.state.log_history if "instruct_loss" in entry]
    stock: Any = model.get_base_model()
    hidden_size: int = stock.config.hidden_size
    width = model.width if isinstance(model, PatModel) else hidden_size
    return {
        "steps": trainer.state.global_step,
        "trainable_parameters": trainable_parameters(model),
        "hidden_size": hidden_size,
        "width": width,
        "ratio_requested": ratio,
        "ratio_effective": 1.0 - width / hidden_size,
        "compacted": isinstance(model, PatModel) and model.compacted,
        "compiled": is_compiled(stock),
        "sharded": stock.is_distributed_loading_by_transformers,
        "learning_rate": trainer.args.learning_rate,
        "train_loss": history[-1]["instruct_loss"] if history else None,
        **({"distillation_loss": history[-1]["distillation_loss"]} if history and "distillation_loss" in history[-1] else {}),
        "rows": trainer.train_dataset.counts() if isinstance(trainer.train_dataset, Instructions) else None,
        "processes": processes.count(),
        "micro_batch_size": trainer.args.per_device_train_batch_size,
        "history": history,
        "health": _health(history, model) if isinstance(model, PatModel) and ratio else None,
    }


def searched(search: SearchSettings | None, rate_from: Path | None) -> dict[str, Any]:
    """Return what the search found that chose the rate, as `search`: each candidate's loss on how many rows; nothing where none was made.

    `steps` are a candidate's, None where it had as many as the tuning.
    """
    if search is None or rate_from is None:
        return {}
    found = read_json(rate_from)
    return {"search": {"steps": search.steps, **{name: found[name] for name in ("dev_rows", "candidates") if name in found}}}


def _health(history: Sequence[dict[str, Any]], model: PatModel) -> dict[str, Any]:
    """Return the health of a pruning run, and what its mask chose where it was trained."""
    health: dict[str, Any] = health_of(history, model.pat_config.milestone_step)
    return health | (overlaps(model.sparsifier.mask, model.fisher_order) if model.fisher_order is not None else {})
