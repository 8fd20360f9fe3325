"""The recipes of the paper's experiments: what the paper prints of them follows from the files."""

from __future__ import annotations

import pytest

from pat.benchmark.settings import KNOWN_SHAPES
from pat.settings.config import PatConfig
from pat.training.request import Arm
from study.experiment.file import load_experiment
from study.experiment.schema import Experiment
from tests.kit.project import ROOT

CONFIG = ROOT / "config"
PAPERS = ("paper", "efficiency", "ablation", "downstream")


def experiment(name: str) -> Experiment:
    return load_experiment(CONFIG / f"{name}.yaml", name)


def mask_of(name: str, row: str, model: str = "llama2-7b") -> PatConfig:
    return Arm(tuner="pat", ratio=0.25, seed=42, job=experiment(name).tune_job(model, row)).pat_config


@pytest.mark.parametrize("name", PAPERS)
def test_all_rows_take_lora_steps_of_one_size(name: str) -> None:
    """An alpha that stays where the rank changes makes another step of the same rate."""
    found = experiment(name)
    jobs = [found.tune_job(model, row).tuning.lora for model in found.models for row in found.methods]
    assert {round(lora.alpha / lora.rank, 6) for lora in jobs} == {0.2}


@pytest.mark.parametrize("name", PAPERS)
def test_the_row_pat_is_the_papers_recipe(name: str) -> None:
    found = experiment(name).tune_job("llama2-7b", "pat")
    mask = mask_of(name, "pat")
    assert (found.tuning.learning_rate, found.tuning.schedule, found.tuning.max_grad_norm) == (5e-5, "cosine", 0.3)
    assert (found.tuning.epochs, found.tuning.batch_size, found.tuning.max_length, found.tuning.warmup_steps) == (3, 128, 256, 100)
    assert (mask.hio_rank, mask.lora_rank, mask.lora_alpha, mask.operators) == (200, 20, 4.0, "free")
    assert (mask.variant, mask.mask, mask.keeps_count, mask.learning) == ("paper", "trained", "loss", "adam")
    assert mask.mask_follows_recipe
    planned = PatConfig(pruning_ratio=0.25, count="loss", decide_fraction=mask.decide_fraction, total_steps=24_000)
    assert planned.milestone_step == planned.decide_step == 8000
    assert (mask.weight_of_identity, mask.active_weight) == (1.0, 1.0)


@pytest.mark.parametrize(("name", "row"), [("paper", "pat-our-mask"), ("ablation", "pat-our-mask"), ("ablation", "pat-release")])
def test_other_rows_say_what_they_have_by_defaults_of_their_own(name: str, row: str) -> None:
    mask, paper = mask_of(name, row), mask_of(name, "pat")
    assert mask.decide_fraction is None and paper.decide_fraction == 1.0
    assert mask.mask_follows_recipe == (row == "pat-release") and mask.learning == ("adam" if row == "pat-release" else "saliency")
    assert mask.keeps_count == ("loss" if row == "pat-release" else "centre")


def trainable_share(lora_rank: int, hio_rank: int | str) -> float:
    """Return the share of Llama-2-7B's parameters and its own that a row of figure 4 trains."""
    shape = KNOWN_SHAPES["llama-2-7b"]
    hidden, inner, layers, words = shape.hidden_size, shape.intermediate_size, shape.layers, shape.vocab_size
    base = 2 * words * hidden + layers * (4 * hidden**2 + 3 * hidden * inner + 2 * hidden) + hidden
    lora = layers * lora_rank * (4 * 2 * hidden + 3 * (hidden + inner))
    operators = (2 * layers + 1) * (hidden**2 if hio_rank == "dense" else 2 * hidden * int(hio_rank) + int(hio_rank))
    return (lora + operators) / (base + lora + operators)


def test_figure_4_has_the_papers_ranks_and_shares() -> None:
    found = experiment("efficiency")
    jobs = [found.tune_job("llama2-7b", row) for row, method in found.methods.items() if found.method(row).tuner == "pat"]
    pairs = [(job.pat.hio_rank, job.tuning.lora.rank) for job in jobs]
    assert pairs == [(8, 8), (200, 20), (512, 16), (1024, 32), (2048, 64), ("dense", 8)]
    assert f"{trainable_share(8, 'dense'):.2%}" == "14.15%" and f"{trainable_share(8, 8):.2%}" == "0.36%"  # as printed
