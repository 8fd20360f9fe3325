"""Bad input of every kind: one message and status 1 or 2 before the work, never a traceback, never accepted.

A corpus of kinds that were once accepted or ended in a traceback (fuzz_corpus.py), and random values for what no corpus thinks of.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kit.fuzz_corpus import KINDS as OF_SETTINGS_AND_MODELS
from tests.kit.fuzz_corpus import Case
from tests.kit.fuzz_files import file_cases
from tests.kit.fuzz_workspace import EVALUATE, MAKE, TUNE, TUNING, Ended, ended, quiet_process, write_workspace

KINDS = OF_SETTINGS_AND_MODELS | {"files of data": file_cases}
LEAST_INPUTS = 600
RANDOM = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = write_workspace(tmp_path_factory.mktemp("fuzz"))
    with quiet_process(folder):
        yield folder


def tried(case: Case, workspace: Path) -> Ended:
    """Run a case in the workspace, which is afterwards as it was."""
    if any(name.startswith("bad/") for name in case.files):
        shutil.copytree(workspace / "base", workspace / "bad")
    try:
        for name, content in case.files.items():
            if content is None:
                (workspace / name).unlink(missing_ok=True)
            elif name == "bad/config.json" and content.startswith(b'{"') and content.endswith(b"}"):
                whole = json.loads((workspace / "base/config.json").read_text())
                (workspace / name).write_text(json.dumps(whole | json.loads(content)))
            else:
                (workspace / name).write_bytes(content)
        return ended(case.arguments)
    finally:
        for name in {*(name.partition("/")[0] for name in case.files), "bad", "out", "out.json", "out.jsonl", "out_samples.jsonl", "run"}:
            shutil.rmtree(workspace / name, ignore_errors=True) if (workspace / name).is_dir() else (workspace / name).unlink(
                missing_ok=True
            )


def refused(found: Ended) -> bool:
    for_its_content = "Traceback" not in found.said and "given more than once" not in found.said
    return found.error is None and found.code in (1, 2) and "rror" in found.said and for_its_content


def test_the_corpus_is_large_enough() -> None:
    assert sum(len(list(cases())) for cases in KINDS.values()) >= LEAST_INPUTS


@pytest.mark.parametrize("kind", KINDS)
def test_nonsense_is_one_message(kind: str, workspace: Path) -> None:
    ends = [(case, tried(case, workspace)) for case in KINDS[kind]()]
    tracebacks = [f"{_short(case)}: {found.error!r}" for case, found in ends if found.error is not None]
    accepted = [_short(case) for case, found in ends if found.error is None and found.code == 0]
    unclear = [f"{_short(case)}: {found.code} {found.said[-200:]}" for case, found in ends if found.error is None and not refused(found)]
    counts = {"inputs": len(ends), "tracebacks": len(tracebacks), "accepted": len(accepted), "unclear": len(unclear)}
    assert counts == {"inputs": len(ends), "tracebacks": 0, "accepted": 0, "unclear": 0}, "\n".join([*tracebacks, *accepted, *unclear])


def _short(case: Case) -> str:
    files = {name: content and content[:120] for name, content in case.files.items()}
    return f"{' '.join(case.arguments[:1])} … {' '.join(case.arguments[-4:])[:160]!r} {files or ''}"


@RANDOM
@given(value=JSON)
def test_random_settings_are_refused(value: Any, workspace: Path) -> None:
    for command in (TUNE, MAKE):
        assert refused(tried(Case((*command, "--settings", "bad.json"), {"bad.json": json.dumps(value).encode()}), workspace))
    wrong = json.dumps({"tuning": {**TUNING["tuning"], "lora": {"rank": 2, "alpha": [value]}}})
    assert refused(tried(Case((*TUNE, "--settings", wrong)), workspace))


@RANDOM
@given(value=JSON)
def test_random_rows_are_refused(value: Any, workspace: Path) -> None:
    line = json.dumps({"instruction": "a", "output": [value]}).encode()
    for content in (line, json.dumps(value).encode()):
        assert refused(tried(Case((*TUNE, "--data", "bad.jsonl", "--settings", json.dumps(TUNING)), {"bad.jsonl": content}), workspace))
    arguments = (*EVALUATE[:3], "--settings", "{}", "--task", "bad.jsonl", "--out", "out.json")
    assert refused(tried(Case(arguments, {"bad.jsonl": json.dumps(value).encode()}), workspace))


@RANDOM
@given(content=st.binary(max_size=40))
def test_random_bytes_are_refused_wherever_a_file_is_read(content: bytes, workspace: Path) -> None:
    for case in (
        Case(("validate", "bad.yaml"), {"bad.yaml": content}),
        Case((*TUNE, "--data", "bad.jsonl", "--settings", json.dumps(TUNING)), {"bad.jsonl": content}),
        Case((*TUNE, "--base", "bad", "--settings", json.dumps(TUNING)), {"bad/model.safetensors": content}),
    ):
        assert refused(tried(case, workspace))


@pytest.mark.parametrize("place", ["--settings", "--data", "validate", "--base"])
def test_a_pipe_is_refused_and_not_waited_for(place: str, workspace: Path) -> None:
    os.mkfifo(workspace / "pipe.jsonl")
    try:
        recipe = ("--settings", json.dumps(TUNING))
        arguments = ("validate", "pipe.jsonl") if place == "validate" else (*TUNE, *recipe, place, "pipe.jsonl")
        found = ended(arguments)
    finally:
        (workspace / "pipe.jsonl").unlink()
    assert refused(found) and "pipe.jsonl" in found.said


def test_the_workspace_itself_is_accepted(workspace: Path) -> None:
    """What the corpus changes is right as it stands."""
    assert ended(("validate", "experiment.yaml")).code == 0
    assert tried(Case((*TUNE, "--settings", json.dumps(TUNING))), workspace).code == 0
    assert tried(Case((*EVALUATE, "--settings", '{"max_new_tokens": 2, "perplexity_context": 64}')), workspace).code == 0
