"""Our tasks as lm-eval's task definitions: what a model is asked, what is compared, and of which rows. Imports nothing of lm-eval.

The evaluation hands them over in memory (harness.py); `pat tasks` writes them to files (task_files.py). They are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pat.data.items import Item
from pat.data.prompts import ANSWER_JOINT, first_capital_prompt, log_likelihood_prompt

SHARED: dict[str, Any] = {"test_split": "test", "doc_to_text": "prompt", "doc_to_target": "answer", "num_fewshot": 0}


def generated_rows(items: Sequence[Item]) -> list[dict[str, Any]]:
    """Return what the generated scoring asks of each item."""
    return [{"prompt": first_capital_prompt(item.question, item.choices), "answer": item.answer} for item in items]


def log_likelihood_rows(items: Sequence[Item]) -> list[dict[str, Any]]:
    """Return what the scoring by log-likelihood compares of each item."""
    return [{"prompt": log_likelihood_prompt(item.question), "choices": list(item.choices), "answer": item.answer} for item in items]


def generated(max_new_tokens: int) -> dict[str, Any]:
    """Return the definition of the generated scoring, but for its name, its rows and what reads an answer."""
    return SHARED | {
        "output_type": "generate_until",
        "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": max_new_tokens},
    }


def log_likelihood() -> dict[str, Any]:
    """Return the definition of the scoring by log-likelihood, but for its name and its rows."""
    return SHARED | {
        "output_type": "multiple_choice",
        "doc_to_choice": "choices",
        "target_delimiter": ANSWER_JOINT,
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")],
    }
