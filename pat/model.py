"""PatModel: a stock causal language model with LoRA (through PEFT) and an HSM behind every write to its residual stream.

The HSMs sit in forward hooks, so no module of transformers or PEFT is replaced or patched and every tensor keeps its name. Being a
PeftModel, it trains with any Trainer and saves as an adapter folder: PEFT's files plus `hsm.safetensors` and `pat_config.json`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModelForCausalLM
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from pat import compaction
from pat.calibration import Blocks
from pat.config import PAT_CONFIG_NAME, PatConfig
from pat.errors import SettingError, UserError
from pat.families import Family, family_of, head_size
from pat.fold import Fold
from pat.hsm import HybridSparsificationModule
from pat.importance import channel_importance
from pat.lora import collect_updates
from pat.own_losses import OwnLosses
from pat.reshaped import ReshapedConfig
from pat.sparsifier import Sparsifier
from pat.token_loss import IGNORED_LABEL
from pat.width import target_width


def attach(model: PreTrainedModel, config: PatConfig, text: Blocks | None = None, kept: Sequence[int] | None = None) -> PatModel:
    """Return `model` with LoRA on every linear layer and an HSM behind every write; the base weights are frozen.

    `model` is changed in place, as PEFT does. `text` is what the order of a fixed mask is measured on. `kept` are the channels that the
    readers of the model are refitted to, which the mask keeps, whatever an order measured on such a model would be. Raises UserError on an
    unknown architecture, ValueError on a width that cannot be, a reshaped model, or where text or channels do not go with the config.
    """
    family = family_of(model.config)
    if isinstance(model.config, ReshapedConfig):
        raise SettingError("PAT cannot narrow a reshaped model, whose layers differ; tune it with LoRA or DoRA")
    importance_D = _order(model, config, text, kept)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        lora = lora_config(family, config.lora_rank, config.lora_alpha, config.lora_dropout, use_dora=config.use_dora)
        return PatModel(model, lora, pat_config=config, importance_D=importance_D)


def _order(model: PreTrainedModel, config: PatConfig, text: Blocks | None, kept: Sequence[int] | None) -> Tensor | None:
    """Return the importance by which the mask keeps channels, (D,): as measured, or that `kept` come before all others."""
    if (kept is None) != (config.readers == "plain"):
        raise SettingError(f"PatConfig.readers={config.readers!r}: `kept`, the channels of `pat refit-readers`, goes with 'least-squares'")
    if kept is None:
        if config.measured and text is None:
            raise SettingError(f"PatConfig.mask={config.mask!r} is measured on text: give attach the blocks of a calibration text")
        return channel_importance(model, config, text)
    width = planned_width(model.config, config)
    if len(kept) != width:
        raise SettingError(f"the readers are refitted to {len(kept)} channels, the mask's settings keep {width}: refit them again")
    order_D = torch.zeros(model.config.hidden_size)
    order_D[list(kept)] = 1.0
    return order_D


def lora_config(family: Family, rank: int, alpha: float, dropout: float, *, use_dora: bool) -> LoraConfig:
    """Return PEFT's configuration of LoRA or DoRA on every linear layer but the head."""
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # PEFT's own default is an int, any number works
        lora_dropout=dropout,
        use_dora=use_dora,
        target_modules=list(family.linears),
        task_type="CAUSAL_LM",
    )


def planned_width(model_config: Any, config: PatConfig) -> int:
    """Return the number of channels that will survive: the config's own, else the ratio's after rounding (method section 8)."""
    if config.width is not None:
        return config.width
    return target_width(model_config.hidden_size, model_config.num_attention_heads, config.pruning_ratio, config.align)


