"""Tunings by two processes in shards beside those by one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pat.io.artefacts import read_json
from pat.machine.several import ON_THIS_MACHINE
from tests.kit.children import HANGS_AFTER_S
from tests.kit.forked import forks
from tests.kit.project import ROOT
from tests.kit.tiny_world import write_world

PROGRAM = ("-m", "tests.kit.sharded_tunings")
ONE = (sys.executable, *PROGRAM)
TWO = (sys.executable, "-m", "torch.distributed.run", *ON_THIS_MACHINE, "--nproc-per-node", "2", *PROGRAM)
FIGURES = {"loss", "instruct_loss", "distillation_loss", "identity_loss", "grad_norm", "mask_mean", "proxy_std"}


def tune_all(folder: Path, device: str, gpus: Sequence[str]) -> str:
    """Train every case in `folder` by two processes on the GPUs, in shards, and by one on the first; return what the two said."""
    write_world(folder / "other", seed=1)
    (folder / "other" / "base").rename(folder / "teacher")
    write_world(folder)
    one, two = (
        subprocess.run(
            [*program, str(folder), device], env=os.environ | forks() | {"CUDA_VISIBLE_DEVICES": ",".join(seen)}, cwd=ROOT,
            capture_output=True, text=True, timeout=HANGS_AFTER_S, check=False,
        )
        for program, seen in ((ONE, gpus[:1]), (TWO, gpus))
    )  # fmt: skip
    assert one.returncode == 0, one.stdout + one.stderr
    assert two.returncode == 0, two.stdout + two.stderr
    return two.stdout + two.stderr


def check_same_course(tuned: Path, name: str, *, within: float) -> None:
    """Losses, gradients' norms and mask at every step, and what is trained at the end, but for the order of sums."""
    one, two = (read_json(tuned / f"{count}-{name}" / "course.json") for count in ("one", "two"))
    assert [entry["step"] for entry in two["history"]] == [entry["step"] for entry in one["history"]]
    for expected, found in zip(one["history"], two["history"], strict=True):
        assert expected.keys() == found.keys()
        for field in FIGURES & {name for name, figure in expected.items() if figure is not None}:
            assert found[field] == pytest.approx(expected[field], rel=within, abs=within / 10), field
        assert found.get("kept") == expected.get("kept")
    for path in (tuned / f"one-{name}").glob("*.safetensors"):
        expected, found = load_file(path), load_file(tuned / f"two-{name}" / path.name)
        assert expected.keys() == found.keys()
        for tensor in expected:
            distance = torch.linalg.vector_norm(found[tensor].double() - expected[tensor].double())
            assert distance <= within * torch.linalg.vector_norm(expected[tensor].double()), tensor
