"""Rotation and refit tell how far they are: long passes over calibration text, and over a model's layers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from pat.bases.readers import fit_to_pruned
from pat.bases.rotate import rotate
from pat.data.calibration import Blocks, Calibration
from pat.io import progress
from tests.kit.tiny_models import random_tokens, tiny_model
from tests.kit.tiny_world import write_world


@pytest.fixture(autouse=True)
def _every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_INTERVAL_S", 0.0)


def test_a_rotation_tells_how_much_of_the_text_is_done(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base, instructions = write_world(tmp_path)
    with caplog.at_level("INFO"):
        rotate(base, "gradient", Calibration(instructions, tokens=512), tmp_path / "out")
    assert "measuring on text, blocks: 0/" in caplog.text


def test_a_refit_tells_how_many_layers_are_done(caplog: pytest.LogCaptureFixture) -> None:
    text = Blocks(random_tokens(4, 12), torch.ones(4, 12, dtype=torch.long))
    kept_D = torch.arange(48) < 36
    with caplog.at_level("INFO"):
        fit_to_pruned(tiny_model("llama"), text.batches(2), kept_D)
    assert "measuring on text, blocks: 2/4" in caplog.text
    assert "refitting readers, layers: 2/3" in caplog.text


def test_the_closing_line_has_the_time_of_the_first_steps_too(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """What is left is told without them: a compilation, or the way to the first log entry, says nothing of the steps to come."""
    monkeypatch.setattr(time, "monotonic", iter([100.0, 160.0, 170.0, 180.0]).__next__)
    with caplog.at_level("INFO"):
        told = progress.Progress("tune", 30)
        told.update(10)
        told.update(20)
        told.finish()
    assert caplog.messages == ["tune: 10/30", "tune: 20/30, 10 s left", "tune: done (80.0 s)"]
