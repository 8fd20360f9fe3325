"""`pat tune`: instruction-tune a base model with LoRA, DoRA or PAT through Hugging Face's Trainer; resumable after a kill.

Owns the training job and its record, `tuning.json`. The method is model.py's, LoRA is PEFT's, the loop is the Trainer's. Under torchrun
the processes share the rows of every batch; all of them hold the model, whole or its base in shards (sharding.py), and take the mask's
steps, and the main one writes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState
from peft import PeftModel, get_peft_model
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainingArguments, set_seed

from pat import artefacts, checkpoint, processes
from pat.attention import rely_on_causal_kernel
from pat.base_checks import check_base, check_checkpoint
from pat.basis_record import check_basis
from pat.calibration import Blocks, Calibration, blocks_for
from pat.callback import PatCallback
from pat.compiled import compile_layers, compiles, is_compiled
from pat.config import MEASURED_MASKS, PatChoices, PatConfig
from pat.context import check_context, context_of
from pat.device import peak_memory_gib, resolve_device
from pat.distillation import load_distillation
from pat.divergence import StopWhenDiverged, check_finite
from pat.errors import UserError
from pat.families import family_of
from pat.fit import check_fit, check_warmup
from pat.health import HealthRecord, health_of
from pat.instructions import Instructions, PadToLongest
from pat.lora import sort_targets
from pat.marks import FOLDERS, check_replaceable
from pat.mask_choice import fisher_order, overlaps
from pat.model import PatModel, attach, lora_config
from pat.one_adapter import check_one_width
from pat.prepare import as_pat
from pat.progress import say
from pat.provenance import described, provenance
from pat.readers_record import check_readers, kept_channels
from pat.resume import SealCheckpoints, checkpoint_of, identity_of
from pat.resume_folder import leave, locked
from pat.settings import TuneJob, TuningSettings
from pat.sharding import AskForCheckpoints, check_sharding, leave_out_shards, shards
from pat.storage import writing
from pat.threads import threads_given_back
from pat.trainer import PatTrainer

TUNERS = ("lora", "dora", "pat", "pat-dora", "pat-g")
TUNING_RECORD = "tuning.json"
CHECKPOINTS_KEPT = 2
logger = logging.getLogger(__name__)


@threads_given_back
def tune(
    base: Path,
    data: Path,
    tuner: str,
    ratio: float,
    seed: int,
    job: TuneJob,
    run_dir: Path,
    out: Path,
    teacher: Path | None = None,
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Write the trained adapter to `out` and return its record; checkpoints lie in `run_dir` until it is done.

    `teacher` is the stock model to distil from, where the settings say so; with `force` whatever is at `out` is replaced. Raises UserError
    as `train` does, where it diverged, and where `out` holds something else than such an adapter.
    """  # fmt: skip
    started = time.monotonic()
    tuner, job = as_pat(tuner, job, base, ratio)
    if processes.is_main():
        check_replaceable(out, FOLDERS["tune"], force=force)
    with locked(run_dir):
        _check_inputs(base, tuner, ratio, job, teacher)
        inputs = {name: described(path) for name, path in (("base", base), ("data", data), ("teacher", teacher)) if path is not None}
        trainer, model = _train(base, data, tuner, ratio, seed, job, run_dir, teacher)
        check_finite(model, trainer.state.global_step, "tuning.learning_rate")
        record = tuning_record(trainer, model, ratio, time.monotonic() - started)
        record["provenance"] = provenance(job.model_dump(mode="json") | {"tuner": tuner, "ratio": ratio}, seed, str(model.device), inputs)
        state = PartialState()
        if state.is_main_process:
            with artefacts.new_folder(out, FOLDERS["tune"], force=force) as folder:
                model.save_pretrained(str(folder), save_embedding_layers=False)
                (folder / "README.md").unlink(missing_ok=True)
                sort_targets(folder)
                artefacts.write_json(folder / TUNING_RECORD, record)
            leave(run_dir)
    state.wait_for_everyone()
    state.destroy_process_group()
    return record


