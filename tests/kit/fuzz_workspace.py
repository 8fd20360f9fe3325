"""A folder with small whole inputs, and every verb called in this process: what a corpus of bad inputs is tried against. No assertion."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pat.data.items import write_items
from pat.io.artefacts import write_jsonl
from tests.kit.commands import run
from tests.kit.tiny_checkpoint import some_items
from tests.kit.tiny_world import write_world

RECIPE: dict[str, Any] = {"max_steps": 4, "learning_rate": 1e-3, "batch_size": 4, "checkpoint_steps": 2, "lora": {"rank": 2}}
TUNING: dict[str, Any] = {"tuning": RECIPE, "pat": {"hio_rank": 2, "milestone_fraction": 1.0}}
PRETRAIN: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 8, "layers": 1, "heads": 2, "intermediate_size": 16, "context_length": 16, "steps": 1, "batch_size": 1,
    "learning_rate": 0.1,
}  # fmt: skip
TUNE = ("tune", "--base", "base", "--data", "instruct.jsonl", "--tuner", "lora", "--run-dir", "run", "--out", "out")
SEARCH = ("search-rate", "--base", "base", "--data", "instruct.jsonl", "--tuner", "lora", "--run-dir", "run", "--out", "out.json")
PRUNE = ("prune", "--base", "base", "--pruner", "channel-magnitude", "--out", "out")
EVALUATE = ("evaluate", "--model", "base", "--text", "text.jsonl", "--task", "task.jsonl", "--out", "out.json")
MAKE = ("pretrain", "--corpus", "text.jsonl", "--run-dir", "run", "--out", "out")
EXPERIMENT: dict[str, Any] = {
    "name": "fuzz", "seeds": [0], "ratios": [0.5],
    "models": {"tiny": {"path": "base"}},
    "methods": {"lora": None, "pat": None},
    "data": {"instruct": {"source": "json", "path": "instruct.jsonl"}, "tasks": {"own": {"source": "json", "path": "own.json"}},
             "text": {"held": {"source": "json", "path": "text.jsonl"}}},
    "tuning": RECIPE, "pat": {"hio_rank": 2, "milestone_fraction": 1.0}, "evaluation": {"max_new_tokens": 4, "perplexity_context": 64},
}  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a command ended: its status, what it said, and the exception that would have been a traceback."""

    code: object
    said: str
    error: BaseException | None = None


def write_workspace(folder: Path) -> Path:
    """Write a base, an instruction set, a task, a text and an experiment that the verbs take."""
    write_world(folder)
    write_jsonl(folder / "text.jsonl", [{"text": "one two three " * 20}])
    write_items(folder / "task.jsonl", some_items())
    (folder / "own.json").write_text(json.dumps([{"question": "q", "choices": ["x", "y"], "answer": 0}]))
    (folder / "experiment.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    return folder


@contextlib.contextmanager
def quiet_process(folder: Path) -> Iterator[None]:
    """Work in `folder`, and give back environment, handlers and working folder."""
    here, environment, root = Path.cwd(), dict(os.environ), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(environment)
        root.handlers[:] = handlers
        root.setLevel(level)


def ended(arguments: Sequence[str]) -> Ended:
    """Run a verb to its end; whatever it raises besides SystemExit would be a traceback."""
    logging.getLogger().handlers[:] = []
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            run(arguments)
        except SystemExit as end:
            text = end.code if isinstance(end.code, str) else ""
            return Ended(1 if text else end.code, said.getvalue() + text)
        except BaseException as error:  # a fuzz test's subject
            return Ended(None, said.getvalue(), error)
    return Ended(0, said.getvalue())


def changed(base: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of nested mappings with one value set."""
    copy: dict[str, Any] = json.loads(json.dumps(base))
    *parents, last = path.split(".")
    place = copy
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = value
    return copy
