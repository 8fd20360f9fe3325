"""What `study validate` says of the memory that refits of writers have."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from study.experiment.file import load_experiment
from study.experiment.refits import too_little_memory
from tests.kit.project import ROOT

REFITTED = {"prune": {"writers": "refitted"}}


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
    raw: dict[str, Any] = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    raw["models"]["tiny"]["pretrain"] |= {"hidden_size": 4096, "heads": 32, "kv_heads": 32, "layers": 32, "intermediate_size": 11008}
    raw |= {"methods": {"lora": None, "shortgpt-pft": own}, "ratios": [0.25], "tuning": raw["tuning"] | {"device": "cuda"}}
    raw["resources"] = {} if mem_mb is None else {"prune": {"mem_mb": mem_mb}}
    found = list(too_little_memory(load_experiment(raw, "own.yaml")))
    told = "methods.shortgpt-pft, models.tiny: refitting writers takes up to 69,257 MB, more than resources.prune.mem_mb gives (24,000)"
    assert len(found) == warned and all(sentence.startswith(told) for sentence in found)
