"""Whether a model folder's tokenizer files can be used with its embedding, by the files alone. No torch, no tokenizer is made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pat.checkpoints.config_checks import Fields, token_problems
from pat.errors import UserError
from pat.io.artefacts import read_record
from pat.io.storage import check_regular

TOKENIZER_NAME, CONFIG_NAME = "tokenizer.json", "tokenizer_config.json"
TOKENIZER_JSONS = (TOKENIZER_NAME, CONFIG_NAME, "special_tokens_map.json")
TOKENIZER_FILES = (*TOKENIZER_JSONS, "tokenizer.model", "vocab.json", "spiece.model")
MARKS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
RESIZE = "resize the model's embedding, or take the tokenizer that belongs to it"


def has_tokenizer(folder: Path) -> bool:
    """Return whether a folder holds a tokenizer's files, any of them."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def check_tokenizer(folder: Path, vocabulary: int | None, *, needed: bool) -> None:
    """Raise UserError on a tokenizer file that is broken, or names a token that the embedding of `vocabulary` rows has none for."""
    for name in TOKENIZER_FILES:
        check_regular(folder / name)
    if needed and not has_tokenizer(folder):
        raise UserError(f"{folder}: has no tokenizer; copy the model's tokenizer files into it")
    records = {name: read_record(folder / name) for name in TOKENIZER_JSONS if (folder / name).is_file()}
    if (folder / "generation_config.json").is_file():
        path = folder / "generation_config.json"
        for problem in token_problems(read_record(path), vocabulary):
            raise UserError(f"{path}: {problem}")
    config = records.get(CONFIG_NAME, {})
    longest = config.get("model_max_length")
    if longest is not None and (isinstance(longest, bool) or not isinstance(longest, int | float) or longest <= 0):
        raise UserError(f"{folder / CONFIG_NAME}: model_max_length: {longest!r}: must be a positive number")
    if vocabulary is not None and TOKENIZER_NAME in records:
        ids = dict(_token_ids(folder / TOKENIZER_NAME, records[TOKENIZER_NAME]))
        _check_ids(folder, vocabulary, ids, [config, records.get("special_tokens_map.json", {})])


def _check_ids(folder: Path, vocabulary: int, ids: dict[str, int], configs: Iterable[Fields]) -> None:
    """Raise UserError where a token's id, or the id that transformers gives to a mark that is none of them, lies beyond the embedding."""
    token, highest = max(ids.items(), key=lambda pair: pair[1], default=("", -1))
    if highest >= vocabulary:
        raise UserError(
            f"{folder / TOKENIZER_NAME}: token {token!r} has the id {highest}, beyond the embedding's {vocabulary} rows (vocab_size); "
            f"{RESIZE}"
        )
    unknown = dict.fromkeys(mark for config in configs for mark in _marks(config) if mark not in ids)
    if highest + len(unknown) >= vocabulary:
        raise UserError(
            f"{folder / CONFIG_NAME}: the mark(s) {', '.join(map(repr, unknown))} are no tokens of {TOKENIZER_NAME} and would be given ids "
            f"beyond the embedding's {vocabulary} rows (vocab_size); name tokens that it has, or {RESIZE}"
        )


def _marks(config: Fields) -> Iterator[str]:
    """Yield the marks that a tokenizer's config names, but for those that it gives an id itself."""
    given = config.get("added_tokens_decoder")
    there = {entry.get("content") for entry in given.values() if isinstance(entry, Mapping)} if isinstance(given, Mapping) else set()
    for name in MARKS:
        value: Any = config.get(name)
        content = value.get("content") if isinstance(value, Mapping) else value
        if isinstance(content, str) and content not in there:
            yield content


def _token_ids(path: Path, record: Fields) -> Iterator[tuple[str, int]]:
    """Yield a tokenizer's tokens and ids. Raises UserError where the file is not a tokenizer."""
    model = record.get("model")
    if not isinstance(model, Mapping) or "vocab" not in model:
        raise UserError(f"{path}: holds no vocabulary; take the tokenizer files that belong to the model")
    vocabulary, added = model["vocab"], record.get("added_tokens") or []
    try:
        if isinstance(vocabulary, Mapping):
            yield from ((str(token), int(number)) for token, number in vocabulary.items())
        else:
            yield from ((str(entry[0]), number) for number, entry in enumerate(vocabulary))
        yield from ((str(entry["content"]), int(entry["id"])) for entry in added)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise UserError(f"{path}: its vocabulary is not tokens with ids ({type(error).__name__}: {error})") from None
