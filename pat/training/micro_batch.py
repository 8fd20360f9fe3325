"""How many rows go through the model at once where the recipe leaves that open (`micro_batch_size: auto`): as many as the memory holds.

What a row needs is counted (kept_activations.py) and not tried out, so the number is known before the first step and the same in a run that
is resumed on such a GPU. The batch, and with it the result but for rounding and the draws of dropout, does not depend on it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch.distributed import ReduceOp, all_reduce, is_available, is_initialized

from pat.errors import UserError
from pat.io.progress import say
from pat.machine import processes
from pat.method.lora_inputs import taken_as_they_are
from pat.method.model import PatModel
from pat.models.kept_activations import kept_bytes
from pat.models.recomputed import recomputed_feed_forward
from pat.models.token_loss import most_logits, read
from pat.settings.fields import GIB
from pat.training.request import TuningRequest

SHARE = 0.92
"""Of a GPU's free memory: the rest is lost between pieces of other sizes."""
OPTIMIZER_BYTES = 16
"""A trained parameter's gradient, AdamW's two moments and, of several processes, what they average."""
LOGIT_BYTES = 16
"""A logit of a chunk in fp32, its log-probability, their gradient and one more on the way."""


def rows_at_once(request: TuningRequest, model: PeftModel, teacher: torch.nn.Module | None = None) -> int | None:
    """Return how many rows a forward pass of `model` takes, None where that is the whole batch; what was chosen here is said.

    The model is as it was, and so are torch's random numbers. Raises UserError where the memory does not hold a single row.
    """
    chosen = request.tuning.micro_batch_size
    if chosen != "auto":
        return chosen
    budget = _budget(request, model)
    if budget is None:
        return None
    at_rest, of_a_row = needed(request, model, teacher)
    whole = request.tuning.batch_size // processes.count()
    fitting = [rows for rows in range(whole, 0, -1) if whole % rows == 0 and at_rest + rows * of_a_row <= budget]
    if not fitting:
        raise UserError(
            f"tuning.micro_batch_size: auto: one row of {request.tuning.max_length} tokens needs some "
            f"{(at_rest + of_a_row) / GIB:.1f} GiB, there are {budget / GIB:.1f}; {_advice(request)}"
        )
    rows = fitting[0]
    say(
        f"tune: {rows} of {whole} rows at once: about {(at_rest + rows * of_a_row) / GIB:.1f} GiB of {budget / GIB:.1f}, "
        f"{of_a_row / GIB:.3f} per row"
    )
    return rows


def _advice(request: TuningRequest) -> str:
    values = {True: "", "feed-forward": "true"}.get(request.tuning.gradient_checkpointing, "feed-forward or true")
    change = [f"tuning.gradient_checkpointing: {values}"] if values else []
    change += ["tuning.memory_gib higher"] if request.tuning.memory_gib else []
    return f"set {', '.join([*change, 'tuning.max_length lower'])}"


def _budget(request: TuningRequest, model: PeftModel) -> float | None:
    """Return the bytes that the job may take, the same in all its processes; None where nothing bounds them."""
    device = model.device
    if request.tuning.memory_gib is not None:
        return request.tuning.memory_gib * GIB
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    bytes_ = torch.tensor(SHARE * (free + unused) + torch.cuda.memory_allocated(device), dtype=torch.float64, device=device)
    if is_available() and is_initialized():
        all_reduce(bytes_, op=ReduceOp.MIN)
    return float(bytes_)


def needed(request: TuningRequest, model: PeftModel, teacher: torch.nn.Module | None = None) -> tuple[float, float]:
    """Return the bytes that a job needs whatever its rows, and those of a row of `max_length` tokens at the peak; before any recomputation
    is put in place.

    At the peak, when backward begins, all layers' activations are there, and those of one layer again while their gradients are formed.
    """
    settings = request.tuning
    held = [*model.parameters(), *model.buffers(), *([] if teacher is None else [*teacher.parameters(), *teacher.buffers()])]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in {id(tensor): tensor for tensor in held}.values())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    at_rest = weights + OPTIMIZER_BYTES * trained + LOGIT_BYTES * most_logits(model.device)
    stock: Any = model.get_base_model()
    layers: int = stock.config.num_hidden_layers
    count = partial(kept_of_a_row, model, settings.max_length, bf16=settings.precision == "bf16")
    one_row = count()
    if settings.recomputes_layers:  # of each layer its input alone
        inputs = layers * settings.max_length * stock.config.hidden_size * stock.dtype.itemsize
        return at_rest, inputs + 2 * one_row / layers
    if settings.recomputes_feed_forward:  # and a block's activations come back before their gradients are formed
        with recomputed_feed_forward(stock):
            kept = count()
        return at_rest, kept + (one_row - kept) / layers + one_row / layers
    return at_rest, one_row * (1 + 1 / layers)


def kept_of_a_row(model: PeftModel, length: int, *, bf16: bool) -> float:
    """Return the bytes that a row of so many tokens keeps for backward, as the trainer runs the model."""
    stock: Any = model.get_base_model()
    was_training, device = model.training, model.device
    model.train()
    counts = []
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.autocast(device.type, torch.bfloat16, enabled=bf16),
        taken_as_they_are(model, autocast=bf16),
    ):
        for rows in (1, 2):  # the second row costs what a row costs; with the first come the constants
            inputs = {"input_ids": torch.zeros(rows, length, dtype=torch.int64, device=device)}
            counts.append(kept_bytes(partial(read, model, stock, inputs), (*model.parameters(), *model.buffers())))
    model.train(was_training)
    if isinstance(model, PatModel):
        model.own_losses.begin_step()  # it was no training
    return counts[1] - counts[0]
