"""What a tuning keeps of each token for backward, counted in bytes: every tensor of it is named here, and none is kept twice."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model

from pat import PatConfig, PatTrainer, attach
from pat.families.known import family_of
from pat.method.lora_inputs import taken_as_they_are
from pat.method.model import lora_config
from pat.models.attention import rely_on_causal_kernel
from pat.models.kept_activations import kept_bytes
from pat.models.token_loss import read
from tests.kit.tiny_models import SHAPE, random_tokens, tiny_model
from tests.kit.training_rows import RandomRows, arguments

RANK, LENGTH = 3, 16
CHANNELS, NEURONS, HEADS, LAYERS = (
    int(SHAPE[name]) for name in ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")
)
HALF, SINGLE = 2, 4
"""Bytes of a number."""


def model_of(tuner: str, **choices: Any) -> PeftModel:
    stock = tiny_model("llama").bfloat16()
    rely_on_causal_kernel(stock, LENGTH)
    if tuner == "pat":
        settings = {"pruning_ratio": 0.25, "align": 4, "hio_rank": 5, "lora_rank": RANK, "lora_dropout": 0.0, "total_steps": 12} | choices
        return attach(stock, PatConfig(**settings))
    model = get_peft_model(stock, lora_config(family_of(stock.config), RANK, 6.0, 0.0, use_dora=tuner == "dora"))
    assert isinstance(model, PeftModel)
    return model


def kept_of_a_token(model: PeftModel, casts: AbstractContextManager[None] | None = None) -> float:
    """Return the bytes that one more token costs: the difference between two numbers of rows, which has no constants in it."""
    stock: Any = model.get_base_model()
    model.train()
    counts = []
    with torch.autocast("cpu", torch.bfloat16), casts or taken_as_they_are(model, autocast=True):
        for rows in (2, 4):
            inputs = {"input_ids": random_tokens(rows, LENGTH)}
            counts.append(kept_bytes(partial(read, model, stock, inputs), (*model.parameters(), *model.buffers())))
    return (counts[1] - counts[0]) / (2 * LENGTH)


def of_a_norm() -> int:
    """Its input in fp32 and the factor that it divides by."""
    return SINGLE * CHANNELS + SINGLE


def of_a_layer() -> int:
    attention = HALF * 4 * CHANNELS + SINGLE * HEADS  # queries, keys, values and what attention hands on; the sum of each head's weights
    neurons = HALF * 4 * NEURONS  # gate, its activation, up, their product
    readers = 2 * HALF * CHANNELS  # what each norm hands on, once for all its readers
    return 2 * of_a_norm() + readers + attention + neurons + 7 * HALF * RANK


def of_lora() -> int:
    """All layers; the first norm keeps nothing, for nothing is trained before it, and the final one makes up for it."""
    return LAYERS * of_a_layer()


def test_lora_keeps_what_its_products_need_and_each_input_once() -> None:
    assert kept_of_a_token(model_of("lora")) == of_lora()


def test_peft_by_itself_keeps_an_input_for_each_of_its_readers() -> None:
    copies = LAYERS * HALF * (2 + 1 + 1) * CHANNELS  # of queries, keys and values, of gate and up, of attention's output
    assert kept_of_a_token(model_of("lora"), nullcontext()) == of_lora() + copies


def test_the_operators_of_pat_keep_one_output_a_write() -> None:
    writes = 2 * LAYERS + 1
    assert kept_of_a_token(model_of("pat")) == of_lora() + of_a_norm() + writes * HALF * CHANNELS


def test_a_fixed_mask_without_operators_keeps_nothing_more_than_lora() -> None:
    fixed = model_of("pat", mask="leading", hio_rank=0, closing="at-once")
    assert kept_of_a_token(fixed) == of_lora()


def test_doras_layers_go_on_casting() -> None:
    model = model_of("dora")
    with taken_as_they_are(model, autocast=True):
        assert all(getattr(module, "cast_input_dtype_enabled", True) for module in model.modules())


@pytest.mark.lengthy
@pytest.mark.parametrize("tuner", ["lora", "pat"])
def test_training_is_the_same_to_the_bit(tuner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for name in ("as they are", "cast"):
        if name == "cast":
            monkeypatch.setattr("pat.training.trainer.taken_as_they_are", lambda *_, **__: nullcontext())
        torch.manual_seed(0)
        model = model_of(tuner)
        PatTrainer(model=model, args=arguments(tmp_path / name, max_steps=12, bf16=True), train_dataset=RandomRows()).train()
        assert all(getattr(module, "cast_input_dtype_enabled", True) for module in model.modules()), "as it was, behind training"
        found.append({key: parameter.detach().clone() for key, parameter in model.named_parameters() if parameter.requires_grad})
    assert found[0].keys() == found[1].keys() and all(torch.equal(found[0][key], found[1][key]) for key in found[0])
    assert any(".lora_B" in key and parameter.abs().max() > 0 for key, parameter in found[0].items())
