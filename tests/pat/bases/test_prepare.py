"""PAT-G in two verbs or two calls: a base rotated and refitted in one go, then tuned under its own name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from pat import PatConfig, attach, prepare_base
from pat.bases.refit import refit_readers
from pat.bases.rotate import rotate
from pat.checkpoints.basis_record import basis_of
from pat.checkpoints.checkpoint import load_model
from pat.checkpoints.merge import merge
from pat.checkpoints.readers_record import readers_of
from pat.cli import app
from pat.data.calibration import Calibration
from pat.errors import UserError
from pat.settings.jobs import TuneJob
from pat.training.tuning import tune
from tests.kit.pruning_inputs import write_base
from tests.kit.tiny_world import write_world
from tests.kit.tuning_requests import asked

RECIPE: dict[str, Any] = {"max_steps": 6, "learning_rate": 3e-3, "batch_size": 4, "device": "cpu", "lora": {"rank": 2, "alpha": 4.0}}


def job(pat: dict[str, Any] | None = None) -> TuneJob:
    return TuneJob.model_validate({"tuning": RECIPE, "pat": pat or {}})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, its instruction set, and the base prepared for a ratio of 0.25."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    prepare_base(folder / "base", 0.25, Calibration(folder / "instruct.jsonl"), folder / "prepared")
    return folder


def test_one_call_makes_what_rotating_and_refitting_make(world: Path, tmp_path: Path) -> None:
    text = Calibration(world / "instruct.jsonl")
    rotate(world / "base", "gradient", text, tmp_path / "rotated")
    refit_readers(tmp_path / "rotated", "leading", 0.25, "auto", text, tmp_path / "refitted")
    assert load_file(world / "prepared" / "model.safetensors").keys() == load_file(tmp_path / "refitted" / "model.safetensors").keys()
    for name, tensor in load_file(world / "prepared" / "model.safetensors").items():
        assert torch.equal(tensor, load_file(tmp_path / "refitted" / "model.safetensors")[name]), name
    assert (basis_of(world / "prepared"), readers_of(world / "prepared")) == ("gradient", "least-squares")
    assert sorted(path.name for path in world.iterdir()) == ["base", "instruct.jsonl", "prepared"]  # nothing is left between


def test_the_command_line_does_the_same(world: Path, tmp_path: Path) -> None:
    arguments = [
        "prepare",
        "--base",
        world / "base",
        "--ratio",
        "0.25",
        "--calibration",
        world / "instruct.jsonl",
        "--out",
        tmp_path / "out",
    ]
    said = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert said.exit_code == 0, said.output
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (world / "prepared" / "model.safetensors").read_bytes()


def test_the_tuner_of_that_name_tunes_and_merges_it(world: Path, tmp_path: Path) -> None:
    record = tune(asked(world / "prepared", world / "instruct.jsonl", "pat-g", 0.25, 0, job(), tmp_path / "run", tmp_path / "adapter"))
    assert record["width"] == 24
    config = PatConfig.load(tmp_path / "adapter")
    assert (config.basis, config.mask, config.closing, config.readers, config.hio_rank) == (
        "gradient", "leading", "at-once", "least-squares", 0,
    )  # fmt: skip
    merged = merge(world / "prepared", tmp_path / "adapter", tmp_path / "merged")
    assert merged["hidden_size"]["after"] == 24


def test_what_the_settings_say_wins(world: Path, tmp_path: Path) -> None:
    tune(
        asked(world / "prepared", world / "instruct.jsonl", "pat-g", 0.25, 0, job({"hio_rank": 2}), tmp_path / "run", tmp_path / "adapter")
    )
    config = PatConfig.load(tmp_path / "adapter")
    assert (config.hio_rank, config.mask) == (2, "leading")


def test_a_base_that_is_not_prepared_is_told_how(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"give what `pat prepare --base MODEL --ratio 0.25 --calibration TEXT --out PREPARED` writes"):
        tune(asked(world / "base", world / "instruct.jsonl", "pat-g", 0.25, 0, job(), tmp_path / "run", tmp_path / "adapter"))


@pytest.mark.parametrize("name", ["opt", "gemma2"])
def test_of_a_base_that_cannot_be_prepared_it_is_told_why_and_not_how(name: str, tmp_path: Path) -> None:
    write_base(name, tmp_path / "base")
    with pytest.raises(UserError, match=r"--tuner pat-g with --base \S+: is not possible: .*(norm|heads of another size)"):
        tune(asked(tmp_path / "base", tmp_path / "none.jsonl", "pat-g", 0.25, 0, job(), tmp_path / "run", tmp_path / "adapter"))


@pytest.mark.parametrize(
    ("ratio", "out", "said"),
    [
        (0.999, "out", "pruning ratio 0.999: the nearest width .* nothing stays"),
        (0.0, "out", "--ratio 0: no channel goes"),
        (0.25, "instruct.jsonl", "is not a folder|is a file"),
    ],
)
def test_what_the_refit_would_refuse_is_told_before_the_rotation(
    ratio: float, out: str, said: str, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_yet(*_arguments: object) -> None:
        raise AssertionError("a rotation may take hours")

    monkeypatch.setattr("pat.bases.prepare.rotate", not_yet)
    with pytest.raises(UserError, match=said):
        prepare_base(world / "base", ratio, Calibration(world / "instruct.jsonl"), world / out)
    assert (world / "instruct.jsonl").is_file() and not (world / "out").exists()


def test_in_python(world: Path) -> None:
    record = prepare_base(world / "base", 0.25, Calibration(world / "instruct.jsonl"), world.parent / "in-python")
    config = PatConfig.pat_g(0.25, lora_rank=2)
    model = attach(load_model(world.parent / "in-python", torch.float32), config, kept=record["kept"])
    assert model.width == 24 and model.sparsifier.mask.kept.nonzero().flatten().tolist() == record["kept"]
    assert PatConfig.pat_g(0.25, hio_rank=4).hio_rank == 4
