"""What pruners take, for tests: base models with a tokenizer and calibration text on disk, and bases to turn them into; and what comes out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from pat.bases.directions import Basis, principal
from pat.data.calibration import Calibration
from pat.families.known import family_of
from pat.io.artefacts import write_jsonl
from pat.models.second_moment import second_moment
from tests.kit.tiny_models import CONFIGS, MORE, UNNARROWED, random_tokens, tiny_model

WIDTH = 48
WORDS = 94
"""Ordinary tokens of the tiny models' vocabulary of 97; three are marks."""


def shifted(name: str) -> PreTrainedModel:
    """Return a model whose embedding rows and writes have means far from zero, so that centring them by mistake shows."""
    model: Any = tiny_model(name)
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(0.5)
        for layer in model.base_model.layers:
            layer.mlp.down_proj.weight.add_(0.05)
    shifted_model: PreTrainedModel = model
    return shifted_model


def random_basis(seed: int = 3) -> Tensor:
    """Return a random orthogonal matrix."""
    generator = torch.Generator().manual_seed(seed)
    basis_DD: Tensor = torch.linalg.qr(torch.randn(WIDTH, WIDTH, dtype=torch.float64, generator=generator)).Q
    return basis_DD


def pca_basis(model: PreTrainedModel, batches: Iterable[dict[str, Tensor]]) -> Basis:
    """Return the principal directions of what the norms pass on."""
    return principal(second_moment(model, batches))


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer whose words are w3 … w96, each one token, for the tiny models' vocabulary; anything else is w3."""
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{number}": number for number in range(3, 3 + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="w3")


def write_text(path: Path, rows: int = 30, seed: int = 0) -> Path:
    """Write rows of random words."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(3, 3 + WORDS, (rows, 12), generator=generator).tolist()
    write_jsonl(path, ({"text": " ".join(f"w{number}" for number in row)} for row in numbers))
    return path


def write_base(name: str, folder: Path, model: PreTrainedModel | None = None) -> PreTrainedModel:
    """Write one of the tiny models, or another of its shape, with its tokenizer; return it."""
    assert name in CONFIGS | MORE | UNNARROWED
    model = model or tiny_model(name)
    model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return model


def calibration(folder: Path, tokens: int = 200) -> Calibration:
    """Return calibration text that is written into `folder`."""
    return Calibration(write_text(folder / "text.jsonl"), tokens=tokens, seed=0)


def divergence(model: Any, other: Any) -> float:
    """Return the mean KL divergence of another model's next token from a model's, in nats."""
    tokens = random_tokens(4, 20, seed=8)
    with torch.no_grad():
        expected, found = (log_softmax(one(input_ids=tokens).logits, -1).flatten(0, 1) for one in (model, other))
    return float(kl_div(found, expected, log_target=True, reduction="batchmean"))


def check_generates_and_takes_lora(model: Any) -> None:
    """Fail unless a model says the same with and without its cache, and a fresh LoRA on it learns and is merged to what it was."""
    prompt = random_tokens(1, 6, seed=5)
    settings = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": None}
    assert torch.equal(model.generate(prompt, use_cache=True, **settings), model.generate(prompt, use_cache=False, **settings))
    with torch.no_grad():
        before = model(input_ids=prompt).logits
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=list(family_of(model.config).linears)))
    adapted(input_ids=prompt, labels=prompt).loss.backward()
    merged: Any = adapted.merge_and_unload()
    with torch.no_grad():
        assert torch.equal(merged(input_ids=prompt).logits, before), "LoRA starts at zero"
