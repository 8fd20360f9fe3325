"""An export on the hub: its card as those of quantised models are, by the record that `pat export` left.

Owns what the card says of it: which model was exported and how, and the lines by which llama.cpp, vLLM or transformers open it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pat.checkpoints.card import FIELDS, PRUNED_TAG, linked
from pat.checkpoints.lineage import OWN_TAG
from pat.checkpoints.stored import shard_files
from pat.checkpoints.tokenizer_checks import check_tokenizer
from pat.errors import UserError
from pat.io.artefacts import read_record
from pat.io.marks import FOLDER_RECORDS
from pat.settings.fields import MIB

EXPORT_RECORD = next(name for name, verb in FOLDER_RECORDS.items() if verb == "export")
GGUF, MAGIC = "gguf", b"GGUF"
PACKAGE = "compressed-tensors"
QUANTISED, CHANGED = "quantized", "finetune"
"""What a model can be to its base, in the hub's words."""
FETCH = """
## How to load

```sh
hf download {name} {file}{its} --local-dir .
llama-cli -m {file} -p "The capital of France is"
```
"""
SERVE = """
## How to serve

```sh
vllm serve {name}{its}
```
"""
HEADS_FROM_WIDTH = ("qwen2", "qwen2_moe")
"""Classes of vLLM that take hidden size / heads for the size of a head, whatever the config says; transformers' own do not."""


@dataclass(frozen=True)
class Exported:
    """An export in a folder, with its record."""

    folder: Path
    record: Mapping[str, Any]

    @property
    def is_gguf(self) -> bool:
        """Whether it is a GGUF file, else a checkpoint of compressed weights."""
        return bool(self.record["to"] == GGUF)

    @property
    def removed(self) -> float:
        """The share of the first base's parameters that the exported model lacks, where the record says it."""
        base = self.record.get("base")
        return 1 - self.record["parameters"]["unique"] / base["parameters"]["unique"] if base else 0.0

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of its card that follow from its format."""
        kind = [GGUF, "llama.cpp"] if self.is_gguf else [PACKAGE, "vllm", self.record["to"]]
        tags = [OWN_TAG, *kind, *([PRUNED_TAG] if self.removed > 0 else [])]
        return {**FIELDS, "tags": tags} | ({"library_name": GGUF} if self.is_gguf else {})

    def relation(self, *, named: bool) -> str:
        """Return what it is to the model that its card names as base: to the one that was exported, where that is `named`, a quantised one.

        So it is to a base that nobody has changed. Of a base that was tuned or pruned before it is no mere rounding.
        """
        return QUANTISED if named or ("base" in self.record and self.record["base"] is None) else CHANGED

    def text(self, repository: str, base: str | None, *, named: bool) -> str:
        """Return what its card says before the lines that load it. `named` says that `base` is the very model that was exported."""
        size = f"{self.record['bytes'] / MIB:.1f} MiB"
        if self.is_gguf:
            left, kind = len(self.record["left_in_f16"]), self.record["type"]
            form = f"A GGUF file of type `{kind}` for llama.cpp and what is built on it, {size}."
            form += f" {left} of its {self.record['matrices']} matrices are in f16, as their rows fit no block of {kind}." if left else ""
        else:
            groups = f", {self.record['group_size']} neighbours a step" if self.record["group_size"] else ""
            form = f"Linear layers in `{self.record['to']}` ({self.record['scheme']}{groups}), as vLLM and transformers open them, {size}."
        origin = "" if base is None else f" It is {'' if named else 'of a model '}made of {linked(base)}."
        removed = f"\n\n{self.removed:.2%} of the unpruned model's parameters are removed." if self.removed > 0 else ""
        return f"\n# {repository}\n\n{form}{origin}{removed}\n"

    def how_to_load(self, repository: str, revision: str | None) -> str:
        """Return the lines by which the runtime opens it; those of transformers, which opens compressed weights too, are push.py's."""
        its = "" if revision is None else f" --revision {revision}"
        if self.is_gguf:
            return FETCH.format(name=repository, file=self.record["file"], its=its)
        fields = read_record(self.folder / "config.json")
        own_heads = fields.get("head_dim") not in (None, fields["hidden_size"] // fields["num_attention_heads"])
        if fields["model_type"] in HEADS_FROM_WIDTH and own_heads:
            its += " --model-impl transformers"
        return SERVE.format(name=repository, its=its)


def export_in(folder: Path) -> Exported | None:
    """Return the export that a folder holds; None where it holds none. Raises UserError where it is not whole."""
    path = folder / EXPORT_RECORD
    if not path.is_file():
        return None
    record = read_record(path)
    needed = ("to", "bytes", *(("file", "type", "matrices", "left_in_f16") if record.get("to") == GGUF else ("scheme", "group_size")))
    if missing := [name for name in needed if name not in record]:
        raise UserError(f"{path}: is no record of `pat export`: it lacks {', '.join(missing)}; export the model again")
    found = Exported(folder, record)
    if not found.is_gguf:
        shard_files(folder)
        check_tokenizer(folder, read_record(folder / "config.json").get("vocab_size"), needed=True)
    elif not _is_gguf(folder / str(record["file"])):
        raise UserError(f"{folder / str(record['file'])}: is no GGUF file, though {EXPORT_RECORD} names it; export the model again")
    return found


def _is_gguf(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC
