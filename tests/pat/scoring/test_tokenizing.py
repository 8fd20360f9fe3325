"""Texts tokenized many at a call against lm-eval's own way, a text at a time: the same tokens, and the same joint of prompt and choice."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.models.huggingface import HFLM
from tokenizers import processors
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from pat.machine.threads import tokenizing_with
from pat.scoring import tokenizing
from pat.scoring.batched_lm import BatchedLM
from pat.scoring.tokenizing import prompts_of, tokens_of
from tests.kit.chat_templates import TEMPLATES
from tests.kit.sentencepiece_like import sentencepiece_tokenizer
from tests.kit.tiny_checkpoint import byte_tokenizer
from tests.pat.scoring.test_batched_lm import PAIRS, merging_tokenizer, requests

TEMPLATE = TEMPLATES["trimmed roles"].text
"""Which begins with BOS."""


def opening_tokenizer() -> PreTrainedTokenizerFast:
    """Return one that puts BOS before every text by itself."""
    tokenizer = sentencepiece_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    assert tokenizer("a")["input_ids"][0] == 1
    return tokenizer


def nameless_tokenizer() -> PreTrainedTokenizerFast:
    """Return one without BOS, for which lm-eval takes EOS."""
    tokenizer = byte_tokenizer()
    tokenizer.bos_token = None
    return tokenizer


TOKENIZERS = {
    "bytes": byte_tokenizer,
    "merging": merging_tokenizer,
    "sentencepiece": sentencepiece_tokenizer,
    "opens texts": opening_tokenizer,
    "no bos": nameless_tokenizer,
}
BOS = {"as the tokenizer does": None, "always": True, "never": False}


@cache
def model() -> Any:
    config = LlamaConfig(
        vocab_size=800, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=200,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, initializer_range=0.5,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval()


@cache
def stock(tokenizer: str, bos: str) -> HFLM:
    return HFLM(pretrained=model(), tokenizer=TOKENIZERS[tokenizer](), batch_size=1, add_bos_token=BOS[bos])


def chat(content: str) -> str:
    messages = [{"role": "user", "content": content}]
    found = byte_tokenizer().apply_chat_template(messages, chat_template=TEMPLATE, tokenize=False, add_generation_prompt=True)
    assert isinstance(found, str) and found.startswith("<s>")
    return found


TEXTS = [
    "", " ", "\n", "a", " a", "  a", "a ", "a  \n", "<s>", "</s>", "<s> a", "</s>a", " <s>a", "a<s>b</s>", "<pad>a<pad>",
    chat("What is snow?"), chat(" é "), "naïve café", "e\u0301 é", "日本語 テキスト", "🙂‍↔️ and 👩‍👩‍👧", "\u200b\ufeff", "a\x00b", "ﬁ ½ Å",
    "\u202eright to left", "long " * 300,
]  # fmt: skip


@pytest.mark.parametrize("portion", [1, 3, 1024])
@pytest.mark.parametrize("bos", BOS)
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_tokens_are_those_of_lm_eval_one_by_one(tokenizer: str, bos: str, portion: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizing, "TEXTS_AT_ONCE", portion)
    lm = stock(tokenizer, bos)
    assert list(tokens_of(lm, iter(TEXTS))) == [lm.tok_encode(text) for text in TEXTS]
    assert list(prompts_of(lm, TEXTS)) == [lm.tok_batch_encode([text])[0][0].tolist() for text in TEXTS]


@given(texts=st.lists(st.text(max_size=12) | st.sampled_from(TEXTS), max_size=6), tokenizer=st.sampled_from(sorted(TOKENIZERS)))
def test_whatever_is_in_the_texts(texts: list[str], tokenizer: str) -> None:
    lm = stock(tokenizer, "as the tokenizer does")
    assert list(tokens_of(lm, texts)) == [lm.tok_encode(text) for text in texts]


def test_a_tokenizer_that_has_no_faster_way_is_asked_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = stock("bytes", "as the tokenizer does")
    monkeypatch.setattr(type(lm.tokenizer), "is_fast", False)
    monkeypatch.setattr(lm, "tok_encode", lambda text: [len(text)])
    assert list(tokens_of(lm, TEXTS)) == [[len(text)] for text in TEXTS]


def test_threads_change_no_token() -> None:
    lm = stock("opens texts", "as the tokenizer does")
    expected = [lm.tok_encode(text) for text in TEXTS]
    with tokenizing_with(2):
        assert list(tokens_of(lm, TEXTS * 50)) == expected * 50


CHAT_PAIRS = [(chat(asked), answer) for asked in ("Which?", " Which one? ") for answer in ("this", " that", "é")]
JOINTS = [
    *PAIRS, *CHAT_PAIRS, ("a\n", "b"), ("a \n\t", "b"), ("a\u00a0", "b"), ("a\u200b", "b"), ("e", "\u0301"), ("👩", "\u200d👧"), (" a", "b"),
    ("<s>", " a"), ("a", " "), ("日本", "語"),
]  # fmt: skip
"""Where a prompt and its choice meet: blanks of all kinds, characters of several code points, templates, no prompt at all."""


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_prompt_and_choice_are_parted_where_lm_eval_parts_them(tokenizer: str) -> None:
    """By what lm-eval's model says of each pair alone: another token on either side is another likelihood."""
    asked = requests("loglikelihood", JOINTS)
    expected = stock(tokenizer, "as the tokenizer does").loglikelihood(asked, disable_tqdm=True)
    found = BatchedLM(model(), TOKENIZERS[tokenizer](), 8).loglikelihood(asked)
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert len({round(value, 4) for value, _ in expected}) > len(JOINTS) // 2
