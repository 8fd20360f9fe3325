"""`pat pretrain`: a tokenizer and a small base model made from scratch out of a corpus; resumable after a kill.

Owns the pretraining job and its record, `pretraining.json`. Tokens are corpus.py's, the loop is the Trainer's.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from pat.checkpoints import checkpoint
from pat.checkpoints.lineage import tuned_on, write_lineage
from pat.checkpoints.rope_fields import write_both_ways
from pat.checkpoints.tokenizer_fields import write_old_names
from pat.data.corpus import PackedTexts, stack, train_tokenizer
from pat.data.rows import naming, read_texts
from pat.io import artefacts
from pat.io.marks import FOLDERS, check_replaceable
from pat.io.progress import Progress, say
from pat.io.provenance import described, provenance
from pat.io.resume_folder import leave, locked
from pat.io.storage import writing
from pat.machine.device import resolve_device
from pat.machine.threads import threads_given_back
from pat.settings.jobs import PretrainSettings
from pat.training.divergence import StopWhenDiverged, check_finite
from pat.training.resume import SealCheckpoints, checkpoint_of
from pat.training.spent import Spent

PRETRAINING_RECORD = "pretraining.json"
CHECKPOINTS_KEPT = 2
LOG_STEPS = 20
WEIGHT_DECAY = 0.1
ADAM_BETAS = (0.9, 0.95)
logger = logging.getLogger(__name__)


@threads_given_back
def pretrain(
    corpus: Path,
    settings: PretrainSettings,
    run_dir: Path,
    out: Path,
    datasets: Sequence[str] = (),
    *,
    text_column: str = "text",
    force: bool = False,
) -> dict[str, Any]:
    """Write a stock checkpoint with its tokenizer to `out` and return its record; checkpoints lie in `run_dir` until it is done.

    `datasets` are those of the hub that the corpus is from, for the cards of what is made of the model; `text_column` is the field of its
    rows that is the text. Raises UserError on a broken or too small corpus, on a vocabulary too small, where the training diverged, where
    another job is at work in `run_dir`, and where `out` holds something else than such a checkpoint, unless with `force`.
    """
    check_replaceable(out, FOLDERS["pretrain"], force=force)
    with locked(run_dir):
        return _pretrain(corpus, settings, run_dir, out, datasets, text_column, force=force)


def _pretrain(
    corpus: Path, settings: PretrainSettings, run_dir: Path, out: Path, datasets: Sequence[str], text_column: str, *, force: bool
) -> dict[str, Any]:
    spent = Spent()
    torch.set_num_threads(settings.threads)
    device = resolve_device(settings.device)
    set_seed(settings.seed)
    texts = read_texts(corpus, text_column)
    inputs = {"corpus": described(corpus)}
    learned, heldout = split_evenly(texts, settings.heldout_fraction)
    tokenizer = train_tokenizer(learned, settings.vocab_size, whole_prompts=settings.whole_prompts)
    blocks = PackedTexts(learned, tokenizer, settings.context_length, str(corpus))
    # Told before the first step where it is too short, not after the last.
    heldout_blocks = PackedTexts(heldout, tokenizer, settings.context_length, f"{corpus} (held out)") if heldout else None
    say(f"pretrain: {len(blocks) * settings.context_length} tokens of text, vocabulary {len(tokenizer)}")
    identity = {"settings": settings.model_dump(mode="json"), "corpus": inputs["corpus"]["sha256"]}
    identity |= naming(text_column)
    model = new_model(settings, tokenizer)
    trainer = Trainer(
        model=model,
        args=pretraining_arguments(settings, run_dir, device),
        train_dataset=blocks,
        data_collator=stack,
        callbacks=[ShowProgress(settings.steps), StopWhenDiverged(), SealCheckpoints(identity, spent)],
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint_folder = checkpoint_of(run_dir, identity)
    if checkpoint_folder is not None:
        say(f"pretrain: resuming from {checkpoint_folder}")
        spent.go_on_from(checkpoint_folder)
    with writing(run_dir):
        trainer.train(resume_from_checkpoint=str(checkpoint_folder) if checkpoint_folder else None)
    check_finite(model, trainer.state.global_step, "pretrain.learning_rate")
    record = pretraining_record(trainer, model, settings, blocks, heldout_blocks)
    record |= spent.so_far()
    record["provenance"] = provenance(settings.model_dump(mode="json") | naming(text_column), settings.seed, str(model.device), inputs)
    with artefacts.new_folder(out, FOLDERS["pretrain"], force=force) as folder:
        model.save_pretrained(folder)
        write_both_ways(folder)
        tokenizer.save_pretrained(str(folder))
        write_old_names(folder)
        write_lineage(folder, tuned_on({}, datasets))
        record["parameters"] = checkpoint.parameter_counts(folder, model.config)
        artefacts.write_json(folder / PRETRAINING_RECORD, record)
    leave(run_dir)
    return record


def split_evenly(texts: list[str], heldout_fraction: float) -> tuple[list[str], list[str]]:
    """Return the texts to learn from and the held-out ones, which lie evenly spread over the corpus."""
    if not heldout_fraction:
        return texts, []
    every = max(2, round(1 / heldout_fraction))
    return [text for place, text in enumerate(texts) if place % every], texts[::every]


def new_model(settings: PretrainSettings, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Return a stock model of the family with random weights."""
    config = AutoConfig.for_model(
        settings.family,
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.kv_heads or settings.heads,
        head_dim=settings.hidden_size // settings.heads,
        max_position_embeddings=settings.context_length,
        tie_word_embeddings=settings.tie_embeddings,
        initializer_range=settings.initializer_range,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def pretraining_arguments(settings: PretrainSettings, run_dir: Path, device: str) -> TrainingArguments:
    """Return the Trainer's arguments: one cosine over all steps, weights kept in fp32."""
    return TrainingArguments(
        output_dir=str(run_dir),
        max_steps=settings.steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup_steps,
        weight_decay=WEIGHT_DECAY,
        adam_beta1=ADAM_BETAS[0],
        adam_beta2=ADAM_BETAS[1],
        max_grad_norm=1.0,
        per_device_train_batch_size=settings.batch_size,
        bf16=settings.precision == "bf16",
        logging_steps=min(LOG_STEPS, settings.steps),
        save_strategy="steps",
        save_steps=settings.checkpoint_steps,
        save_total_limit=CHECKPOINTS_KEPT,
        seed=settings.seed,
        data_seed=settings.seed,
        use_cpu=device == "cpu",
        dataloader_pin_memory=device == "cuda",
        optim="adamw_torch_fused",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )


class ShowProgress(TrainerCallback):
    """One progress line every few seconds, with the loss last logged."""

    def __init__(self, steps: int) -> None:
        self.progress = Progress("pretrain", steps)
        self.loss = math.nan

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        self.loss = (logs or {}).get("loss", self.loss)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.progress.update(state.global_step, loss=self.loss)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.progress.finish(f"{state.global_step} steps, loss {self.loss:.3f}")


def pretraining_record(
    trainer: Trainer, model: PreTrainedModel, settings: PretrainSettings, blocks: PackedTexts, heldout: PackedTexts | None
) -> dict[str, Any]:
    """Return what `pretraining.json` says of what was learned: tokens seen, the course of the loss, the held-out loss."""
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {
        "vocab_size": model.config.vocab_size,
        "steps": trainer.state.global_step,
        "tokens": {"corpus": len(blocks) * settings.context_length, "seen": blocks_seen(settings, len(blocks)) * settings.context_length},
        "history": [{"step": entry["step"], "loss": entry["loss"], "learning_rate": entry["learning_rate"]} for entry in history],
        "heldout_loss": heldout_loss(model, heldout, settings) if heldout else None,
    }


def blocks_seen(settings: PretrainSettings, blocks: int) -> int:
    """Return how many blocks all steps see together; the last batch of a pass over them may have fewer than the others."""
    passes, steps = divmod(settings.steps, math.ceil(blocks / settings.batch_size))
    return passes * blocks + min(steps * settings.batch_size, blocks)


@torch.no_grad()
def heldout_loss(model: PreTrainedModel, blocks: PackedTexts, settings: PretrainSettings) -> float:
    """Return the cross-entropy per token, in nats, over the blocks."""
    model.eval()
    total = 0.0
    for batch in DataLoader(blocks, batch_size=settings.batch_size, collate_fn=stack):
        on_device = {name: tensor.to(model.device) for name, tensor in batch.items()}
        with torch.autocast(model.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            total += model(**on_device).loss.item() * len(batch["input_ids"])
    return total / len(blocks)
