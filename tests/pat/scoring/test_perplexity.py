"""Perplexity against a computation token by token."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from pat.errors import UserError
from pat.scoring.perplexity import perplexity
from tests.kit.tiny_checkpoint import byte_tokenizer, write_tiny_checkpoint

DOCUMENTS = ["The first one is long enough for several windows.", "é", "Short."]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    folder = write_tiny_checkpoint(tmp_path_factory.mktemp("model"))
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder)
    return loaded


@torch.no_grad()
def loss_by_hand(model: PreTrainedModel, context: int) -> float:
    total = 0.0
    for document in DOCUMENTS:
        tokens = [1, *byte_tokenizer()(document)["input_ids"]]
        for place in range(1, len(tokens)):
            start = (place - 1) // context * context
            logits = model(torch.tensor([tokens[start:place]])).logits[0, -1]
            total -= float(torch.log_softmax(logits.double(), -1)[tokens[place]])
    return total


@pytest.mark.parametrize("context", [8, 16, 100])
def test_every_token_is_predicted_once_from_its_window(model: PreTrainedModel, context: int) -> None:
    figures = perplexity(model, byte_tokenizer(), DOCUMENTS, context, 3, "x")
    size = sum(len(document.encode()) for document in DOCUMENTS)
    assert figures["tokens"] == figures["bytes"] == size
    expected = math.exp(loss_by_hand(model, context) / size)
    assert figures["token_perplexity"] == pytest.approx(expected, rel=1e-5)
    assert figures["byte_perplexity"] == pytest.approx(expected, rel=1e-5)


def test_documents_sum_to_the_text_and_stand_alone(model: PreTrainedModel) -> None:
    def documents(texts: list[str], batch_size: int) -> dict[str, list[float]]:
        found: dict[str, list[float]] = perplexity(model, byte_tokenizer(), texts, 16, batch_size, "x")["documents"]
        return found

    together = documents(DOCUMENTS, 2)
    assert together["tokens"] == [len(document.encode()) for document in DOCUMENTS]
    assert sum(together["losses"]) == pytest.approx(loss_by_hand(model, 16), rel=1e-5)
    assert together["losses"] == pytest.approx([documents([one], 1)["losses"][0] for one in DOCUMENTS], rel=1e-4)


def test_the_batch_size_changes_nothing(model: PreTrainedModel) -> None:
    one, many = (perplexity(model, byte_tokenizer(), DOCUMENTS, 16, size, "x") for size in (1, 50))
    assert one["token_perplexity"] == pytest.approx(many["token_perplexity"], rel=1e-6)


def test_empty_text_and_a_tokenizer_without_a_start_are_refused(model: PreTrainedModel) -> None:
    with pytest.raises(UserError, match="no token"):
        perplexity(model, byte_tokenizer(), [""], 16, 1, "x")
    bare = byte_tokenizer()
    bare.bos_token = bare.eos_token = None
    with pytest.raises(UserError, match="neither BOS nor EOS"):
        perplexity(model, bare, ["text"], 16, 1, "x")
