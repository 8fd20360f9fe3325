"""What is measured and fitted on text takes no more of a GPU for a longer text: `make test-gpu`.

PAT_TESTS_DEVICE=cpu tries the tests themselves where there is none; they then measure nothing.
"""

from __future__ import annotations

import copy
import gc
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from pat.bases import gradient_basis, text_gap
from pat.bases.readers import fit_to_pruned, fit_to_unpruned
from pat.bases.tied_scaling import tied_scaling
from pat.bases.writers import fitted_writes
from pat.data.calibration import Blocks
from pat.families.known import Kind, family_of
from pat.method.importance import fisher, gradient_batches
from pat.models.second_moment import second_moment
from pat.models.sizes import Units
from pat.pruners.activations import block_influence, channel_activations, input_norms
from pat.pruners.depth_search import dropping_order
from pat.pruners.neurons import neuron_information
from pat.pruners.slicegpt import block_bases
from pat.pruners.taylor import unit_scores

pytestmark = pytest.mark.gpu

DEVICE = "cpu" if os.environ.get("PAT_TESTS_DEVICE") == "cpu" else "cuda"
LAYERS, HIDDEN, TOKENS, ROWS = 3, 128, 256, 32
STREAM_OF_A_BATCH = ROWS * TOKENS * HIDDEN * 4  # bytes; blocks come in batches of 8192 tokens
UNITS: dict[Kind, Units] = {"groups": Units(4, 0), "neurons": Units(192, 0)}
KEPT = torch.arange(HIDDEN) % 4 > 0


def a_model(seed: int = 0) -> Any:
    """Return a model whose layers are given a mask (B, 1, T, T): with this attention, and a padded row in each batch."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=256, hidden_size=HIDDEN, intermediate_size=192, num_hidden_layers=LAYERS, num_attention_heads=4,
        max_position_embeddings=TOKENS, tie_word_embeddings=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return model.to(DEVICE).eval()


def a_text(batches: int) -> Blocks:
    ids_NT = torch.randint(3, 256, (batches * ROWS, TOKENS), generator=torch.Generator().manual_seed(1))
    mask_NT = torch.ones_like(ids_NT)
    mask_NT[::ROWS, -1] = 0
    return Blocks(ids_NT, mask_NT)


def refit_writers(model: Any, text: Blocks) -> None:
    assert len(list(fitted_writes(model, a_model(seed=1), range(LAYERS), text.ids_NT, ROWS))) == 2 * LAYERS


def compare(model: Any, text: Blocks) -> None:
    text_gap.text_gap(text_gap.said(model, text), text_gap.said(a_model(seed=1), text))


MEASURED: dict[str, Callable[[Any, Blocks], object]] = {
    "writers": refit_writers,
    "readers": lambda model, text: fit_to_pruned(model, text.batches(), KEPT),
    "readers of the unpruned stream": lambda model, text: fit_to_unpruned(model, text.batches(), KEPT),
    "text gap": compare,
    "SliceGPT": lambda model, text: block_bases(model, text.batches(), 96),
    "second moment": lambda model, text: second_moment(model, text.batches()),
    "gradient basis": lambda model, text: gradient_basis.moments(model, gradient_batches(text)),
    "tied scaling": lambda model, text: tied_scaling(model, text.batches),
    "Fisher": lambda model, text: fisher(model, gradient_batches(text)),
    "ShortGPT": lambda model, text: block_influence(model, text.batches()),
    "Minitron": lambda model, text: channel_activations(model, text.batches()),
    "Wanda": lambda model, text: input_norms(model, text.batches(), family_of(model.config).writes(LAYERS)[1:]),
    "LLM-Pruner": lambda model, text: unit_scores(model, list(text.batches()), UNITS, range(LAYERS)),
    "layers": lambda model, text: dropping_order(model, list(text.batches()), 1),
    "neurons": lambda model, text: neuron_information(model, list(gradient_batches(text)), range(LAYERS)),
}


def peak_bytes(measure: Callable[[Any, Blocks], object], text: Blocks) -> int:
    """Return the most memory of the GPU that a measurement takes beside the model."""
    gc.collect()
    model = a_model()
    if DEVICE == "cpu":
        measure(model, text)
        return 0
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    measure(model, text)
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("name", MEASURED)
def test_a_text_four_times_as_long_takes_no_more_of_the_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_gap, "LOGITS_AT_ONCE", 2**18)  # a large part of them would be this whole text
    peak_bytes(MEASURED[name], a_text(2))  # libraries take what they need for themselves
    short, long = (peak_bytes(MEASURED[name], a_text(batches)) for batches in (2, 8))
    assert long - short < STREAM_OF_A_BATCH, f"{(long - short) / STREAM_OF_A_BATCH:.2f} times the stream of a batch"


def test_writers_are_refitted_on_a_gpu_as_on_a_cpu() -> None:
    def errors(device: str) -> list[tuple[float, float]]:
        whole, cut = a_model().to(device), copy.deepcopy(a_model()).to(device)
        with torch.no_grad():
            for layer in cut.model.layers:
                layer.mlp.down_proj.weight[:, ::4] = 0.0
        return [(fit.error_plain, fit.error) for fit in fitted_writes(whole, cut, range(LAYERS), a_text(8).ids_NT, ROWS)]

    found, expected = errors(DEVICE), errors("cpu")
    assert sum(error for _, error in expected) < sum(plain for plain, _ in expected)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=0.02, abs=1e-6)
