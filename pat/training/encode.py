"""`pat encode`: an instruction set as a model's tokenizer reads it, once for all tunings and searches of that model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pat.checkpoints import checkpoint
from pat.checkpoints.base_checks import check_base
from pat.data.encoded import belonging, write_encoded, write_encoding_record
from pat.data.encoding import encoded_in_batches
from pat.data.rows import Columns
from pat.io import artefacts
from pat.io.marks import FOLDERS, check_replaceable
from pat.io.progress import say
from pat.io.provenance import provenance
from pat.machine.threads import tokenizing_with


def encode(
    base: Path, data: Path, max_length: int, out: Path, columns: Columns | None = None, threads: int = 1, *, force: bool = False
) -> dict[str, Any]:
    """Write the rows of `data` in tokens of the tokenizer of `base` to `out`, and return the record.

    Raises UserError where the base has no tokenizer, the file is broken, nothing of it can be learned, or `out` holds something else.
    """
    check_replaceable(out, FOLDERS["encode"], force=force)
    check_base(base, tokenizer=True)
    tokenizer = checkpoint.load_tokenizer(base)
    belongs = belonging(data, tokenizer, max_length, columns)
    with artefacts.new_folder(out, FOLDERS["encode"], force=force) as folder:
        with tokenizing_with(threads):
            rows = write_encoded(folder, data, max_length, encoded_in_batches(data, tokenizer, max_length, columns))
        inputs = {name: {"path": str(path), "sha256": belongs[name]} for name, path in (("tokenizer", base), ("data", data))}
        settings = {"max_length": max_length, **({"columns": dict(columns)} if columns else {})}
        record = write_encoding_record(folder, rows, belongs, provenance(settings, 0, inputs=inputs))
    say(f"encode: {rows.losses() or f'{data}: {len(rows)} rows'}")
    return record
