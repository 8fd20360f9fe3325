"""PatCallback: what a Trainer does for a PatModel before and after its steps, whatever Trainer it is."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pat.method.model import PatModel


class PatCallback(TrainerCallback):
    """Adds the gradient of the mask's and the operators' losses before every optimizer step, whatever the trainer's loss is made of, and
    moves the mask on after it. With `compact` the model is cut to the living channels as soon as the mask is 0/1.
    """

    def __init__(self, *, compact: bool = False) -> None:
        self.compact = compact

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: PatModel | None = None, **kwargs: Any
    ) -> None:
        assert model is not None
        if args.n_gpu > 1:  # the trainer would make replicas of the model, whose hooks are those of the first
            raise ValueError(
                f"one process sees {args.n_gpu} GPUs, and would train by DataParallel, which copies no hooks: set CUDA_VISIBLE_DEVICES to "
                "one of them, or start one process per GPU with torchrun"
            )
        if args.deepspeed:  # it keeps the gradients to itself
            raise ValueError("PAT cannot be trained with DeepSpeed, which takes optimizer steps without PatCallback; leave `deepspeed` out")
        if args.fp16 and model.sparsifier.mask.learner is not None:  # it would learn from gradients that are scaled, and overflow
            raise ValueError("a mask that learns by itself cannot be trained in fp16, whose gradients are scaled; use bf16=True")
        if self.compact and args.load_best_model_at_end:  # which puts a whole adapter into the model at the end
            raise ValueError("a compacted model cannot load the best of its checkpoints at the end: leave `compact` or that out")
        model.plan(state.max_steps)
        if model.sparsifier.mask.step != state.global_step:
            raise ValueError(f"the mask is at step {model.sparsifier.mask.step}, the trainer at {state.global_step}: not the same run")
        model.own_losses.begin_step()
        model.own_losses.by_callback = True
        self._compact_if_closed(model)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: PatModel | None = None, **kwargs: Any
    ) -> None:
        assert model is not None
        model.add_own_gradients()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: PatModel | None = None, **kwargs: Any
    ) -> None:
        assert model is not None
        model.advance()
        self._compact_if_closed(model)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: PatModel | None = None, **kwargs: Any
    ) -> None:
        assert model is not None
        model.own_losses.by_callback = False

    def _compact_if_closed(self, model: PatModel) -> None:
        if self.compact and not model.compacted and model.sparsifier.mask.closed:
            model.compact()
