"""An instruction set that is encoded already, on the disk: written a batch at a time, and mapped into memory when it is read.

Its record says which rows it is of and by which tokenizer; with others it is not read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from pat.data.encoding import ARRAYS, EncodedRows
from pat.data.instructions import Instructions
from pat.data.rows import Columns
from pat.data.vocabulary import first_strange
from pat.errors import UserError
from pat.io.artefacts import check_folder, read_record, write_json
from pat.io.provenance import checksums
from pat.io.tensors import opened
from pat.settings.mistakes import shown

ENCODING_RECORD, TOKENS_NAME = "encoding.json", "tokens.safetensors"
AGAIN = "call `pat encode` again, or leave out --encoded"
PADDING = ("padding", "truncation")
"""What a tokenizer's own state says of the last call, and not of how it encodes."""


def write_encoded(folder: Path, data: Path, max_length: int, batches: Iterable[EncodedRows]) -> Instructions:
    """Write batches of the rows of `data` into a folder, and return the rows. Raises UserError where nothing of them can be learned."""
    growing = {name: folder / f"{name}.growing" for name in ARRAYS}
    read = 0
    with ExitStack() as stack:
        streams = {name: stack.enter_context(path.open("wb")) for name, path in growing.items()}
        for batch in batches:
            read += batch.read
            for name, stream in streams.items():
                stream.write(getattr(batch, name).data)
    arrays: dict[str, Any] = {name: _mapped(path, ARRAYS[name]) for name, path in growing.items()}
    rows = Instructions.of(data, max_length, EncodedRows(**arrays, read=read))
    save_file({name: torch.from_numpy(array) for name, array in arrays.items()}, folder / TOKENS_NAME)
    for path in growing.values():
        path.unlink()
    return rows


def _mapped(path: Path, kind: type[np.generic]) -> Any:
    """Return a file's numbers without reading them; changes stay in memory, where nobody makes any."""
    return np.memmap(path, kind, "c") if path.stat().st_size else np.empty(0, kind)


def write_encoding_record(folder: Path, rows: Instructions, belongs: Mapping[str, Any], provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Write and return what an encoding says of itself; `belongs` is what `belonging` returns."""
    record = {"rows": rows.counts(), **belongs, "provenance": dict(provenance)}
    write_json(folder / ENCODING_RECORD, record)
    return record


def belonging(data: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, columns: Columns | None) -> dict[str, Any]:
    """Return what an encoding is of: two that agree in all of it hold the same."""
    return {"tokenizer": tokenizer_sum(tokenizer), "data": checksums(data), "max_length": max_length, "columns": dict(columns or {})}


def tokenizer_sum(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the SHA-256 sum of what a tokenizer makes of texts and conversations.

    Steps that copy a model may write its tokenizer's files anew, so it is not theirs.
    """
    said: dict[str, Any] = {"end": tokenizer.eos_token_id, "chat_template": tokenizer.chat_template}
    if tokenizer.chat_template:
        # Which a template writes by their names; lists of further ones are called otherwise in files that are written anew.
        said["named"] = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    if tokenizer.is_fast:
        whole = json.loads(tokenizer.backend_tokenizer.to_str())
        said["tokenizer"] = {name: value for name, value in whole.items() if name not in PADDING}
    else:
        said |= {"kind": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab(), "options": tokenizer.init_kwargs}
    canonical = json.dumps(said, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()


def read_encoded(
    folder: Path, data: Path, tokenizer: PreTrainedTokenizerBase, vocabulary: int, max_length: int, columns: Columns | None = None
) -> Instructions:
    """Return the rows of `data` as they lie encoded in a folder, for a model that has embeddings of `vocabulary` tokens.

    Raises UserError where the folder is not whole, is of other rows, read under other names, by another tokenizer or cut elsewhere, or
    holds what `pat encode` does not write.
    """
    place = folder / ENCODING_RECORD
    if folder.is_dir() and not place.exists():
        raise UserError(f"--encoded {folder}: is not what `pat encode` writes: it holds no {ENCODING_RECORD}")
    check_folder(folder)
    record = read_record(place)
    told = {
        "tokenizer": "of another tokenizer than that of --base",
        "data": f"not of --data {data} as it is now",
        "max_length": f"of pieces of {record.get('max_length')} tokens, and tuning.max_length is {max_length}",
        "columns": f"of the columns {record.get('columns')}, and --column says {dict(columns or {})}",
    }
    for field, found in belonging(data, tokenizer, max_length, columns).items():
        if record.get(field) != found:
            raise UserError(f"{place}: {field}: --encoded {folder} is {told[field]}; {AGAIN}")
    rows = _read_rows(folder / TOKENS_NAME, _rows_read(place, record), max_length)
    for problem in _strange_values(rows, vocabulary):
        raise UserError(f"{folder / TOKENS_NAME}: {problem}; {AGAIN}")
    return Instructions.of(data, max_length, rows)


def _rows_read(place: Path, record: Mapping[str, Any]) -> int:
    rows = record.get("rows")
    read = rows.get("read") if isinstance(rows, dict) else None
    if not isinstance(read, int):
        raise UserError(f"{place}: rows.read is {shown(read)}; must be how many rows there were; {AGAIN}")
    return read


def _read_rows(path: Path, read: int, max_length: int) -> EncodedRows:
    """Return the arrays of a file. Raises UserError where they are of other kinds, or their lengths are not those of one another."""
    with opened(path) as stored:
        arrays: dict[str, Any] = {name: stored.get_tensor(name).numpy() for name in ARRAYS}
    for name, kind in ARRAYS.items():
        if arrays[name].dtype != kind or arrays[name].ndim != 1:
            raise UserError(f"{path}: {name}: has {arrays[name].ndim} axes of {arrays[name].dtype}, not one of {kind.__name__}; {AGAIN}")
    rows = EncodedRows(**arrays, read=read)
    if not _fit_together(rows, max_length):
        raise UserError(f"{path}: its arrays are not those of one set of rows; {AGAIN}")
    return rows


def _fit_together(encoded: EncodedRows, max_length: int) -> bool:
    lengths_N, sources_N, rows = encoded.lengths_N, encoded.sources_N, len(encoded.fates_R)
    if not (len(encoded.ids_T) == len(encoded.learned_T) == lengths_N.sum() and len(lengths_N) == len(sources_N) and rows <= encoded.read):
        return False
    if not len(lengths_N):
        return True
    return bool(lengths_N.min() > 0 and lengths_N.max() <= max_length and sources_N.min() >= 0 and sources_N.max() < rows)


def _strange_values(encoded: EncodedRows, vocabulary: int) -> Iterator[str]:
    """Yield tokens that a model of so large a vocabulary has no embedding for, or that are neither learned nor left out."""
    meant = {"ids_T": (vocabulary, f", the vocabulary has {vocabulary} tokens"), "learned_T": (2, ", 1 where it is learned")}
    for name, (count, why) in meant.items():
        if (found := first_strange(getattr(encoded, name), encoded.lengths_N, count)) is not None:
            piece, value = found
            row = encoded.sources_N[piece] + 1
            yield f"{name}: row {row} of those that are not blank holds {value}; must be from 0 to {count - 1}{why}"
    starts_N = encoded.lengths_N.cumsum() - encoded.lengths_N
    if len(starts_N) and not (learned_N := np.logical_or.reduceat(encoded.learned_T, starts_N)).all():
        row = encoded.sources_N[learned_N.argmin()] + 1
        yield f"learned_T: of a piece of row {row} of those that are not blank no token is learned; one at least must be"
