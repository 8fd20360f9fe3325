"""From a base checkpoint and an adapter folder to a stock, narrower checkpoint, streaming one tensor at a time.

Owns the merged folder: weights, config, tokenizer, `merge.json` and the model card. The arithmetic is fold.py's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from torch import Tensor

from pat.checkpoints import checkpoint
from pat.checkpoints.base_checks import check_base
from pat.checkpoints.basis_record import check_basis
from pat.checkpoints.card import model_card
from pat.checkpoints.fidelity import gap_to_changed
from pat.checkpoints.first_base import first_base
from pat.checkpoints.lineage import DATASETS, lineage_of, tuned_on, write_lineage
from pat.checkpoints.origin import origin_of
from pat.checkpoints.readers_record import check_readers, kept_channels
from pat.checkpoints.rope_fields import write_both_ways
from pat.checkpoints.unrounded import Change, Written
from pat.errors import UserError
from pat.families.known import family_of
from pat.io import artefacts
from pat.io.marks import FOLDERS, check_replaceable
from pat.io.progress import Progress, say
from pat.io.provenance import described, provenance
from pat.method.fold import Fold
from pat.method.lora import check_complete, read_adapter
from pat.method.model import PatModel, check_lora_of_run, make_fold
from pat.method.sparsifier import HSM_WEIGHTS_NAME, Sparsifier
from pat.models.reshaped import ReshapedConfig
from pat.models.width import merged_config, planned_width
from pat.settings.config import PAT_CONFIG_NAME, PatConfig

MERGE_RECORD = "merge.json"
TUNING_RECORD = "tuning.json"
logger = logging.getLogger(__name__)


def merge(base: Path, adapter: Path, out: Path, *, force: bool = False) -> dict[str, Any]:
    """Write the merged checkpoint to `out` and return its record, which is `merge.json`; with `force` whatever is there is replaced.

    Raises UserError where base or adapter is incomplete, changed, of an unknown architecture or does not fit the other, basis and
    readers included, where the adapter was tuned on another base, and where `out` holds something else than such a model.
    """
    check_replaceable(out, FOLDERS["merge"], force=force)
    check_base(base)
    checkpoint.check_opens(base)
    for folder in (base, adapter):
        artefacts.check_if_listed(folder)
    config = checkpoint.load_config(base)
    fold, pat_config = fold_of(adapter, config)
    check_complete(adapter, fold.lora, checkpoint.linear_shapes(base, config))
    if pat_config is not None:
        check_basis(base, pat_config.basis, pat_config.tie)
        check_readers(base, pat_config.readers, pat_config.mask, pat_config.ratio)
        if kept_channels(base) not in (None, fold.index_K.tolist()):
            raise UserError(f"--base {base}: its readers are refitted to other channels than --adapter {adapter} keeps")
    inputs = {"base": described(base), "adapter": described(adapter)}
    check_tuned_on(inputs["base"]["sha256"], base, adapter)
    lineage = tuned_on(lineage_of(base), datasets_of(adapter))
    with artefacts.new_folder(out, FOLDERS["merge"], force=force) as folder:
        written = write_folded(base, folder, fold, "merge")
        fold.check_all_used()
        opened: Any = PeftModel if pat_config is None else PatModel
        gap = gap_to_changed(written, lambda model: opened.from_pretrained(model, adapter))
        record = record_of(base, folder, pat_config.ratio if pat_config else 0.0) | gap
        settings = {name: it["sha256"] for name, it in inputs.items()}
        record["provenance"] = provenance(settings, pat_config.seed if pat_config else 0, inputs=inputs)
        artefacts.write_json(folder / MERGE_RECORD, record)
        if DATASETS in lineage:
            write_lineage(folder, lineage)
        how = "tuned" if pat_config is None else "tuned and pruned with PAT"
        artefacts.write_text(folder / "README.md", model_card(record, how, config, lineage))
    say(summary(record))
    return record


def fold_of(adapter: Path, model_config: Any) -> tuple[Fold, PatConfig | None]:
    """Return the fold of an adapter folder and its PatConfig, None where the adapter is LoRA or DoRA alone."""
    family = family_of(model_config)
    updates = read_adapter(adapter)
    if not (adapter / PAT_CONFIG_NAME).exists():
        if (adapter / HSM_WEIGHTS_NAME).exists():
            raise UserError(f"{adapter / PAT_CONFIG_NAME}: no such file, though {HSM_WEIGHTS_NAME} lies beside it; tune again")
        everything_D = torch.ones(model_config.hidden_size, dtype=torch.bool)
        return Fold(family, everything_D, tied=bool(model_config.tie_word_embeddings), lora=updates), None
    pat_config = PatConfig.load(adapter)
    check_lora_of_run(adapter, pat_config, family)
    sparsifier = Sparsifier(
        model_config.hidden_size,
        planned_width(model_config, pat_config),
        family.writes(model_config.num_hidden_layers),
        tied=bool(model_config.tie_word_embeddings),
        config=pat_config,
        empty=True,
    )
    sparsifier.load(adapter)
    return make_fold(family, model_config, sparsifier, updates), pat_config


def write_folded(source: Path, folder: Path, fold: Fold, label: str) -> Written:
    """Write the folded weights, the narrower config and the companions of `source` into `folder`."""
    config = checkpoint.load_config(source)

    def change(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        yield name, fold(name, tensor)

    return write_changed(source, folder, change, merged_config(config, int(fold.kept_D.sum())), label, in_one_piece=frozenset(fold.lora))


def write_changed(
    source: Path,
    folder: Path,
    change: Change,
    config: Any,
    label: str,
    in_one_piece: frozenset[str] = frozenset(),
    dtype: torch.dtype | None = None,
) -> Written:
    """Write what `change` makes of the tensors of `source`, `config` and the companions of `source` into `folder`.

    Tensors keep the dtype that they are stored in, unless another is given: what becomes of them in fp32 is then rounded to that, once.
    Raises UserError where a tensor does not fit its dtype.
    """
    progress = Progress(label, len(checkpoint.tensor_shapes(source)))

    def changed() -> Iterator[tuple[str, Tensor]]:
        for done, (name, tensor) in enumerate(checkpoint.unique_tensors(source, checkpoint.load_config(source)), start=1):
            for new_name, new_tensor in change(name, tensor if dtype is None else tensor.float()):
                made = new_tensor if dtype is None else new_tensor.to(dtype)
                check_fits(new_name, made, source)
                yield new_name, made
            progress.update(done)

    checkpoint.write_shards(folder, changed(), checkpoint.weights_size(source))
    config.save_pretrained(folder)
    if not isinstance(config, ReshapedConfig):  # which transformers 4.x cannot open anyway
        write_both_ways(folder)
    checkpoint.copy_companions(source, folder)
    return Written(source, folder, change, in_one_piece)


def check_fits(name: str, tensor: Tensor, source: Path) -> None:
    """Raise UserError where a tensor that was made of a source's does not fit the dtype that it is stored in."""
    if not bool(tensor.isfinite().all()):
        stored = str(tensor.dtype).removeprefix("torch.")
        raise UserError(f"{source}: what becomes of {name} is not finite in {stored}; its weights are damaged, or need bf16 or fp32")


