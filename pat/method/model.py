"""PatModel: a stock causal language model with LoRA (through PEFT) and an HSM behind every write to its residual stream.

The HSMs sit in forward hooks, so no module of transformers or PEFT is replaced or patched and every tensor keeps its name. Being a
PeftModel, it trains with any Trainer and saves as an adapter folder (adapter_folder.py); PEFT's other methods are one_adapter.py's.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import AutoModelForCausalLM, PreTrainedModel

from pat.data.calibration import Blocks
from pat.errors import SettingError, UserError
from pat.families.known import Family, family_of
from pat.method import compaction
from pat.method.adapter_folder import (
    ADAPTER_CONFIG_NAME,
    ADAPTER_WEIGHTS_NAME,
    check_same_tensors,
    is_pat_adapter,
    read_lora_config,
    read_lora_tensors,
    write_lora,
)
from pat.method.budget import within_budget
from pat.method.fold import Fold
from pat.method.hsm import HybridSparsificationModule
from pat.method.importance import channel_importance
from pat.method.lora import collect_updates
from pat.method.lora_checks import disagreement
from pat.method.mask import UnifiedMask
from pat.method.one_adapter import OneAdapter, check_bare, check_one_width
from pat.method.own_losses import OwnLosses
from pat.method.release_mask import ReleaseMask
from pat.method.sparsifier import Sparsifier
from pat.models.living_norms import follow_the_gate
from pat.models.token_loss import IGNORED_LABEL
from pat.models.width import merged_config, planned_width
from pat.settings.config import PAT_CONFIG_NAME, PatConfig


def attach(model: PreTrainedModel, config: PatConfig, text: Blocks | None = None, kept: Sequence[int] | None = None) -> PatModel:
    """Return `model` with LoRA on every linear layer and an HSM behind every write; the base weights are frozen.

    `model` is changed in place, as PEFT does. `text` is what the order of a fixed mask is measured on. `kept` are the channels that the
    readers of the model are refitted to, which the mask keeps, whatever an order measured on such a model would be. A budget in place of
    the config's ratio is solved for this model. Raises UserError on an unknown architecture, ValueError on a width that cannot be, a
    reshaped model, or where text or channels do not go with the config.
    """
    check_bare(model)
    family = family_of(model.config)
    check_one_width(model.config)
    if (reason := family.width_obstacle) is not None:
        raise UserError(f"a {family.model_type} model cannot be pruned while it is tuned: {reason}")
    config = within_budget(config, model, kept)
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
            what = f"mask={config.mask!r}" if config.fixed_mask else f"mask_prior={config.mask_prior!r}"
            raise SettingError(f"PatConfig.{what} is measured on text: give attach the blocks of a calibration text")
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


def check_lora_of_run(folder: Path, run: PatConfig, family: Family) -> None:
    """Raise UserError where the LoRA that an adapter folder describes is not the one that its run was given."""
    expected = lora_config(family, run.lora_rank, run.lora_alpha, run.lora_dropout, use_dora=run.use_dora)
    if problem := disagreement(read_lora_config(folder), expected):
        raise UserError(f"{folder / ADAPTER_CONFIG_NAME}: {problem}, by {PAT_CONFIG_NAME} beside it")


class PatModel(OneAdapter):
    """A PeftModel whose residual stream passes the HSMs. Call `advance()` after every optimizer step, or train with PatCallback.

    In training its loss is L_instruct + L_active + L_identity; gradient accumulation is accounted for. Under
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
        check_bare(model)
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
        self.fisher_order: Tensor | None = None  # of the base, where a trained mask is to be judged by it (mask_choice.py)
        self._hooks = {write: self._put_behind(model.get_submodule(write), hsm) for write, hsm in self.sparsifier.by_write().items()}
        self._norm_hooks = follow_the_gate(model, partial(_gate, self.sparsifier.mask, self.a_lora_layer()))

    @property
    def pat_config(self) -> PatConfig:
        """The run's choices, with `total_steps` filled in once it is known."""
        return self.sparsifier.config

    @property
    def width(self) -> int:
        """Channels that the merged model has: N_target, or, where it is not held to (`exact_count`), what the mask came to."""
        return self.sparsifier.mask.final_width

    def _put_behind(self, write: nn.Module, hsm: HybridSparsificationModule) -> RemovableHandle:
        # A write with LoRA is its own switch: with one of another layer, compiled layers would no longer be alike (compiled.py).
        # The hook is given the write anyway; were it held here too, a circle would keep a model in memory that nobody uses any more.
        switch = None if isinstance(write, LoraLayer) else self.a_lora_layer()
        return write.register_forward_hook(partial(_sparsify, self.sparsifier.mask, hsm, switch))

    def plan(self, total_steps: int) -> None:
        """Fix the number of optimizer steps S, from which the schedule follows. Raises ValueError where it is fixed otherwise."""
        config = self.pat_config
        if config.total_steps not in (None, total_steps):
            raise SettingError(f"PatConfig.total_steps={config.total_steps}, but the trainer takes {total_steps} steps: make them agree")
        self.sparsifier.mask.config = config.changed(total_steps=total_steps)

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
        return self.family.compaction_obstacle or compaction.obstacle(self.pat_config, self.sparsifier.mask.proxy.numel(), self.width)

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
        self.check_whole("compacted again")
        self.check_unmerged("compacted")
        base: Any = self.get_base_model()
        compaction.compact(base, self.family, self.sparsifier, self._hooks[self.family.embedding])
        self.compacted = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The stock forward; in training with labels, `loss` is L_instruct + L_active + L_identity (docs/method.md, equation 12)."""
        if kwargs.get("inputs_embeds") is not None:
            raise ValueError("PatModel takes input_ids only: the embedding's HSM acts on the embedding module's output")
        if not self.training or self.adapter_disabled:
            return super().forward(*args, **kwargs)  # type: ignore[no-untyped-call]
        self.own_losses.note_forward()
        self._note_tokens(kwargs.get("attention_mask"), kwargs.get("input_ids", args[0] if args else None))
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
        self._note_tokens((labels[..., 1:] != IGNORED_LABEL).sum())
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

    def _note_tokens(self, counted: Tensor | None, ids: Tensor | None = None) -> None:
        """Tell a mask that learns by itself how many tokens the loss is made of: those that are `counted`, or all."""
        learner = self.sparsifier.mask.learner
        if learner is not None and (counted is not None or ids is not None):
            learner.note_tokens(counted.sum() if counted is not None else ids.numel())  # type: ignore[union-attr]

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Within this context the model is the untouched base model."""
        self.check_whole("had without its adapter")
        with super().disable_adapter():
            yield

    def remove_hooks(self) -> None:
        """Take the HSMs from behind the base's modules, and the gate from its norms."""
        for hook in (*self._hooks.values(), *self._norm_hooks):
            hook.remove()

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        safe_serialization: bool = True,
        selected_adapters: Sequence[str] | None = None,
        save_embedding_layers: str | bool = False,
        is_main_process: bool = True,
        path_initial_model_for_weight_conversion: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the adapter folder: LoRA (adapter_folder.py), `hsm.safetensors` and `pat_config.json`; of no embedding, which is frozen."""
        if not safe_serialization:
            raise UserError("save_pretrained(safe_serialization=False): adapters are written as safetensors; leave it out")
        if path_initial_model_for_weight_conversion is not None:
            raise UserError("save_pretrained(path_initial_model_for_weight_conversion=…): LoRA starts at zero here; leave it out")
        self.check_own_name(selected_adapters)
        tensors = get_peft_model_state_dict(self, kwargs.get("state_dict"), self.adapter_name, save_embedding_layers=False)
        if not is_main_process:
            return
        folder = Path(save_directory)
        config = copy.copy(self.active_peft_config)
        config.base_model_name_or_path = config.base_model_name_or_path or self.get_base_model().name_or_path or None
        write_lora(folder, config, tensors)
        self.create_or_update_model_card(str(folder))
        self.sparsifier.save(folder)

    def load_adapter(  # type: ignore[override]  # of PEFT's further arguments, all for its hub and its devices, none is taken
        self, model_id: str | os.PathLike[str], adapter_name: str, is_trainable: bool = False, **kwargs: Any
    ) -> None:
        """Put an adapter folder's LoRA, HSMs and mask into the place of the present ones; Trainer calls it when it resumes.

        Raises UserError where the folder is not the adapter of a PAT run on such a model.
        """
        self.check_whole("given another adapter")
        self.check_unmerged("given another adapter")
        self.check_own_name(adapter_name)
        if unknown := sorted(set(kwargs) - {"torch_device", "autocast_adapter_dtype", "low_cpu_mem_usage"}):  # which have no effect here
            raise UserError(f"load_adapter: {', '.join(unknown)}: not possible with the adapter of a PAT run, a folder on disk")
        folder = _checked_folder(model_id)
        tensors, own = read_lora_tensors(folder), get_peft_model_state_dict(self, None, self.adapter_name, save_embedding_layers=False)
        check_same_tensors(tensors, own, str(folder / ADAPTER_WEIGHTS_NAME))
        settings, present = read_lora_config(folder), self.active_peft_config
        for field in ("r", "lora_alpha", "use_dora", "use_rslora"):
            if (theirs := getattr(settings, field)) != (ours := getattr(present, field)):
                raise UserError(f"{folder / ADAPTER_CONFIG_NAME}: {field}={theirs} does not fit this model, whose LoRA has {ours}")
        config, mask = PatConfig.load(folder), self.sparsifier.mask
        if (width := planned_width(self.get_base_model().config, config)) != mask.width:
            raise UserError(f"{folder}: keeps {width} channels, this model's mask {mask.width}: attach with the ratio of that run")
        set_peft_model_state_dict(self, tensors, self.adapter_name)
        mask.config = config
        self.sparsifier.load(folder)
        self.own_losses.begin_step()
        if not is_trainable:
            self.eval()

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
        folder = _checked_folder(model_id)
        check_lora_of_run(folder, PatConfig.load(folder), family_of(model.config))
        peft_config = read_lora_config(folder)
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
    def merge_and_unload(
        self, progressbar: bool = False, safe_merge: bool = False, adapter_names: list[str] | None = None
    ) -> PreTrainedModel:
        """Return a new stock model with LoRA and HSMs folded in and dead channels cut; this model is left as it is.

        `safe_merge` refuses weights that are not finite. Raises UserError while the mask is still open, or once the model is compacted.
        For a checkpoint on disk, `pat.checkpoints.merge` needs less memory.
        """
        self.check_whole("merged")
        self.check_own_name(adapter_names)
        base: Any = self.get_base_model()
        state = {} if self.adapter_merged else get_peft_model_state_dict(self, None, self.adapter_name, save_embedding_layers=False)
        fold = make_fold(self.family, base.config, self.sparsifier, collect_updates(state, self.active_peft_config, "this model"))
        narrower = merged_config(base.config, int(fold.kept_D.sum()))
        merged: Any = AutoModelForCausalLM.from_config(narrower, dtype=base.dtype)
        folded = {name: fold(name, tensor) for name, tensor in base_tensors(base)}
        fold.check_all_used()
        if safe_merge and (broken := [name for name, tensor in folded.items() if not bool(tensor.isfinite().all())]):
            raise ValueError(f"merge_and_unload(safe_merge=True): {', '.join(broken[:5])}: not finite; the adapter seems to be broken")
        merged.load_state_dict(folded, strict=not base.config.tie_word_embeddings)
        merged.tie_weights()
        merged.generation_config = copy.deepcopy(base.generation_config)  # a chat model's further end tokens stand there alone
        stock: PreTrainedModel = merged.to(base.device).eval()
        return stock


def _checked_folder(model_id: str | os.PathLike[str]) -> Path:
    folder = Path(model_id)
    if not is_pat_adapter(folder):
        raise UserError(f"{folder}: has no {PAT_CONFIG_NAME}; it is not the adapter of a PAT run")
    return folder


def _sparsify(
    mask: UnifiedMask | ReleaseMask, hsm: HybridSparsificationModule, switch: LoraLayer | None, write: Any, _inputs: Any, output: Tensor
) -> Tensor:
    """The forward hook of a write: z = M ⊙ (D·y), or y where the HSMs are switched off with the LoRA layers they belong to.

    `switch` is the LoRA layer that says so, None where it is the write itself.
    """
    layer: LoraLayer = write if switch is None else switch
    sparsified: Tensor = output if layer.disable_adapters else hsm(output, mask)
    return sparsified


def _gate(mask: UnifiedMask | ReleaseMask, switch: LoraLayer) -> Tensor | None:
    """Return what norms that subtract a mean follow; None where the HSMs are switched off."""
    return None if switch.disable_adapters else mask()


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
