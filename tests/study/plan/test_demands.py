"""What a phase's jobs ask for: more where writers or readers are refitted, by the text that they are refitted to and by their maps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from study.experiment.file import load_experiment
from study.experiment.schema import Experiment
from study.plan.bases import PreparedBases
from study.plan.demands import Demand, Demands
from tests.kit.project import ROOT

BASIS = {"basis": "gradient", "mask": "leading", "align": "auto", "ratio": "0.25"}
"""The wildcards of a refit of readers beside its model and seed."""
LARGE = {"hidden_size": 4096, "heads": 32, "layers": 32, "intermediate_size": 11008, "vocab_size": 32000, "kv_heads": 32}


def demands(experiment: Experiment) -> Demands:
    return Demands(experiment, PreparedBases(experiment, "results/own"), Path("none"), Path("none"), [])


def demand(row: str, own: dict[str, Any] | None = None, **everywhere: Any) -> Demand:
    raw: dict[str, Any] = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    raw["models"]["tiny"]["pretrain"] |= LARGE
    raw |= {"methods": {"lora": None, row: own}, "ratios": [0.25], "prune": everywhere, "tuning": raw["tuning"] | {"device": "cuda"}}
    wildcards: Any = SimpleNamespace(model="tiny", row=row, ratio="0.25", seed="0")
    return demands(load_experiment(raw, "own.yaml")).of("prune", wildcards)


def of_a_tuning(**resources: Any) -> Demand:
    raw: dict[str, Any] = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    raw["models"]["tiny"]["pretrain"] |= LARGE
    raw |= {"methods": {"lora": None}, "tuning": raw["tuning"] | {"device": "auto"}, "resources": {"tune": resources}}
    wildcards: Any = SimpleNamespace(model="tiny", row="lora", ratio="0", seed="0")
    return demands(load_experiment(raw, "own.yaml")).of("tune", wildcards)


def with_refitted_readers(**changes: Any) -> Demands:
    """Return the demands of an experiment whose pat-g refits the readers of a Llama 7B; `changes` are the experiment's."""
    raw: dict[str, Any] = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    raw["models"]["tiny"]["pretrain"] |= LARGE
    raw |= {"methods": {"lora": None, "pat-g": None}, "ratios": [0.25, 0.5], "pat": {"align": "auto"}}
    return demands(load_experiment(raw | {"tuning": raw["tuning"] | {"device": "cuda"}} | changes, "own.yaml"))


def of_a_refit(of: Demands, **named: str) -> Demand:
    wildcards: Any = SimpleNamespace(model="tiny", seed="0", **(BASIS | named))
    return of.of("prune", wildcards)


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


def test_a_refit_of_readers_asks_for_its_maps_and_its_streams() -> None:
    """A norm's map is 4,096 × 3,072 numbers of 8 bytes, of 65 norms; a stream 128 · 2,048 tokens of 4,096 channels in bf16."""
    refitted, maps, stream = of_a_refit(with_refitted_readers()), 65 * 4096 * 3072 * 8, 128 * 2048 * 4096 * 2
    assert refitted.gpu == 1 and (maps, stream) == (6_543_114_240, 2_147_483_648)
    assert refitted.mem_mb == 3000 + 20_216 + (2 * maps + 2 * stream) // 10**6 + 1 == 40_598
    five = of_a_refit(with_refitted_readers(refit={"ridges": [1e-6, 1e-5, 1e-4, 1e-3, 1e-2]}))
    assert five.mem_mb == 3000 + 20_216 + (5 * maps + stream) // 10**6 + 1 == 58_080


def test_jobs_of_one_experiment_are_told_apart_by_what_is_kept() -> None:
    known, plain = with_refitted_readers(), demand("shortgpt-pft")
    quarter, half = of_a_refit(known), of_a_refit(known, ratio="0.5")
    assert half.mem_mb - plain.mem_mb == (2 * 65 * 4096 * 2048 * 8 + 2 * 128 * 2048 * 4096 * 2) // 10**6 + 1 < quarter.mem_mb - plain.mem_mb
    rotation: Any = SimpleNamespace(model="tiny", seed="0", basis="gradient")
    assert known.of("prune", rotation) == plain


def test_a_head_that_is_taken_off_the_embedding_has_a_map_and_a_tied_one_has_none() -> None:
    raw: dict[str, Any] = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    raw["models"]["tiny"]["pretrain"] |= LARGE | {"tie_embeddings": True}
    tied = with_refitted_readers(models=raw["models"])
    broken = with_refitted_readers(models=raw["models"], pat={"align": "auto", "tie": "break"})
    more = of_a_refit(broken, basis="gradient-untied").mem_mb - of_a_refit(tied).mem_mb
    assert more in (2 * 4096 * 3072 * 8 // 10**6, 2 * 4096 * 3072 * 8 // 10**6 + 1)  # each is rounded up
