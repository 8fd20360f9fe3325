"""A tokenizer as a GGUF file holds it: tokens, merges or scores, the rule by which text is split, special tokens, chat template.

Everything is asked of the tokenizer as transformers opens it, so that llama.cpp finds the tokens that the model was measured with.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, TokenType
from transformers import PreTrainedTokenizerBase

from pat.errors import UserError

WORD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {
    (WORD + r"\p{N}{1,3}" + REST, True): "llama-bpe",
    (WORD + r"\p{N}{1,3}" + REST, False): "dbrx",
    (WORD + r"\p{N}" + REST, False): "qwen2",
    (TEKKEN, True): "tekken",
}
"""llama.cpp's names of the expressions that text is split by; of two with one expression, the first takes whole words without merging."""
GPT2, DIGITS = "gpt-2", "smollm"
SPACE = "▁"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Vocabulary:
    """What the file says of one kind of tokenizer: llama.cpp's `model` of it and the name of its rule, merges or else scores."""

    model: str
    split: str
    merges: list[str] | None = None
    scores: dict[str, float] | None = None
    space_before: bool | None = None


def add_tokenizer(writer: GGUFWriter, folder: Path, tokenizer: PreTrainedTokenizerBase, config: Any, split: str | None = None) -> str:
    """Write the tokenizer and return the name of its split. `split` is that name where the rule is none that is known.

    Raises UserError where llama.cpp has no such tokenizer.
    """
    state = _state(folder, tokenizer)
    known = _vocabulary(folder, state, split)
    tokens, types = _tokens(tokenizer, state, config.vocab_size, bytes_apart=known.scores is not None)
    writer.add_tokenizer_model(known.model)
    writer.add_tokenizer_pre(known.split)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if known.merges is not None:
        writer.add_token_merges(known.merges)
    if known.scores is not None:
        writer.add_token_scores([known.scores.get(token, 0.0) for token in tokens])
    if known.space_before is not None:
        writer.add_add_space_prefix(known.space_before)
    _add_special(writer, tokenizer, config)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)
    return known.split


def _state(folder: Path, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UserError(f"{folder}: its tokenizer is none of the tokenizers library (tokenizer.json), which --to gguf needs")
    state: dict[str, Any] = json.loads(backend.to_str())
    if (kind := state["model"]["type"]) != "BPE":
        raise UserError(f"{folder}: its tokenizer is a {kind} one, and llama.cpp has only those that merge pairs (BPE) of these families")
    return state


def _vocabulary(folder: Path, state: dict[str, Any], split: str | None) -> Vocabulary:
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in state["model"]["merges"]]
    if state["model"].get("byte_fallback"):
        scores: dict[str, float] = {}
        for rank, (left, right) in enumerate(merges):
            scores.setdefault(left + right, -float(rank))  # the one that is merged first counts
        return Vocabulary("llama", "default", scores=scores, space_before=_space_before(state))
    if not merges:
        raise UserError(f"{folder}: its tokenizer merges nothing, and llama.cpp opens none without merges")
    name = split or _split_name(state)
    if name is None:
        raise UserError(
            f"{folder}: its tokenizer splits text by a rule that pat has no name of llama.cpp's for, and another would make other tokens; "
            "give --split with the name (tokenizer.ggml.pre) that llama.cpp has for this model"
        )
    return Vocabulary("gpt2", name, merges=[" ".join(merge) for merge in merges])


def _split_name(state: dict[str, Any]) -> str | None:
    """Return llama.cpp's name of the rule by which a byte-level tokenizer splits text; None where it has none that is known here."""
    rule = state["pre_tokenizer"] or {}
    steps = rule.get("pretokenizers", [rule])
    kinds = [step.get("type") for step in steps]
    if not kinds or kinds[-1] != "ByteLevel" or steps[-1].get("add_prefix_space"):
        return None
    own_expression = steps[-1].get("use_regex", True)
    if kinds == ["ByteLevel"] and own_expression:
        return GPT2
    if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"] and own_expression:
        return DIGITS
    if kinds == ["Split", "ByteLevel"] and not own_expression:
        expression = steps[0]["pattern"].get("Regex", "")
        return SPLITS.get((expression, bool(state["model"].get("ignore_merges"))))
    return None


def _space_before(state: dict[str, Any]) -> bool:
    """Return whether a space is put before the text, as SentencePiece does by default."""
    normalizer, before = state["normalizer"] or {}, state["pre_tokenizer"] or {}
    steps = normalizer.get("normalizers", [normalizer])
    if any(step.get("type") == "Prepend" and step.get("prepend") == SPACE for step in steps):
        return True
    return before.get("type") == "Metaspace" and before.get("prepend_scheme") != "never"


def _tokens(
    tokenizer: PreTrainedTokenizerBase, state: dict[str, Any], size: int, *, bytes_apart: bool
) -> tuple[list[str], list[TokenType]]:
    """Return the text and the kind of each row of the embedding; rows that stand for no token are unused ones."""
    added = {token["id"]: token for token in state["added_tokens"]}
    special = set(tokenizer.all_special_ids)
    text_of = {number: text for text, number in tokenizer.get_vocab().items()}
    unknown = state["model"].get("unk_token")
    tokens, types = [], []
    for number in range(size):
        text = text_of.get(number)
        tokens.append(f"[PAD{number}]" if text is None else text)
        if text is None:
            types.append(TokenType.UNUSED)
        elif bytes_apart and text == unknown:
            types.append(TokenType.UNKNOWN)
        elif number in special or added.get(number, {}).get("special"):
            types.append(TokenType.CONTROL)
        elif number in added:
            types.append(TokenType.USER_DEFINED)
        elif bytes_apart and len(text) == 6 and text.startswith("<0x"):
            types.append(TokenType.BYTE)
        else:
            types.append(TokenType.NORMAL)
    return tokens, types


def _add_special(writer: GGUFWriter, tokenizer: PreTrainedTokenizerBase, config: Any) -> None:
    """Write the special tokens, and which of them are put around a text."""
    for number, add in (
        (tokenizer.bos_token_id, writer.add_bos_token_id),
        (tokenizer.eos_token_id, writer.add_eos_token_id),
        (tokenizer.pad_token_id, writer.add_pad_token_id),
        (tokenizer.unk_token_id, writer.add_unk_token_id),
    ):
        if number is not None:
            add(number)
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    if others := [number for number in ends if number is not None and number != tokenizer.eos_token_id]:
        writer.add_eot_token_id(others[0])
    around: list[int] = tokenizer("a")["input_ids"]
    plain: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    before, after = _around(around, plain)
    writer.add_add_bos_token(before == [tokenizer.bos_token_id])
    writer.add_add_eos_token(after == [tokenizer.eos_token_id])
    if before not in ([], [tokenizer.bos_token_id]) or after not in ([], [tokenizer.eos_token_id]):
        logger.warning("its tokenizer puts %s before and %s behind a text, which a GGUF file cannot say of it", before, after)


def _around(tokens: list[int], plain: list[int]) -> tuple[list[int], list[int]]:
    """Return what stands before and behind the plain tokens."""
    for start in range(len(tokens) - len(plain) + 1):
        if tokens[start : start + len(plain)] == plain:
            return tokens[:start], tokens[start + len(plain) :]
    return tokens, []
