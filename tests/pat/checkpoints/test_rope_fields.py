"""What is written says how positions turn in the fields of transformers 5 and in those of 4.x, and both mean the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from pat.checkpoints.checkpoint import load_model
from pat.checkpoints.merge import merge
from pat.checkpoints.rope_fields import write_both_ways
from tests.kit.rope_models import KINDS, VERBS, write
from tests.kit.tiny_models import random_tokens, tiny_model
from tests.kit.training import trained


@pytest.mark.lengthy
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
