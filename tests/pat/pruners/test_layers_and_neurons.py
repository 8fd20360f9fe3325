"""Layers and neurons: planted idle layers and neurons go, the rest computes what the base computes without them, sizes by formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from pat.checkpoints.budget import counted
from pat.data.calibration import Calibration
from pat.errors import SettingError, UserError
from pat.io.artefacts import read_json, write_jsonl
from pat.method.importance import text_loss
from pat.models.budget import layers_and_neurons_fit
from pat.models.depth import neurons_beside
from pat.models.on_paper import layers_and_neurons
from pat.pruners.depth_search import dropping_order, losses_without_each, mean_loss, without_layers
from pat.pruners.neurons import gated, neuron_information
from pat.pruners.pruning import prune
from pat.settings.jobs import PruneSettings
from tests.kit.pruning_inputs import WORDS, calibration, write_base
from tests.kit.silent_layers import make_identity
from tests.kit.stock_models import reload
from tests.kit.tiny_models import CONFIGS, random_tokens, tiny_model

LAYERS, NEURONS = 3, 80

PLAIN = PruneSettings(writers="plain")


def a_layer(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.model.layers[0].parameters())


def all_parameters(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def a_neuron(model: Any) -> int:
    """Parameters that one neuron of one layer has."""
    mlp = model.model.layers[0].mlp
    return int(sum(parameter.numel() for name, parameter in mlp.named_parameters() if name != "down_proj.bias") // NEURONS)


def silence_neurons(model: Any, kept: slice) -> None:
    """Let all neurons but some write nothing, in every layer."""
    with torch.no_grad():
        for layer in model.model.layers:
            away = torch.ones(NEURONS, dtype=torch.bool)
            away[kept] = False
            layer.mlp.down_proj.weight[:, away] = 0.0


def own_text(model: Any, folder: Path, rows: int = 24) -> Calibration:
    """Write text that the model itself has sampled: no other model foretells it better."""
    words = torch.arange(40, 3 + WORDS)  # the tokenizer takes w30 for its unknown word, w3, and a 0
    torch.manual_seed(0)
    ids_BT = words[torch.randint(len(words), (rows, 1))]
    past = None
    with torch.no_grad():
        for _ in range(126):  # with the end token a block of 128
            said = model(input_ids=ids_BT[:, -1:], past_key_values=past, use_cache=True)
            past = said.past_key_values
            ids_BT = torch.cat([ids_BT, words[torch.multinomial(said.logits[:, -1, words].softmax(-1), 1)]], dim=1)
    write_jsonl(folder / "own.jsonl", ({"text": " ".join(f"w{word}" for word in row)} for row in ids_BT.tolist()))
    return Calibration(folder / "own.jsonl", seed=0)


def batch(rows: int = 4, seed: int = 5) -> dict[str, torch.Tensor]:
    ids_BT = random_tokens(rows, 12, seed=seed)
    return {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT)}


@pytest.mark.lengthy
@pytest.mark.parametrize("name", [name for name in CONFIGS if not name.startswith("qwen2")])  # whose tokenizer class reads no words
def test_idle_layers_and_neurons_go_and_nothing_changes(name: str, tmp_path: Path) -> None:
    model: Any = tiny_model(name)
    make_identity(model, 1)
    silence_neurons(model, slice(16, 48))
    with torch.no_grad():
        model.model.norm.weight.mul_(4)  # so sure of its words that the loss of what it needs shows on little text
    base = write_base(name, tmp_path / "base", model)
    share = (a_layer(base) + 2 * 48 * a_neuron(base)) / all_parameters(base)
    record = prune(tmp_path / "base", "layers-and-neurons", share, 8, tmp_path / "pruned", own_text(model, tmp_path))
    stock = reload(tmp_path / "pruned")
    assert record["layers"] == {"before": LAYERS, "after": 2, "dropped": [1]}
    assert record["units"] == {"neurons": {"before": NEURONS, "after": 32}} and stock.config.intermediate_size == 32
    assert record["ratio_effective"] == pytest.approx(share, abs=1e-9)
    tokens = random_tokens(2, 12, seed=5)
    with torch.no_grad():
        assert (base(input_ids=tokens).logits - stock(input_ids=tokens).logits).abs().max() <= 1e-5
    generated = [
        stock.generate(tokens[:1], max_new_tokens=8, do_sample=False, eos_token_id=None, use_cache=cached) for cached in (True, False)
    ]
    assert torch.equal(*generated)
    assert read_json(tmp_path / "pruned" / "prune.json") == record


def test_the_combination_of_the_lowest_loss_is_taken(tmp_path: Path) -> None:
    base = write_base("llama", tmp_path / "base")
    share = 1.2 * a_layer(base) / all_parameters(base)
    record = prune(tmp_path / "base", "layers-and-neurons", share, 8, tmp_path / "pruned", calibration(tmp_path, tokens=600))
    tried = {entry["layers_dropped"]: entry["loss"] for entry in record["tried"]}
    assert sorted(tried) == [0, 1]
    assert len(record["layers"]["dropped"]) == min(tried, key=lambda dropped: tried[dropped])
    assert record["ratio_effective"] == pytest.approx(share, abs=0.02)


def test_layers_go_in_the_order_of_the_least_loss() -> None:
    """Against trying everything by hand: layers written as identities, whose output then is their input."""
    model: Any = tiny_model("llama").double()
    text = [batch(8)]

    def loss_without(gone: tuple[int, ...]) -> float:
        oracle: Any = tiny_model("llama").double()
        oracle.load_state_dict(model.state_dict())
        for layer in gone:
            make_identity(oracle, layer)
        with torch.no_grad():
            logits = oracle(input_ids=text[0]["input_ids"]).logits
        return float(cross_entropy(logits[:, :-1].flatten(0, 1), text[0]["input_ids"][:, 1:].flatten()))

    first = min(range(LAYERS), key=lambda layer: loss_without((layer,)))
    second = min((layer for layer in range(LAYERS) if layer != first), key=lambda layer: loss_without((first, layer)))
    assert dropping_order(model, text, 2) == [first, second]
    expected = loss_without((first, second))
    with without_layers(model, [first, second]):
        assert mean_loss(model, text) == pytest.approx(expected, abs=1e-6)
    assert mean_loss(model, text) == pytest.approx(loss_without(()), abs=1e-6)


@pytest.mark.parametrize("gone", [(), (1,)])
@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_what_lies_before_a_layer_need_not_be_computed_again(name: str, gone: tuple[int, ...]) -> None:
    """Bit for bit the loss of the model that is run from its embedding on, with the layer left out."""
    model: Any = tiny_model(name)
    text = batch(3)
    text["attention_mask"][1, 9:] = 0
    found = dict(losses_without_each(model, text, gone))
    assert list(found) == [layer for layer in range(LAYERS) if layer not in gone]
    for layer, loss in found.items():
        with without_layers(model, [*gone, layer]):
            assert loss == float(text_loss(model, text))


@pytest.mark.parametrize("name", ["llama", "qwen2-tied", "gemma"])
def test_a_neurons_information_is_the_square_of_what_its_gate_does_to_the_loss(name: str) -> None:
    """By central differences of every row's own loss."""
    model: Any = tiny_model(name).double()
    rows, step, layer = batch(3), 0.02, 1
    information = neuron_information(model, [rows], [layer])[layer]

    def losses(gate: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), gated(model, {layer: gate}):
            logits = model(input_ids=rows["input_ids"]).logits[:, :-1]
        each = cross_entropy(logits.transpose(1, 2), rows["input_ids"][:, 1:], reduction="none")
        return each.sum(1)

    for neuron in (0, 17, NEURONS - 1):
        nudge = torch.zeros(NEURONS, dtype=torch.float64)
        nudge[neuron] = step
        slope_B = (losses(1 + nudge) - losses(1 - nudge)) / (2 * step)
        assert information[neuron].item() == pytest.approx(slope_B.square().sum().item(), rel=0.02)


