"""A recipe in the words of Hugging Face's Trainer."""

from __future__ import annotations

from pathlib import Path

from transformers import TrainingArguments

from pat.errors import UserError
from pat.machine import processes
from pat.settings.jobs import TuningSettings
from pat.training.reporters import run_name
from pat.training.request import Arm

CHECKPOINTS_KEPT = 2
ORDERS_APART = 1_000_003  # further apart than the seeds that people take: no two orders of any two of them are the same


def training_arguments(
    arm: Arm,
    run_dir: Path,
    device: str,
    *,
    steps: int | None = None,
    plans_checkpoints: bool = True,
    micro_batch_size: int | None = None,
) -> TrainingArguments:
    """Return the Trainer's arguments for a recipe; `batch_size` is global, so accumulation follows from the processes.

    `steps` is what the recipe comes to on the rows, where it does not say so itself, `micro_batch_size` what was found to fit where the
    recipe leaves that open.

    Raises UserError where the learning rate is not known yet, or the processes cannot share a batch.
    """
    settings = arm.tuning
    if settings.learning_rate is None:
        raise UserError("tuning.learning_rate: is not known before the search that tuning.search asks for")
    rows_of_each, left = divmod(settings.batch_size, processes.count())
    micro = micro_batch_size or settings.known_micro_batch_size or rows_of_each
    if left or rows_of_each % micro:
        raise UserError(
            f"tuning.batch_size={settings.batch_size}: must be a multiple of micro_batch_size × processes = {micro} × {processes.count()}"
        )
    return TrainingArguments(
        output_dir=str(run_dir),
        max_steps=steps or settings.max_steps or -1,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=_with_warmup(settings),
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=rows_of_each // micro,
        bf16=settings.precision == "bf16",
        activation_checkpointing=settings.recomputes_layers,
        activation_checkpointing_kwargs={"use_reentrant": False} if settings.recomputes_layers else None,
        logging_steps=settings.log_steps,
        save_strategy="steps" if plans_checkpoints else "no",
        save_steps=settings.checkpoint_steps,
        save_total_limit=CHECKPOINTS_KEPT,
        seed=arm.seed,
        data_seed=arm.seed + settings.data_order * ORDERS_APART,
        use_cpu=device == "cpu",
        # A GPU is given the next step while it works on this one: between two log entries nothing waits for it.
        dataloader_pin_memory=device == "cuda",
        accelerator_config={"non_blocking": device == "cuda"},
        logging_nan_inf_filter=False,
        ddp_find_unused_parameters=True,  # the proxy gets no gradient from the milestone on
        optim="adamw_torch_fused" if device == "cuda" else "adamw_torch",
        report_to=list(settings.report_to) or "none",
        run_name=run_name(run_dir) if settings.report_to else None,
        disable_tqdm=True,
        label_names=["labels"],
        remove_unused_columns=False,
    )


def _with_warmup(settings: TuningSettings) -> str:
    """Return the Trainer's name of a schedule: its constant one leaves a warm-up out."""
    return "constant_with_warmup" if settings.schedule == "constant" and settings.warmup_steps else settings.schedule