class PatModel(PeftModelForCausalLM):
    """A PeftModel whose residual stream passes the HSMs. Call `advance()` after every optimizer step, or train with PatCallback.

    In training its loss is L = L_instruct + L_active + L_identity (paper, objective); gradient accumulation is accounted for. Under
    PatCallback the last two reach the gradient whatever loss is differentiated (own_losses.py).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        peft_config: LoraConfig,
        adapter_name: str = "default",
        *,
        pat_config: PatConfig,
        importance_D: Tensor | None = None,
        empty: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, peft_config, adapter_name, **kwargs)
        self.family = family_of(model.config)
        self.sparsifier = Sparsifier(
            model.config.hidden_size,
            planned_width(model.config, pat_config),
            self.family.writes(model.config.num_hidden_layers),
            tied=bool(model.config.tie_word_embeddings),
            config=pat_config,
            importance_D=importance_D,
            empty=empty,
        ).to(model.device)
        witness = next(parameter for name, parameter in self.named_parameters() if ".lora_B" in name)
        self.own_losses = OwnLosses(self.sparsifier, witness)
        self.loss_terms: dict[str, Tensor] = {}
        self.compacted = False
        self._hooks = {
            write: model.get_submodule(write).register_forward_hook(partial(_sparsify, self.sparsifier, hsm))
            for write, hsm in self.sparsifier.by_write().items()
        }

    @property
    def pat_config(self) -> PatConfig:
        """The run's choices, with `total_steps` filled in once it is known."""
        return self.sparsifier.config

    @property
    def width(self) -> int:
        """Channels that the merged model has: N_target, or, where it is not held to (`exact_count`), what the mask came to."""
        return self.sparsifier.mask.final_width

    def plan(self, total_steps: int) -> None:
        """Fix the number of optimizer steps S, from which the schedule follows. Raises ValueError where it is fixed otherwise."""
        config = self.pat_config
        if config.total_steps not in (None, total_steps):
            raise SettingError(f"PatConfig.total_steps={config.total_steps}, but the trainer takes {total_steps} steps: make them agree")
        self.sparsifier.mask.config = dataclasses.replace(config, total_steps=total_steps)

    def add_own_gradients(self) -> None:
        """Add the gradient of L_active and L_identity: what PatCallback does before every optimizer step, whatever the loss was."""
        self.own_losses.add_gradients()

    def advance(self) -> None:
        """Move the mask's schedule on by one optimizer step. Raises RuntimeError where that step went without L_active and L_identity."""
        self.own_losses.check_arrived()
        self.sparsifier.mask.advance()
        self.own_losses.begin_step()

    @property
    def compaction_obstacle(self) -> str | None:
        """Why this model cannot be compacted, whatever its step; None where it can."""
        return compaction.obstacle(self.pat_config, self.sparsifier.mask.proxy.numel(), self.width)

    def compact(self) -> None:
        """Cut the frozen weights to the living channels, in place; training then costs less and takes the same course, to rounding.

        The saved adapter stays the same; merging and disabling it need the whole base and are refused from here on. Draws of LoRA's
        dropout differ from the masked model's, because its inputs have fewer channels. Raises UserError while the mask is open, or
        where there is a `compaction_obstacle`.
        """
        if not self.sparsifier.mask.closed:
            raise UserError("the mask is still open: a model can be compacted from the milestone on")
        if reason := self.compaction_obstacle:
            raise UserError(f"this model cannot be compacted: {reason}")
        self._check_whole("compacted again")
        base: Any = self.get_base_model()
        compaction.compact(base, self.family, self.sparsifier, self._hooks[self.family.embedding])
        self.compacted = True

    def _check_whole(self, what: str) -> None:
        if self.compacted:
            raise UserError(f"a compacted model cannot be {what}: save its adapter and open it upon the whole base model")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The stock forward; in training with labels, `loss` includes the identity and the active loss."""
        if kwargs.get("inputs_embeds") is not None:
            raise ValueError("PatModel takes input_ids only: the embedding's HSM acts on the embedding module's output")
        if not self.training or self.sparsifier.bypassed:
            return super().forward(*args, **kwargs)  # type: ignore[no-untyped-call]
        self.own_losses.note_forward()
        labels = kwargs.get("labels")
        # Before the model, so that backward comes to them last, when the activations have been let go.
        own = None if labels is None else self.own_loss_share(labels, kwargs.get("num_items_in_batch"))
        outputs = super().forward(*args, **kwargs)  # type: ignore[no-untyped-call]
        if own is not None and outputs.loss is not None:
            self.loss_terms["instruct_loss"] = outputs.loss.detach()
            outputs.loss = outputs.loss + own.to(outputs.loss.device)
        return outputs

    def own_loss_share(self, labels: Tensor, items_in_batch: Tensor | int | None) -> Tensor:
        """Return this micro-batch's share of λ_active·L_active + λ_identity·L_identity.

        They belong once to every optimizer step. A trainer that normalises by the items of the whole accumulated batch gets them in
        proportion to this micro-batch's items; any other averages micro-batches itself.
        """
        share: Tensor | float = 1.0
        if items_in_batch is not None:
            share = (labels[..., 1:] != IGNORED_LABEL).sum() / items_in_batch
        own = self.own_losses.for_the_loss()
        self.loss_terms = {
            "identity_loss": own.identity.detach(),
            "active_loss": own.active.detach(),
            "share": torch.as_tensor(share).detach(),
        }
        return share * own.total

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Within this context the model is the untouched base model."""
        self._check_whole("had without its adapter")
        with super().disable_adapter():
            self.sparsifier.bypassed = True
            try:
                yield
            finally:
                self.sparsifier.bypassed = False

    def save_pretrained(self, save_directory: str, *args: Any, **kwargs: Any) -> None:
        """Write the adapter folder: PEFT's files, `hsm.safetensors` and `pat_config.json`."""
        kwargs.setdefault("save_embedding_layers", False)
        super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            self.sparsifier.save(Path(save_directory))

    def load_adapter(self, model_id: str | os.PathLike[str], adapter_name: str, *args: Any, **kwargs: Any) -> Any:
        """Load an adapter folder, its HSMs and mask state included; Trainer calls it when it resumes."""
        self._check_whole("given another adapter")
        result = super().load_adapter(model_id, adapter_name, *args, **kwargs)
        self.sparsifier.mask.config = PatConfig.load(Path(model_id))
        self.sparsifier.load(Path(model_id))
        return result

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the base model is a stock causal language model here
        cls,
        model: PreTrainedModel,
        model_id: str | os.PathLike[str],
        adapter_name: str = "default",
        is_trainable: bool = False,
        **kwargs: Any,
    ) -> PatModel:
        """Return `model` with the saved adapter, HSMs and mask of the folder `model_id`. Raises UserError where it is not one."""
        folder = Path(model_id)
        if not (folder / PAT_CONFIG_NAME).is_file():
            raise UserError(f"{folder}: has no {PAT_CONFIG_NAME}; it is not the adapter of a PAT run")
        peft_config = LoraConfig.from_pretrained(str(folder))
        peft_config.inference_mode = not is_trainable
        loaded = cls(model, peft_config, adapter_name, pat_config=PatConfig.load(folder), empty=True)
        loaded.load_adapter(folder, adapter_name, is_trainable=is_trainable, **kwargs)
        loaded.requires_grad_frozen(is_trainable)
        return loaded

    def requires_grad_frozen(self, is_trainable: bool) -> None:
        """Make the HSMs follow the adapter: trainable or not. A fixed mask's proxy never is."""
        for name, parameter in self.sparsifier.named_parameters():
            parameter.requires_grad_(is_trainable and not (name == "mask.proxy" and self.pat_config.fixed_mask))

    @torch.no_grad()
    def merge_and_unload(self) -> PreTrainedModel:
        """Return a new stock model with LoRA and HSMs folded in and dead channels cut; this model is left as it is.

        Raises UserError while the mask is still open, or once the model is compacted. For a checkpoint on disk, `pat.merge` needs less
        memory.
        """
        self._check_whole("merged")
        base: Any = self.get_base_model()
        state = get_peft_model_state_dict(self)
        fold = make_fold(self.family, base.config, self.sparsifier, collect_updates(state, self.active_peft_config, "this model"))
        narrower = merged_config(base.config, int(fold.kept_D.sum()))
        merged: Any = AutoModelForCausalLM.from_config(narrower, dtype=base.dtype)
        folded = {name: fold(name, tensor) for name, tensor in base_tensors(base)}
        fold.check_all_used()
        merged.load_state_dict(folded, strict=not base.config.tie_word_embeddings)
        merged.tie_weights()
        stock: PreTrainedModel = merged.to(base.device).eval()
        return stock


