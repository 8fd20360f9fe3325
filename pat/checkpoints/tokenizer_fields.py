"""The fields of tokenizer_config.json that transformers 5 writes in a way that 4.x, and runtimes built on it, cannot open.

transformers 5 names every tokenizer without a class of its own TokenizersBackend, and lists further special tokens where 4.x has names for
them. Both read the older names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pat.io.artefacts import read_record, write_json

TOKENIZER_CONFIG_NAME = "tokenizer_config.json"
NEW_CLASS, OLD_CLASS = "TokenizersBackend", "PreTrainedTokenizerFast"


def write_old_names(folder: Path) -> None:
    """Put the names that both read into a folder's tokenizer_config.json, where it has one and it has new ones."""
    path = folder / TOKENIZER_CONFIG_NAME
    if not path.is_file():
        return
    record = read_record(path)
    renamed = {**record, **_class(record)}
    if isinstance(record.get("extra_special_tokens"), list):
        renamed["additional_special_tokens"] = renamed.pop("extra_special_tokens")
    if renamed != record:
        write_json(path, renamed)


def names_class(folder: Path) -> bool:
    """Return whether a folder's tokenizer_config.json names the tokenizer's class; where none does, the model's type chooses it."""
    path = folder / TOKENIZER_CONFIG_NAME
    return path.is_file() and isinstance(read_record(path).get("tokenizer_class"), str)


def name_class(folder: Path, name: str) -> None:
    """Write the tokenizer's class into a folder's tokenizer_config.json."""
    path = folder / TOKENIZER_CONFIG_NAME
    write_json(path, (read_record(path) if path.is_file() else {}) | {"tokenizer_class": name})


def _class(record: dict[str, Any]) -> dict[str, str]:
    return {"tokenizer_class": OLD_CLASS} if record.get("tokenizer_class") == NEW_CLASS else {}
