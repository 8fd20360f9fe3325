"""The merge's law without rounding: in float64 the merged model computes what the masked one does to the last digits, in memory and on disk.

A bound in float32 cannot tell a small mistake from rounding; here both are ten orders apart. What transformers itself does in float32
whatever the model's precision, its norms and Gemma's factor of the embedding, is put in float64 on both sides.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pat.checkpoints.merge import merge
from tests.kit.stock_models import reload
from tests.kit.tiny_models import CONFIGS, random_tokens, tiny_model
from tests.kit.training import trained

LAST_DIGITS = 1e-13
"""Of logits of order one, after three layers."""
KINDS: dict[str, dict[str, Any]] = {
    "low-rank": {},
    "dense": {"hio_rank": "dense"},
    "release": {"variant": "release"},
    "mask alone": {"hio_rank": 0},
    "dora": {"use_dora": True},
}


class WideNorm(nn.Module):
    """A stock RMS norm, all of it in the precision of its input."""

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.weight = stock.weight
        self.eps = getattr(stock, "variance_epsilon", None) or stock.eps
        self.offset = 1.0 if type(stock).__name__.startswith("Gemma") else 0.0

    def forward(self, x_BTD: Tensor) -> Tensor:
        gain_D: Tensor = self.offset + self.weight
        found_BTD: Tensor = x_BTD * (x_BTD.square().mean(-1, keepdim=True) + self.eps).rsqrt() * gain_D
        return found_BTD


def wide(model: Any) -> Any:
    """Put a model into float64 throughout."""
    model.double()
    for name, module in list(model.named_modules()):
        if type(module).__name__.endswith("RMSNorm"):
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, WideNorm(module))
        elif hasattr(module, "scalar_embed_scale"):
            module.embed_scale = torch.tensor(module.scalar_embed_scale, dtype=torch.float64)
    return model.eval()


@torch.no_grad()
def logits(model: Any) -> Tensor:
    found: Tensor = model(input_ids=random_tokens(3, 12, seed=99)).logits
    assert found.dtype == torch.float64
    return found


@pytest.mark.lengthy
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CONFIGS)
def test_merged_in_memory_equals_masked_to_the_last_digits(name: str, kind: str) -> None:
    model = trained(name, **KINDS[kind])
    model.double()
    expected, merged = logits(wide(model)), model.merge_and_unload()
    assert merged.config.hidden_size == 36 and expected.std() > 0.05
    assert (expected - logits(wide(merged))).abs().max() <= LAST_DIGITS


@pytest.mark.parametrize("name", ["llama-grouped", "gemma", "qwen3-tied"])
def test_merged_on_disk_equals_masked_to_the_last_digits(name: str, tmp_path: Path) -> None:
    model, base = trained(name), tiny_model(name)
    base.double().save_pretrained(tmp_path / "base")
    model.double()
    model.save_pretrained(str(tmp_path / "adapter"))
    merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
    assert (logits(wide(model)) - logits(wide(reload(tmp_path / "merged")))).abs().max() <= LAST_DIGITS


def test_a_mistake_of_a_billionth_is_seen() -> None:
    """Guards the test itself: a gain that is off by 1e-9 of itself is far outside the bound."""
    model = trained("llama-grouped")
    model.double()
    expected, merged = logits(wide(model)), wide(model.merge_and_unload())
    with torch.no_grad():
        merged.model.norm.weight.mul_(1 + 1e-9)
    assert (expected - logits(merged)).abs().max() > 100 * LAST_DIGITS
