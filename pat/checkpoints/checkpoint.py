"""Stock checkpoints on disk: their tensors one at a time, new ones shard by shard, and the small files that travel along.

Never holds a whole model. Only safetensors are read.
"""

from __future__ import annotations

import ctypes
import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

import pat.models.reshaped  # noqa: F401 - registers the class of reshaped models
from pat.checkpoints.base_checks import check_model
from pat.checkpoints.lineage import CARD_NAME, LINEAGE_NAME, lineage_of, write_lineage
from pat.checkpoints.origin import ORIGIN_NAME
from pat.checkpoints.rope_fields import write_both_ways
from pat.checkpoints.stored import INDEX_NAME, WEIGHTS_NAME, shard_files, stored_tensors
from pat.checkpoints.tokenizer_checks import RESIZE, TOKENIZER_JSONS, has_tokenizer
from pat.checkpoints.tokenizer_fields import name_class, names_class, write_old_names
from pat.errors import UserError
from pat.families.known import FAMILIES, Family, Role, family_of, is_passed_over
from pat.io.artefacts import check_if_listed, new_folder, read_record, write_json
from pat.io.marks import FOLDERS
from pat.io.provenance import provenance
from pat.io.tensors import opened
from pat.machine.out_of_memory import lacks_memory
from pat.models.sharding import sharding_of
from pat.settings.fields import FP32_BYTES, GIB

IMPORT_RECORD = "import.json"
LICENCES = ("LICENSE*", "NOTICE*", "USE_POLICY*")
COMPANIONS = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model", "chat_template*",
              "generation_config.json", ORIGIN_NAME, LINEAGE_NAME, *LICENCES)  # fmt: skip
REFUSALS = (StrictDataclassError, ValueError, KeyError, TypeError, AttributeError, ImportError, AssertionError, ArithmeticError)
"""What transformers raises of a config whose values it cannot use."""
MIN_SHARD_BYTES = 64 * 2**20
MAX_SHARD_BYTES = 4 * GIB
SHARDS_AT_LEAST = 8
"""A shard of an eighth of the source keeps the merge's memory well under the source's size."""


def load_config(folder: Path) -> Any:
    """Return the folder's Hugging Face config. Raises UserError where there is none or it is refused."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: holds no config.json; a model folder as save_pretrained writes it is needed")
    read_record(folder / "config.json")
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, *REFUSALS) as error:
        raise UserError(f"{folder / 'config.json'}: is not a config that transformers takes: {one_line(error)}") from None


def check_opens(folder: Path) -> None:
    """Raise UserError where transformers makes no model of a folder's config, or one of other tensors than the weights are; reads none.

    For what writes a model without having opened its base: the mistake would else come to light when all is written.
    """
    config = load_config(folder)
    family = family_of(config)
    try:
        with torch.device("meta"):  # on which transformers fills no weights
            model: Any = AutoModelForCausalLM.from_config(config)
    except (RuntimeError, *REFUSALS) as error:
        raise UserError(f"{folder / 'config.json'}: makes no model: {one_line(error)}") from None
    stored = {family.in_memory(name): shape for name, shape in tensor_shapes(folder).items() if not is_passed_over(name)}
    tied_head = f"{family.head}.weight" if config.tie_word_embeddings else None
    accounted: set[str] = set()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        shape = tuple(parameter.shape)
        if (parts := family.stored_parts(name, len(parameter))) is not None:
            _check_experts(folder, name, parts, stored, shape)
            accounted |= {part for of_expert in parts for part in of_expert}
            continue
        if name not in stored and name != tied_head:
            raise UserError(f"{folder}: missing tensor {name}; the checkpoint does not fit its config")
        if name in stored and tuple(stored[name]) != shape:
            shapes = f"{list(stored[name])}, {list(shape)} by its config"
            raise UserError(f"{folder}: mismatched tensor {name} of shape {shapes}; the checkpoint does not fit its config")
        accounted.add(name)
    if stray := [name for name in stored if name not in accounted]:
        raise UserError(f"{folder}: unexpected tensor {stray[0]}; the checkpoint does not fit its config")


def _check_experts(folder: Path, name: str, parts: list[list[str]], stored: dict[str, tuple[int, ...]], shape: tuple[int, ...]) -> None:
    """Raise UserError where the experts of a checkpoint do not make up the tensor that the model has of all of them."""
    for of_expert in parts:
        if missing := [part for part in of_expert if part not in stored]:
            raise UserError(f"{folder}: missing tensor {missing[0]}; the checkpoint does not fit its config")
        rows, columns = sum(stored[part][0] for part in of_expert), {stored[part][1:] for part in of_expert}
        if rows != shape[1] or columns != {shape[2:]}:
            shapes = f"{list(stored[of_expert[0]])}, a part of {name}, which by the config is of shape {list(shape)}"
            raise UserError(f"{folder}: mismatched tensor {of_expert[0]} of shape {shapes}; the checkpoint does not fit its config")


def one_line(error: BaseException) -> str:
    """Return what a library's error says, in one line; a message is one sentence."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def load_model(folder: Path, dtype: torch.dtype | None = None, *, sharded: bool = False) -> PreTrainedModel:
    """Return the stock model of a folder, in the checkpoint's dtype unless another is given.

    With `sharded` each process of the job gets its shard of every tensor, on its device. Raises UserError where a tensor is missing,
    left over, misshapen (transformers would fill gaps with random values) or not finite.
    """
    config = load_config(folder)
    sharding = {"distributed_config": sharding_of(config)} if sharded else {}
    shard_files(folder)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype or "auto", local_files_only=True, trust_remote_code=False,
            use_safetensors=True, output_loading_info=True, **sharding,
        )  # fmt: skip
    except (SafetensorError, OSError, RuntimeError, *REFUSALS) as error:
        if lacks_memory(error):
            raise
        _check_opens_if_known(folder)  # which may say it better
        raise UserError(f"{folder}: cannot be loaded as a model: {one_line(error)}") from None
    model: PreTrainedModel
    model, report = loaded
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := sorted(map(str, report[problem])):
            raise UserError(
                f"{folder}: {problem.replace('_keys', '')} tensor(s) {', '.join(names[:5])}; the checkpoint does not fit its config"
            )
    if not sharded:  # a shard alone would have one process stop and the others wait
        _check_weights(folder, model)
    return model


