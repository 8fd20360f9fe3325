"""First-order Taylor importance of weights: what the loss changes by when a weight goes, |w · dL/dw|, summed over what goes together.

Gradients are used layer by layer as they appear and dropped at once, so that a model needs its weights and one matrix's gradient; those of
several batches are summed up first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pat.families.known import Kind, family_of
from pat.models.hooks import removed_behind
from pat.models.sizes import Units, place_of
from pat.models.token_loss import IGNORED_LABEL
from pat.pruners.units import by_unit, queries_of


@contextmanager
def streamed_products(model: nn.Module, names: Iterable[str], visit: Callable[[str, Tensor], None], passes: int = 1) -> Iterator[None]:
    """While open, hand `visit` the product w · dL/dw of each named weight in fp32 or finer, once in `passes` backward passes.

    L is the sum of theirs. The other parameters are frozen and no gradient is kept. Half precision would lose products: they are far below
    one.
    """
    done: Counter[str] = Counter()

    def use(name: str, weight: Tensor) -> None:
        done[name] += 1
        if done[name] % passes:
            return
        precision = torch.promote_types(weight.dtype, torch.float32)
        assert weight.grad is not None
        visit(name, weight.detach().to(precision) * weight.grad.to(precision))
        weight.grad = None

    def hook(name: str) -> Callable[[Tensor], None]:
        return lambda weight: use(name, weight)

    model.requires_grad_(False)
    weights = {name: model.get_parameter(name).requires_grad_(True) for name in names}
    try:
        with removed_behind(weight.register_post_accumulate_grad_hook(hook(name)) for name, weight in weights.items()):
            yield
    finally:
        model.requires_grad_(False)


def unit_scores(
    model: PreTrainedModel, batches: Sequence[Mapping[str, Tensor]], units: Mapping[Kind, Units], layers: range
) -> dict[Kind, list[Tensor]]:
    """Return each unit's importance by kind and layer, fp32 on the CPU: the sum of |w · dL/dw| over all its weights, biases left out.

    Zeros stand for the layers outside `layers`, whose weights get no gradient. The loss is the next token's mean cross-entropy on all
    batches. |·| is taken after the sum over the examples, so that more than one batch needs memory for every gradient at once.
    """
    family = family_of(model.config)
    scores = {kind: [torch.zeros(found.count) for _ in range(model.config.num_hidden_layers)] for kind, found in units.items()}

    def add(name: str, product: Tensor) -> None:
        place = place_of(family, name)
        assert place is not None
        along = product.abs().sum(1 - place.axis)
        scores[place.kind][place.layer] += by_unit(place, along, units[place.kind].count, queries_of(model.config)).cpu()

    names = [f"{family.in_layer(layer, linear)}.weight" for layer in layers for linear in family.linears]
    counted = [(batch, tokens) for batch in batches if (tokens := _foretold(batch))]
    of_all = sum(tokens for _, tokens in counted)
    _recompute_activations(model)
    with streamed_products(model, names, add, len(counted)):
        for batch, tokens in counted:
            arguments = {name: tensor.to(model.device) for name, tensor in batch.items()}
            labels = arguments["input_ids"].masked_fill(arguments["attention_mask"] == 0, IGNORED_LABEL)
            loss = model(**arguments, labels=labels, use_cache=False).loss
            (loss * (tokens / of_all)).backward()
    return scores


def _foretold(batch: Mapping[str, Tensor]) -> int:
    """Return how many tokens of a batch have a loss."""
    return int(batch["attention_mask"][:, 1:].sum())


def _recompute_activations(model: Any) -> None:
    """Keep one activation per layer and compute the others again in the backward pass.

    Layers do so in training mode only; what is inside them stays in evaluation mode, so that no dropout is applied.
    """
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    for layer in model.get_submodule(family_of(model.config).layers):
        layer.training = True
        if isinstance(getattr(layer, "dropout", None), float):  # which it applies by itself
            layer.dropout = 0.0
