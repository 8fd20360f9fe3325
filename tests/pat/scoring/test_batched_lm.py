"""The model that is asked in batches against lm-eval's stock `hf`, one request at a time: the same texts, the same log-likelihoods."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    SmolLM3Config,
)

from pat.models.reshaped import ReshapedConfig
from pat.scoring import batched_lm, harness
from pat.scoring.batched_lm import BatchedLM
from pat.scoring.opening import Opening, common_length
from pat.scoring.packed_choices import Question, read_endings
from tests.kit.pairs import all_pairs
from tests.kit.tiny_checkpoint import byte_tokenizer, some_items

CONTEXT = 160
SHAPE: dict[str, Any] = {
    "vocab_size": 270, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3,
}  # fmt: skip
UNTIED = {"tie_word_embeddings": False, "initializer_range": 0.2}
CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**SHAPE, num_key_value_heads=2),
    "gemma": GemmaConfig(**SHAPE, num_key_value_heads=1, head_dim=8),
    "mistral-window": MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=48),
    "olmo2": Olmo2Config(**SHAPE, num_key_value_heads=2),
    "gemma2": Gemma2Config(**SHAPE | UNTIED, num_key_value_heads=2, head_dim=8, query_pre_attn_scalar=8, sliding_window=48),
    "gemma3": Gemma3TextConfig(**SHAPE | UNTIED, num_key_value_heads=1, head_dim=8, query_pre_attn_scalar=8, sliding_window=48),
    "phi3": Phi3Config(**SHAPE, num_key_value_heads=2),
    "granite": GraniteConfig(**SHAPE, num_key_value_heads=2, residual_multiplier=0.5, embedding_multiplier=3.0, logits_scaling=2.0),
    "smollm3": SmolLM3Config(**SHAPE | UNTIED, num_key_value_heads=2, no_rope_layers=[1, 0]),
    "reshaped": ReshapedConfig.of(LlamaConfig(**SHAPE), groups=[2, 3], neurons=[48, 31]),
}
OPENING = "All of them begin so. "
PAIRS = [
    *[(f"{OPENING}Which is {'right, ' * count}then:", ending) for count in range(7) for ending in (" a", " an end", " an", " é", " ends")],
    *[(f"{OPENING}one letter:", ending) for ending in "abc"],
    *[(OPENING + "long " * 40 + ":", ending) for ending in (" x", " longer than x", " y")],
    (OPENING + "with blanks  ", "after"), (OPENING + "with blanks  ", "behind"), ("", " nothing before it"),
    (f"{OPENING}one letter:", "a"), (OPENING + "long " * 20 + ":", " b" * 70), (OPENING + "long " * 20 + ":", " c" * 70),
]  # fmt: skip
"""Choices that begin one another, of one token, cut contexts, no context, blanks at the joint, a repeated request, rows beyond the context."""


def model_of(name: str) -> PreTrainedModel:
    """Return a random model that ends some of its answers with EOS."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(CONFIGS[name])
    with torch.no_grad():
        model.get_parameter("lm_head.weight" if not CONFIGS[name].tie_word_embeddings else "model.embed_tokens.weight")[2] *= 3.0
    model.eval()
    return model


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """Return the byte tokenizer with tokens that reach over the joint of context and continuation."""
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [(":", "Ġ"), ("Ġ", "a"), ("a", "n"), ("e", "n"), ("en", "d")]
    vocabulary = {token: place for place, token in enumerate(["<pad>", "<s>", "</s>", *pieces, *(one + two for one, two in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


ALSO_OTHER = {"shared opening": [], "no opening": [("Other:", " a")]}
"""What is asked besides PAIRS, all of which but the cut contexts and the empty one begin with OPENING."""
TOKENIZERS = {"bytes": byte_tokenizer, "merging": merging_tokenizer}


def stock(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> HFLM:
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1)


def requests(kind: Any, arguments: Sequence[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, one, place) for place, one in enumerate(arguments)]


@cache
def expected_log_likelihoods(name: str, tokenizer: str, others: str) -> list[tuple[float, bool]]:
    """Return what lm-eval finds, which is the same for every size of our batches."""
    asked = requests("loglikelihood", PAIRS + ALSO_OTHER[others])
    found: list[tuple[float, bool]] = stock(model_of(name), TOKENIZERS[tokenizer]()).loglikelihood(asked, disable_tqdm=True)
    return found


@pytest.mark.lengthy
@pytest.mark.parametrize(
    ("name", "texts", "batch_size"), all_pairs(sorted(CONFIGS), list(product(sorted(TOKENIZERS), sorted(ALSO_OTHER))), [1, 4, 64])
)
def test_log_likelihoods_are_those_of_lm_eval_one_by_one(name: str, texts: tuple[str, str], batch_size: int) -> None:
    tokenizer, others = texts
    expected = expected_log_likelihoods(name, tokenizer, others)
    asked = requests("loglikelihood", PAIRS + ALSO_OTHER[others])
    found = BatchedLM(model_of(name), TOKENIZERS[tokenizer](), batch_size).loglikelihood(asked)
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-4, rel=1e-6)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]


def texts_to_go_on_with(others: str) -> list[Instance]:
    contexts = sorted({text for text, _ in PAIRS + ALSO_OTHER[others] if text})
    return requests("generate_until", [(text, {"until": [], "do_sample": False, "max_gen_toks": 9}) for text in contexts])


@cache
def expected_texts(name: str, others: str) -> list[str]:
    """Return what lm-eval generates, which is the same for every size of our batches."""
    found: list[str] = stock(model_of(name), merging_tokenizer()).generate_until(texts_to_go_on_with(others), disable_tqdm=True)
    return found


@pytest.mark.lengthy
@pytest.mark.parametrize(("name", "batch_size", "others"), all_pairs(sorted(CONFIGS), [1, 4, 64], sorted(ALSO_OTHER)))
def test_generated_texts_are_those_of_lm_eval_one_by_one(name: str, batch_size: int, others: str) -> None:
    expected = expected_texts(name, others)
    assert BatchedLM(model_of(name), merging_tokenizer(), batch_size).generate_until(texts_to_go_on_with(others)) == expected
    assert len(set(expected)) > 4


def test_an_answer_ends_at_its_own_eos_where_the_model_names_none_whatever_else_is_in_the_batch() -> None:
    model, words = model_of("llama"), byte_tokenizer()
    model.generation_config.eos_token_id = None
    contexts = [f"{OPENING}{number}:" for number in range(24)]

    def asked() -> list[Instance]:
        return requests("generate_until", [(text, {"until": [], "do_sample": False, "max_gen_toks": 12}) for text in contexts])

    expected = stock(model, words).generate_until(asked(), disable_tqdm=True)
    assert BatchedLM(model, words, 24).generate_until(asked()) == expected
    lengths = {len(words(text)["input_ids"]) for text in expected}
    assert min(lengths) < 12 and len(lengths) > 2


def test_other_ways_of_generating_are_lm_evals_own() -> None:
    model, words = model_of("llama"), byte_tokenizer()
    for options in ({"until": ["a", "e"], "do_sample": False, "max_gen_toks": 9}, {"until": [], "max_gen_toks": 5, "num_beams": 2}):
        arguments = [(text, options) for text, _ in PAIRS[:12]]
        expected = stock(model, words).generate_until(requests("generate_until", arguments), disable_tqdm=True)
        assert BatchedLM(model, words, 1).generate_until(requests("generate_until", arguments)) == expected


def test_nothing_asked_is_nothing_answered() -> None:
    lm = BatchedLM(model_of("llama"), byte_tokenizer(), 4)
    assert lm.loglikelihood([]) == []
    assert lm.generate_until([]) == []


def test_a_batch_size_counts_questions_and_a_pass_serves_all_choices() -> None:
    model, passes = model_of("llama"), []
    model.register_forward_hook(lambda _, __, output: passes.append(output.logits.shape[0]))
    model.config.max_position_embeddings = 640  # the prompts have to fit, in bytes
    items = some_items(6)
    harness.answers(BatchedLM(model, byte_tokenizer(), 3), {"toy": items}, generate=False, log_likelihood=True, max_new_tokens=4)
    assert passes == [1, 3, 3]  # the opening, then six questions of four choices


def test_no_row_is_mostly_padding() -> None:
    prompts = [Question(tuple(range(length)), cut=False) for length in (100, 90, 61, 59, 40, 35, 34, 3)]
    batches = [[len(one.context) for one in batch] for batch in batched_lm._of_like_length(prompts, 3)]
    assert batches == [[100, 90, 61], [59, 40], [35, 34], [3]]


def test_common_length_is_what_all_begin_with_short_of_the_shortest_ones_last_token() -> None:
    assert common_length([(1, 2, 3, 4), (1, 2, 5), (1, 2, 3)]) == 2
    assert common_length([(1, 2), (1, 2, 3)]) == 1
    assert common_length([(7, 7, 7)] * 2) == 2
    assert common_length([(1, 2), (3, 2)]) == 0


def test_endings_are_worth_what_a_plain_forward_pass_in_double_precision_gives() -> None:
    model = model_of("llama").double()
    generator = torch.Generator().manual_seed(1)
    start = (5, 6, 7)
    questions = [
        Question((*start, *torch.randint(3, 200, (length,), generator=generator).tolist()), False, [(9,), (9, 8, 7), (11, 12)], [0, 1, 2])
        for length in (4, 9, 1)
    ]
    expected = []
    for question in questions:
        for ending in question.endings:
            with torch.no_grad():
                logits: Any = model(torch.tensor([question.context + ending])).logits[0, len(question.context) - 1 : -1]
            expected.append(logits.log_softmax(-1).gather(1, torch.tensor(ending)[:, None]).sum().item())
    for shared in ([question.context for question in questions], []):
        found = read_endings(model, questions, Opening(model, shared))
        assert [value for value, _ in found] == pytest.approx(expected, rel=1e-12)
    made: list[int] = []
    model.get_output_embeddings().register_forward_hook(lambda _head, _inputs, logits: made.append(logits.shape[1]))
    read_endings(model, questions, Opening(model, []))
    assert made == [0], "a batch's logits are never there as a whole"
