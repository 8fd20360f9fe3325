"""From a base checkpoint and an adapter folder to a stock, narrower checkpoint, streaming one tensor at a time.

Owns the merged folder: weights, config, tokenizer, `merge.json` and the model card. The arithmetic is fold.py's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pat import artefacts, checkpoint
from pat.base_checks import check_base
from pat.basis_record import check_basis
from pat.config import PAT_CONFIG_NAME, PatConfig
from pat.errors import UserError
from pat.families import family_of
from pat.fold import Fold
from pat.lora import read_adapter
from pat.masked import kept_channels_only
from pat.model import PatModel, make_fold, merged_config, planned_width
from pat.origin import origin_of, origin_sentence
from pat.progress import Progress, say
from pat.provenance import provenance
from pat.readers_record import check_readers, kept_channels
from pat.reshaped import ReshapedConfig
from pat.sparsifier import HSM_WEIGHTS_NAME, Sparsifier

MERGE_RECORD = "merge.json"
PROBE_SHAPE = (2, 48)
"""Sequences × tokens on which the merged model is compared with the masked one."""
LARGEST_FP32_GAP = 1e-2
STOCK_CARD = "A stock checkpoint: `AutoModelForCausalLM.from_pretrained` opens it, and so does everything built on it."
RESHAPED_CARD = """Its layers have sizes that no stock class holds. It needs the package `pruning-aware-tuning`: after

    import pat.reshaped

`AutoModelForCausalLM.from_pretrained` opens it, without remote code."""
logger = logging.getLogger(__name__)


def merge(base: Path, adapter: Path, out: Path) -> dict[str, Any]:
    """Write the merged checkpoint to `out` and return its record, which is `merge.json`.

    Raises UserError where base or adapter is incomplete, changed, of an unknown architecture or does not fit the other, basis and
    readers included.
    """
    check_base(base)
    for folder in (base, adapter):
        artefacts.check_if_listed(folder)
    config = checkpoint.load_config(base)
    fold, pat_config = fold_of(adapter, config)
    if pat_config is not None:
        check_basis(base, pat_config.basis, pat_config.tie)
        check_readers(base, pat_config.readers, pat_config.mask, pat_config.pruning_ratio)
        if kept_channels(base) not in (None, fold.index_K.tolist()):
            raise UserError(f"--base {base}: its readers are refitted to other channels than --adapter {adapter} keeps")
    with artefacts.new_folder(out) as folder:
        write_folded(base, folder, fold, "merge")
        fold.check_all_used()
        gap = _gap_to_masked(base, adapter, folder, pat_config)
        record = record_of(base, folder, pat_config.pruning_ratio if pat_config else 0.0) | gap
        settings = {"base": _identity(base), "adapter": _identity(adapter)}
        record["provenance"] = provenance(settings, pat_config.seed if pat_config else 0, inputs={"base": base, "adapter": adapter})
        artefacts.write_json(folder / MERGE_RECORD, record)
        how = "tuned" if pat_config is None else "tuned and pruned with PAT"
        artefacts.write_text(folder / "README.md", model_card(record, how, config))
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


def write_folded(source: Path, folder: Path, fold: Fold, label: str) -> None:
    """Write the folded weights, the narrower config and the companions of `source` into `folder`."""
    config = checkpoint.load_config(source)
    named = ((name, fold(name, tensor)) for name, tensor in checkpoint.unique_tensors(source, config))
    write_changed(source, folder, named, merged_config(config, int(fold.kept_D.sum())), label)


def write_changed(source: Path, folder: Path, named: Iterable[tuple[str, Tensor]], config: Any, label: str) -> None:
    """Write `named` as they come, `config` and the companions of `source`, from which they were made, into `folder`."""
    progress = Progress(label, len(checkpoint.tensor_shapes(source)))

    def counted() -> Iterator[tuple[str, Tensor]]:
        for done, pair in enumerate(named, start=1):
            yield pair
            progress.update(done)

    checkpoint.write_shards(folder, counted(), checkpoint.weights_size(source))
    config.save_pretrained(folder)
    checkpoint.copy_companions(source, folder)


def record_of(source: Path, folder: Path, ratio_requested: float) -> dict[str, Any]:
    """Return sizes before and after: hidden size, parameters, requested and effective ratio."""
    before, after = checkpoint.load_config(source), checkpoint.load_config(folder)
    family = family_of(before)
    counts = {
        name: checkpoint.parameter_counts(path, family.embedding, family.head, tied=bool(config.tie_word_embeddings))
        for name, path, config in (("before", source, before), ("after", folder, after))
    }
    widths = {
        name: config.narrowest_stream if isinstance(config, ReshapedConfig) else config.hidden_size
        for name, config in (("before", before), ("after", after))
    }
    origin = origin_of(source)
    return {
        "ratio_requested": ratio_requested,
        "ratio_effective": 1.0 - widths["after"] / widths["before"],
        "hidden_size": widths,
        "parameters": counts,
        **({"origin": origin} if origin else {}),
    }


def _gap_to_masked(base: Path, adapter: Path, merged: Path, pat_config: PatConfig | None) -> dict[str, Any]:
    """Return the largest logit difference between the masked and the merged model. One of them is in memory at a time."""
    from peft import PeftModel

    def masked(dtype: torch.dtype) -> nn.Module:
        stock = checkpoint.load_model(base, dtype)
        loaded: nn.Module = PeftModel.from_pretrained(stock, adapter) if pat_config is None else PatModel.from_pretrained(stock, adapter)
        return loaded

    return gap_between(masked, merged, base)


def gap_to_zeroed(source: Path, kept_D: Tensor, pruned: Path) -> dict[str, Any]:
    """As the merge's gap, between `source` with its dropped channels held at zero and the pruned checkpoint."""

    def zeroed(dtype: torch.dtype) -> nn.Module:
        model = checkpoint.load_model(source, dtype)
        kept_channels_only(model, kept_D)
        return model

    return gap_between(zeroed, pruned, source)