def _check_weights(folder: Path, model: PreTrainedModel) -> None:
    """Raise UserError where a weight is NaN or infinite: every number that is computed with it would be, after all the work."""
    for name, weight in model.named_parameters():
        ends = _check_finite(folder, name, weight)
        if not ends.any() and weight is model.get_input_embeddings().weight:
            raise UserError(f"{folder}: the embedding {name} is all zero, so the model reads nothing; fetch or make the model again")


def _check_finite(folder: Path, name: str, weight: Tensor) -> Tensor:
    """Return a weight's least and largest number. Raises UserError where one is NaN or infinite."""
    ends = torch.stack(weight.detach().aminmax()) if weight.numel() else torch.zeros(2)  # NaN is both; no copy of the weight is made
    if not torch.isfinite(ends).all():
        raise UserError(f"{folder}: the tensor {name} holds NaN or infinity; fetch or make the model again")
    return ends


def load_to_measure(folder: Path, device: str) -> PreTrainedModel:
    """Return the folder's model, ready to be measured on text, on `device`: in fp32 where that is affordable, and never in fp16.

    Half precision overflows in some families and loses small gradients; bf16 has fp32's range.
    """
    dtype = affordable_dtype(folder)
    model = load_model(folder, torch.bfloat16 if dtype == torch.float16 else dtype)
    model.to(torch.device(device))  # type: ignore[arg-type]  # transformers' annotation wraps nn.Module.to wrongly
    model.train(False)
    return model


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return the folder's tokenizer, padding on the right, with a pad token. Raises UserError where it has no end token."""
    tokenizer = open_tokenizer(folder)
    if tokenizer.eos_token_id is None:
        raise UserError(f"{folder}: its tokenizer has no end-of-sequence token, which ends every answer")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def open_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return the folder's tokenizer as it is. Raises UserError where it has none or a broken one."""
    for name in TOKENIZER_JSONS:
        if (folder / name).exists():
            read_record(folder / name)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare ones
        raise UserError(f"{folder}: has no tokenizer that transformers opens: {one_line(error)}") from None
    _check_ids(folder, tokenizer)
    return tokenizer


