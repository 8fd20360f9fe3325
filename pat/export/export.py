"""`pat export`: a model folder in the format of a runtime, with a record of what is in it.

Owns the verb; the GGUF file is gguf_file.py's, the folder of compressed weights compressed.py's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pat.checkpoints.base_checks import CONFIG_NAME, RESHAPED, check_base
from pat.checkpoints.exported import EXPORT_RECORD
from pat.checkpoints.first_base import first_base
from pat.checkpoints.lineage import lineage_of, write_lineage
from pat.errors import UserError
from pat.io.artefacts import check_if_listed, new_folder, read_record, write_json
from pat.io.marks import FOLDERS, check_replaceable
from pat.io.progress import say
from pat.io.provenance import described, provenance
from pat.machine.extras import need
from pat.settings.fields import MIB

COMPRESSED = ("int8", "int4", "fp8")
FORMATS = ("gguf", *COMPRESSED)


def export(model: Path, to: str, out: Path, kind: str | None = None, split: str | None = None, *, force: bool = False) -> dict[str, Any]:
    """Write the model of a folder in the format `to` into the folder `out` and return the record, which is `export.json`.

    `kind` is the type of a GGUF file, `split` the name of its tokenizer's rule. Raises UserError where the folder holds no whole stock
    model, where the runtime would compute something else, where a package is missing, and where `out` holds something else than an export.
    """
    if to not in FORMATS:
        raise UserError(f"--to {to!r}: must be one of {', '.join(FORMATS)}")
    for option, value in (("--type", kind), ("--split", split)):
        if value is not None and to != "gguf":
            raise UserError(f"{option} {value}: has no effect with --to {to}: it says how a GGUF file is written; leave it out")
    need("gguf" if to == "gguf" else "export", f"--to {to}")
    check_replaceable(out, FOLDERS["export"], force=force)
    check_base(model, tokenizer=True)
    check_if_listed(model)
    if read_record(model / CONFIG_NAME).get("model_type") == RESHAPED:
        raise UserError(f"{model}: its layers have sizes of their own, which no runtime but transformers with `import pat.reshaped` opens")
    with new_folder(out, FOLDERS["export"], force=force) as folder:
        made = _write_gguf(model, folder, kind or "auto", split) if to == "gguf" else _write_compressed(model, folder, to)
        weights = [path for pattern in ("*.gguf", "*.safetensors") for path in folder.glob(pattern)]
        record = {"to": to, "bytes": sum(path.stat().st_size for path in weights), **made, **_sizes(model)}
        write_lineage(folder, lineage_of(model))
        source = described(model)
        settings = {"model": source["sha256"], "to": to, "type": kind, "split": split}
        record["provenance"] = provenance(settings, 0, inputs={"model": source})
        write_json(folder / EXPORT_RECORD, record)
    say(_summary(out, record))
    return record


def _write_gguf(model: Path, folder: Path, kind: str, split: str | None) -> dict[str, Any]:
    from pat.checkpoints.checkpoint import copy_licences
    from pat.export.gguf_file import write_gguf

    unnamed = folder / "model.gguf"
    made = write_gguf(model, unnamed, kind, split)
    copy_licences(model, folder)
    named = folder / f"model-{made['type']}.gguf"
    unnamed.rename(named)
    return made | {"file": named.name}


def _sizes(model: Path) -> dict[str, Any]:
    """Return what a record says of the model that was exported: its sizes, and those of the base it was made of, None where it is one."""
    from pat.checkpoints import checkpoint

    config = checkpoint.load_config(model)
    return {"base": first_base(model), "hidden_size": config.hidden_size, "parameters": checkpoint.parameter_counts(model, config)}


def _write_compressed(model: Path, folder: Path, to: str) -> dict[str, Any]:
    from pat.export.compressed import write_compressed

    return write_compressed(model, folder, to)


def _summary(out: Path, record: dict[str, Any]) -> str:
    named = out / record["file"] if "file" in record else out
    left = record.get("left_in_f16", [])
    note = f"; {len(left)} of {record['matrices']} matrices stay in f16, as their rows fit no block of {record['type']}" if left else ""
    return f"{named}: {record.get('type', record['to'])}, {record['bytes'] / MIB:.1f} MiB{note}"
