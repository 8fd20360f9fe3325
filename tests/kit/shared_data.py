"""Real data that some tests use where it is there: a folder named by PAT_SHARED_DATA, or `shared/data` beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kit.project import ROOT

BESIDE = ROOT.parent / "shared" / "data"


def shared_data(part: str) -> Path:
    """Return a path below the shared data, or skip the test where it is absent."""
    path = Path(os.environ.get("PAT_SHARED_DATA", BESIDE)) / part
    if not path.exists():
        pytest.skip(f"{path} is not there; PAT_SHARED_DATA may name the folder that holds {part}")
    return path
