"""Fisher pruning of channels: exactness against zeroed channels, the same set as PAT's fixed mask of that name, what it needs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pat import PatConfig, attach
from pat.checkpoints import checkpoint
from pat.data.calibration import blocks_for
from pat.io.artefacts import read_json
from pat.models.masked import kept_channels_only
from pat.pruners.pruning import prune
from tests.kit.pruning_inputs import calibration, write_base
from tests.kit.stock_models import reload
from tests.kit.tiny_models import random_tokens


@pytest.mark.parametrize("name", ["llama", "gemma", "qwen3-tied"])
def test_pruned_equals_the_base_with_the_other_channels_of_the_fisher_mask_at_zero(name: str, tmp_path: Path) -> None:
    write_base(name, tmp_path / "base")
    record = prune(tmp_path / "base", "channel-fisher", 0.5, "auto", tmp_path / "pruned", calibration(tmp_path))
    oracle = reload(tmp_path / "base")
    text = blocks_for(oracle.config, calibration(tmp_path), checkpoint.load_tokenizer(tmp_path / "base"))
    masked = attach(
        reload(tmp_path / "base"), PatConfig(pruning_ratio=0.5, mask="fisher", closing="at-once", hio_rank=0, lora_rank=2), text
    )
    kept_D = masked.sparsifier.mask.kept
    assert int(kept_D.sum()) == 24
    kept_channels_only(oracle, kept_D)
    tokens = random_tokens()
    with torch.no_grad():
        gap = (oracle(input_ids=tokens).logits - reload(tmp_path / "pruned")(input_ids=tokens).logits).abs().max()
    assert gap <= 1e-4 and record["hidden_size"] == {"before": 48, "after": 24}
    assert read_json(tmp_path / "pruned" / "prune.json") == record
