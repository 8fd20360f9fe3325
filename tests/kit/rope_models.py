"""Models with every kind of rotary scaling, and the verbs that write models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, LlamaConfig

from pat.bases.refit import refit_readers
from pat.bases.rotate import rotate
from pat.checkpoints.checkpoint import import_model
from pat.checkpoints.merge import merge
from pat.pruners.pruning import prune
from tests.kit.pruning_inputs import calibration, word_tokenizer
from tests.kit.tiny_models import CONFIGS, SHAPE, tiny_model
from tests.kit.training import trained

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
KINDS: dict[str, dict[str, Any]] = {
    "theta": {"rope_type": "default", "rope_theta": 500_000.0},
    "llama3": LLAMA3 | {"rope_theta": 500_000.0},
    "linear": {"rope_type": "linear", "factor": 2.0, "rope_theta": 20_000.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 10_000.0},
}
VERBS: dict[str, Callable[[Path, Path], Any]] = {
    "merge": lambda folder, out: merge(folder / "base", folder / "adapter", out),
    "prune": lambda folder, out: prune(folder / "base", "channel-magnitude", 0.25, 4, out),
    "rotate": lambda folder, out: rotate(folder / "base", "pca", calibration(folder), out),
    "refit": lambda folder, out: refit_readers(folder / "base", "magnitude", 0.25, 4, calibration(folder), out),
    "import": lambda folder, out: import_model(folder / "base", out),
}


def write(folder: Path, monkeypatch: pytest.MonkeyPatch, parameters: dict[str, Any]) -> Any:
    """Write base, adapter and text; return the base's rope parameters as transformers reads them."""
    monkeypatch.setitem(CONFIGS, "llama-turned", lambda: LlamaConfig(**SHAPE, rope_parameters=dict(parameters)))
    tiny_model("llama-turned").save_pretrained(folder / "base")
    word_tokenizer().save_pretrained(folder / "base")
    trained("llama-turned").save_pretrained(str(folder / "adapter"))
    return AutoConfig.from_pretrained(folder / "base").rope_parameters
