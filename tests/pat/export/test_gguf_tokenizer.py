"""A tokenizer in a GGUF file: its kind, the name of its rule for splitting, its merges or scores, and what is put around a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader, TokenType
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import LlamaConfig, PreTrainedTokenizerFast

from pat.errors import UserError
from pat.export.gguf_file import write_gguf
from pat.export.gguf_tokenizer import SPLITS
from tests.kit.exported_models import SHAPE, write_base
from tests.kit.sentencepiece_like import sentencepiece_tokenizer
from tests.kit.tiny_models import VOCABULARY
from tests.kit.tiny_world import tiny_tokenizer

BYTES = {"add_prefix_space": False}
DIGITS = pre_tokenizers.Digits(individual_digits=True)


def written(folder: Path, tokenizer: PreTrainedTokenizerFast, split: str | None = None) -> dict[str, Any]:
    """Return the tokenizer's keys of a file that is written with it."""
    base = write_base(folder / "base", LlamaConfig(**SHAPE), tokenizer)
    write_gguf(base, folder / "model.gguf", split=split)
    fields = GGUFReader(folder / "model.gguf").fields
    return {
        key.removeprefix("tokenizer.").removeprefix("ggml."): field.contents()
        for key, field in fields.items()
        if key.startswith("tokenizer")
    }


def split_by(rule: Any, *, whole_words: bool = False) -> PreTrainedTokenizerFast:
    """Return the tiny tokenizer with another rule for splitting text."""
    tokenizer: Any = tiny_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = rule
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["ignore_merges"] = whole_words
    made = Tokenizer.from_str(json.dumps(state))
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def by_expression(expression: str) -> Any:
    split = pre_tokenizers.Split(Regex(expression), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def test_a_byte_level_tokenizer(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ messages }}"
    keys = written(tmp_path, tokenizer)
    assert (keys["model"], keys["pre"], keys["chat_template"]) == ("gpt2", "gpt-2", "{{ messages }}")
    assert len(keys["tokens"]) == SHAPE["vocab_size"]
    assert keys["tokens"][-1] == f"[PAD{SHAPE['vocab_size'] - 1}]"
    assert [keys["token_type"][place] for place in (0, 2, 9, -1)] == [
        TokenType.CONTROL,
        TokenType.CONTROL,
        TokenType.NORMAL,
        TokenType.UNUSED,
    ]
    state = json.loads((tmp_path / "base" / "tokenizer.json").read_text())
    assert [tuple(merge.split(" ")) for merge in keys["merges"]] == [tuple(merge) for merge in state["model"]["merges"]]
    assert (keys["bos_token_id"], keys["eos_token_id"], keys["padding_token_id"]) == (1, 2, 0)
    assert (keys["add_bos_token"], keys["add_eos_token"]) == (False, False)


def test_rules_are_known_by_what_they_do(tmp_path: Path) -> None:
    digits = pre_tokenizers.Sequence([DIGITS, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    assert written(tmp_path / "digits", split_by(digits))["pre"] == "smollm"
    for number, ((expression, whole_words), name) in enumerate(SPLITS.items()):
        tokenizer = split_by(by_expression(expression), whole_words=whole_words)
        assert written(tmp_path / str(number), tokenizer)["pre"] == name


def test_an_unknown_rule_is_refused_unless_named(tmp_path: Path) -> None:
    tokenizer = split_by(by_expression(r"\w+|\W+"))
    with pytest.raises(UserError, match="give --split with the name"):
        written(tmp_path, tokenizer)
    assert written(tmp_path, tokenizer, split="viking")["pre"] == "viking"


def test_what_is_put_around_a_text(tmp_path: Path) -> None:
    tokenizer: Any = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    keys = written(tmp_path, tokenizer)
    assert (keys["add_bos_token"], keys["add_eos_token"]) == (True, False)


def test_a_tokenizer_with_bytes_of_their_own_gets_scores(tmp_path: Path) -> None:
    """SentencePiece's: pairs are merged by the score of what they make, the best first."""
    tokenizer = sentencepiece_tokenizer()
    keys = written(tmp_path, tokenizer)
    assert (keys["model"], keys["pre"], keys["add_space_prefix"]) == ("llama", "default", True)
    assert "merges" not in keys
    score = dict(zip(keys["tokens"], keys["scores"], strict=True))
    ranks = {
        left + right: -rank
        for rank, (left, right) in reversed(list(enumerate(json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"])))
    }
    assert all(score[token] == rank for token, rank in ranks.items())
    kinds = dict(zip(keys["tokens"], keys["token_type"], strict=True))
    assert (kinds["<0x0A>"], kinds["<unk>"], kinds["</s>"]) == (TokenType.BYTE, TokenType.UNKNOWN, TokenType.CONTROL)


def test_no_space_before_where_the_tokenizer_puts_none(tmp_path: Path) -> None:
    tokenizer: Any = sentencepiece_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(" ", "▁")
    assert written(tmp_path, tokenizer)["add_space_prefix"] is False


def test_tokenizers_that_llama_cpp_has_not_are_refused(tmp_path: Path) -> None:
    vocabulary = {f"w{number}": number for number in range(VOCABULARY)} | {"</s>": VOCABULARY}
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="w0")), eos_token="</s>")
    with pytest.raises(UserError, match="is a WordLevel one"):
        written(tmp_path, words)
    alphabet = {sign: place for place, sign in enumerate(["</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    unmerged = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    unmerged.pre_tokenizer, unmerged.decoder = pre_tokenizers.ByteLevel(**BYTES), decoders.ByteLevel()
    with pytest.raises(UserError, match="merges nothing"):
        written(tmp_path, PreTrainedTokenizerFast(tokenizer_object=unmerged, eos_token="</s>"))
