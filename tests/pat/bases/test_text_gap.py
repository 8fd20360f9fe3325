"""What two models say of text, against the loss that stock transformers has, in families with ways of their own from the head to the logits."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pat.bases.text_gap import MOST_NATS, perplexity, said, text_gap
from pat.data.calibration import Blocks
from pat.io.artefacts import read_json, write_json
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


def test_a_broken_models_loss_beyond_what_a_float_holds_is_a_perplexity(tmp_path: Path) -> None:
    text = Blocks(random_tokens(2, 16, seed=4), torch.ones(2, 16, dtype=torch.long))
    sound, broken = (said(tiny_model("llama"), text) for _ in range(2))
    broken = replace(broken, head=replace(broken.head, weight_VD=broken.head.weight_VD * 1e6))
    found = text_gap(sound, broken)
    assert perplexity(broken) == found["perplexity_after"] == math.exp(MOST_NATS)
    write_json(tmp_path / "record.json", found)
    assert read_json(tmp_path / "record.json") == found
