"""A GGUF file as a base model: read once into a stock checkpoint with tokenizer, chat template and a record of where it is from.

The weights are what transformers makes of the file, each format expanded to one dtype. What transformers would leave out without a word
(positions that are scaled, tensors that it has no place for) is refused here.
"""

from __future__ import annotations

import copy
import json
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from gguf import MODEL_ARCH_NAMES, GGUFReader, get_tensor_name_map
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pat.checkpoints.checkpoint import note_import, write_shards
from pat.checkpoints.dtypes import dtype_named
from pat.checkpoints.lineage import write_lineage
from pat.checkpoints.origin import ORIGIN_NAME, quantised_as
from pat.checkpoints.rope_fields import write_both_ways
from pat.checkpoints.tokenizer_fields import write_old_names
from pat.errors import UserError
from pat.families.known import FAMILIES, family_of
from pat.io.artefacts import new_folder, sha256, write_json
from pat.io.marks import FOLDERS
from pat.io.progress import say
from pat.io.provenance import provenance
from pat.io.storage import refusal
from pat.machine.out_of_memory import lacks_memory

MAGIC = b"GGUF"
PLAIN_FORMATS = ("F64", "F32", "F16", "BF16")
"""Formats that hold numbers as they are; all others are quantised."""
DIGIT_SPLITS = ("smollm", "starcoder", "refact", "codeshell")
"""Vocabularies learned on single digits, split as GPT-2's otherwise. transformers reads their files without the first of these rules."""
GPT2_SPLITS = ("gpt-2", "gpt2", "default")
SIZE_KEYS = {
    "hidden_size": "embedding_length", "num_hidden_layers": "block_count", "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv", "head_dim": "attention.key_length", "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
}  # fmt: skip
"""A config's fields and the keys, behind the architecture's name, that hold them in a file."""
NOT_OF_A_CHECKPOINT = ("quantization_config", "_model_name_or_path")
"""What transformers' config says of the file that was read, and no longer holds."""
logger = logging.getLogger(__name__)


def import_gguf(file: Path, out: Path, dtype: str | None = None, *, force: bool = False) -> dict[str, Any]:
    """Write the model of a GGUF file to `out` as a stock checkpoint and return its record, which is `origin.json`.

    Its weights become `dtype`, bf16 where that is None. Raises UserError where the file is missing, no GGUF, truncated, without a
    tokenizer, or of an architecture that transformers or pat/families/known.py does not know, and where it holds what would be left out.
    """
    dtype = dtype or "bf16"
    weights_dtype = dtype_named(dtype)
    reader = read_header(file)
    check_header(file, reader)
    with _alone(file) as (folder, name), new_folder(out, FOLDERS["import-model"], force=force) as target:
        model = _open_model(file, folder, name, weights_dtype)
        tokenizer = _open_tokenizer(file, folder, name)
        _check_all_read(file, reader, model)
        split = _mend_split(_text(reader, "tokenizer.ggml.pre"), tokenizer)
        _write_checkpoint(model, _as_it_is(tokenizer, model.config), target)
        record = _record(file, reader, dtype) | {"tokenizer_split": split}
        write_json(target / ORIGIN_NAME, record)
        licence = _text(reader, "general.license")
        write_lineage(target, {"license": licence} if licence else {})
        note_import(target, {"gguf": str(file), "dtype": dtype}, {"gguf": file})
    formats = quantised_as(record)
    say(f"{file.name}: {record['architecture']}, " + (f"quantised ({formats})" if formats else "not quantised") + f", read into {dtype}")
    return record


def read_header(file: Path) -> GGUFReader:
    """Return the file's keys and its list of tensors. Raises UserError unless it is a whole GGUF file."""
    try:
        with file.open("rb") as stream:
            magic = stream.read(len(MAGIC))
    except OSError as error:
        raise refusal(error, file) from None
    if magic != MAGIC:
        raise UserError(f"{file}: is no GGUF file: it begins with {magic!r}, which must be {MAGIC!r}")
    try:
        return GGUFReader(file)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: is truncated or broken, its list of keys and tensors cannot be read to the end: {error}") from None


def check_header(file: Path, reader: GGUFReader) -> None:
    """Raise UserError where a file's keys name what cannot be read as a stock model of a known family."""
    architecture = _text(reader, "general.architecture")
    if not architecture:
        raise UserError(f"{file}: names no architecture (general.architecture)")
    if architecture not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise UserError(f"{file}: its architecture {architecture!r} is not known; known are {known} (pat/families/known.py)")
    if "tokenizer.ggml.tokens" not in reader.fields:
        raise UserError(f"{file}: holds no tokenizer (tokenizer.ggml.tokens), without which no text can be read")
    scaling = _text(reader, f"{architecture}.rope.scaling.type")
    factors = any(tensor.name.startswith("rope_factors") or tensor.name.startswith("rope_freqs") for tensor in reader.tensors)
    if factors or scaling not in ("", "none"):
        raise UserError(
            f"{file}: scales its positions ({'rope_freqs' if factors else scaling}), which transformers does not read from a GGUF file: "
            "the model would be another one; give the hub's checkpoint as `hub` or `path`"
        )


def checked_fields(file: Path) -> dict[str, Any]:
    """Return what a file's keys say of its sizes, under the names of a config's fields; where there is no key there is no field.

    Raises UserError as `check_header` does.
    """
    try:
        about = file.stat()
    except OSError as error:
        raise refusal(error, file) from None
    return dict(_fields(file, about.st_size, about.st_mtime_ns))


