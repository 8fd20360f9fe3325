"""What is written says how positions turn in the fields of transformers 5 and in those of 4.x, and both mean the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pruning_inputs import calibration, word_tokenizer
from safetensors.torch import load_file, save_file
from tiny_models import CONFIGS, SHAPE, random_tokens, tiny_model
from training import trained
from transformers import AutoConfig, LlamaConfig

from pat.bases.refit import refit_readers
from pat.bases.rotate import rotate
from pat.checkpoints.checkpoint import import_model, load_model
from pat.checkpoints.merge import merge
from pat.checkpoints.rope_fields import write_both_ways
from pat.pruners.pruning import prune

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


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", KINDS)
def test_both_generations_read_the_same(kind: str, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = write(tmp_path, monkeypatch, KINDS[kind])
    VERBS[verb](tmp_path, tmp_path / "out")
    record = json.loads((tmp_path / "out" / "config.json").read_text())
    assert record["rope_theta"] == KINDS[kind]["rope_theta"]
    if kind == "theta":
        assert record["rope_scaling"] is None
    else:
        assert record["rope_scaling"] == {name: value for name, value in KINDS[kind].items() if name != "rope_theta"}
    assert AutoConfig.from_pretrained(tmp_path / "out").rope_parameters == expected
    # Without what only transformers 5 knows, the rest must say it all.
    (tmp_path / "out" / "config.json").write_text(json.dumps({name: it for name, it in record.items() if name != "rope_parameters"}))
    assert AutoConfig.from_pretrained(tmp_path / "out").rope_parameters == expected


def test_a_config_that_says_it_in_its_own_way_stays_as_it_is(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"rope_theta": 1e6, "rope_scaling": None}, {"rope_parameters": {"full_attention": {}}}, {"model_type": "llama"},
    ]  # fmt: skip
    for record in records:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(record))
        write_both_ways(tmp_path)
        assert json.loads(path.read_text()) == record


def test_frequencies_of_old_checkpoints_are_passed_over(tmp_path: Path) -> None:
    model = trained("llama")
    tiny_model("llama").save_pretrained(tmp_path / "base")
    model.save_pretrained(str(tmp_path / "adapter"))
    path = tmp_path / "base" / "model.safetensors"
    old = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(6) for layer in range(3)}
    save_file(load_file(path) | old, path, metadata={"format": "pt"})
    merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
    tokens = random_tokens()
    with torch.no_grad():
        expected, found = model(input_ids=tokens).logits, load_model(tmp_path / "merged")(input_ids=tokens).logits
    assert (expected - found).abs().max() <= 1e-4
    assert not any("inv_freq" in name for name in load_file(tmp_path / "merged" / "model.safetensors"))