@threads_given_back
def train(
    base: Path, data: Path, tuner: str, ratio: float, seed: int, job: TuneJob, run_dir: Path, teacher: Path | None = None
) -> tuple[PatTrainer, PeftModel]:
    """Return the trainer once it is done and the trained model; a job that was killed goes on from the newest checkpoint in `run_dir`.

    Raises UserError on an unknown tuner, a ratio that does not fit it, a teacher without distillation or the other way round, broken
    inputs, a base in another basis or with other readers than the settings say, a schedule too short for the mask, or a `run_dir` that
    another job is at work in.
    """
    tuner, job = as_pat(tuner, job, base, ratio)
    with locked(run_dir):
        _check_inputs(base, tuner, ratio, job, teacher)
        return _train(base, data, tuner, ratio, seed, job, run_dir, teacher)


def _check_inputs(base: Path, tuner: str, ratio: float, job: TuneJob, teacher: Path | None) -> None:
    _check_arguments(tuner, ratio)
    _check_teacher(teacher, job.tuning)
    check_base(base, tokenizer=True)
    if teacher is not None:
        check_checkpoint(teacher)
    artefacts.check_if_listed(base)
    config = checkpoint.load_config(base)
    masked = tuner.startswith("pat")
    check_fit(config, tuner, pat_config(job, ratio, 0, use_dora=tuner == "pat-dora") if masked else None, job)
    if masked:
        check_basis(base, job.pat.basis, job.pat.tie)
        check_readers(base, job.pat.readers, job.pat.mask, ratio)


def _train(
    base: Path, data: Path, tuner: str, ratio: float, seed: int, job: TuneJob, run_dir: Path, teacher: Path | None
) -> tuple[PatTrainer, PeftModel]:
    device = resolve_device(job.tuning.device)
    check_sharding(job.tuning, tuner, device)
    processes.join(device)
    torch.set_num_threads(job.tuning.threads)
    set_seed(seed)
    tokenizer = checkpoint.load_tokenizer(base)
    rows = Instructions(data, tokenizer, job.tuning.max_length)
    check_context(rows, context_of(checkpoint.load_config(base)))
    check_warmup(job, len(rows))
    if lost := rows.losses_by_length():
        say(f"tune: {lost}")
    identity = job_identity(base, data, tuner, ratio, seed, job, teacher)
    calibration = Calibration(data, seed=seed, device=device)
    model = build_model(base, tuner, ratio, seed, job, calibration)
    stock: Any = model.get_base_model()
    sharded = shards(job.tuning)
    compacted = compacts(job.tuning.compact, model, device, sharded=sharded)
    collate = PadToLongest(tokenizer, device)
    if compiles(job.tuning.compile, stock, device, job.tuning.steps_for(len(rows)), sharded=sharded):
        compile_layers(stock)
    settings = job.tuning.distillation
    distillation = load_distillation(teacher, settings, stock, tokenizer, sharded=sharded) if teacher and settings else None
    if not collate.masked:
        for each in (stock, *([distillation.teacher] if distillation else [])):
            rely_on_causal_kernel(each, job.tuning.max_length)
    trainer = PatTrainer(
        distillation=distillation,
        model=model,
        args=training_arguments(job.tuning, seed, run_dir, device),
        train_dataset=rows,
        data_collator=collate,
        callbacks=[
            *([PatCallback(compact=compacted)] if isinstance(model, PatModel) else []),
            HealthRecord(f"tune {tuner} ratio {ratio:g} seed {seed}", distillation),
            StopWhenDiverged(),
            *([AskForCheckpoints(job.tuning.checkpoint_steps)] if sharded else []),
            SealCheckpoints(identity),
        ],
    )
    trainer.remove_callback(PrinterCallback)
    with PartialState().main_process_first():  # it puts aside what other jobs have left
        checkpoint_folder = checkpoint_of(run_dir, identity)
    if checkpoint_folder is not None:
        say(f"tune: resuming from {checkpoint_folder}")
    with writing(run_dir):
        trainer.train(resume_from_checkpoint=str(checkpoint_folder) if checkpoint_folder else None)
    return trainer, model


