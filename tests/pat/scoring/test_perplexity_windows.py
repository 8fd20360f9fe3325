"""How a document is cut into windows: BOS where the tokenizer opens texts with it, and where lm-eval's rolling form agrees."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from pat.scoring.perplexity import perplexity
from tests.kit.tiny_checkpoint import byte_tokenizer, write_tiny_checkpoint

CONTEXT = 16
LONG = "a document of several windows and a rest"
BOS = 1


def opening_tokenizer() -> PreTrainedTokenizerFast:
    """Return the byte tokenizer, made to put BOS before every text as those of Llama and Gemma do."""
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    folder = write_tiny_checkpoint(tmp_path_factory.mktemp("model"), context=CONTEXT)
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder)
    return loaded


def loss(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, document: str, context: int = CONTEXT) -> float:
    figures = perplexity(model, tokenizer, [document], context, 4, "x")
    assert figures["tokens"] == len(document)
    return math.log(float(figures["token_perplexity"])) * len(document)


@pytest.mark.parametrize("context", [8, 16])
@torch.no_grad()
def test_every_window_opens_with_bos_where_the_tokenizer_adds_it(model: PreTrainedModel, context: int) -> None:
    tokens = byte_tokenizer()(LONG)["input_ids"]
    expected, place = 0.0, 0
    while place < len(tokens):
        before = tokens[place - 1 : place] if place else []
        own = tokens[place : place + context - len(before)]
        inputs = [BOS, *before, *own[:-1]]
        assert len(inputs) <= context
        logits = model(torch.tensor([inputs])).logits[0, len(before) :].double()
        expected -= float(torch.log_softmax(logits, -1).gather(1, torch.tensor(own)[:, None]).sum())
        place += len(own)
    assert loss(model, opening_tokenizer(), LONG, context) == pytest.approx(expected, rel=1e-5)


def test_a_document_within_the_context_is_the_same_with_and_without_a_bos_of_its_own(model: PreTrainedModel) -> None:
    assert loss(model, opening_tokenizer(), LONG[:CONTEXT]) == pytest.approx(loss(model, byte_tokenizer(), LONG[:CONTEXT]), rel=1e-6)
    assert loss(model, opening_tokenizer(), LONG) != pytest.approx(loss(model, byte_tokenizer(), LONG), rel=1e-3)


def rolling(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, document: str) -> float:
    stock: Any = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1)
    return -float(stock.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (document,), 0)], disable_tqdm=True)[0])


@pytest.mark.parametrize("length", [5, CONTEXT, 2 * CONTEXT])
def test_full_windows_without_bos_are_lm_evals_rolling_ones(model: PreTrainedModel, length: int) -> None:
    assert loss(model, byte_tokenizer(), LONG[:length]) == pytest.approx(rolling(model, byte_tokenizer(), LONG[:length]), rel=1e-5)


def test_what_the_documents_say_of_lm_evals_rolling_form_holds(model: PreTrainedModel) -> None:
    """Its last window has a whole context; of a tokenizer's own BOS it has two at the start, one of them predicted, and none later."""
    assert rolling(model, byte_tokenizer(), LONG) != pytest.approx(loss(model, byte_tokenizer(), LONG), rel=1e-5)
    with torch.no_grad():
        bos_after_bos = -float(torch.log_softmax(model(torch.tensor([[BOS]])).logits[0, -1].double(), -1)[BOS])
        tokens = torch.tensor([[BOS, BOS, *byte_tokenizer()(LONG[:4])["input_ids"]]])
        logits = model(tokens).logits[0, 1:-1].double()
        rest = -float(torch.log_softmax(logits, -1).gather(1, tokens[0, 2:, None]).sum())
    assert rolling(model, opening_tokenizer(), LONG[:4]) == pytest.approx(bos_after_bos + rest, rel=1e-5)


def test_a_document_longer_than_the_context_brings_no_warning(model: PreTrainedModel, caplog: pytest.LogCaptureFixture) -> None:
    """The tokenizer says of such a text that it "will result in indexing errors", once for each: none does, it is cut into windows."""
    tokenizer = byte_tokenizer()
    tokenizer.model_max_length = CONTEXT
    said = logging.getLogger("transformers")
    said.addHandler(caplog.handler)
    try:
        with caplog.at_level("WARNING", "transformers"):  # whatever other tests of this process have set
            loss(model, tokenizer, LONG)
            assert "indexing errors" not in caplog.text
            tokenizer(LONG)
            assert "indexing errors" in caplog.text, "what would be said otherwise"
    finally:
        said.removeHandler(caplog.handler)


def test_a_text_that_is_one_document_tells_the_losses_of_its_windows_in_their_order(model: PreTrainedModel) -> None:
    figures = perplexity(model, byte_tokenizer(), [LONG], CONTEXT, 2, "x")
    windows, places = figures["windows"], range(0, len(LONG), CONTEXT)
    assert windows["tokens"] == [len(LONG[place : place + CONTEXT]) for place in places]
    tokens = byte_tokenizer()(LONG)["input_ids"]
    for place, told in zip(places, windows["losses"], strict=True):
        inputs = [BOS, *tokens[:-1]][place : place + CONTEXT]
        with torch.no_grad():
            logits = model(torch.tensor([inputs])).logits[0].double()
        expected = -float(torch.log_softmax(logits, -1).gather(1, torch.tensor(tokens[place : place + CONTEXT])[:, None]).sum())
        assert told == pytest.approx(expected, rel=1e-4)
    assert sum(windows["losses"]) == pytest.approx(figures["documents"]["losses"][0], abs=1e-3)
    assert "windows" not in perplexity(model, byte_tokenizer(), [LONG, LONG], CONTEXT, 2, "x")
