"""What an answer is worth: the two readings of generated text, the choice by log-likelihood, and the figures over items.

Pure functions without torch or the harness. The paper's scoring takes the first capital letter; acc and acc_norm are lm-eval's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from pat.data.items import Item
from pat.data.prompts import letters


def first_capital(text: str, count: int) -> int | None:
    """Return the place of the first capital in `text` that is one of the first `count` letters; None where there is none.

    Any place counts, inside a word too, as in the paper: "Answer: C" is an A.
    """
    names = letters(count)
    return next((names.index(character) for character in text if character in names), None)


def first_capital_word(text: str, count: int) -> int | None:
    """Return the same for the first such letter that stands alone: "Answer: C" is a C."""
    names = letters(count)
    found = re.search(rf"\b[{names}]\b", text)
    return names.index(found.group()) if found else None


GENERATED_READINGS: dict[str, Callable[[str, int], int | None]] = {
    "first_capital": first_capital,
    "first_capital_word": first_capital_word,
}


def most_likely(log_likelihoods: Sequence[float], choices: Sequence[str]) -> dict[str, int]:
    """Return the chosen place by plain log-likelihood (acc) and by log-likelihood per character of the choice (acc_norm)."""
    per_character = [value / len(choice) for value, choice in zip(log_likelihoods, choices, strict=True)]
    return {"acc": _largest(log_likelihoods), "acc_norm": _largest(per_character)}


def _largest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


@dataclass
class Outcome:
    """What a model answered to one item: the chosen place under each metric, None where the text names no choice."""

    item: Item
    predictions: dict[str, int | None] = field(default_factory=dict)
    generated: str | None = None
    log_likelihoods: list[float] | None = None

    def row(self) -> dict[str, object]:
        """Return the outcome as a line of the samples file, which paired tests between models read."""
        correct = {metric: place == self.item.answer for metric, place in self.predictions.items()}
        return {
            "task": self.item.task, "group": self.item.group, "id": self.item.id, "gold": self.item.answer,
            "predictions": self.predictions, "correct": correct,
            "generated": self.generated, "log_likelihoods": self.log_likelihoods,
        }  # fmt: skip


def task_figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return items, chance level and scores of one task: the plain mean over its items, and the same for each of its groups."""
    figures = _figures(outcomes)
    groups = {outcome.item.group for outcome in outcomes} - {""}
    if groups:
        figures["groups"] = {group: _figures([one for one in outcomes if one.item.group == group]) for group in sorted(groups)}
    return figures


def _figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "items": len(outcomes),
        "chance": fmean(1 / len(outcome.item.choices) for outcome in outcomes),
        "scores": {
            metric: accuracy([outcome.predictions[metric] == outcome.item.answer for outcome in outcomes])
            for metric in outcomes[0].predictions
        },
    }


def accuracy(correct: Sequence[bool]) -> dict[str, float | None]:
    """Return the share of right answers and its standard error (sample variance over n); the error of one item is None."""
    value = fmean(correct)
    stderr = math.sqrt(value * (1 - value) / (len(correct) - 1)) if len(correct) > 1 else None
    return {"value": value, "stderr": stderr}


def mean_over_tasks(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the plain mean of each metric over tasks, whatever their sizes, as the paper's tables have it."""
    metrics: Iterable[str] = next(iter(tasks.values()))["scores"] if tasks else ()
    return {metric: fmean(task["scores"][metric]["value"] for task in tasks.values()) for metric in metrics}
