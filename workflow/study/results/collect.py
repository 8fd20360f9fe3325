"""Joins what a cell's phases have written into its one result, cell.json. Adds no figure that is not in them, and needs no torch.

`--step` names the JSONs of the steps that made the checkpoint, in their order: what was before the first, what is after the last.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from pat.errors import UserError
from pat.io.artefacts import parse_json, read_jsonl, read_record, write_json
from pat.io.places import READS, WRITES
from study.commands.errors import run_reporting_errors
from study.commands.places import CELL, guarded

SCHEMA = 1
EVALUATION_KEYS = ("mean", "perplexity", "harness")
SAMPLE_FIELDS = ("task", "id", "gold", "correct")
UNSHOWN = ("history", "provenance", "origin")
"""Fields of a tuning's record that its cell leaves out, or keeps elsewhere."""
EARLIER = "before/"
"""In front of the name of a step in a cell's provenance that comes again after the pruning."""


def joined(
    cell: dict[str, Any], tuning: Path | None, steps: list[Path], evaluation: Path, samples: Path, before: Path | None = None
) -> dict[str, Any]:
    """Return the cell's result; `tuning` is None where nothing was tuned, `before` is the part of the tuning before the pruning, if any.

    Raises UserError where a file lacks a field, naming both, and where answers are not those scored.
    """
    tuned, earlier = (read_record(path) if path else None for path in (tuning, before))
    scored, records = read_record(evaluation), [read_record(step) for step in steps]
    tunings = [record for record in (earlier, tuned) if record]
    named = ", ".join(map(str, filter(None, (before, tuning, *steps, evaluation))))
    try:
        widths = {"before": records[0]["hidden_size"]["before"], "after": records[-1]["hidden_size"]["after"]}
        base = records[0].get("base") or {"parameters": records[0]["parameters"]["before"]}  # what a rotation may have taken apart
        sizes = {"before": base["parameters"], "after": records[-1]["parameters"]["after"]}
        gaps = [record["logit_gap"] for record in records if record["logit_gap"] is not None]
        kls = [record["kl_on_text"] for record in records if record.get("kl_on_text") is not None]
        verbs = [step.stem for step in steps]
        names = [EARLIER + verb if verb in verbs[place + 1 :] else verb for place, verb in enumerate(verbs)]
        origin = {name: record["provenance"] for name, record in zip(names, records, strict=True)}
        tuned_by = {"tune": tuned, EARLIER + "tune": earlier}
        return {
            **cell,
            "tasks": with_answers(scored["tasks"], samples),
            **{key: scored[key] for key in EVALUATION_KEYS},
            "schema": SCHEMA,
            "hidden_size": widths,
            "parameters": sizes,
            "ratio_effective": 1.0 - math.prod(1.0 - record["ratio_effective"] for record in records),
            "logit_gap": max(gaps, default=None),
            "kl_on_text": max(kls, default=None),
            "trainable_parameters": max((record["trainable_parameters"] for record in tunings), default=0),
            **({"origin": records[0]["origin"]} if records[0].get("origin") else {}),
            "tuning": _shown(tuned) if tuned else None,
            **({"tuning_before": _shown(earlier)} if earlier else {}),
            "provenance": {
                **{name: record["provenance"] for name, record in tuned_by.items() if record},
                **origin,
                "evaluate": scored["provenance"],
            },
        }
    except KeyError as error:
        raise UserError(f"{named}: one of them lacks the field {error}") from None
    except (TypeError, AttributeError) as error:
        raise UserError(f"{named}: one of them has a field of the wrong kind: {error}") from None


def _shown(tuned: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in tuned.items() if key not in UNSHOWN}


def with_answers(tasks: dict[str, Any], samples: Path) -> dict[str, Any]:
    """Return the tasks' figures, each score with which items are right (a 1 or 0 an item) and each task with the hash of its items.

    That is all that paired tests between cells need. Raises UserError where the answers in `samples` are not those of the figures.
    """
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in tasks}
    for line in read_jsonl(samples, SAMPLE_FIELDS) if tasks else ():
        answers.setdefault(line["task"], []).append(line)
    for name, lines in answers.items():
        if name not in tasks or len(lines) != tasks[name]["items"]:
            scored = tasks[name]["items"] if name in tasks else 0
            raise UserError(f"{samples}: holds {len(lines)} answers to {name}, of which {scored} were scored; evaluate the cell again")
    return {name: figures | _answers(figures["scores"], answers[name]) for name, figures in tasks.items()}


def _answers(scores: dict[str, Any], lines: list[dict[str, Any]]) -> dict[str, Any]:
    items = "".join(f"{json.dumps([line['id'], line['gold']])}\n" for line in lines)
    right = {metric: "".join("01"[line["correct"][metric]] for line in lines) for metric in scores}
    return {
        "items_hash": hashlib.sha256(items.encode()).hexdigest()[:16],
        "scores": {metric: score | {"right": right[metric]} for metric, score in scores.items()},
    }


@guarded(CELL)
def main(
    cell: Annotated[str, typer.Option(help="JSON: experiment, model, method, base_method, label, mode, ratio_requested, seed, factors.")],
    tuning: Annotated[str, typer.Option(help="The tuning.json of the run that trained the adapter; empty: nothing was tuned."), READS],
    step: Annotated[list[Path], typer.Option(help="A step's record, such as a merge.json; one option per step, in order."), READS],
    evaluation: Annotated[Path, typer.Option(help="The cell's evaluation.json."), READS],
    samples: Annotated[Path, typer.Option(help="The cell's evaluation_samples.jsonl."), READS],
    out: Annotated[Path, typer.Option(help="The cell.json to write."), WRITES],
    before: Annotated[Path | None, typer.Option(help="The tuning.json of the part of the tuning before the pruning."), READS] = None,
) -> None:
    """Join a cell's JSONs into cell.json."""

    def action() -> str:
        write_json(out, joined(parse_json(cell, "--cell"), Path(tuning) if tuning else None, step, evaluation, samples, before))
        return str(out)

    run_reporting_errors(action)
