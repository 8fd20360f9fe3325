"""The laws of a family whose names nobody has seen, whose blocks read side by side and whose projections are fused (plugins/tern.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from pat import PatConfig, attach
from pat.bases.refit import refit_readers
from pat.bases.rotate import rotate
from pat.checkpoints.merge import merge
from pat.errors import UserError
from pat.families.known import FAMILIES, family_of
from pat.io import plugins
from pat.models.stream import enter, written_by
from pat.pruners import PRUNERS
from pat.pruners.pruning import prune
from pat.settings.jobs import PruneSettings
from tests.kit.project import ROOT
from tests.kit.pruning_inputs import calibration, word_tokenizer
from tests.kit.stock_models import reload
from tests.kit.tiny_models import logits, random_tokens
from tests.kit.training import random_text

EXACT = 1e-4
REFUSED = {"slicegpt": "read the stream side by side", "llm-pruner": "look.ask is query, key, value in one"}


@pytest.fixture(scope="module", autouse=True)
def _tern() -> Iterator[None]:
    """The plugin, for the tests of this file alone."""
    plugins.load([str(ROOT / "tests" / "plugins" / "tern.py")])
    yield
    del FAMILIES["tern"], PRUNERS["last-channels"]


def tern(*, tied: bool = False) -> Any:
    generator = torch.Generator().manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model("tern", tie_word_embeddings=tied))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.15 if parameter.dim() == 2 else 0.4))
    return model.eval()


def written(folder: Path, *, tied: bool = False) -> Path:
    tern(tied=tied).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


def test_its_stream_is_walked_as_the_model_walks_it() -> None:
    model, ids = tern(), random_tokens()
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    behind: list[Tensor] = []
    for floor in model.trunk.floors:
        floor.register_forward_hook(lambda _floor, _inputs, output: behind.append(output))
    family = family_of(model.config)
    with torch.no_grad():
        [stream] = enter(model, [batch])
        for place, floor in enumerate(model.trunk.floors):
            for index, block in enumerate(family.blocks):
                stream.take_up(written_by(block, model, floor, stream.x_BTD, stream.beside[place][index]), parallel=family.parallel)
            stream.end_layer()
            assert torch.allclose(stream.x_BTD, behind[place], atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_its_merge_is_exact(tied: bool, tmp_path: Path) -> None:
    model = attach(tern(tied=tied), PatConfig(pruning_ratio=0.25, hio_rank=5, lora_rank=3, total_steps=12), random_text())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and not name.endswith("mask.proxy"):
                parameter.add_(0.1 * torch.randn_like(parameter))
    while not model.sparsifier.mask.finished:
        model.advance()
    model.eval().save_pretrained(str(tmp_path / "adapter"))
    record = merge(written(tmp_path / "base", tied=tied), tmp_path / "adapter", tmp_path / "merged")
    stock, tokens = reload(tmp_path / "merged"), random_tokens(3, 12, seed=9)
    assert (logits(model, tokens) - logits(stock, tokens)).abs().max() <= EXACT and record["logit_gap"] <= EXACT
    settings = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    made = [each.generate(input_ids=tokens[:1], use_cache=cache, **settings) for each in (model, stock) for cache in (True, False)]
    assert all(torch.equal(made[0], other) for other in made[1:])


def test_it_is_rotated_and_its_readers_are_refitted(tmp_path: Path) -> None:
    text = calibration(tmp_path, 4000)
    record = rotate(written(tmp_path / "base"), "gradient", text, tmp_path / "rotated")
    tokens = random_tokens()
    assert (logits(tern(), tokens) - logits(reload(tmp_path / "rotated"), tokens)).abs().max() <= EXACT and record["logit_gap"] <= EXACT
    record = refit_readers(tmp_path / "rotated", "leading", 0.25, 1, text, tmp_path / "refitted")
    assert record["logit_gap"] <= EXACT and len(record["error"]) == 2 * 3 + 1
    assert all(error["least-squares"] <= error["plain"] for error in record["error"].values())


@pytest.mark.parametrize("pruner", PRUNERS)
def test_every_pruner_takes_it_or_says_why_not(pruner: str, tmp_path: Path) -> None:
    """Fused rows too: the record's gap is between the model with what goes held at zero and the checkpoint without it."""
    base, text = written(tmp_path / "base"), calibration(tmp_path, 4000)
    own = PRUNERS[pruner].effective(PruneSettings(writers="plain"))
    if pruner in REFUSED:
        with pytest.raises(UserError, match=REFUSED[pruner]):
            prune(base, pruner, 0.25, "auto", tmp_path / "out", text, own=own)
        return
    record = prune(base, pruner, 0.25, "auto", tmp_path / "out", text, own=own)
    assert record["logit_gap"] <= EXACT and record["removed"] > 0
    assert reload(tmp_path / "out").config.model_type == "tern"


def test_the_plugins_own_pruner_does_what_it_says(tmp_path: Path) -> None:
    prune(written(tmp_path / "base"), "last-channels", 0.25, "auto", tmp_path / "out")
    kept = reload(tmp_path / "out").trunk.words.weight
    assert torch.allclose(kept, tern().trunk.words.weight[:, 12:] * (36 / 48) ** 0.5, atol=1e-6)
