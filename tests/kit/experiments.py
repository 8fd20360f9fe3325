"""The smoke experiment with a field changed, and what an experiment is refused with."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import yaml

from pat.errors import UserError
from study.experiment.file import load_experiment
from tests.kit.project import ROOT

SMOKE: dict[str, Any] = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())


def changed(*path: str, value: object = None) -> dict[str, Any]:
    """Return the smoke experiment with one field set, or removed where `value` is ..."""
    raw = deepcopy(SMOKE)
    part = raw
    for key in path[:-1]:
        part[key] = part.get(key) or {}
        part = part[key]
    if value is ...:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return raw


def refusal(raw: object) -> list[str]:
    """Return the lines of the message by which an experiment is refused."""
    with pytest.raises(UserError) as error:
        load_experiment(raw, "x.yaml")  # type: ignore[arg-type]
    lines = str(error.value).splitlines()
    assert all(line.startswith("x.yaml: ") for line in lines)
    return [line.removeprefix("x.yaml: ") for line in lines]
