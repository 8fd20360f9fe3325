"""ShortGPT: layers that do nothing go first, what is left computes what the base computes without them, sizes by formula."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, Qwen2Config

from pat.checkpoints import checkpoint
from pat.errors import UserError
from pat.families.known import family_of
from pat.io.artefacts import read_json
from pat.models.depth import layers_to_drop
from pat.pruners.pruning import prune
from pat.pruners.shortgpt import config_of_layers, share_of_a_layer
from tests.kit.pruning_inputs import calibration, write_base
from tests.kit.silent_layers import make_identity
from tests.kit.stock_models import reload
from tests.kit.tiny_models import CONFIGS, SHAPE, VOCABULARY, random_tokens, tiny_model


def layer_share(model: Any) -> float:
    """One layer's part of all parameters, each counted once."""
    layer = sum(parameter.numel() for parameter in model.model.layers[0].parameters())
    return float(layer / sum(parameter.numel() for parameter in model.parameters()))


def prune_tiny(name: str, folder: Path, dropped: int, model: Any = None) -> tuple[Any, dict[str, Any]]:
    """Return the pruned model as stock transformers opens it, and the record."""
    base = write_base(name, folder / "base", model)
    record = prune(folder / "base", "shortgpt", dropped * layer_share(base), "auto", folder / "pruned", calibration(folder))
    return reload(folder / "pruned"), record


@pytest.mark.lengthy
@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("name", CONFIGS)
def test_an_identity_layer_is_the_first_to_go_and_nothing_changes(name: str, layer: int, tmp_path: Path) -> None:
    model = tiny_model(name)
    make_identity(model, layer)
    stock, record = prune_tiny(name, tmp_path, 1, model)
    assert record["layers"]["dropped"] == [layer] and record["layers"]["influence"][layer] == pytest.approx(0, abs=1e-9)
    tokens = random_tokens(2, 12, seed=5)
    with torch.no_grad():
        assert (model(input_ids=tokens).logits - stock(input_ids=tokens).logits).abs().max() <= 1e-5
    assert read_json(tmp_path / "pruned" / "prune.json") == record


@pytest.mark.lengthy
@pytest.mark.parametrize("name", CONFIGS)
def test_pruned_equals_the_base_with_the_least_influential_layers_silent(name: str, tmp_path: Path) -> None:
    stock, record = prune_tiny(name, tmp_path, 2)
    layers = record["layers"]
    assert (layers["before"], layers["after"], stock.config.num_hidden_layers) == (3, 1, 1)
    influence = torch.tensor(layers["influence"])
    assert layers["dropped"] == sorted(influence.argsort()[:2].tolist())
    oracle = reload(tmp_path / "base")
    for layer in layers["dropped"]:
        make_identity(oracle, layer)
    tokens = random_tokens(2, 12, seed=5)
    with torch.no_grad():
        assert (oracle(input_ids=tokens).logits - stock(input_ids=tokens).logits).abs().max() <= 1e-5
    assert record["logit_gap"] <= 1e-5 and record["hidden_size"] == {"before": 48, "after": 48}
    generated = [
        stock.generate(tokens[:1], max_new_tokens=8, do_sample=False, eos_token_id=None, use_cache=cached) for cached in (True, False)
    ]
    assert torch.equal(*generated)


def test_shares_by_formula(tmp_path: Path) -> None:
    """Removed: (2n_q + 2n_kv)·h·d + 3·d·f + 2d a layer."""
    _, record = prune_tiny("llama-grouped-tied", tmp_path, 1)
    layer = (2 * 4 + 2 * 2) * 12 * 48 + 3 * 48 * 80 + 2 * 48
    counts = record["parameters"]
    assert counts["before"]["unique"] == VOCABULARY * 48 + 3 * layer + 48
    assert counts["after"]["unique"] == counts["before"]["unique"] - layer
    assert record["ratio_effective"] == pytest.approx(layer / counts["before"]["unique"], abs=1e-12)


@pytest.mark.parametrize("name", ["llama", "gemma", "qwen2-tied"])
def test_the_share_of_a_layer(name: str, tmp_path: Path) -> None:
    model = write_base(name, tmp_path)
    assert share_of_a_layer(tmp_path, family_of(model.config), model.config) == pytest.approx(layer_share(model), rel=1e-12)


@given(layers=st.integers(2, 80), share=st.floats(0.001, 0.3), ratio=st.floats(0.001, 0.999))
def test_no_other_number_of_layers_comes_nearer(layers: int, share: float, ratio: float) -> None:
    try:
        dropped = layers_to_drop(layers, share, ratio)
    except ValueError:
        assert ratio < share / 2 * (1 + 1e-9) or ratio > share * (layers - 0.5) * (1 - 1e-9)
    else:
        assert 1 <= dropped < layers
        assert all(abs(dropped * share - ratio) <= abs(other * share - ratio) + 1e-12 for other in range(layers))


def test_the_papers_numbers_of_layers() -> None:
    """Llama-2-7B: 6, 7, 8, 9 and 10 layers are 18, 21, 24, 27 and 30 % of its parameters."""
    share = (4 * 4096 * 4096 + 3 * 4096 * 11008 + 2 * 4096) / 6_738_415_616
    for percent, dropped in ((18.0, 6), (21.0, 7), (24.0, 8), (27.0, 9), (30.0, 10)):
        assert 100 * dropped * share == pytest.approx(percent, abs=0.05)
        assert layers_to_drop(32, share, percent / 100) == dropped
    assert [layers_to_drop(32, share, ratio) for ratio in (0.20, 0.25, 0.30)] == [7, 8, 10]


@pytest.mark.parametrize("wanted", [0.4, 2.6])
def test_no_layer_and_all_layers_are_refused_before_the_model_is_loaded(
    wanted: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_base("llama", tmp_path / "base")
    share = layer_share(model)
    monkeypatch.setattr(checkpoint, "load_to_measure", lambda *_: pytest.fail("measured before the ratio was checked"))
    least, most = math.ceil(500 * share) / 10, math.floor(2500 * share) / 10  # rounded to what is possible
    with pytest.raises(UserError, match=rf"is {round(wanted)} of 3, .* from {least:.1f}% to {most:.1f}%"):
        prune(tmp_path / "base", "shortgpt", wanted * share, "auto", tmp_path / "none", calibration(tmp_path))
    assert not (tmp_path / "none").exists()


def test_each_layer_keeps_its_kind_of_attention(tmp_path: Path) -> None:
    """Qwen2's layers can have sliding and full attention in one model."""
    config = Qwen2Config(**SHAPE, num_key_value_heads=2, use_sliding_window=True, sliding_window=4, max_window_layers=1)
    assert config_of_layers(config, [0, 2]).layer_types == ["full_attention", "sliding_attention"]
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config)
    make_identity(model, 0)
    stock, record = prune_tiny("qwen2", tmp_path, 1, model.eval())
    assert record["layers"]["dropped"] == [0] and set(stock.config.layer_types) == {"sliding_attention"}
    tokens = random_tokens(2, 12, seed=5)
    with torch.no_grad():
        assert (model(input_ids=tokens).logits - stock(input_ids=tokens).logits).abs().max() <= 1e-5
