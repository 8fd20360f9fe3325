"""What a phase's jobs ask for: more where writers are refitted, by the text that they are refitted to."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from study.experiment.file import load_experiment
from study.plan.demands import Demand, Demands
from tests.kit.project import ROOT

LARGE = {"hidden_size": 4096, "heads": 32, "layers": 32, "intermediate_size": 11008, "vocab_size": 32000, "kv_heads": 32}


def demand(row: str, own: dict[str, Any] | None = None, **everywhere: Any) -> Demand:
    raw: dict[str, Any] = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    raw["models"]["tiny"]["pretrain"] |= LARGE
    raw |= {"methods": {"lora": None, row: own}, "ratios": [0.25], "prune": everywhere, "tuning": raw["tuning"] | {"device": "cuda"}}
    experiment = load_experiment(raw, "own.yaml")
    wildcards: Any = SimpleNamespace(model="tiny", row=row, ratio="0.25", seed="0")
    return Demands(experiment, Path("none"), Path("none"), []).of("prune", wildcards)


def of_a_tuning(**resources: Any) -> Demand:
    raw: dict[str, Any] = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    raw["models"]["tiny"]["pretrain"] |= LARGE
    raw |= {"methods": {"lora": None}, "tuning": raw["tuning"] | {"device": "auto"}, "resources": {"tune": resources}}
    wildcards: Any = SimpleNamespace(model="tiny", row="lora", ratio="0", seed="0")
    return Demands(load_experiment(raw, "own.yaml"), Path("none"), Path("none"), []).of("tune", wildcards)


def test_a_tuning_that_is_to_have_no_gpu_asks_for_what_a_cpu_needs() -> None:
    by_itself, without = of_a_tuning(), of_a_tuning(gpu=0)
    assert (by_itself.gpu, without.gpu) == (1, 0)
    assert without.runtime > by_itself.runtime and without.mem_mb > by_itself.mem_mb


def test_a_refit_of_writers_asks_for_its_streams_and_its_time() -> None:
    plain, refitted = demand("shortgpt-pft"), demand("shortgpt-pft", {"prune": {"writers": "refitted"}})
    assert plain.gpu == refitted.gpu == 1
    assert refitted.mem_mb - plain.mem_mb == 3 * 256 * 11008 * 4096 * 2 // 10**6 + 1
    assert refitted.runtime > plain.runtime
    assert demand("layers-and-neurons-pft") == refitted


def test_fewer_tokens_of_a_row_or_of_all_ask_for_less() -> None:
    everywhere: dict[str, Any] = {"writers": "refitted", "writer_tokens": 100_000}
    plain, of_row, of_all = demand("shortgpt-pft"), demand("shortgpt-pft", {"prune": everywhere}), demand("shortgpt-pft", **everywhere)
    assert of_row == of_all and of_row.mem_mb - plain.mem_mb == 3 * 100_000 * 4096 * 2 // 10**6 + 1
    assert demand("slicegpt-pft", **everywhere) == demand("slicegpt-pft")
    assert demand("shortgpt-pft", {"prune": {"writers": "plain"}}, **everywhere) == plain
