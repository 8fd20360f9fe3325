"""On a pretrained model, a GGUF file that PAT_REAL_MODEL names: what the import says of it, and that it knows what it was taught."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from pat.checkpoints import checkpoint
from pat.checkpoints.gguf_import import import_gguf
from pat.checkpoints.origin import origin_of

pytestmark = pytest.mark.model
VARIABLE = "PAT_REAL_MODEL"
TEXT = (
    "Paris is the capital of France. It lies on the river Seine, in the north of the country, and has been one of the most important "
    "cities of Europe since the Middle Ages. Many people visit its museums every year."
)


@pytest.fixture(scope="module")
def file() -> Path:
    named = os.environ.get(VARIABLE)
    if not named or not Path(named).is_file():
        pytest.skip(f"{VARIABLE} names no GGUF file; set it to one, such as SmolLM2-135M-Instruct's")
    return Path(named)


@pytest.fixture(scope="module")
def base(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real") / "base"
    import_gguf(file, folder)
    return folder


def test_its_logits_are_those_that_transformers_has(file: Path, base: Path) -> None:
    tokens_BT = checkpoint.load_tokenizer(base)(TEXT, return_tensors="pt")["input_ids"]
    theirs = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16)
    with torch.no_grad():
        assert torch.equal(checkpoint.load_model(base)(tokens_BT).logits, theirs(tokens_BT).logits)


def test_it_keeps_tie_chat_template_and_record(base: Path) -> None:
    config, tokenizer = checkpoint.load_config(base), checkpoint.load_tokenizer(base)
    assert ("lm_head.weight" in checkpoint.tensor_shapes(base)) is not config.tie_word_embeddings
    assert tokenizer.chat_template
    assert tokenizer.decode(tokenizer(TEXT)["input_ids"], skip_special_tokens=True) == TEXT
    assert (origin_of(base) or {})["formats"]


def test_it_knows_english(base: Path) -> None:
    """A broken order of heads, a lost gain or a wrong tokenizer leaves a perplexity in the thousands."""
    model, tokenizer = checkpoint.load_model(base, torch.float32), checkpoint.load_tokenizer(base)
    tokens_BT = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        loss = model(input_ids=tokens_BT, labels=tokens_BT).loss
    assert loss.exp().item() < 20
