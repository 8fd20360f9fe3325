"""Whether a model folder can be worked on at all, checked before any work: by its JSON files and the headers of its weights. No torch.

`check_checkpoint` is for whatever reads a model, `check_base` for what also changes one, and so has to know every tensor of it. Each names
the file, what is wrong and what would be right, within milliseconds; whether weights are damaged inside is artefacts.py's to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pat.checkpoints.config_checks import FLOATING, Fields, config_problems
from pat.checkpoints.first_base import first_base
from pat.checkpoints.origin import origin_of
from pat.checkpoints.stored import StoredTensor, hold_the_same, stored_tensors
from pat.checkpoints.tokenizer_checks import check_tokenizer
from pat.errors import UserError
from pat.families.known import FAMILIES, Family, Role, family_of_fields, is_passed_over
from pat.io.artefacts import read_record

CONFIG_NAME = "config.json"
RESHAPED = "pat_reshaped"
LISTED = 3

EXPERTS = ("num_experts", "num_local_experts")
"""How many there are, by one name or the other."""


def check_checkpoint(folder: Path, *, tokenizer: bool = False) -> Fields:
    """Return the fields of a model folder's config. Raises UserError where the folder is not one that a model can be opened from.

    That is: no or a broken config, weights that are quantised, not floating-point or truncated, token ids beyond the vocabulary, a
    broken tokenizer, or none where a `tokenizer` is needed, positions that depend on what else is in a batch.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder" if not folder.exists() else f"{folder}: is a file; a model folder is needed")
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise UserError(f"{folder}: holds no config.json; {_instead(folder)}")
    fields = read_record(path)
    for problem in config_problems(fields):
        raise UserError(f"{path}: {problem}")
    stored = stored_tensors(folder)
    for problem in (*_dtype_problems(stored), *_depth_problems(folder, fields, stored)):
        raise UserError(problem)
    check_tokenizer(folder, fields.get("vocab_size"), needed=tokenizer)
    origin_of(folder)
    return fields


def check_base(folder: Path, *, tokenizer: bool = False) -> None:
    """Raise UserError as `check_checkpoint` does, and where a merge would refuse or lose a tensor of the folder's weights.

    That is: a record of the step that made it which is broken, an architecture that is not known, tensors that it does not have or that are
    missing, sizes that are not the config's, and a head of its own under a config that says it is the embedding.
    """
    fields = check_checkpoint(folder, tokenizer=tokenizer)
    family = family_of_fields(fields)
    stored = {name: tensor for name, tensor in stored_tensors(folder).items() if not is_passed_over(name)}
    first_base(folder)
    for name in stored:
        family.role(name)
    for problem in (*_tie_problems(folder, fields, family, stored), *_size_problems(folder, fields, family, stored)):
        raise UserError(problem)


def check_model(folder: Path) -> None:
    """As `check_base` where the architecture is one that can be changed, else as `check_checkpoint`: it may still be evaluated."""
    fields = check_checkpoint(folder)
    if (fields.get("stock_type") or fields["model_type"]) in FAMILIES:
        check_base(folder)


def _instead(folder: Path) -> str:
    """Return what a folder without a config seems to be, and what to give."""
    if (folder / "adapter_config.json").is_file():
        return "it is an adapter: give the model that it was tuned on, or what `pat merge` makes of both"
    if list(folder.glob("*.gguf")):
        return "its .gguf file is of another format: `pat import-model` makes a checkpoint of it"
    return "a model folder as save_pretrained writes it is needed"


def _dtype_problems(stored: Mapping[str, StoredTensor]) -> Iterator[str]:
    """Yield a sentence on tensors that are not floating-point numbers of a kind that a merge keeps."""
    odd = [name for name, tensor in stored.items() if tensor.dtype not in FLOATING and not is_passed_over(name)]
    if odd:
        first = stored[odd[0]]
        yield (
            f"{first.path}: {len(odd)} tensor(s) such as {odd[0]!r} are stored as {first.dtype}, as quantised weights are; "
            "give the model in bf16, fp16 or fp32"
        )


