"""lm-eval as this project uses it: our own task definitions over local items, and no network.

This and `pat.scoring.batched_lm`, the model that it asks, own everything that imports lm_eval, through its public interface alone.
Scores are read from answers in `pat.scoring.answers`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from numbers import Real
from pathlib import Path
from typing import Any

from datasets import Dataset
from lm_eval import evaluate, simple_evaluate
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from pat.data.items import Item
from pat.errors import UserError
from pat.io.artefacts import write_json
from pat.io.marks import KINDS, check_replaceable
from pat.machine.out_of_memory import lacks_memory
from pat.scoring import definitions
from pat.scoring.answers import GENERATED_READINGS, Outcome, most_likely

GENERATED = "generated"
LIKELIHOOD = "log_likelihood"


def answers(
    lm: LM, tasks: Mapping[str, Sequence[Item]], *, generate: bool, log_likelihood: bool, max_new_tokens: int
) -> dict[str, list[Outcome]]:
    """Return the model's outcome on every item, by task, under the scorings asked for."""
    asked: list[dict[str, Any]] = []
    for name, items in tasks.items():
        asked += [_generated_task(name, items, max_new_tokens)] if generate else []
        asked += [_log_likelihood_task(name, items)] if log_likelihood else []
    outcomes = {name: [Outcome(item) for item in items] for name, items in tasks.items()}
    if not asked:
        return outcomes
    loaded = TaskManager(include_defaults=False).load(asked)
    results = evaluate(lm=lm, task_dict=loaded, bootstrap_iters=0, log_samples=True)
    for label, samples in results["samples"].items():
        name, _, scoring = label.rpartition("/")
        for sample in samples:
            _take(outcomes[name][sample["doc_id"]], scoring, sample["filtered_resps"])
    return outcomes


def _take(outcome: Outcome, scoring: str, responses: Sequence[Any]) -> None:
    """Read one sample of lm-eval's into the item's outcome."""
    if scoring == GENERATED:
        outcome.generated = str(responses[0])
        count = len(outcome.item.choices)
        outcome.predictions |= {name: read(outcome.generated, count) for name, read in GENERATED_READINGS.items()}
    else:
        outcome.log_likelihoods = [float(value) for value, _ in responses]
        if not all(map(math.isfinite, outcome.log_likelihoods)):
            raise UserError(f"the model gives no finite log-likelihood for item {outcome.item.id!r}: its weights are broken")
        outcome.predictions |= most_likely(outcome.log_likelihoods, outcome.item.choices)


def _generated_task(name: str, items: Sequence[Item], max_new_tokens: int) -> dict[str, Any]:
    read_later = {"metric_list": [{"metric": "bypass", "aggregation": "bypass", "higher_is_better": True}]}
    return _task(f"{name}/{GENERATED}", definitions.generated_rows(items)) | definitions.generated(max_new_tokens) | read_later


def _log_likelihood_task(name: str, items: Sequence[Item]) -> dict[str, Any]:
    return _task(f"{name}/{LIKELIHOOD}", definitions.log_likelihood_rows(items)) | definitions.log_likelihood()


def _task(label: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a task's name and its items as a data set in memory, so that nothing is cached on disk."""
    return {"task": label, "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)}}


def own_tasks(names: Sequence[str]) -> TaskManager:
    """Return lm-eval's tasks, with the data of these at hand.

    Raises UserError on a name it does not know, or where a task's data is neither cached nor reachable.
    """
    manager = _manager_of(names)
    _load(manager, names)
    return manager


def harness_variants(lm: LM, names: Sequence[str], limit: int | None, seed: int, manager: TaskManager | None = None) -> dict[str, Any]:
    """Return lm-eval's own results on its own task variants, by task, as plain JSON values.

    Raises UserError as `own_tasks` does, whose tasks may be given. What fails after it is no missing data, and keeps its traceback.
    """
    manager = manager or own_tasks(names)
    results = simple_evaluate(
        model=lm, tasks=list(names), task_manager=manager, limit=limit, log_samples=False, bootstrap_iters=1000,
        random_seed=seed, numpy_random_seed=seed, torch_random_seed=seed, fewshot_random_seed=seed,
    )  # fmt: skip
    return {
        name: {"items": figures.get("sample_len"), "version": results["versions"].get(name), "scores": _numbers(figures)}
        for name, figures in results["results"].items()
    }


def fetch_variants(names: Sequence[str], out: Path, *, force: bool = False) -> None:
    """Bring the data of lm-eval's own tasks into the cache of the hub's libraries, and note in `out` which they are.

    Raises UserError as `harness_variants` does, and where `out` holds something else, unless with `force`.
    """
    check_replaceable(out, KINDS["fetch-tasks"], force=force)
    own_tasks(names)
    write_json(out, {"made_by": "pat fetch-tasks", "tasks": sorted(names)})


def _manager_of(names: Sequence[str]) -> TaskManager:
    manager = TaskManager()
    for name in names:
        if name not in manager.all_tasks:
            close = ", ".join(get_close_matches(name, manager.all_tasks, n=3))
            raise UserError(f"evaluation.harness_tasks: {name!r} is no task of lm-eval" + (f"; near it: {close}" if close else ""))
    return manager


def _load(manager: TaskManager, names: Sequence[str]) -> None:
    """Load the tasks' data sets. Raises UserError where one can be had neither from the cache nor from the network."""
    try:
        manager.load(list(names))
    except (OSError, ValueError, RuntimeError) as error:
        if lacks_memory(error):
            raise
        raise UserError(
            f"evaluation.harness_tasks: the data of {', '.join(names)} cannot be loaded ({error}); lm-eval's own tasks read data sets from "
            "the hub: call `snakemake fetch` or `pat fetch-tasks` where there is a network, or set HF_HOME to a cache that holds them"
        ) from None


def _numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures that are numbers, as JSON has them; lm-eval gives "N/A" where a standard error has no meaning."""
    return {
        name: float(value) for name, value in figures.items()
        if "," in name and isinstance(value, Real) and math.isfinite(value)
    }  # fmt: skip
