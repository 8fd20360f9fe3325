"""Evaluations of a tiny checkpoint on a few items and texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pat.data.items import Item, write_items
from pat.io.artefacts import read_json, read_jsonl, write_jsonl
from pat.io.marks import samples_path
from pat.scoring.evaluation import evaluate
from pat.settings.jobs import EvaluationSettings

TEXTS = [{"text": "Some held-out words."}, {"text": "And a few more of them."}]
CPU = EvaluationSettings(device="cpu", batch_size=3, max_new_tokens=5)


def run(checkpoint: Path, folder: Path, settings: EvaluationSettings, items: list[Item]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    write_items(folder / "toy.jsonl", items)
    write_jsonl(folder / "heldout.jsonl", TEXTS)
    out = folder / "evaluation.json"
    evaluate(checkpoint, [folder / "toy.jsonl"], [folder / "heldout.jsonl"], settings, 0, out)
    return read_json(out), read_jsonl(samples_path(out), ["id", "gold", "predictions", "correct"])
