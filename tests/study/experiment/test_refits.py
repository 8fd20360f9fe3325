"""What `study validate` says of the memory that refits of writers and of readers have."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from pat.bases.reader_fit import RIDGES
from study.experiment.file import load_experiment
from study.experiment.refits import number_of_ridges, too_little_memory
from tests.kit.project import ROOT

REFITTED = {"prune": {"writers": "refitted"}}


def told_of(methods: dict[str, Any], mem_mb: int | None, **changes: Any) -> list[str]:
    """Return what is said of an experiment on a Llama 7B."""
    raw: dict[str, Any] = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    raw["models"]["tiny"]["pretrain"] |= {"hidden_size": 4096, "heads": 32, "kv_heads": 32, "layers": 32, "intermediate_size": 11008}
    raw |= {"methods": methods, "ratios": [0.25], "tuning": raw["tuning"] | {"device": "cuda"}}
    raw["resources"] = {} if mem_mb is None else {"prune": {"mem_mb": mem_mb}}
    return list(too_little_memory(load_experiment(raw | changes, "own.yaml")))


@pytest.mark.parametrize(
    ("mem_mb", "own", "warned"),
    [
        (24_000, REFITTED, True),
        (None, REFITTED, False),
        (400_000, REFITTED, False),
        (24_000, None, False),
        (24_000, {"prune": {"writers": "refitted", "writer_tokens": 200_000}}, False),
    ],
)
def test_memory_that_cannot_hold_the_streams(mem_mb: int | None, own: dict[str, Any] | None, warned: bool) -> None:
    found = told_of({"lora": None, "shortgpt-pft": own}, mem_mb)
    told = "methods.shortgpt-pft, models.tiny: refitting writers takes up to 69,257 MB, more than resources.prune.mem_mb gives (24,000)"
    assert len(found) == warned and all(sentence.startswith(told) for sentence in found)


FIVE = {"ridges": [1e-6, 1e-5, 1e-4, 1e-3, 1e-2]}
READERS = "methods.pat-g, models.tiny: refitting readers takes up to {} MB, more than resources.prune.mem_mb gives ({}): raise it{}"


@pytest.mark.parametrize(
    ("mem_mb", "changes", "told"),
    [
        (12_000, {}, READERS.format("17,382", "12,000", "")),
        (17_381, {}, READERS.format("17,382", "17,381", "")),
        (17_382, {}, None),
        (None, {"refit": FIVE}, None),
        (24_000, {"refit": FIVE}, READERS.format("34,864", "24,000", ", or name fewer refit.ridges")),
        (17_381, {"refit": FIVE}, READERS.format("34,864", "17,381", "")),
        (12_000, {"ratios": [0.5, 0.25]}, READERS.format("17,382", "12,000", "")),
        (12_000, {"ratios": [0.5]}, READERS.format("13,020", "12,000", "")),
    ],
)
def test_memory_that_cannot_hold_the_maps_of_readers(mem_mb: int | None, changes: dict[str, Any], told: str | None) -> None:
    """A ridge's maps at a quarter are 6,543.1 MB, at a half 4,362.1, a stream 2,147.5; a lower ratio keeps more and tells.

    With one ridge as with two the best fit and the next one are held: where that is too much no setting helps.
    """
    found = told_of({"lora": None, "pat-g": None}, mem_mb, pat={"align": "auto"}, **changes)
    assert found == ([] if told is None else [told])


def test_as_many_ridges_are_counted_as_are_tried() -> None:
    raw: dict[str, Any] = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    assert number_of_ridges(load_experiment(raw, "own.yaml")) == len(RIDGES)
    assert number_of_ridges(load_experiment(raw | {"refit": FIVE}, "own.yaml")) == 5