def _check_ids(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise UserError where a tokenizer, as it was made of all its files, knows a token that the folder's model has no embedding for."""
    path = folder / "config.json"
    rows = read_record(path).get("vocab_size") if path.is_file() else None
    token, highest = max(tokenizer.get_vocab().items(), key=lambda pair: pair[1], default=("", -1))
    if isinstance(rows, int) and highest >= rows:
        raise UserError(
            f"{folder}: its tokenizer gives the token {token!r} the id {highest}, beyond the embedding's {rows} rows (vocab_size); {RESIZE}"
        )


def tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the checkpoint's tensors one at a time, by shard, those left out that no model reads. Raises UserError on a broken file."""
    for path in shard_files(folder):
        with opened(path) as shard:
            for name in shard.keys():  # noqa: SIM118 - not a mapping
                if not is_passed_over(name):
                    yield name, shard.get_tensor(name)


def check_finite(folder: Path) -> None:
    """Raise UserError where a weight of a checkpoint is NaN or infinite: whatever is made of it would be."""
    for name, tensor in tensors(folder):
        _check_finite(folder, name, tensor)


def unique_tensors(folder: Path, config: Any) -> Iterator[tuple[str, Tensor]]:
    """As `tensors`, without a head that is the embedding's matrix once more. Raises UserError on one that holds NaN or infinity."""
    unique = set(unique_names(folder, config))
    for name, tensor in tensors(folder):
        if name in unique:
            _check_finite(folder, name, tensor)
            yield name, tensor


def tensor_in(shard_file: Path, name: str) -> Tensor:
    """Return a tensor by its name from the file that holds it. Raises UserError where it holds NaN or infinity."""
    with opened(shard_file) as shard:
        tensor: Tensor = shard.get_tensor(name)
    _check_finite(shard_file.parent, name, tensor)
    return tensor


def unique_names(folder: Path, config: Any) -> list[str]:
    """Return the names of `unique_tensors`."""
    tied_head = f"{family_of(config).stored_head}.weight" if config.tie_word_embeddings else None
    return [name for name in stored_tensors(folder) if name != tied_head and not is_passed_over(name)]


def linear_shapes(folder: Path, config: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights of a checkpoint's linear layers by name, the head included where it is a matrix of its own.

    Experts are left out: in memory they are one tensor of all, and no layers that an adapter could name.
    """
    family, suffix = family_of(config), ".weight"
    roles = (Role.READ, Role.WRITE, Role.HEAD)
    names = [name for name in unique_names(folder, config) if name.endswith(suffix) and family.role(name) in roles]
    stored, modules = stored_tensors(folder), [name.removesuffix(suffix) for name in names]
    return {module: stored[module + suffix].shape for module in modules if not family.is_expert(module)}


def norm_gains(folder: Path, family: Family) -> dict[str, Tensor]:
    """Return what each norm on the stream multiplies the channels by, (D,) in fp64, by the norm's name."""
    return {
        name.removesuffix(".weight"): tensor.double() + family.gain_offset
        for name, tensor in tensors(folder)
        if family.role(name) in (Role.NORM, Role.FINAL_NORM)
    }


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return every tensor's shape without reading the tensors."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in shard_files(folder):
        with opened(path) as shard:
            for name in shard.keys():  # noqa: SIM118 - not a mapping
                if not is_passed_over(name):
                    shapes[name] = tuple(shard.get_slice(name).get_shape())
    return shapes


def weights_size(folder: Path) -> int:
    """Return the bytes of the checkpoint's weights."""
    return sum(path.stat().st_size for path in shard_files(folder))


def write_shards(folder: Path, named: Iterable[tuple[str, Tensor]], source_bytes: int) -> None:
    """Write tensors as they come, holding one shard at a time, with the index where there is more than one."""
    limit = min(max(source_bytes // SHARDS_AT_LEAST, MIN_SHARD_BYTES), MAX_SHARD_BYTES)
    files: list[list[str]] = []
    pending: dict[str, Tensor] = {}
    total = held = 0
    for name, tensor in named:
        if pending and held + tensor.nbytes > limit:
            files.append(_write_part(folder, len(files), pending))
            pending, held = {}, 0
            _return_freed_memory()
        pending[name] = tensor
        held += tensor.nbytes
        total += tensor.nbytes
    files.append(_write_part(folder, len(files), pending))
    pending = {}
    _return_freed_memory()
    _name_parts(folder, files, total)


def _return_freed_memory() -> None:
    """Give freed memory back to the system where the C library is glibc, which would otherwise keep all blocks below 32 MB."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _write_part(folder: Path, part: int, named: dict[str, Tensor]) -> list[str]:
    save_file(named, folder / f"part-{part}", metadata={"format": "pt"})
    return list(named)


def _name_parts(folder: Path, files: list[list[str]], total: int) -> None:
    """Give the parts their stock names, which hold the number of shards and so are known only now."""
    if len(files) == 1:
        (folder / "part-0").rename(folder / WEIGHTS_NAME)
        return
    weight_map: dict[str, str] = {}
    for part, names in enumerate(files):
        final = f"model-{part + 1:05d}-of-{len(files):05d}.safetensors"
        (folder / f"part-{part}").rename(folder / final)
        weight_map |= dict.fromkeys(names, final)
    write_json(folder / INDEX_NAME, {"metadata": {"total_size": total}, "weight_map": weight_map})


def copy_companions(source: Path, target: Path) -> None:
    """Copy tokenizer, generation config and licence files; the tokenizer's config as both generations of transformers read it.

    The tokenizer is opened as the same class: where its files name none, and the target's model is of another type, it is named there.
    """
    _copy(source, target, COMPANIONS)
    if has_tokenizer(source) and not names_class(source) and _model_type(target) not in (None, _model_type(source)):
        name_class(target, type(open_tokenizer(source)).__name__)
    write_old_names(target)


def copy_licences(source: Path, target: Path) -> None:
    """Copy the files that say what may be done with a model, and which have to go with it."""
    _copy(source, target, LICENCES)


def _copy(source: Path, target: Path, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        for path in sorted(source.glob(pattern)):
            if path.is_file():
                shutil.copyfile(path, target / path.name)


def _model_type(folder: Path) -> str | None:
    path = folder / "config.json"
    return read_record(path).get("model_type") if path.is_file() else None


def parameter_counts(folder: Path, config: Any) -> dict[str, int]:
    """Return unique parameters of a checkpoint, which `config` is of, and how many are left without embedding and head."""
    family = family_of(config)
    sizes = {name: math.prod(shape) for name, shape in tensor_shapes(folder).items()}
    if config.tie_word_embeddings:
        sizes.pop(f"{family.stored_head}.weight", None)
    outer = sum(size for name, size in sizes.items() if name.rpartition(".")[0] in (*family.entrance, family.stored_head))
    return {"unique": sum(sizes.values()), "without_embeddings": sum(sizes.values()) - outer}


def _check_opens_if_known(folder: Path) -> None:
    """As check_opens, of an architecture that can be changed; any other may still be evaluated."""
    config = load_config(folder)
    if (getattr(config, "stock_type", None) or config.model_type) in FAMILIES:
        check_opens(folder)


def import_model(source: Path, out: Path, *, force: bool = False) -> None:
    """Copy a local checkpoint into `out` with a manifest, so that later phases can check it. Raises UserError where it cannot be used."""
    check_model(source)
    check_if_listed(source)
    _check_opens_if_known(source)
    check_finite(source)
    if has_tokenizer(source):
        open_tokenizer(source)
    with new_folder(out, FOLDERS["import-model"], force=force) as folder:
        for path in [source / "config.json", *shard_files(source)]:
            shutil.copyfile(path, folder / path.name)
        if (source / INDEX_NAME).is_file():
            shutil.copyfile(source / INDEX_NAME, folder / INDEX_NAME)
        write_both_ways(folder)
        copy_companions(source, folder)
        write_lineage(folder, lineage_of(source))
        note_import(folder, {"path": str(source)}, {"model": source})


def fetch_model(hub_id: str, revision: str, out: Path, *, force: bool = False) -> None:
    """Download a model's safetensors, config and tokenizer from the hub into `out`; the one step of a run that needs a network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["config.json", "*.safetensors", INDEX_NAME, CARD_NAME, *COMPANIONS]
    with new_folder(out, FOLDERS["import-model"], force=force) as folder:
        try:
            snapshot_download(hub_id, revision=revision, local_dir=folder, allow_patterns=patterns)
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise UserError(
                f"model {hub_id!r} at revision {revision!r} cannot be fetched: {error}; fetch it where there is a network, "
                "or give a local folder as `path`"
            ) from None
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        write_lineage(folder, lineage_of(folder) | {"base_model": hub_id})
        (folder / CARD_NAME).unlink(missing_ok=True)  # it is the base's own, and would be taken for that of what is made of it
        check_model(folder)
        _check_opens_if_known(folder)
        check_finite(folder)
        write_both_ways(folder)
        write_old_names(folder)
        note_import(folder, {"hub": hub_id, "revision": revision}, {})


def note_import(folder: Path, settings: dict[str, object], inputs: dict[str, Path]) -> None:
    """Write where an imported model comes from; by it the folder is known as one that may be replaced."""
    write_json(folder / IMPORT_RECORD, {"provenance": provenance(settings, 0, inputs=inputs)})


def affordable_dtype(folder: Path) -> torch.dtype:
    """Return fp32 where the weights are small enough to be measured in it, else the checkpoint's own dtype."""
    return torch.float32 if weights_size(folder) <= FP32_BYTES else dtype_of(folder)


def dtype_of(folder: Path) -> torch.dtype:
    """Return the dtype of the checkpoint's first tensor."""
    return next(tensor for _, tensor in tensors(folder)).dtype