def job_identity(base: Path, data: Path, tuner: str, ratio: float, seed: int, job: TuneJob, teacher: Path | None) -> dict[str, object]:
    """Return what a checkpoint of the job must agree with to be resumed from."""
    return {
        "settings": job.model_dump(mode="json"),
        "tuner": tuner,
        "ratio": ratio,
        "seed": seed,
        "base": identity_of(base),
        "data": artefacts.sha256(data),
        **({"teacher": identity_of(teacher)} if teacher else {}),
    }


def _check_arguments(tuner: str, ratio: float) -> None:
    if tuner not in TUNERS:
        raise UserError(f"--tuner {tuner!r}: must be one of {', '.join(TUNERS)}")
    if not 0.0 <= ratio < 1.0:
        raise UserError(f"--ratio {ratio}: must lie in [0, 1)")
    if ratio and not tuner.startswith("pat"):
        raise UserError(f"--ratio {ratio} with --tuner {tuner}: only pat, pat-dora and pat-g prune while they tune; use 0")


def _check_teacher(teacher: Path | None, tuning: TuningSettings) -> None:
    if teacher is None and tuning.distillation is not None:
        raise UserError("tuning.distillation is set, but there is no --teacher: give the folder of the tuned, unpruned model")
    if teacher is not None and tuning.distillation is None:
        raise UserError(f"--teacher {teacher}: has no effect, because tuning.distillation is not set; set it, or leave the teacher out")


def build_model(base: Path, tuner: str, ratio: float, seed: int, job: TuneJob, calibration: Calibration) -> PeftModel:
    """Return the base model with LoRA or DoRA on every linear layer, and the HSMs where the tuner prunes.

    `calibration` is the text that the PatConfig's options measure on, and where.
    """
    if tuner.startswith("pat"):
        check_one_width(checkpoint.load_config(base))
    dtype = torch.bfloat16 if job.tuning.precision == "bf16" else torch.float32
    sharded = shards(job.tuning)
    stock = checkpoint.load_model(base, dtype, sharded=sharded)
    if not sharded:
        stock.to(torch.device(calibration.device))  # type: ignore[arg-type]  # transformers' annotation wraps nn.Module.to wrongly
    stock.config.use_cache = False
    kept = kept_channels(base) if tuner.startswith("pat") else None
    measured = tuner.startswith("pat") and {job.pat.mask, job.pat.mask_prior} & set(MEASURED_MASKS) and kept is None
    judged = tuner.startswith("pat") and job.pat.mask == "trained" and ratio > 0
    text = blocks_for(stock.config, calibration, checkpoint.load_tokenizer(base)) if measured or judged else None
    fisher_D = fisher_order(stock, text) if judged and text is not None else None
    model = adapted(stock, tuner, ratio, seed, job, text, kept)
    if isinstance(model, PatModel):
        model.fisher_order = fisher_D
    if sharded:
        leave_out_shards(model)
    return model


def adapted(
    stock: PreTrainedModel,
    tuner: str,
    ratio: float,
    seed: int,
    job: TuneJob,
    text: Blocks | None = None,
    kept: Sequence[int] | None = None,
) -> PeftModel:
    """Return `stock`, changed in place, with what the tuner adds; `text` and `kept` as `attach` takes them.

    Raises UserError where the mask's settings do not fit the model, or lack text or channels.
    """
    if tuner.startswith("pat"):
        return attach(stock, pat_config(job, ratio, seed, use_dora=tuner == "pat-dora"), text, kept)
    lora = job.tuning.lora
    config = lora_config(family_of(stock.config), lora.rank, lora.alpha, lora.dropout, use_dora=tuner == "dora")
    with_lora = get_peft_model(stock, config)
    assert isinstance(with_lora, PeftModel)
    return with_lora


def compacts(choice: Literal["auto"] | bool, model: PeftModel, device: str, *, sharded: bool = False) -> bool:
    """Return whether a run compacts its model once the mask is closed, and say why where it was not forbidden and does not.

    Raises UserError where it is asked for and cannot be.
    """
    if choice is False or not isinstance(model, PatModel):
        return False
    obstacle = model.compaction_obstacle
    if obstacle and choice is True and model.pat_config.pruning_ratio:
        raise UserError(f"tuning.compact: true is not possible: {obstacle}; leave it at auto")
    gainless = "on a CPU it gains little" if choice == "auto" and device == "cpu" else None
    reason = obstacle or ("the base is in shards" if sharded else gainless)
    if reason:
        say(f"tune: the model is not compacted: {reason}")
    return reason is None


