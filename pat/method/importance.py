"""How much each hidden channel matters, by which a fixed mask keeps some: the orders that need no training.

Owns the scores. Which channels live is mask.py's, in which basis bases.py's. Axes: B rows, T tokens, V vocabulary, D hidden channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pat.data.calibration import Blocks
from pat.families.known import Family, Role, family_of
from pat.models.hooks import removed_behind
from pat.models.second_moment import second_moment
from pat.models.sharding import whole
from pat.models.token_loss import IGNORED_LABEL, in_chunks, learned_tokens, read
from pat.settings.config import PatConfig

GRADIENT_TOKENS_AT_ONCE = 2048
"""A backward pass holds every activation of its tokens."""


def channel_importance(model: PreTrainedModel, config: PatConfig, text: Blocks | None) -> Tensor | None:
    """Return the importance by which the config's mask keeps channels, or a trained one starts, (D,); None where all start alike.

    `frozen` gives up the first channels, as the paper's table 2 does, `leading` the last: right where the basis is ordered. `text` is
    needed by `variance` and `fisher` alone.
    """
    count = model.config.hidden_size
    orders: dict[str, Callable[[], Tensor]] = {
        "frozen": lambda: torch.arange(count),
        "leading": lambda: torch.arange(count).flip(0),
        "random": lambda: torch.rand(count, generator=torch.Generator().manual_seed(config.seed)),
        "magnitude": lambda: model_weight_norms(model),
    }
    if text is not None:
        orders["variance"] = lambda: second_moment(model, text.batches()).diagonal()
        orders["fisher"] = lambda: fisher(model, gradient_batches(text))
    return orders[config.order]() if config.order else None


def fisher(model: PreTrainedModel, batches: Iterable[dict[str, Tensor]]) -> Tensor:
    """Return F = Σ_rows (∂L_row/∂m)², the empirical Fisher information of the mask m at m = 1, (D,) in fp64.

    One mask for every write to the stream, as the unified mask is. L_row is the summed next-token cross-entropy of a row.
    """
    model.requires_grad_(False)
    fisher_D = torch.zeros(model.config.hidden_size, dtype=torch.float64, device=model.device)
    for batch in batches:
        mask_BD = torch.ones(len(batch["input_ids"]), len(fisher_D), device=model.device, requires_grad=True)
        with _masked_writes(model, mask_BD):
            (gradient_BD,) = torch.autograd.grad(text_loss(model, batch), mask_BD)
        fisher_D += gradient_BD.double().square().sum(0)
    return fisher_D


@contextmanager
def _masked_writes(model: PreTrainedModel, mask_BD: Tensor) -> Iterator[None]:
    """While open, multiply every write to the stream by each row's own mask."""

    def multiply(_module: nn.Module, _inputs: Any, output_BTD: Tensor) -> Tensor:
        return output_BTD * mask_BD[:, None, :].to(output_BTD.dtype)

    writes = family_of(model.config).writes(model.config.num_hidden_layers)
    hooks = [model.get_submodule(write).register_forward_hook(multiply) for write in writes]
    with removed_behind(hooks):
        yield


def text_loss(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the next token's cross-entropy, summed over the batch's real tokens, with dropout off."""
    arguments = {name: tensor.to(model.device) for name, tensor in batch.items()}
    tokens = learned_tokens(arguments["input_ids"].masked_fill(arguments["attention_mask"] == 0, IGNORED_LABEL))
    was_training = model.training
    model.train(False)
    hidden_BTD, head = read(model, model, arguments)
    model.train(was_training)

    def objective(hidden_CD: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        loss = head.summed_cross_entropy(hidden_CD, tokens.targets_N[part])
        return loss, loss.new_zeros(())

    loss, _ = in_chunks(tokens.among(hidden_BTD), head.loss_chunk(), objective)
    return loss


def gradient_batches(text: Blocks) -> Iterator[dict[str, Tensor]]:
    """Yield the text in batches small enough for a backward pass."""
    return text.batches(max(1, GRADIENT_TOKENS_AT_ONCE // text.ids_NT.shape[1]))


def weight_norms(
    named: Iterable[tuple[str, Tensor]], gains: Mapping[str, Tensor], family: Family, hidden_size: int, *, tied: bool
) -> Tensor:
    """Return the l2 norm of all weights attached to each channel, shape (D,), fp64.

    Norm gains are folded into the readers first, so that the score does not depend on how a model splits a factor between a gain
    and the weights behind it.
    """
    squares_D = torch.zeros(hidden_size, dtype=torch.float64)
    for name, tensor in named:
        module, _, parameter = name.rpartition(".")
        wide = tensor.double().cpu()
        match family.role(name):
            case Role.EMBEDDING:
                squares_D += wide.square().sum(0)
            case Role.WRITE:
                rows = wide.transpose(0, 1) if wide.dim() == 3 else wide  # of all experts, in memory
                squares_D += rows.square().reshape(hidden_size, -1).sum(1)
            case Role.HEAD if tied:
                continue
            case Role.READ | Role.HEAD if parameter != "bias":
                norm = family.norm_before(module)
                squares_D += (wide if norm is None else wide * gains[norm].cpu()).square().flatten(0, -2).sum(0)
    return squares_D.sqrt()


def model_weight_norms(model: PreTrainedModel) -> Tensor:
    """As `weight_norms`, of a model in memory."""
    family, tied = family_of(model.config), bool(model.config.tie_word_embeddings)
    named = ((name, whole(tensor)) for name, tensor in model.state_dict().items())
    return weight_norms(named, gains_of(model), family, model.config.hidden_size, tied=tied)


def gains_of(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return what each norm on the stream multiplies the channels by, (D,) in fp64, by the norm's name."""
    family = family_of(model.config)
    norms = family.stream_norms(model.config.num_hidden_layers)
    return {norm: whole(model.get_parameter(f"{norm}.weight").detach()).double() + family.gain_offset for norm in norms}
