"""The library by itself: it imports without what its extras and the workflow bring, and says what to install where a verb needs it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pat import cli
from pat.machine.extras import EXTRAS
from study import cli as study_cli
from tests.kit.project import ROOT
from tests.kit.tiny_checkpoint import write_tiny_checkpoint

NOT_THE_LIBRARYS = ("lm_eval", "datasets", "gguf", "compressed_tensors", "matplotlib", "pandas", "scipy", "snakemake", "dvc", "study")
OF_EXTRAS = {
    "pat.scoring.harness",
    "pat.scoring.batched_lm",
    "pat.benchmark.evaluation",
    "pat.checkpoints.gguf_import",
    "pat.export.gguf_file",
    "pat.export.gguf_families",
    "pat.export.gguf_plan",
    "pat.export.gguf_tokenizer",
    "pat.export.compressed",
}
"""Modules of an extra; whoever calls them asks for it first."""
IMPORTS_ALL = f"""
import importlib, pkgutil, sys
for name in {NOT_THE_LIBRARYS!r}:
    sys.modules[name] = None
import pat
for module in pkgutil.walk_packages(pat.__path__, "pat."):
    if module.name not in {OF_EXTRAS | {"pat.__main__"}!r}:
        importlib.import_module(module.name)
"""


def test_the_library_needs_nothing_of_the_extras() -> None:
    finished = subprocess.run([sys.executable, "-c", IMPORTS_ALL], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


def test_extras_are_the_packages_of_the_project_file() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra, modules in EXTRAS.items():
        assert sorted(need.partition(">")[0].replace("-", "_") for need in declared[extra]) == sorted(modules)


@pytest.mark.parametrize(
    ("arguments", "package", "extra"),
    [
        (("evaluate", "--model", "m", "--settings", "{}", "--task", "<w>/t.jsonl", "--out", "<w>/x.json"), "lm_eval", "evaluation"),
        (("fetch-tasks", "--task", "arc_easy", "--out", "<w>/x"), "datasets", "evaluation"),
        (("benchmark", "evaluation", "--out", "<w>/x.json"), "lm_eval", "evaluation"),
        (("export", "--model", "m", "--to", "gguf", "--out", "<w>/x"), "gguf", "gguf"),
        (("export", "--model", "m", "--to", "int4", "--out", "<w>/x"), "compressed_tensors", "export"),
        (("import-model", "--gguf", "<w>/t.jsonl", "--out", "<w>/x"), "gguf", "gguf"),
    ],
)
def test_a_verb_of_an_extra_says_what_to_install(
    arguments: tuple[str, ...], package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as ended:
        cli.main([word.replace("<w>", str(tmp_path)) for word in arguments])
    assert f"needs {package}: pip install 'pruning-aware-tuning[{extra}]'" in str(ended.value)


def test_a_verb_of_the_study_says_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(study_cli.VERBS, "ours", "study.not_written_yet")
    with pytest.raises(ModuleNotFoundError):  # no package that is missing, a mistake of ours
        study_cli.main(["ours"])
    monkeypatch.setitem(study_cli.VERBS, "drawn", "pandas_is_not_here")
    with pytest.raises(SystemExit) as ended:
        study_cli.main(["drawn"])
    assert "study drawn needs pandas_is_not_here: pip install 'pruning-aware-tuning[workflow]'" in str(ended.value)


def test_perplexity_needs_no_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in EXTRAS["evaluation"]:
        monkeypatch.setitem(sys.modules, name, None)
    base = write_tiny_checkpoint(tmp_path / "model")
    (tmp_path / "held.jsonl").write_text('{"text": "a few words of text to be read"}\n')
    settings, text = '{"device": "cpu", "perplexity_context": 16}', str(tmp_path / "held.jsonl")
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", "--model", str(base), "--text", text, "--settings", settings, "--out", str(tmp_path / "x.json")])
    assert ended.value.code == 0 and (tmp_path / "x.json").is_file()
