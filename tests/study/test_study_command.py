"""The command of the study: its verbs, its overview, a wrong verb; and the verbs that `pat` hands over to it."""

from __future__ import annotations

import inspect
import os
import re
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

import pat.study_verbs
from pat import cli as pat_cli
from pat.io.progress import INTERRUPTED
from study import cli
from study.experiment.figures import FIGURES, Figure
from study.experiment.name import name_of
from study.figures import drawings as figures
from tests.kit.commands import outcome
from tests.kit.project import ROOT


def test_every_verb_has_a_function_and_says_what_it_does() -> None:
    shown = cli.overview()
    for verb, module in cli.VERBS.items():
        assert callable(import_module(module).main)
        assert cli.described(module).endswith(".") and cli.described(module) in shown and f"  {verb} " in shown


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_the_overview_imports_no_verb(arguments: tuple[str, ...]) -> None:
    code = "import sys; sys.argv[0] = 'study'; from study.cli import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    finished = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert finished.returncode == (0 if arguments else 2) and "validate" in finished.stdout
    assert not {"torch", "pandas", "matplotlib", *cli.VERBS.values()} & set(finished.stderr.split())


def test_a_wrong_verb_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["validat"])
    assert "study validat: no such verb; did you mean 'validate'?" in str(ended.value)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"study {pat.__version__}\n"


@pytest.mark.parametrize("argument", ["missing", "."])
def test_what_a_verb_has_not_thought_of_is_one_message_too(
    argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that the system refuses is the user's, whichever verb was given it; a mistake of ours keeps its traceback."""
    monkeypatch.chdir(tmp_path)
    code, said = outcome(["failures", argument], capsys)
    assert code == 1 and said.startswith(f"error: {argument}: ")
    monkeypatch.setattr("study.plan.failures.reasons", lambda _log: Path("/nowhere/of/ours").read_text())
    with pytest.raises(FileNotFoundError):
        cli.main(["failures", argument])


@pytest.mark.parametrize("seed", ["-1", str(2**32), "x"])
@pytest.mark.parametrize("verb", ["prepare-text", "prepare-instruct", "mix"])
def test_seeds_are_what_they_can_be(verb: str, seed: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--part", "1:x"] if verb == "mix" else ["--source", "{}"]
    code, said = outcome([verb, *given, "--out", "out", "--seed", seed], capsys)
    assert code == 2 and "--seed" in said


@pytest.mark.parametrize("verb", ["validate", "explain"])
def test_pat_hands_over_what_it_is_told_and_ends_alike(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = [verb, "missing.yaml", "--nothing"]
    theirs = outcome(given, capsys)
    finished = subprocess.run([sys.executable, "-m", "pat", *given], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stderr) == theirs and "--nothing" in finished.stderr
    helped = subprocess.run([sys.executable, "-m", "pat", verb, "--help"], capture_output=True, text=True, check=False)
    assert helped.returncode == 0 and f"study {verb}" in helped.stdout


def test_ctrl_c_in_a_verb_that_is_handed_over_is_the_other_process_s_to_say(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> subprocess.CompletedProcess[bytes]:
        os.kill(os.getpid(), signal.SIGINT)  # the terminal sends it to both
        return subprocess.CompletedProcess([], INTERRUPTED)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(subprocess, "run", interrupted)
    with pytest.raises(SystemExit) as ended:
        pat_cli.main(["validate", "x.yaml"])
    assert ended.value.code == INTERRUPTED and capfd.readouterr().err == ""
    assert signal.getsignal(signal.SIGINT) is before


def test_a_library_without_the_study_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pat.study_verbs, "CHECKOUT", tmp_path)
    monkeypatch.setattr(pat.study_verbs, "find_spec", lambda _name: None)
    with pytest.raises(SystemExit) as ended:
        pat_cli.main(["validate", "x.yaml"])
    assert "pat validate: reads experiments" in str(ended.value)


def test_every_figure_of_an_experiment_has_its_drawing() -> None:
    assert figures.DRAWINGS.keys() - {"exports"} == set(FIGURES) == set(get_args(Figure))
    for name, drawing in figures.DRAWINGS.items():
        parameters = inspect.signature(getattr(import_module(f"study.figures.{name}"), drawing.function)).parameters
        assert list(parameters)[len(drawing.reads) :] == ["out", *["of_cells"] * ("cells" in drawing.reads)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("gat",), "\"gat\" is no figure; did you mean 'gate'?"),
        (("gate", "--tuning", "tuning.json"), "figure gate: reads no --tuning; leave it out"),
        (("accuracy", "--benchmark", "it.json"), "figure accuracy: reads no --benchmark"),
        (("speedup",), "figure speedup: --benchmark is needed"),
        (("health",), "figure health: --tuning is needed"),
    ],
)
def test_a_figure_is_given_what_it_reads(given: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = outcome(["figure", *given, "--out", str(tmp_path / "out")], capsys)
    assert code == 1 and message in said and not (tmp_path / "out").exists()


def test_an_experiment_is_called_as_its_file_or_the_one_it_extends_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "whole.yaml").write_text('name: "own" # here\nseeds: [0]\n')
    (tmp_path / "part.yaml").write_text("extends: whole.yaml\n")
    for file in ("whole.yaml", "part.yaml"):
        assert name_of(tmp_path / file) == "own"
    (tmp_path / "none.yaml").write_text("name: ../up\n")
    code, said = outcome(["name", str(tmp_path / "none.yaml")], capsys)
    assert code == 1 and 'none.yaml: name: "../up" is not allowed' in said


def test_every_command_of_a_rule_is_a_verb() -> None:
    rules = "".join(path.read_text() for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")))
    called = set(re.findall(r"python -m study ([\w-]+)", rules))
    assert called and called <= cli.VERBS.keys() and "workflow/study" not in rules.replace("workflow/study/plan", "")
