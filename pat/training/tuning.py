"""`pat tune`: instruction-tune a base model with LoRA, DoRA or PAT through Hugging Face's Trainer; resumable after a kill.

Owns the training job. What was asked for is request.py's, the method is model.py's, LoRA is PEFT's, the loop is the Trainer's. Under
torchrun the processes share the rows of every batch; all of them hold the model, whole or its base in shards (sharding.py), and take the
mask's steps, and the main one writes.
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate import PartialState
from peft import PeftModel
from transformers import PrinterCallback, set_seed

from pat.bases.prepare import as_pat
from pat.checkpoints.origin import origin_of
from pat.data.instructions import PadToLongest
from pat.io import artefacts
from pat.io.marks import FOLDERS, check_replaceable
from pat.io.progress import say
from pat.io.provenance import provenance
from pat.io.resume_folder import leave, locked
from pat.io.storage import writing
from pat.machine import processes
from pat.machine.threads import threads_given_back
from pat.method.callback import PatCallback
from pat.method.compaction import compacts
from pat.method.lora import sort_targets
from pat.method.model import PatModel
from pat.models.attention import rely_on_causal_kernel
from pat.models.compiled import compile_layers, compiles
from pat.models.recomputed import recompute_feed_forward
from pat.models.sharding import AskForCheckpoints
from pat.training import resume
from pat.training.checks import check_inputs
from pat.training.distillation import load_distillation
from pat.training.divergence import StopWhenDiverged, check_finite
from pat.training.health import HealthRecord
from pat.training.micro_batch import rows_at_once
from pat.training.reporters import put_reporters_last
from pat.training.request import TuningRequest
from pat.training.resume import SealCheckpoints, checkpoint_of, job_identity, step_of
from pat.training.spent import Spent
from pat.training.tracker_runs import tracked
from pat.training.trainer import PatTrainer
from pat.training.training_arguments import training_arguments
from pat.training.tuned_model import build_model
from pat.training.tuning_record import TUNING_RECORD, searched, tuning_record


@threads_given_back
def tune(request: TuningRequest) -> dict[str, Any]:
    """Write the trained adapter to the request's `out` and return its record.

    Raises UserError as `train` does, where it diverged, and where `out` holds something else than such an adapter.
    """
    spent = Spent()
    request = as_pat(request)
    if processes.is_main():
        check_replaceable(request.out, FOLDERS["tune"], force=request.force)
    with locked(request.run_dir):
        check_inputs(request)
        inputs, search = request.inputs(), searched(request.tuning.search, request.rate_from)
        with tracked(request):
            trainer, model = _train(request, spent)
            check_finite(model, trainer.state.global_step, "tuning.learning_rate")
        record = tuning_record(trainer, model, request.ratio) | spent.so_far() | search
        record |= {"datasets": list(request.datasets)} if request.datasets else {}
        record |= {"origin": origin} if (origin := origin_of(request.base)) else {}
        record["provenance"] = provenance(request.settings, request.seed, str(model.device), inputs)
        _tell_of_undecided(record)
        state = PartialState()
        if state.is_main_process:
            with artefacts.new_folder(request.out, FOLDERS["tune"], force=request.force) as folder:
                model.save_pretrained(str(folder), save_embedding_layers=False)
                (folder / "README.md").unlink(missing_ok=True)
                sort_targets(folder)
                artefacts.write_json(folder / TUNING_RECORD, record)
            leave(request.run_dir)
    state.wait_for_everyone()
    state.destroy_process_group()
    return record


def _tell_of_undecided(record: dict[str, Any]) -> None:
    if undecided := (record["health"] or {}).get("undecided"):
        say(
            f"tune: warning: {undecided} of {record['hidden_size']} gates are half open at the end: they neither keep their channel nor "
            "remove it. Merging rounds them, so the merged model is not the one that was trained. Tune for more steps, or let the mask "
            "close (variant: paper)"
        )


@threads_given_back
def train(request: TuningRequest) -> tuple[PatTrainer, PeftModel]:
    """Return the trainer once it is done and the trained model; a job that was killed goes on from the newest checkpoint in its `run_dir`.

    Raises UserError on an unknown tuner, a ratio that does not fit it, a teacher without distillation or the other way round, broken
    inputs, a base in another basis or with other readers than the settings say, a schedule too short for the mask, or a `run_dir` that
    another job is at work in.
    """
    request = as_pat(request)
    with locked(request.run_dir):
        check_inputs(request)
        with tracked(request):
            return _train(request, Spent())


def _train(request: TuningRequest, spent: Spent) -> tuple[PatTrainer, PeftModel]:
    torch.set_num_threads(request.tuning.threads)
    set_seed(request.seed)
    identity, planned = job_identity(request), resume.reason_not_to(request) is None
    model = build_model(request)
    stock: Any = model.get_base_model()
    compacted = compacts(request)
    distillation = load_distillation(request, stock)
    collate = PadToLongest(request.tokenizer, request.device)
    if not collate.masked:
        for each in (stock, *([distillation.teacher] if distillation else [])):
            rely_on_causal_kernel(each, request.tuning.max_length)
    micro = rows_at_once(request, model, distillation.teacher if distillation else None)
    if request.tuning.recomputes_feed_forward:
        recompute_feed_forward(stock)
    if compiles(request):
        compile_layers(stock)
    trainer = PatTrainer(
        distillation=distillation,
        model=model,
        args=training_arguments(
            request, request.run_dir, request.device, steps=request.steps, plans_checkpoints=planned, micro_batch_size=micro
        ),
        train_dataset=request.rows,
        data_collator=collate,
        callbacks=[
            *([PatCallback(compact=compacted)] if isinstance(model, PatModel) else []),
            HealthRecord(request.label, distillation),
            StopWhenDiverged(),
            *([AskForCheckpoints(request.tuning.checkpoint_steps)] if not planned else []),
            SealCheckpoints(identity, spent),
        ],
    )
    trainer.remove_callback(PrinterCallback)
    with PartialState().main_process_first():  # it puts aside what other jobs have left
        checkpoint_folder = checkpoint_of(request.run_dir, identity)
    put_reporters_last(trainer, request, step_of(checkpoint_folder) if checkpoint_folder else 0)
    if checkpoint_folder is not None:
        say(f"tune: resuming from {checkpoint_folder}")
        spent.go_on_from(checkpoint_folder)
    with writing(request.run_dir):
        trainer.train(resume_from_checkpoint=str(checkpoint_folder) if checkpoint_folder else None)
    return trainer, model
