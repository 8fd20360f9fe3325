"""docs/architecture.md against the code: its tables are the floors that the linter holds, and every file it names is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").is_file())
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
FLOORS = {contract["containers"][0]: contract["layers"] for contract in CONTRACTS if contract["type"] == "layers"}


@pytest.mark.parametrize(("package", "heading"), [("pat", "## The library"), ("study", "## The study")])
def test_the_packages_stand_on_the_floors_that_the_linter_holds(package: str, heading: str) -> None:
    section = TEXT.partition(heading)[2].partition("\n## ")[0]
    shown = [set(re.findall(r"`(\w+)`", row.split("|")[1])) for row in section.splitlines() if row.startswith("| `")]
    held = [set(re.findall(r"\w+", layer)) for layer in FLOORS[package]]
    assert shown == [floor for floor in held if floor != {"__main__"}]


def test_every_file_that_is_named_is_there() -> None:
    named = re.findall(r"`((?:pat|workflow)/[\w/*.]+)`", TEXT)
    assert len(named) > 10
    assert [place for place in named if not list(ROOT.glob(place.rstrip("/")))] == []
