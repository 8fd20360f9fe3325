"""What a refit of writers takes, as told on paper: against what it really holds."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from pat.bases import writers
from pat.bases.writers import fitted_writes
from pat.families.known import family_of
from pat.models import layer_walk
from pat.models.held_stream import HeldStream
from pat.models.on_paper import PaperModel
from pat.models.writer_streams import LENGTH, ROWS, pinned_bytes, stream_bytes
from tests.kit.tiny_models import random_tokens, tiny_model


@pytest.mark.parametrize("name", ["llama", "llama-grouped-tied", "pythia", "opt"])
@pytest.mark.parametrize("kept", [None, range(0, 48, 2)])
def test_the_bytes_on_paper_are_those_that_are_held(name: str, kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[HeldStream] = []

    class Counted(HeldStream):
        def __init__(self, device: torch.device) -> None:
            super().__init__(device)
            held.append(self)

    for module in (layer_walk, writers):
        monkeypatch.setattr(module, "HeldStream", Counted)
    base: Any = tiny_model(name)
    pruned: Any = copy.deepcopy(base) if kept is None else narrowed(name, len(kept))
    list(fitted_writes(base, pruned, range(3), random_tokens(16, 24), 4, kept))
    found = sum(stream_BTD.nbytes for stream in held for stream_BTD in stream)
    assert found == stream_bytes(family_of(base.config), 16 * 24, 48, 4, 48 if kept is None else len(kept))


def narrowed(name: str, width: int) -> Any:
    """Return another model of the kind, of fewer channels."""
    config = copy.deepcopy(tiny_model(name).config)
    for key in ("hidden_size", "word_embed_proj_dim"):
        if hasattr(config, key):
            setattr(config, key, width)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("name", ["llama", "gemma", "qwen3", "phi3", "pythia", "opt"])
def test_the_writes_on_paper_are_those_of_the_model(name: str) -> None:
    model: Any = tiny_model(name)
    family, shapes = family_of(model.config), {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    of_each = [
        tuple(model.get_submodule(family.in_layer(layer, block.write)).weight.shape) for layer in range(3) for block in family.blocks
    ]
    paper = PaperModel.of_config(model.config, shapes)
    assert paper.writes() == of_each and paper.widest_write == max(inputs for _, inputs in of_each)


def test_memory_beside_a_gpu_is_had_in_powers_of_two() -> None:
    of_a_batch = ROWS * LENGTH * 4096 * 2
    assert pinned_bytes(7 * of_a_batch, 4096, 2) == 7 * 2**26
    assert pinned_bytes(7 * ROWS * LENGTH * 5120 * 2, 5120, 2) == 7 * 2**27
