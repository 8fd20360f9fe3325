"""What a pruner is asked to do, the same for all of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pat.data.calibration import Calibration
from pat.errors import UserError
from pat.settings.jobs import PruneSettings


@dataclass(frozen=True)
class PruneJob:
    """The checkpoint to prune, the share to remove, what widths are multiples of, text to measure on where there is any, settings."""

    source: Path
    ratio: float
    align: int | Literal["auto"] = "auto"
    calibration: Calibration | None = None
    settings: PruneSettings = field(default_factory=PruneSettings)

    def text(self) -> Calibration:
        """Return the calibration text. Raises UserError where none is given."""
        if self.calibration is None:
            raise UserError("--calibration: is required: text to measure on what may go, or to refit writers to; give a JSONL file")
        return self.calibration

    def writers_text(self) -> Calibration:
        """Return the text that writers are refitted to. Raises UserError where none is given."""
        text = self.text()
        return replace(text, tokens=self.settings.writer_tokens or text.tokens)