def pat_config(job: TuneJob, ratio: float, seed: int, *, use_dora: bool) -> PatConfig:
    """Return the PatConfig of a job: its mask settings, the recipe's LoRA settings, the cell's ratio and seed."""
    lora = job.tuning.lora
    return PatConfig(
        pruning_ratio=ratio,
        lora_rank=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_dora=use_dora,
        seed=seed,
        **{field: getattr(job.pat, field) for field in PatChoices.model_fields},
    )


def training_arguments(settings: TuningSettings, seed: int, run_dir: Path, device: str) -> TrainingArguments:
    """Return the Trainer's arguments for a recipe; `batch_size` is global, so accumulation follows from the processes."""
    if settings.learning_rate is None:
        raise UserError("tuning.learning_rate: is not known before the search that tuning.search asks for")
    rows_of_each, left = divmod(settings.batch_size, processes.count())
    micro = settings.micro_batch_size or rows_of_each
    if left or rows_of_each % micro:
        raise UserError(
            f"tuning.batch_size={settings.batch_size}: must be a multiple of micro_batch_size × processes = {micro} × {processes.count()}"
        )
    return TrainingArguments(
        output_dir=str(run_dir),
        num_train_epochs=settings.epochs or 1.0,
        max_steps=settings.max_steps or -1,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=rows_of_each // micro,
        bf16=settings.precision == "bf16",
        activation_checkpointing=settings.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if settings.gradient_checkpointing else None,
        logging_steps=settings.log_steps,
        save_strategy="no" if shards(settings) else "steps",  # sharded: AskForCheckpoints has them written
        save_steps=settings.checkpoint_steps,
        save_total_limit=CHECKPOINTS_KEPT,
        seed=seed,
        data_seed=seed,
        use_cpu=device == "cpu",
        # A GPU is given the next step while it works on this one: between two log entries only distillation waits for it.
        dataloader_pin_memory=device == "cuda",
        accelerator_config={"non_blocking": device == "cuda"},
        logging_nan_inf_filter=False,
        ddp_find_unused_parameters=True,  # the proxy gets no gradient from the milestone on
        optim="adamw_torch_fused" if device == "cuda" else "adamw_torch",
        report_to="none",
        disable_tqdm=True,
        label_names=["labels"],
        remove_unused_columns=False,
    )


def tuning_record(trainer: Trainer, model: PeftModel, ratio: float, wall_s: float) -> dict[str, Any]:
    """Return what `tuning.json` says of the run: sizes, time, memory, the course of the losses and the mask, and its health."""
    history = [entry for entry in trainer.state.log_history if "instruct_loss" in entry]
    stock: Any = model.get_base_model()
    hidden_size: int = stock.config.hidden_size
    width = model.width if isinstance(model, PatModel) else hidden_size
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return {
        "steps": trainer.state.global_step,
        "trainable_parameters": trainable,
        "hidden_size": hidden_size,
        "width": width,
        "ratio_requested": ratio,
        "ratio_effective": 1.0 - width / hidden_size,
        "compacted": isinstance(model, PatModel) and model.compacted,
        "compiled": is_compiled(stock),
        "sharded": stock.is_distributed_loading_by_transformers,
        "train_loss": history[-1]["instruct_loss"] if history else None,
        **({"distillation_loss": history[-1]["distillation_loss"]} if history and "distillation_loss" in history[-1] else {}),
        "rows": trainer.train_dataset.counts() if isinstance(trainer.train_dataset, Instructions) else None,
        "processes": processes.count(),
        "wall_s": wall_s,
        "peak_memory_gib": peak_memory_gib(),
        "history": history,
        "health": _health(history, model) if isinstance(model, PatModel) and ratio else None,
    }


def _health(history: Sequence[dict[str, Any]], model: PatModel) -> dict[str, Any]:
    """Return the health of a pruning run, and what its mask chose where it was trained."""
    health: dict[str, Any] = health_of(history, model.pat_config.milestone_step)
    return health | (overlaps(model.sparsifier.mask, model.fisher_order) if model.fisher_order is not None else {})
