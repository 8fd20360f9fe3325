"""What is wrong between an experiment's fields, told of the experiment as far as its schema takes the file."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from study.experiment.file import as_far_as_taken, load_experiment
from tests.kit.experiments import SMOKE, changed, refusal


def test_the_schemas_problems_and_those_between_fields_come_together() -> None:
    raw = changed("methods", "pat-dora", value={"method": "pat-dora", "sedes": [1], "pat": {"masks": "frozen"}})
    raw |= {"name": "a b", "figures": ["acuracy", "speedup"], "benchmark": None, "ratios": [0.5, 0.51, 2]}
    found = refusal(raw)
    assert [line.split(": ")[0] for line in found if line.startswith(("figures.0", "ratios.2", "methods.pat-dora.sedes"))] == [
        "ratios.2", "methods.pat-dora.sedes", "figures.0",
    ]  # fmt: skip
    assert any(line.startswith('name: the name "a b"') for line in found)
    assert any(line.startswith("methods.pat-dora.pat.masks: unknown key") for line in found)
    assert any("the ratios 0.5 and 0.51 both give width 16 of 32" in line for line in found)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("data", "tasks"), {"capitals": {"source": "zip"}}),
        (("ratios",), [2]),
        (("methods", "pat"), 3),
        (("methods", "lora"), {"label": 3}),
        (("data", "pretrain"), {"source": "zip"}),
        (("tables", "ablations"), {"own": [1, 2]}),
        (("benchmark", "inference"), 3),
        (("methods", "pat"), {"factors": {"mask": ["frozen"]}}),
    ],
)
def test_nothing_is_said_that_only_follows_from_what_was_refused(path: tuple[str, ...], value: Any) -> None:
    found = refusal(changed(*path, value=value))
    assert all(line.startswith(".".join(path)) and " is not allowed: must be " in line for line in found), found


def test_what_goes_together_only_when_joined_is_no_mistake_where_it_is_written() -> None:
    raw = changed("pat", "mask", value="leading")
    raw["methods"]["pat"] = {"pat": {"readers": "least-squares"}}
    loaded = load_experiment(raw, "x.yaml")
    assert loaded.tune_job("tiny", "pat").pat.readers == "least-squares"
    raw["methods"]["pat"]["pat"]["mask"] = "trained"
    assert [line.split(": ")[0] for line in refusal(raw)] == ["methods.pat.pat.readers"]


@pytest.mark.parametrize("key", ["name", "seeds", "tuning", "evaluation"])
def test_the_rest_is_checked_where_something_required_is_missing(key: str) -> None:
    raw = changed("methods", "pat", value={"method": "path"})
    assert refusal({name: value for name, value in raw.items() if name != key}) == [
        f"{key}: is required", "methods.pat: \"path\" is not a method; did you mean 'pat'?" + refusal(raw)[0].partition("'pat'?")[2],
    ]  # fmt: skip


@pytest.mark.parametrize("key", ["models", "data", "methods"])
def test_too_little_is_no_experiment(key: str) -> None:
    experiment, refused = as_far_as_taken({name: value for name, value in SMOKE.items() if name != key})
    assert experiment is None and refused == [f"{key}: is required"]


def test_what_is_taken_is_the_experiment_without_what_is_refused() -> None:
    raw = changed("methods", "pat", value={"seeds": [0, "1"], "pat": {"hio_rank": 3}})
    experiment, refused = as_far_as_taken(raw | {"other": 1})
    assert experiment is not None and len(refused) == 2
    assert experiment.row("pat").seeds == (0,) and experiment.row("pat").pat == {"hio_rank": 3}
    assert as_far_as_taken(SMOKE)[1] == []


def test_an_experiment_is_read_without_its_checks() -> None:
    """The checks stand on the experiment, and it on none of them."""
    loaded = "import sys, study.experiment.schema; print([name for name in sys.modules if 'checks' in name])"
    found = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