def _depth_problems(folder: Path, fields: Fields, stored: Mapping[str, StoredTensor]) -> Iterator[str]:
    """Yield more layers than there are tensors: transformers would first build them all."""
    layers = fields.get("num_hidden_layers")
    if isinstance(layers, int) and layers > len(stored):
        yield f"{folder}: num_hidden_layers is {layers}, but its weights hold {len(stored)} tensors; the checkpoint does not fit its config"


def _tie_problems(folder: Path, fields: Fields, family: Family, stored: Mapping[str, StoredTensor]) -> Iterator[str]:
    """Yield where the stored head contradicts the config: transformers ties matrices that are equal alone, and makes up missing ones."""
    tied = bool(fields.get("tie_word_embeddings", family.tied_by_default))
    head_name = f"{family.stored_head}.weight"
    head, embedding = stored.get(head_name), stored.get(f"{family.embedding}.weight")
    config = folder / CONFIG_NAME
    if embedding is None:
        yield f"{folder}: its weights hold no {family.embedding}.weight; the checkpoint does not fit its config"
    elif tied and head is not None and not hold_the_same(head, embedding):
        yield (
            f"{config}: tie_word_embeddings: true, but the weights hold a {head_name} of its own, which transformers would keep; "
            "set it to false, or remove that tensor"
        )
    elif not tied and head is None:
        yield f"{config}: tie_word_embeddings: false, but the weights hold no {head_name}; set it to true if the two are one"


def _size_problems(folder: Path, fields: Fields, family: Family, stored: Mapping[str, StoredTensor]) -> Iterator[str]:
    """Yield missing modules and sizes that are not the config's; layers of a reshaped model have sizes of their own."""
    layers, stock = fields.get("num_hidden_layers"), fields.get("model_type") != RESHAPED
    experts = next((count for field in EXPERTS if isinstance(count := fields.get(field), int)), 0)
    if isinstance(layers, int):
        gone = [] if not stock else [f"{family.final_norm}.weight"]
        for layer in range(min(layers, len(stored) + 1)):  # more are not there, whatever the config says
            modules = (*family.weighted_in_layer(experts), *(family.norms if stock else ()))
            gone += [name for module in modules if (name := f"{family.in_layer(layer, module)}.weight") not in stored]
        if missing := [name for name in gone if name not in stored]:
            yield f"{folder}: missing tensor(s) {', '.join(missing[:LISTED])}; the checkpoint does not fit its config"
        numbers = {place[0] for name in stored if (place := family.place(name)) is not None}
        if extra := sorted(number for number in numbers if number >= layers):
            yield f"{folder}: unexpected tensors of layer {extra[0]}, num_hidden_layers is {layers}; the checkpoint does not fit its config"
    if not stock:
        return
    for name, tensor in stored.items():
        for axis, field, size in _expected(family, name, fields):
            if len(tensor.shape) <= axis or tensor.shape[axis] != size:
                shape = list(tensor.shape)
                yield f"{folder}: mismatched tensor {name} of shape {shape}: {field} is {size}; the checkpoint does not fit its config"


def _expected(family: Family, name: str, fields: Fields) -> Iterator[tuple[int, str, int]]:
    """Yield the axes of a tensor whose size the config states: axis, field, size."""
    hidden, vocabulary = fields.get("hidden_size"), fields.get("vocab_size")
    role = family.role(name)
    matrix = not name.endswith(".bias")
    if role in (Role.EMBEDDING, Role.HEAD) and vocabulary is not None:
        yield 0, "vocab_size", vocabulary
    if hidden is None:
        return
    if role in (Role.EMBEDDING, Role.POSITIONS, Role.HEAD, Role.READ) and matrix:
        yield 1, "hidden_size", hidden
    if role in (Role.WRITE, Role.NORM, Role.NORM_BEHIND, Role.FINAL_NORM):
        yield 0, "hidden_size", hidden
