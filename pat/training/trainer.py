"""PatTrainer: the stock Trainer for models whose mask is learned at a rate of its own, and for distillation.

Owns what differs from the stock loop: the optimizer's groups, their schedule, and the loss, which is taken in chunks of tokens
(token_loss.py) and may have a teacher's term.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, IterableDataset
from transformers import PreTrainedModel, Trainer

from pat.method.callback import PatCallback
from pat.method.lora_inputs import taken_as_they_are
from pat.method.model import PatModel
from pat.models.token_loss import ForetoldTokens, Head, Objective, has_frozen_head, in_chunks, learned_tokens, read
from pat.training.distillation import Distillation, summed_divergence
from pat.training.learned_places import WithLearnedPlaces, are_of_tokens, taken_from
from pat.training.token_checks import CheckedBatches, check_columns

FLOPS_PER_WEIGHT = 6
"""Of a token, forward and backward, as the stock Trainer counts them."""
SEE_BATCHES = ("get_batch_samples", "training_step", "compute_loss")
"""The methods of a trainer that are given the labels before their loss is taken."""


class PatTrainer(Trainer):
    """The stock Trainer, with a loss in chunks, a constant rate of its own for a proxy that it trains, and distillation where given.

    A mask that learns by itself is in no optimizer. Where Adam is to move its proxy, a stock Trainer would do so at the recipe's rate and
    with its schedule, by which a mask is hardly learned. PatCallback, which a PatModel is trained with, is added where it is not among the
    callbacks. Raises ValueError on distillation beside another loss.
    """

    def __init__(self, *, distillation: Distillation | None = None, **arguments: Any) -> None:
        callbacks = list(arguments.pop("callbacks", None) or [])
        if isinstance(arguments.get("model"), PatModel) and not any(isinstance(callback, PatCallback) for callback in callbacks):
            callbacks = [PatCallback(), *callbacks]
        super().__init__(callbacks=callbacks, **arguments)
        self.distillation = distillation
        self._counted_parameters: dict[bool, int] = {}
        self._wrapped: nn.Module | None = None
        self._core: nn.Module | None = None
        if distillation is not None and (self.label_smoother is not None or self.compute_loss_func is not None):
            raise ValueError("distillation mixes the stock loss with a teacher's: leave out label_smoothing_factor and compute_loss_func")

    def train(self, *arguments: Any, **options: Any) -> Any:
        """As the stock trainer's; in mixed precision LoRA's layers take their inputs as they are.

        Raises ValueError where the rows hold tokens that are none of the model's vocabulary.
        """
        assert self.model is not None
        check_columns(self.train_dataset, self._vocabulary, labels=self._learns_the_labels())
        with taken_as_they_are(self.model, autocast=self.args.bf16 or self.args.fp16):
            return super().train(*arguments, **options)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """As the stock trainer's; each batch says which of its tokens are learned, so that no step waits for a GPU to tell.

        Not where one process makes the batches of all: it would cut the list of places as it cuts the rows. Nor where somebody's own step
        comes between: it may learn other tokens, and hand all that it is given to the model.
        """
        collate: Any = self.data_collator
        checked = CheckedBatches(collate, self._vocabulary, labels=self._learns_the_labels())
        by_one = getattr(self.args.accelerator_config, "dispatch_batches", None)
        plain = by_one or isinstance(self.train_dataset, IterableDataset) or self._has_steps_of_its_own()
        self.data_collator = checked if plain else WithLearnedPlaces(checked)
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collate  # the stock trainer looks for its tokenizer when it saves a checkpoint

    def _learns_the_labels(self) -> bool:
        """Return whether labels are what is learned: another loss, or somebody's own step, may take them for something else."""
        return self.compute_loss_func is None and not self._has_steps_of_its_own()

    def _has_steps_of_its_own(self) -> bool:
        """Return whether a subclass, or an assignment, has put something in the place of what sees the batches."""
        return any(getattr(getattr(self, name), "__func__", None) is not getattr(PatTrainer, name) for name in SEE_BATCHES)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Tensor | int | None = None
    ) -> Any:
        """Return the loss; with distillation, (1 - w) · L_instruct + w · KL(teacher ‖ student), and the value of the mask's own terms.

        It is taken in chunks of tokens, unless the caller wants the logits, or the loss or the head are others than the stock ones.
        """
        inputs, tokens = taken_from(inputs)
        chunked = not return_outputs and self._takes_chunks(inputs)
        if not chunked and self.distillation is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels_BT = inputs.get("labels")
        if not are_of_tokens(labels_BT):
            raise ValueError("distillation needs labels of tokens, (B, T), in each batch; the collator gives none, or others")
        rest = {name: value for name, value in inputs.items() if name != "labels"}
        tokens = learned_tokens(labels_BT) if tokens is None else tokens
        items = len(tokens.targets_N) if num_items_in_batch is None else num_items_in_batch
        outputs = None
        if chunked:
            hidden_BTD, head = read(model, self._stock, rest)
            _check_shape(labels_BT, hidden_BTD)
            size = head.chunk() if self.distillation else head.loss_chunk()
            objective = self._distilled(head.logits, tokens, rest, items) if self.distillation else _plain(head, tokens, items)
        else:
            outputs = model(**rest)
            hidden_BTD, size = outputs.logits.float(), labels_BT.numel()
            _check_shape(labels_BT, hidden_BTD)
            objective = self._distilled(_as_they_are, tokens, rest, items)
        with self.accelerator.autocast():
            loss, figures = in_chunks(tokens.among(hidden_BTD), size, objective)
        loss = self._processes_averaged(num_items_in_batch) * (loss + self._note_terms(figures / items, labels_BT, num_items_in_batch))
        return (loss, outputs) if return_outputs else loss

    def _takes_chunks(self, inputs: dict[str, Any]) -> bool:
        other_loss = self.label_smoother is not None or self.compute_loss_func is not None or "shift_labels" in inputs
        # fp16 scales the loss, which a gradient that is taken at once does not see.
        return not other_loss and not self.args.fp16 and are_of_tokens(inputs.get("labels")) and has_frozen_head(self._stock)

    @property
    def _stock(self) -> PreTrainedModel:
        """The model that has the head."""
        model: Any = self._unwrapped()
        stock: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        assert isinstance(stock, PreTrainedModel)
        return stock

    @property
    def _vocabulary(self) -> int:
        """How many tokens the model has embeddings for."""
        return int(self._stock.config.get_text_config().vocab_size)

    def _unwrapped(self) -> nn.Module:
        """Return the model without what accelerate has put around it; looking for it walks all modules, so it is kept until another is."""
        if self._core is None or self._wrapped is not self.model:
            self._wrapped, self._core = self.model, self.accelerator.unwrap_model(self.model)
        return self._core

    def _distilled(
        self, logits: Callable[[Tensor], Tensor], tokens: ForetoldTokens, inputs: dict[str, Any], items: Tensor | int
    ) -> Objective:
        """Return what a chunk of tokens has to do with a distilled loss, and its sums of cross-entropy and of divergence."""
        assert self.distillation is not None
        weight, temperature = self.distillation.settings.weight, self.distillation.settings.temperature
        teacher, teacher_ND = self.distillation.read(inputs, tokens)

        def distilled(hidden_CD: Tensor, part: slice) -> tuple[Tensor, Tensor]:
            student_CV = logits(hidden_CD)
            with torch.no_grad():
                teacher_CV = teacher.logits(teacher_ND[part])
            divergence = summed_divergence(student_CV, teacher_CV, temperature)
            summed = functional.cross_entropy(student_CV, tokens.targets_N[part], reduction="sum")
            return (1.0 - weight) * (summed / items) + weight * (divergence / items), torch.stack([summed, divergence])

        return distilled

    def _note_terms(self, figures: Tensor, labels_BT: Tensor, items: Tensor | int | None) -> Tensor:
        """Keep the loss's terms for whoever logs them, and return the value of those that a PatModel brings itself."""
        names = ("instruct_loss", "distillation_loss")[: len(figures)]
        terms = dict(zip(names, figures, strict=True))
        if self.distillation is not None:
            self.distillation.terms = terms
        model = self._unwrapped()
        if not isinstance(model, PatModel) or not model.training:
            return figures.new_zeros(())
        own = model.own_loss_share(labels_BT, items).to(figures.device)
        model.loss_terms |= terms
        return own

    def _processes_averaged(self, items: Tensor | int | None) -> int:
        """Return of how many processes' gradients the mean is taken, where `items` are those of all of them."""
        counted = self.args.average_tokens_across_devices and self.model_accepts_loss_kwargs and items is not None
        return self.accelerator.num_processes if counted else 1

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """As the stock trainer counts them; it walks through all modules for every batch, this once for each size that the model has."""
        compacted = isinstance(self.model, PatModel) and self.model.compacted
        if compacted not in self._counted_parameters:
            self._counted_parameters[compacted] = self._stock.num_parameters(exclude_embeddings=True)
        return FLOPS_PER_WEIGHT * int(inputs["input_ids"].numel()) * self._counted_parameters[compacted]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Return the optimizer of `optim` over the groups of `parameter_groups` where a mask is trained, else the stock one.

        Raises ValueError on an optimizer that forms its groups itself; one that was given to the trainer is taken as it is.
        """
        if not isinstance(self.model, PatModel) or self.optimizer is not None:
            optimizer: torch.optim.Optimizer = super().create_optimizer(model)
            return optimizer
        self.model.plan(self.state.max_steps)
        args = self.args
        groups = parameter_groups(self.model, args.learning_rate, args.weight_decay)
        kind, options = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(args, self._stock)
        if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)) or {"params", "model", "optimizer_dict"} & set(options):
            raise ValueError(
                f"optim={_named(args.optim)}: forms its parameter groups itself, but the mask's proxy needs a rate of its own: take "
                "another, as adamw_torch, or give the trainer an optimizer over pat.training.trainer.parameter_groups"
            )
        self.optimizer = kind(groups, **options)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Return the recipe's schedule, which leaves out the proxy's group: its rate stays as it is.

        Raises ValueError on a schedule that is no function of the step; one that was given to the trainer is taken as it is.
        """
        given = self.lr_scheduler is not None
        recipe: Any = super().create_scheduler(num_training_steps, optimizer)
        if given or not isinstance(self.model, PatModel) or self.model.pat_config.mask_follows_recipe:
            return recipe
        if not isinstance(recipe, LambdaLR):
            raise ValueError(
                f"lr_scheduler_type={_named(self.args.lr_scheduler_type)}: would move the rate of the mask's proxy too, which is to stay "
                "constant: take a schedule that is a function of the step, such as cosine or linear"
            )
        assert self.optimizer is not None
        proxy = self.model.sparsifier.mask.proxy
        own = [any(parameter is proxy for parameter in group["params"]) for group in self.optimizer.param_groups]
        lambdas = [_constant if is_own else recipe.lr_lambdas[0] for is_own in own]
        self.lr_scheduler = LambdaLR(self.optimizer, lambdas)
        return self.lr_scheduler


def parameter_groups(model: PatModel, learning_rate: float, weight_decay: float = 0.0) -> list[dict[str, Any]]:
    """Return optimizer groups: LoRA and operators at the recipe's rate, and a proxy that Adam is to move at its own, without decay.

    A mask that learns by itself has no group: its proxy is no optimizer's.
    """
    proxy = model.sparsifier.mask.proxy
    others = [parameter for parameter in model.parameters() if parameter.requires_grad and parameter is not proxy]
    groups: list[dict[str, Any]] = [{"params": others, "lr": learning_rate, "weight_decay": weight_decay}]
    if proxy.requires_grad and model.sparsifier.mask.learner is None:
        config = model.pat_config
        rate = learning_rate if config.mask_follows_recipe else config.proxy_rate
        groups.append({"params": [proxy], "lr": rate, "weight_decay": 0.0})
    return groups


def _check_shape(labels_BT: Tensor, outputs_BTD: Tensor) -> None:
    """Raise ValueError unless there is a label for each token: of flat places others than those meant would be learned."""
    if labels_BT.shape != outputs_BTD.shape[:2]:
        raise ValueError(
            f"labels are of shape {tuple(labels_BT.shape)}, the batch's tokens of {tuple(outputs_BTD.shape[:2])}: give each a label"
        )


def _constant(_step: int) -> float:
    return 1.0


def _plain(head: Head, tokens: ForetoldTokens, items: Tensor | int) -> Objective:
    """Return what a chunk of tokens has to do with the loss, and its sum of cross-entropy."""

    def plain(hidden_CD: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        summed = head.summed_cross_entropy(hidden_CD, tokens.targets_N[part])
        return summed / items, summed[None]

    return plain


def _as_they_are(logits_CV: Tensor) -> Tensor:
    return logits_CV


def _named(choice: Any) -> str:
    """Return a choice of TrainingArguments, which makes enumerations of them, as a user writes it."""
    return str(getattr(choice, "value", choice))