def test_sizes_by_formula() -> None:
    assert neurons_beside(wanted=0.0, of_a_neuron=10.0, neurons=80, step=8) == 80
    assert neurons_beside(wanted=480.0, of_a_neuron=10.0, neurons=80, step=8) == 32
    assert neurons_beside(wanted=470.0, of_a_neuron=10.0, neurons=80, step=8) == 32
    assert neurons_beside(wanted=-30.0, of_a_neuron=10.0, neurons=80, step=8) == 80
    assert neurons_beside(wanted=-50.0, of_a_neuron=10.0, neurons=80, step=8) is None
    assert neurons_beside(wanted=790.0, of_a_neuron=10.0, neurons=80, step=8) is None


def test_a_share_out_of_reach_is_refused(tmp_path: Path) -> None:
    base = write_base("llama", tmp_path / "base")
    reachable = LAYERS * a_layer(base) / all_parameters(base)
    with pytest.raises(UserError, match="layers and neurons hold too little of the model"):
        prune(tmp_path / "base", "layers-and-neurons", reachable + 0.01, "auto", tmp_path / "none", calibration(tmp_path, tokens=300))


@pytest.mark.parametrize("name", ["llama", "gemma"])
def test_what_a_share_comes_to_on_paper_is_what_the_pruner_tries(name: str, tmp_path: Path) -> None:
    """So that an experiment is told of one out of reach before anything is tuned; what is said to be possible is."""
    write_base(name, tmp_path / "base")
    paper, _ = counted(tmp_path / "base")
    for ratio in (0.1, 0.35):
        sizes = layers_and_neurons(paper, ratio, PLAIN, "auto")
        record = prune(
            tmp_path / "base", "layers-and-neurons", ratio, "auto", tmp_path / f"{ratio}", calibration(tmp_path, tokens=600), own=PLAIN
        )
        assert [(it["layers_dropped"], it["neurons"]) for it in record["tried"]] == list(sizes)
    with pytest.raises(SettingError, match=r"hold too little .* ratios up to (\d+\.\d)% are possible") as refused:
        layers_and_neurons(paper, 0.99, PLAIN, "auto")
    most = float(str(refused.value).split("up to ")[1].split("%")[0]) / 100
    assert layers_and_neurons(paper, most, PLAIN, "auto")
    with pytest.raises(SettingError, match="hold too little"):
        layers_and_neurons(paper, most + 0.002, PLAIN, "auto")
    with pytest.raises(SettingError, match="hold too little"):
        layers_and_neurons_fit(paper, round(paper.parameters * (1 - most - 0.002)), PLAIN, "auto")


def test_steps_longer_than_a_layer_are_named(tmp_path: Path) -> None:
    write_base("llama", tmp_path / "base")
    with pytest.raises(UserError, match="align=96: a layer keeps neurons in steps of 96, and has 80; lower it"):
        prune(tmp_path / "base", "layers-and-neurons", 0.3, 96, tmp_path / "none", calibration(tmp_path, tokens=300))


@pytest.mark.parametrize("tokens", [10, 129])  # one part, and a second one of a single token, which has none to predict
def test_text_too_short_to_judge_by_is_refused(tokens: int, tmp_path: Path) -> None:
    write_base("llama", tmp_path / "base")
    with pytest.raises(UserError, match="too few to measure on one part and judge by another"):
        prune(tmp_path / "base", "layers-and-neurons", 0.3, "auto", tmp_path / "none", calibration(tmp_path, tokens=tokens), own=PLAIN)
