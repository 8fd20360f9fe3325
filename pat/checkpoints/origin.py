"""What a base model was read from, where that is worth telling wherever the model is named: `origin.json`, which travels with checkpoints.

Only models that were read from a GGUF file have one. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pat.errors import UserError
from pat.io.artefacts import read_record

ORIGIN_NAME = "origin.json"
FIELDS: Mapping[str, type] = {"file": str, "dtype": str, "quantised": list}


def origin_of(folder: Path) -> dict[str, Any] | None:
    """Return the record of what a checkpoint's base was read from; None where it has none. Raises UserError on a broken one."""
    path = folder / ORIGIN_NAME
    if not path.is_file():
        return None
    record = read_record(path)
    if missing := [name for name in FIELDS if not isinstance(record.get(name), FIELDS[name])]:
        raise UserError(f"{path}: lacks {', '.join(missing)}, which say where the model is from; import it again, or remove that file")
    return record


def quantised_as(origin: Mapping[str, Any] | None) -> str:
    """Return the formats that a base's weights had been quantised to, such as "Q4_1 and Q8_0"; empty where they had not."""
    formats = list((origin or {}).get("quantised") or ())
    return " and ".join(filter(None, (", ".join(formats[:-1]), *formats[-1:])))


def origin_sentence(origin: Mapping[str, Any] | None) -> str:
    """Return in a sentence what a base was read from, and whether its weights are quantised ones; empty where there is no record."""
    if origin is None:
        return ""
    read = f"read from the GGUF file {origin['file']} into {origin['dtype']}"
    if formats := quantised_as(origin):
        return f"The base model is quantised: it was {read}, and its weights are the values that {formats} left of the original's."
    return f"The base model was {read}; it is not quantised."