@lru_cache(maxsize=8)
def _fields(file: Path, _bytes: int, _changed_ns: int) -> dict[str, Any]:
    """Return the fields of a file as it is now; its list of words takes seconds to read, and an experiment's checks ask several times."""
    reader = read_header(file)
    check_header(file, reader)
    architecture = _text(reader, "general.architecture")
    found = {name: reader.get_field(f"{architecture}.{key}") for name, key in SIZE_KEYS.items()}
    return {
        "model_type": architecture,
        "vocab_size": len(reader.fields["tokenizer.ggml.tokens"].data),
        "tie_word_embeddings": all(tensor.name != "output.weight" for tensor in reader.tensors),
        **{name: int(field.contents()) for name, field in found.items() if field is not None},
    }


def _text(reader: GGUFReader, key: str) -> str:
    """Return a key's text, empty where the file has no such key."""
    field = reader.get_field(key)
    return "" if field is None else str(field.contents())


@contextmanager
def _alone(file: Path) -> Iterator[tuple[Path, str]]:
    """Yield a folder that holds the file and nothing else: transformers would read a tokenizer or a config that lies beside it."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.gguf").symlink_to(file.resolve())
        yield Path(folder), "model.gguf"


def _open_model(file: Path, folder: Path, name: str, dtype: torch.dtype) -> PreTrainedModel:
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=name, dtype=dtype, quantization_config=GgufConfig(dequantize=True), local_files_only=True,
            trust_remote_code=False, output_loading_info=True,
        )  # fmt: skip
    except (OSError, RuntimeError, ValueError, KeyError, IndexError, TypeError, NotImplementedError) as error:
        if lacks_memory(error):
            raise
        raise UserError(f"{file}: transformers cannot open it as a model: {' '.join(str(error).split())}") from None
    model: PreTrainedModel
    model, report = loaded
    family_of(model.config)
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := sorted(map(str, report[problem])):
            raise UserError(f"{file}: {problem.replace('_keys', '')} tensor(s) {', '.join(names[:5])}; the file does not fit its own sizes")
    return model


def _open_tokenizer(file: Path, folder: Path, name: str) -> PreTrainedTokenizerBase:
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, gguf_file=name, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare ones
        raise UserError(f"{file}: holds no tokenizer that transformers opens: {' '.join(str(error).split())}") from None
    if tokenizer.eos_token_id is None:
        raise UserError(f"{file}: its tokenizer has no end-of-sequence token, which ends every answer")
    return tokenizer


def _check_all_read(file: Path, reader: GGUFReader, model: PreTrainedModel) -> None:
    """Raise UserError where the file holds tensors that have no place in the model, such as experts: transformers leaves them out."""
    architecture = next(key for key, name in MODEL_ARCH_NAMES.items() if name == _text(reader, "general.architecture"))
    names = get_tensor_name_map(architecture, model.config.num_hidden_layers)
    known = {names.get_name(parameter, try_suffixes=(".weight", ".bias")) for parameter in model.state_dict()}
    if left_out := sorted(tensor.name for tensor in reader.tensors if tensor.name not in known):
        shown = ", ".join(left_out[:5])
        raise UserError(f"{file}: holds {len(left_out)} tensor(s) that a stock {model.config.model_type!r} model has no place for: {shown}")


def _mend_split(rule: str, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Give the tokenizer the rule for digits that its file names, and return which rule that is and whether it is followed."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    byte_level = isinstance(getattr(backend, "pre_tokenizer", None), pre_tokenizers.ByteLevel)  # GPT-2's, for lack of a better one
    if byte_level and rule in DIGIT_SPLITS:
        digits, others = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, others])
    followed = not byte_level or rule in (*DIGIT_SPLITS, *GPT2_SPLITS, "")
    if not followed:
        logger.warning("its rule for splitting text, %r, is not known: text is split as GPT-2 does, some words into other tokens", rule)
    return {"rule": rule or None, "followed": followed}


def _as_it_is(tokenizer: PreTrainedTokenizerBase, config: Any) -> PreTrainedTokenizerBase:
    """Return the tokenizer with the file's tokens alone: transformers adds one of GPT-2's, beyond the embedding, where it is missing."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    state = json.loads(backend.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < config.vocab_size]
    named = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    plain: PreTrainedTokenizerBase = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)), model_max_length=config.max_position_embeddings, **named
    )
    plain.chat_template = tokenizer.chat_template
    return plain


def _write_checkpoint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write weights, each matrix once, config, generation config and tokenizer, as save_pretrained would of a model that was no GGUF."""
    head = f"{family_of(model.config).head}.weight"
    tied = bool(model.config.tie_word_embeddings)
    weights = {name: tensor for name, tensor in model.state_dict().items() if not (tied and name == head)}
    write_shards(folder, weights.items(), sum(tensor.nbytes for tensor in weights.values()))
    config = copy.deepcopy(model.config)
    for key in NOT_OF_A_CHECKPOINT:
        if hasattr(config, key):
            delattr(config, key)
    config.architectures = [type(model).__name__]
    config.name_or_path = ""
    config.save_pretrained(folder)
    write_both_ways(folder)
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_old_names(folder)


def _record(file: Path, reader: GGUFReader, dtype: str) -> dict[str, Any]:
    counts = Counter(tensor.tensor_type.name for tensor in reader.tensors)
    quantised = sorted((name for name in counts if name not in PLAIN_FORMATS), key=lambda name: (-counts[name], name))
    return {
        "file": file.name,
        "sha256": sha256(file),
        "architecture": _text(reader, "general.architecture"),
        "name": _text(reader, "general.name"),
        "license": _text(reader, "general.license"),
        "formats": dict(sorted(counts.items())),
        "quantised": quantised,
        "dtype": dtype,
        "provenance": provenance({"gguf": sha256(file), "dtype": dtype}, 0, inputs={"gguf": file}),
    }
