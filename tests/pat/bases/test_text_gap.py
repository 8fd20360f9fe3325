"""What two models say of text, against the loss that stock transformers has, in families with ways of their own from the head to the logits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pat.bases.text_gap import perplexity, said, text_gap
from pat.data.calibration import Blocks
from tests.kit.tiny_models import random_tokens, tiny_model


@pytest.mark.parametrize("name", ["llama", "granite", "gemma2-untied-biases", "gemma3", "opt-untied-no-biases", "pythia"])
def test_perplexities_and_divergence_are_those_of_the_models_own_logits(name: str) -> None:
    ids_NT, mask_NT = random_tokens(5, 16, seed=4), torch.ones(5, 16, dtype=torch.long)
    mask_NT[-1, 9:] = 0
    models: list[Any] = [tiny_model(name), tiny_model(name, seed=1)]
    text = Blocks(ids_NT, mask_NT)
    found = text_gap(*(said(model, text) for model in models))
    real_NT = mask_NT[:, 1:].bool()
    with torch.no_grad():
        logits = [model(input_ids=ids_NT, attention_mask=mask_NT).logits[:, :-1][real_NT].double() for model in models]
    losses = [torch.nn.functional.cross_entropy(of_one, ids_NT[:, 1:][real_NT]).item() for of_one in logits]
    first, second = (of_one.log_softmax(-1) for of_one in logits)
    assert found["tokens"] == int(real_NT.sum())
    assert [found["perplexity_before"], found["perplexity_after"]] == pytest.approx([math.exp(loss) for loss in losses], rel=1e-4)
    assert [perplexity(said(model, text)) for model in models] == [found["perplexity_before"], found["perplexity_after"]]
    assert found["kl"] == pytest.approx(float((first.exp() * (first - second)).sum(-1).mean()), rel=1e-4)
