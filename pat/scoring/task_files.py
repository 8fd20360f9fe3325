"""`pat tasks`: our tasks as files that lm-eval runs by itself (`lm_eval --include_path FOLDER --tasks pat`), with the same numbers as ours.

Of each task there is a definition (YAML) and its rows (JSONL) for either scoring. What lm-eval has no word for, reading the rows beside a
definition and the letter in an answer, are functions of a file that is written with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pat.data.files import name_of
from pat.data.items import Item
from pat.errors import UserError
from pat.io import artefacts
from pat.io.marks import KINDS, Folder
from pat.io.progress import say
from pat.io.provenance import provenance
from pat.scoring import definitions
from pat.scoring.answers import GENERATED_READINGS
from pat.scoring.evaluation import read_tasks

TAG = "pat"
"""The name that runs all tasks of a folder, and the beginning of each one's, lest it is one of lm-eval's own."""
GENERATED = "_generated"
"""What a task's name ends in where the model is asked for an answer."""
RECORD, FUNCTIONS = "tasks.json", "pat_tasks.py"
CODE = '''"""What the tasks beside this file need of lm-eval that its definitions have no word for. Written by `pat tasks`."""

import json
import re
from pathlib import Path
from string import ascii_uppercase

from datasets import Dataset


def rows(file, **_):
    """The rows of a task, which lie beside its definition."""
    with (Path(__file__).parent / file).open(encoding="utf-8") as lines:
        return {"test": Dataset.from_list([json.loads(line) for line in lines])}


def read_letter(doc, results):
    """Which choice the first capital letter among the choices' names, anywhere or standing alone; as `pat evaluate` reads it."""
    letters = ascii_uppercase[: doc["count"]]
    anywhere, alone = re.search(f"[{letters}]", results[0]), re.search(rf"\\b[{letters}]\\b", results[0])
    return {
        "first_capital": float(anywhere is not None and letters.index(anywhere.group()) == doc["answer"]),
        "first_capital_word": float(alone is not None and letters.index(alone.group()) == doc["answer"]),
    }
'''


class _Function(str):
    """The name of a function of FUNCTIONS, which YAML for lm-eval has a tag for."""


class _Dumper(yaml.SafeDumper):
    """Writes functions with their tag."""


_Dumper.add_representer(_Function, lambda dumper, name: dumper.represent_scalar("!function", f"{Path(FUNCTIONS).stem}.{name}"))


def write_task_files(
    tasks: Sequence[Path],
    out: Path,
    *,
    limit: int | None = None,
    group_limit: int | None = None,
    max_new_tokens: int = 8,
    force: bool = False,
) -> dict[str, list[str]]:
    """Write the folder and return the names of its tasks by ours. Raises UserError on a broken task file, or where `out` is in use."""
    items = read_tasks(tasks, limit, group_limit)
    if both := next((name for name in items if f"{name}{GENERATED}" in items), None):
        raise UserError(f"--task: {both} asked for an answer is called {both}{GENERATED} too, as another task is; rename one of the two")
    kind = KINDS["tasks"]
    assert isinstance(kind, Folder)
    named: dict[str, list[str]] = {}
    with artefacts.new_folder(out, kind, force=force) as folder:
        artefacts.write_text(folder / FUNCTIONS, CODE)
        for name, ones in items.items():
            for label, definition, rows in _both(name, ones, max_new_tokens):
                artefacts.write_jsonl(folder / f"{label}.jsonl", rows)
                artefacts.write_text(folder / f"{label}.yaml", yaml.dump(definition, Dumper=_Dumper, sort_keys=False, allow_unicode=True))
                named.setdefault(name, []).append(label)
        settings = {"limit": limit, "group_limit": group_limit, "max_new_tokens": max_new_tokens}
        record = {"tasks": named, "provenance": provenance(settings, 0, inputs={f"task {name_of(path)}": path for path in tasks})}
        artefacts.write_json(folder / RECORD, record)
    say(f"{out}: {', '.join(named)}; lm_eval --model hf --model_args pretrained=MODEL,dtype=float32 --include_path {out} --tasks {TAG}")
    return named


def _both(name: str, items: Sequence[Item], max_new_tokens: int) -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """Yield name, definition and rows of a task under either scoring."""
    label = f"{TAG}_{name}"
    yield label, _definition(label, definitions.log_likelihood()), definitions.log_likelihood_rows(items)
    label = f"{label}{GENERATED}"
    reads = {
        "process_results": _Function("read_letter"),
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in GENERATED_READINGS],
    }
    rows = [row | {"count": len(item.choices)} for row, item in zip(definitions.generated_rows(items), items, strict=True)]
    yield label, _definition(label, definitions.generated(max_new_tokens) | reads), rows


def _definition(label: str, rest: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "task": label,
        "tag": TAG,
        "custom_dataset": _Function("rows"),
        "dataset_kwargs": {"file": f"{label}.jsonl"},
        **rest,
        "metadata": {"version": 1},
    }