def gap_between(load_reference: Any, stock: Path, source: Path) -> dict[str, Any]:
    """Return `logit_gap`, the dtype it was measured in, and the size of the reference's logits.

    Raises RuntimeError where fp32 checkpoints differ by more than rounding can explain: a merge that is wrong must not be used. Of
    weights that are stored in half precision, rounding explains percents of a logit, also where they are compared in fp32.
    """
    dtype = checkpoint.affordable_dtype(source)
    vocabulary = checkpoint.load_config(source).vocab_size
    tokens_BT = torch.randint(0, vocabulary, PROBE_SHAPE, generator=torch.Generator().manual_seed(0))
    expected_BTV = _logits(load_reference(dtype), tokens_BT)
    gap = (expected_BTV - _logits(checkpoint.load_model(stock, dtype), tokens_BT)).abs().max().item()
    scale = expected_BTV.abs().max().item()
    if dtype == checkpoint.dtype_of(source) == torch.float32 and gap > LARGEST_FP32_GAP * max(scale, 1.0):
        raise RuntimeError(f"{stock}: logits differ from the masked model's by {gap:.3g} (their size: {scale:.3g}); the merge is wrong")
    return {"logit_gap": gap, "logit_gap_dtype": str(dtype).removeprefix("torch."), "logit_size": scale}


@torch.no_grad()
def _logits(model: nn.Module, tokens_BT: Tensor) -> Tensor:
    logits: Tensor = model.eval()(input_ids=tokens_BT).logits
    return logits.float()


def _identity(folder: Path) -> dict[str, str]:
    """Return the checksums of a folder's weights: what was merged, wherever it lay. A manifest that is there has been checked."""
    there = (folder / artefacts.MANIFEST).is_file()
    listed = (artefacts.read_json(folder / artefacts.MANIFEST) if there else artefacts.manifest(folder))["files"]
    assert isinstance(listed, dict)
    return {name: entry["sha256"] for name, entry in listed.items() if name.endswith(".safetensors")}


def summary(record: dict[str, Any]) -> str:
    """Return one line on what a merge or a pruning did."""
    sizes, counts = record["hidden_size"], record["parameters"]
    gap = record["logit_gap"]
    return (
        f"ratio {record['ratio_requested']:.2%} requested, {record['ratio_effective']:.2%} effective; "
        f"width {sizes['before']} -> {sizes['after']}; "
        f"parameters {counts['before']['unique']:,} -> {counts['after']['unique']:,} "
        f"(without embeddings {counts['before']['without_embeddings']:,} -> {counts['after']['without_embeddings']:,}); "
        + ("logit gap not measured" if gap is None else f"logit gap {gap:.2e} ({record['logit_gap_dtype']})")
    )


def model_card(record: dict[str, Any], how: str, config: Any) -> str:
    """Return the README.md of a checkpoint: what it is, how to open it, its sizes."""
    opening = RESHAPED_CARD if isinstance(config, ReshapedConfig) else STOCK_CARD
    sizes, counts = record["hidden_size"], record["parameters"]
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [pruning-aware-tuning, structured-pruning]
---

# A {how} model

{opening}

| | before | after |
| --- | --- | --- |
| hidden size | {sizes["before"]} | {sizes["after"]} |
| parameters, each counted once | {counts["before"]["unique"]:,} | {counts["after"]["unique"]:,} |
| parameters without embedding and head | {counts["before"]["without_embeddings"]:,} | {counts["after"]["without_embeddings"]:,} |

Requested ratio {record["ratio_requested"]:.2%}, effective {record["ratio_effective"]:.2%}: a width is rounded to what stock software takes.
The logits differ by at most {record["logit_gap"]:.2e} ({record["logit_gap_dtype"]}) from the model this was made from.
The JSON file beside this card says which settings, code version and inputs made it.
""" + (f"\n{origin}\n" if (origin := origin_sentence(record.get("origin"))) else "")
