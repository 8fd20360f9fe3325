"""The same tunings by one process and, under torchrun, by several whose base is in shards: what they end in, to be compared."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from accelerate import PartialState
from torch.distributed.tensor import DTensor
from transformers import TrainerControl, TrainerState, TrainingArguments

import pat.training.tuning
from pat.io import artefacts
from pat.io.progress import log_to
from pat.machine import processes
from pat.settings.jobs import TuneJob
from pat.training.request import TuningRequest
from pat.training.resume import SealCheckpoints
from tests.kit.tuning_requests import asked

RECIPE: dict[str, Any] = {
    "max_steps": 12, "learning_rate": 3e-3, "batch_size": 8, "micro_batch_size": 2, "checkpoint_steps": 2, "log_steps": 1,
    "lora": {"rank": 2, "alpha": 4.0, "dropout": 0.0},
}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "lora": ("lora", {}, {}),
    "pat": ("pat", {"hio_rank": 3}, {}),
    "at-once": ("pat", {"mask": "magnitude", "closing": "at-once", "hio_rank": 0}, {"gradient_checkpointing": True}),
    "distilled": ("pat", {"mask": "fisher", "hio_rank": 3}, {"distillation": {}, "gradient_checkpointing": "feed-forward"}),
}
"""Name → tuner, what its `pat` and its `tuning` say. They pass the milestone at step 4."""
INTERRUPTED_AT = 2
"""With a checkpoint, and while the mask is open."""


def job(name: str, *, shard: bool, device: str) -> TuneJob:
    _, pat_settings, changes = CASES[name]
    return TuneJob.model_validate({"tuning": RECIPE | changes | {"shard": shard, "device": device}, "pat": pat_settings})


def request(folder: Path, name: str, run: str, *, shard: bool, device: str) -> TuningRequest:
    """Return what `train` and `tune` are given for a case, `run` being the folder of its checkpoints."""
    settings = job(name, shard=shard, device=device)
    tuner = CASES[name][0]
    ratio, teacher = 0.0 if tuner == "lora" else 0.25, folder / "teacher" if settings.tuning.distillation else None
    return asked(folder / "base", folder / "instruct.jsonl", tuner, ratio, 7, settings, folder / run, folder / "adapter", teacher)


def train(folder: Path, name: str, out: str, *, shard: bool, device: str) -> None:
    """Train a case and write its adapter and `course.json` to `out`: history, and how much of the base this process holds."""
    trainer, model = pat.training.tuning.train(request(folder, name, f"run-{out}", shard=shard, device=device))
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    held = sum((weight.to_local() if isinstance(weight, DTensor) else weight).numel() for weight in frozen)
    trained_whole = not any(isinstance(parameter, DTensor) for parameter in model.parameters() if parameter.requires_grad)
    if processes.is_main():
        model.save_pretrained(str(folder / out), save_embedding_layers=False)
        share = held / sum(weight.numel() for weight in frozen)
        artefacts.write_json(
            folder / out / "course.json", {"history": trainer.state.log_history, "held": share, "trained_whole": trained_whole}
        )


class Interrupt(SealCheckpoints):
    """Ends a training in all of its processes once a checkpoint is there."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        super().on_save(args, state, control, **kwargs)
        if state.global_step == INTERRUPTED_AT:
            raise KeyboardInterrupt


def interrupt(folder: Path, name: str, out: str, device: str) -> None:
    """Begin a sharded case and leave its checkpoint behind."""
    with patch("pat.training.tuning.SealCheckpoints", Interrupt), suppress(KeyboardInterrupt):
        train(folder, name, out, shard=True, device=device)
    PartialState().wait_for_everyone()  # the main process seals a checkpoint while the others go on


def main(folder: Path, device: str) -> None:
    """Train all cases; in shards one of them with an interruption too, and one as the verb does. On the terminal is what they say."""
    log_to(None)
    shard = processes.count() > 1
    for name in CASES:
        train(folder, name, f"{'two' if shard else 'one'}-{name}", shard=shard, device=device)
    if not shard:
        return
    interrupt(folder, "pat", "resumed", device)
    train(folder, "pat", "resumed", shard=True, device=device)
    pat.training.tuning.tune(request(folder, "pat", "run-adapter", shard=True, device=device))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
