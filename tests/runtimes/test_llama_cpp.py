"""Merged models of every family in llama.cpp: it opens the file, reads text as the same tokens, and goes on with the same ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from transformers import LlamaConfig, PreTrainedTokenizerFast

from pat.checkpoints import checkpoint
from pat.checkpoints.gguf_import import import_gguf
from pat.export.gguf_file import TYPES, write_gguf
from pat.export.gguf_tokenizer import SPLITS
from pat.settings.formats import BLOCK_TYPES
from tests.kit.exported_models import CONFIGS, PROMPT, SHAPE, write_base, write_merged
from tests.kit.runtimes import TOKENS, furthest_behind, greedy, llama_cpp, needs, tokens_of
from tests.kit.sentencepiece_like import sentencepiece_tokenizer
from tests.kit.tiny_world import tiny_tokenizer

pytestmark = [pytest.mark.runtimes, needs("llama.cpp")]
CLOSE = 0.1
Note = Callable[[str, object], None]
TEXT = "Which number comes after 12345?\n\n  It's  é🙂\t“never” 3.5€ —\r\n\n### Response:\u00a0naïve 我想 END's\n"


@pytest.mark.parametrize("name", CONFIGS)
def test_a_merged_model_goes_on_with_the_same_text(name: str, tmp_path: Path, record_property: Note) -> None:
    for key, value in {"runtime": "llama.cpp", "model": name, "format": "GGUF f32, f16"}.items():
        record_property(key, value)
    merged = write_merged(tmp_path, name)
    for kind in ("f32", "f16"):
        write_gguf(merged, tmp_path / f"{kind}.gguf", kind)
    expected = greedy(merged, PROMPT)
    for answer in llama_cpp([(tmp_path / f"{kind}.gguf", PROMPT, TOKENS) for kind in ("f32", "f16")]):
        assert answer.get("error") is None
        assert answer["prompt"] == tokens_of(merged, PROMPT)
        assert answer["tokens"] == expected


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_of_a_file(kind: str, tmp_path: Path, record_property: Note) -> None:
    """Where weights are quantised llama.cpp rounds activations too: then each token is next to the best one of the rounded weights."""
    for key, value in {"runtime": "llama.cpp", "model": "llama-tied", "format": f"GGUF {kind}"}.items():
        record_property(key, value)
    merged = write_merged(tmp_path, "llama-tied")
    write_gguf(merged, tmp_path / "model.gguf", kind)
    (answer,) = llama_cpp([(tmp_path / "model.gguf", PROMPT, TOKENS)])
    assert answer.get("error") is None
    import_gguf(tmp_path / "model.gguf", tmp_path / "again", "fp32")
    again = checkpoint.load_model(tmp_path / "again", torch.float32)
    assert len(answer["tokens"]) == TOKENS
    assert furthest_behind(again, answer["prompt"], answer["tokens"]) <= (CLOSE if kind in BLOCK_TYPES else 1e-3)


def by_expression(expression: str) -> Any:
    split = pre_tokenizers.Split(Regex(expression), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def byte_level(rule: Any, *, whole_words: bool = False) -> PreTrainedTokenizerFast:
    state = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    state["model"]["ignore_merges"] = whole_words
    made = Tokenizer.from_str(json.dumps(state))
    made.pre_tokenizer = rule
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def without_space_before() -> PreTrainedTokenizerFast:
    tokenizer: Any = sentencepiece_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(" ", "▁")
    return tokenizer  # type: ignore[no-any-return]


DIGITS = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "gpt-2": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "smollm": lambda: byte_level(pre_tokenizers.Sequence(DIGITS)),
    "sentencepiece": sentencepiece_tokenizer,
    "sentencepiece-no-space": without_space_before,
    **{
        name: lambda rule=expression, whole=whole_words: byte_level(by_expression(rule), whole_words=whole)  # type: ignore[misc]
        for (expression, whole_words), name in SPLITS.items()
    },
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_reads_the_same_tokens(name: str, tmp_path: Path, record_property: Note) -> None:
    for key, value in {"runtime": "llama.cpp", "model": "tokenizer", "format": name}.items():
        record_property(key, value)
    base = write_base(tmp_path / "base", LlamaConfig(**SHAPE | {"vocab_size": 512}), TOKENIZERS[name]())
    write_gguf(base, tmp_path / "model.gguf")
    texts = [TEXT, "word", " two  words", "\n\n12 a1b22c333"]
    for text, answer in zip(texts, llama_cpp([(tmp_path / "model.gguf", text, 0) for text in texts]), strict=True):
        assert answer["prompt"] == tokens_of(base, text)
