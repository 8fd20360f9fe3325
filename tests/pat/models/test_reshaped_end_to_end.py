"""A reshaped model goes through the phases as a stock one does: pruned, tuned, merged and scored by lm-eval."""

from __future__ import annotations

from pathlib import Path

import pytest

from pat.checkpoints.merge import merge
from pat.data.calibration import Calibration
from pat.errors import UserError
from pat.io.artefacts import write_jsonl
from pat.pruners import PRUNERS
from pat.pruners.pruning import prune
from pat.settings.jobs import PruneSettings
from pat.training.tuning import tune
from tests.kit.evaluations import CPU, run
from tests.kit.stock_models import reload
from tests.kit.tiny_checkpoint import some_items, write_tiny_checkpoint
from tests.kit.tuning_requests import asked
from tests.kit.tunings import job

ROWS = [{"instruction": f"Say {number}.", "input": "", "output": str(number)} for number in range(12)]
EVERY_LAYER = PruneSettings(protect_first=0, protect_last=0)


def pruned(folder: Path, pruner: str) -> Path:
    """Write a tiny base and what the pruner leaves of it; return the latter."""
    if not (folder / "base").exists():
        write_tiny_checkpoint(folder / "base")
        write_jsonl(folder / "instruct.jsonl", ROWS)
    own = PRUNERS[pruner].effective(EVERY_LAYER)
    prune(folder / "base", pruner, 0.2, "auto", folder / pruner, Calibration(folder / "instruct.jsonl", tokens=300), own=own)
    return folder / pruner


@pytest.mark.lengthy
@pytest.mark.parametrize("pruner", ["llm-pruner", "slicegpt"])
def test_tuned_merged_and_scored(pruner: str, tmp_path: Path) -> None:
    base = pruned(tmp_path, pruner)
    recipe = job(max_steps=2, batch_size=4, gradient_checkpointing=True)
    record = tune(asked(base, tmp_path / "instruct.jsonl", "lora", 0.0, 0, recipe, tmp_path / "run", tmp_path / "adapter"))
    assert record["steps"] == 2
    assert merge(base, tmp_path / "adapter", tmp_path / "merged")["logit_gap"] <= 1e-4
    assert type(reload(tmp_path / "merged")).__name__ == "ReshapedForCausalLM"
    result, samples = run(tmp_path / "merged", tmp_path, CPU, some_items(4))
    assert len(samples) == 4 and result["perplexity"]["heldout"]["token_perplexity"] > 1
    with pytest.raises(UserError, match="PAT cannot narrow a reshaped model"):
        tune(asked(base, tmp_path / "instruct.jsonl", "pat", 0.25, 0, job(max_steps=6, batch_size=4), tmp_path / "run", tmp_path / "none"))


def test_without_protected_layers_it_scores_as_the_stock_model_does(tmp_path: Path) -> None:
    """The same weights in the reshaped and in the stock class."""
    found = [run(pruned(tmp_path, pruner), tmp_path, CPU, some_items(4))[1] for pruner in ("llm-pruner", "llm-pruner-uniform")]
    for one, other in zip(*found, strict=True):
        assert one["predictions"] == other["predictions"]
        assert one["log_likelihoods"] == pytest.approx(other["log_likelihoods"], abs=1e-4)
