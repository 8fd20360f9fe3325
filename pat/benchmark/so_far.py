"""What a long benchmark has measured so far, beside its record, in case that it does not come to its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pat.io import artefacts, marks

so_far = marks.so_far_path


def keep(record: Mapping[str, Any], out: Path) -> None:
    """Write the record as far as it goes."""
    artefacts.write_json(so_far(out), record)


def finish(out: Path) -> None:
    """Make what was kept last the record: it is whole."""
    so_far(out).replace(out)