def record_of(
    source: Path, folder: Path, ratio_requested: float, share_of: Literal["hidden size", "parameters"] = "hidden size"
) -> dict[str, Any]:
    """Return sizes before and after, of the base that the user gave first, and the share of its parameters that is gone.

    `ratio_effective` is the ratio of this step as it came out, a share of what the one asked for is a share of (`share_of`).
    """
    before, after = checkpoint.load_config(source), checkpoint.load_config(folder)
    counts = {
        name: checkpoint.parameter_counts(path, config) for name, path, config in (("before", source, before), ("after", folder, after))
    }
    widths = {
        name: config.narrowest_stream if isinstance(config, ReshapedConfig) else config.hidden_size
        for name, config in (("before", before), ("after", after))
    }
    sizes = widths if share_of == "hidden size" else {name: count["unique"] for name, count in counts.items()}
    effective = 1.0 - sizes["after"] / sizes["before"]
    origin = origin_of(source)
    base = first_base(source) or {"hidden_size": widths["before"], "parameters": counts["before"]}
    return {
        "base": base,
        "removed": 1.0 - counts["after"]["unique"] / base["parameters"]["unique"],
        "ratio_requested": ratio_requested,
        "ratio_effective": effective,
        "hidden_size": widths,
        "parameters": counts,
        **({"origin": origin} if origin else {}),
    }


def check_tuned_on(found: object, base: Path, adapter: Path) -> None:
    """Raise UserError unless the weights of a base, by their checksums, are those that an adapter's record says it was tuned on.

    An adapter that has no record, because it was made elsewhere, passes.
    """
    if not (adapter / TUNING_RECORD).is_file():
        return
    record: Any = artefacts.read_record(adapter / TUNING_RECORD)
    for key in ("provenance", "inputs", "base"):
        record = record.get(key) or {}
        if not isinstance(record, dict):
            raise UserError(f"{adapter / TUNING_RECORD}: {key}: must be an object; the record is broken, tune again")
    expected = record.get("sha256")
    if expected and expected != found:
        raise UserError(
            f"--base {base}: its weights are not those that --adapter {adapter} was tuned on (their checksums are in {TUNING_RECORD}; it "
            f"lay at {record.get('path')} then): give that very base, or tune on this one"
        )


def datasets_of(adapter: Path) -> list[str]:
    """Return the data sets of the hub that an adapter's record says it was tuned on; none of an adapter without one."""
    path = adapter / TUNING_RECORD
    named = artefacts.read_record(path).get(DATASETS, []) if path.is_file() else []
    if not (isinstance(named, list) and all(isinstance(name, str) for name in named)):
        raise UserError(f"{path}: {DATASETS}: must be a list of names; the record is broken, tune again")
    return named


def summary(record: dict[str, Any]) -> str:
    """Return one line on what a merge or a pruning did."""
    base, width, count = record["base"], record["hidden_size"]["after"], record["parameters"]["after"]
    return (
        f"ratio {record['ratio_requested']:.2%} requested; of the base's parameters {record['removed']:.2%} removed: "
        f"{base['parameters']['unique']:,} -> {count['unique']:,} "
        f"(without embeddings {base['parameters']['without_embeddings']:,} -> {count['without_embeddings']:,}), "
        f"width {base['hidden_size']} -> {width}; "
        f"KL on text {record['kl_on_text']:.1e} nats per token between what was computed and what was stored ({record['kl_dtype']})"
    )
