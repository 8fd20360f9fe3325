"""Hand-made results of cells, in the shape `cell.json` has. Used by the tests of the report; holds no assertion."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.experiment.methods import METHODS


def cell(
    method: str = "pat",
    ratio: float = 0.25,
    seed: int = 0,
    model: str = "tiny",
    scores: Mapping[str, Mapping[str, float]] | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """Return one cell's result; `scores` is {task: {metric: accuracy}}, every task with 100 items and a chance of 1/4."""
    scores = scores or {"capitals": {"first_capital": 0.6, "acc": 0.7}}
    entry = METHODS[method]
    width = round(96 * (1 - ratio))
    phase = {"config_hash": "0123456789abcdef", "git_commit": "c0ffee", "git_dirty": False}
    return {
        "schema": 1,
        "experiment": "demo",
        "model": model,
        "method": method,
        "base_method": method,
        "label": entry.label,
        "mode": entry.mode,
        "ratio_requested": ratio,
        "ratio_effective": 1 - width / 96,
        "seed": seed,
        "hidden_size": {"before": 96, "after": width},
        "parameters": {
            "before": {"unique": 1000, "without_embeddings": 800},
            "after": {"unique": round(1000 * (1 - ratio)), "without_embeddings": round(800 * (1 - ratio))},
        },
        "trainable_parameters": 120 if entry.tunes or entry.pruner else 0,
        "logit_gap": 2e-5,
        "tasks": {
            task: {
                "items": 100,
                "chance": 0.25,
                "scores": {name: {"value": it, "stderr": (it * (1 - it) / 100) ** 0.5} for name, it in values.items()},
            }
            for task, values in scores.items()
        },
        "mean": {},
        "perplexity": {"heldout": {"token_perplexity": 12.5, "byte_perplexity": 1.75, "tokens": 1000}},
        "harness": {},
        "tuning": {"steps": 300, "health": {}},
        "provenance": {"tune": phase, "merge": phase, "evaluate": phase},
        **overrides,
    }


def write_cell(folder: Path, content: Mapping[str, Any]) -> Path:
    """Write the result where the workflow would and return its path."""
    row = folder / "evaluation" / str(content["model"]) / str(content["method"])
    place = row / f"{content['ratio_requested']:g}" / f"seed{content['seed']}"
    place.mkdir(parents=True, exist_ok=True)
    path = place / "cell.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def answered(right: Mapping[str, Mapping[str, str]], items_hash: str = "0123456789abcdef") -> dict[str, Any]:
    """Return tasks whose items' outcomes are known; `right` is {task: {metric: a 1 or 0 an item}}, the chance 1/4."""
    return {
        task: {
            "items": len(next(iter(outcomes.values()))),
            "chance": 0.25,
            "items_hash": items_hash,
            "scores": {name: {"value": it.count("1") / len(it), "stderr": 0.05, "right": it} for name, it in outcomes.items()},
        }
        for task, outcomes in right.items()
    }
