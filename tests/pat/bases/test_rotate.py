"""`pat rotate`: a stock model that computes the same, and the guards around bases that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pat.bases.rotate import rotate
from pat.checkpoints import stored
from pat.checkpoints.basis_record import basis_of, check_basis
from pat.checkpoints.merge import merge
from pat.errors import UserError
from pat.io.artefacts import check_folder, read_json
from pat.training.tuning import tune
from tests.kit.pruning_inputs import calibration, write_base
from tests.kit.stock_models import reload
from tests.kit.tiny_models import random_tokens
from tests.kit.tiny_world import write_world
from tests.kit.tuning_requests import asked, twelve_steps

LEADING: dict[str, Any] = {"hio_rank": 0, "basis": "gradient", "mask": "leading", "closing": "at-once"}


@pytest.mark.parametrize("basis", ["pca", "gradient"])
@pytest.mark.parametrize("name", ["llama-grouped-tied", "gemma", "qwen3"])
def test_a_rotated_model_computes_the_same(name: str, basis: str, tmp_path: Path) -> None:
    model = write_base(name, tmp_path / "base")
    record = rotate(tmp_path / "base", basis, calibration(tmp_path), tmp_path / "rotated", tie="break")
    check_folder(tmp_path / "rotated")
    assert record == read_json(tmp_path / "rotated" / "rotation.json") and record["basis"] == basis_of(tmp_path / "rotated") == basis
    tokens = {"input_ids": random_tokens(3, 12, seed=9)}
    with torch.no_grad():
        assert (model(**tokens).logits - reload(tmp_path / "rotated")(**tokens).logits).abs().max() <= 1e-4
    assert list(record["captured"].values()) == sorted(record["captured"].values())
    assert record["parameters"]["after"]["without_embeddings"] == record["parameters"]["before"]["without_embeddings"]


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    write_base("llama", tmp_path / "base")
    for name in ("one", "other"):
        rotate(tmp_path / "base", "gradient", calibration(tmp_path), tmp_path / name)
    one, other = (path.read_bytes() for name in ("one", "other") for path in stored.shard_files(tmp_path / name))
    assert one == other


@pytest.mark.parametrize(("basis", "message"), [("pcb", "must be one of gradient, pca"), ("native", "must be one of gradient, pca")])
def test_an_unknown_basis_is_refused(basis: str, message: str, tmp_path: Path) -> None:
    write_base("llama", tmp_path / "base")
    with pytest.raises(UserError, match=message):
        rotate(tmp_path / "base", basis, calibration(tmp_path), tmp_path / "out")


def test_a_base_is_rotated_once(tmp_path: Path) -> None:
    write_base("llama", tmp_path / "base")
    rotate(tmp_path / "base", "pca", calibration(tmp_path), tmp_path / "rotated")
    with pytest.raises(UserError, match="is in the pca basis already"):
        rotate(tmp_path / "rotated", "gradient", calibration(tmp_path), tmp_path / "twice")
    with pytest.raises(UserError, match=r"is in the pca basis, pat\.basis is 'native'"):
        check_basis(tmp_path / "rotated", "native")


def test_pat_tunes_and_merges_in_the_gradient_basis_and_in_no_other(tmp_path: Path) -> None:
    _, data = write_world(tmp_path)
    base, rotated, adapter = tmp_path / "base", tmp_path / "rotated", tmp_path / "adapter"
    with pytest.raises(UserError, match="what `pat rotate --basis gradient` makes of it"):
        tune(asked(base, data, "pat", 0.5, 0, twelve_steps(**LEADING), tmp_path / "run", adapter))
    rotate(base, "gradient", calibration_of(data), rotated)
    with pytest.raises(UserError, match=r"is in the gradient basis, pat\.basis is 'native'"):
        tune(asked(rotated, data, "pat", 0.5, 0, twelve_steps(hio_rank=0), tmp_path / "run", adapter))
    tune(asked(rotated, data, "pat", 0.5, 0, twelve_steps(**LEADING), tmp_path / "run", adapter))
    with pytest.raises(UserError, match=r"is in the native basis, pat\.basis is 'gradient'"):
        merge(base, adapter, tmp_path / "wrong")
    record = merge(rotated, adapter, tmp_path / "merged")
    assert record["hidden_size"] == {"before": 32, "after": 16} and record["logit_gap"] <= 1e-4
    kept = reload(tmp_path / "merged").get_input_embeddings().weight
    leading = reload(rotated).get_input_embeddings().weight[:, :16] * 0.5**0.5  # the norms of half a stream divide by more
    assert torch.allclose(kept, leading, rtol=1e-5)


def calibration_of(data: Path) -> Any:
    from pat.data.calibration import Calibration

    return Calibration(data, tokens=400)