def _sparsify(sparsifier: Sparsifier, hsm: HybridSparsificationModule, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    """The forward hook of a write: z = M ⊙ (D·y)."""
    sparsified: Tensor = output if sparsifier.bypassed else hsm(output, sparsifier.mask)
    return sparsified


def base_tensors(base: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Yield the base model's own tensors by their stock names, LoRA's left out; tied ones once."""
    tied = bool(base.config.tie_word_embeddings)
    head = family_of(base.config).head
    for name, tensor in base.state_dict().items():
        if ".lora_" in name or (tied and name == f"{head}.weight"):
            continue
        yield name.replace(".base_layer.", "."), tensor


def make_fold(family: Family, model_config: Any, sparsifier: Sparsifier, lora: dict[str, Any]) -> Fold:
    """Return the fold of a trained PatModel. Raises UserError while its mask is still open."""
    mask = sparsifier.mask
    if not mask.finished:
        raise UserError(
            f"the mask is still open: step {mask.step} of {mask.config.total_steps}, it closes at a third by default; "
            "finish the training run before merging"
        )
    kept_D = mask.members()
    kept, heads = int(kept_D.sum()), model_config.num_attention_heads
    if not mask.config.exact_count and (kept % heads or not kept):
        raise UserError(
            f"the mask came to {kept} channels, and stock software takes multiples of the {heads} heads alone: tune with exact_count: true"
        )
    tied = bool(model_config.tie_word_embeddings)
    return Fold(family, kept_D, tied=tied, lora=lora, hsms=sparsifier.by_write())


def merged_config(model_config: Any, width: int) -> Any:
    """Return the config with the hidden size `width` and the head size written out, which must not follow it."""
    return type(model_config).from_dict(model_config.to_dict() | {"hidden_size": width, "head_dim": head_size(model_config)})


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
                "one of them, or start a process a GPU with torchrun"
            )
        if args.deepspeed:  # it keeps the gradients to itself
            raise ValueError("PAT cannot be trained with DeepSpeed, which takes optimizer steps without PatCallback; leave `deepspeed` out")
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
