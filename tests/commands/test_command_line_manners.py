"""How the command line behaves to a person: quick answers where no work is asked for, one line on Ctrl-C."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pat import __version__, cli
from pat.io import places
from pat.io.progress import INTERRUPTED, log_to
from study import cli as study_cli
from study.commands import places as study_places
from tests.kit.children import HANGS_AFTER_S, child, wait_for
from tests.kit.command_places import COMMANDS, VERBS, Command
from tests.kit.commands import outcome
from tests.kit.tiny_world import write_world

HEAVY = ("torch", "transformers", "pandas", "matplotlib", "lm_eval", "numpy", "scipy", "snakemake")
MOST_MODULES = 800
"""What a command may import that answers at once, Python's own modules included: some 500 do. torch alone brings twice as many."""
ANSWERS = {
    ("--help",): (0, "search-rate"),
    ("--version",): (0, f"pat {__version__}"),
    ("tuen",): (2, "tune"),
    ("tune", "--help"): (0, "--run-dir"),
    ("tune", "--raito", "0.5"): (2, "--ratio"),
    ("benchmark", "--help"): (0, "inference"),
    ("benchmark", "infrence"): (2, "inference"),
    ("merge", "--base", "nowhere"): (2, "--adapter"),
    (): (2, "Usage"),
}


@pytest.mark.parametrize("arguments", ANSWERS, ids=" ".join)
def test_help_the_version_and_a_typo_are_answered_without_the_libraries_that_take_seconds(arguments: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom pat.cli import main\ntry:\n    main(sys.argv[1:])\n"
        f"finally:\n    sys.stderr.write(' '.join(['loaded:', str(len(sys.modules)), *(name for name in {HEAVY!r} if name in sys.modules)]))"
    )
    status, words = ANSWERS[arguments]
    finished = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert finished.returncode == status
    assert words in finished.stdout + finished.stderr
    modules, *heavy = finished.stderr.rpartition("loaded: ")[2].split()
    assert int(modules) < MOST_MODULES and heavy == []


TWICE = [
    ("tune", "--base", "a", "--data", "b", "--tuner", "lora", "--settings", "{}", "--run-dir", "r", "--out", "o", "--out", "p"),
    ("prune", "--base", "a", "--pruner", "shortgpt", "--ratio", "0.5", "--ratio=0.25", "--out", "o"),
    ("benchmark", "inference", "--shape", "a", "--shape", "b", "--out", "o"),
    ("prepare-text", "--source", "{}", "--source", "{}", "--out", "o"),
]


@pytest.mark.parametrize("arguments", TWICE, ids=" ".join)
def test_an_option_that_is_given_twice_is_no_choice(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        (study_cli if arguments[0] in study_cli.VERBS else cli).main(arguments)
    assert ended.value.code == 2 and "given more than once" in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_ctrl_c_is_one_line(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(places, "check_apart", interrupt)
    monkeypatch.setattr(study_places, "check_apart", interrupt)
    code, said = outcome(command.arguments(tmp_path), capsys)
    assert code == INTERRUPTED
    assert "interrupted" in said and len(said.strip().splitlines()) == 1


@pytest.mark.parametrize("arguments", [("validate", "x.yaml"), ("explain", "x")], ids=" ".join)
def test_ctrl_c_is_one_line_for_verbs_without_output_too(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("study.experiment.validate.load_experiment", interrupt)
    monkeypatch.setattr("study.results.explain.explain", interrupt)
    code, said = outcome(arguments, capsys)
    assert code == INTERRUPTED and len(said.strip().splitlines()) == 1 and "interrupted" in said


@pytest.mark.parametrize("command", ["pat", "study"])
def test_ctrl_c_while_the_command_itself_is_imported_is_one_line(command: str) -> None:
    code = (
        "import runpy, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name == '{command}.cli':\n"
        "            raise KeyboardInterrupt\n"
        f"sys.meta_path.insert(0, Interrupting())\nrunpy.run_module('{command}', run_name='__main__')"
    )
    finished = subprocess.run([sys.executable, "-c", code, "validate", "x"], capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout + finished.stderr) == (INTERRUPTED, f"{command}: interrupted\n")


def test_what_torch_counts_at_its_end_is_not_said_after_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said at INFO, which torch keeps from the terminal only once it is imported to the end."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    logging.getLogger("torch").setLevel(logging.NOTSET)
    log_to(None)
    assert not logging.getLogger("torch._subclasses.fake_tensor").isEnabledFor(logging.INFO)


def test_ctrl_c_in_a_training_is_one_line_and_leaves_no_half_output(tmp_path: Path) -> None:
    base, data = write_world(tmp_path)
    settings = '{"tuning": {"max_steps": 100000, "learning_rate": 1e-3, "batch_size": 4, "checkpoint_steps": 2, "lora": {"rank": 2}}}'
    command = [
        sys.executable, "-m", "pat", "tune", "--base", str(base), "--data", str(data), "--tuner", "lora", "--settings", settings,
        "--run-dir", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--log", str(tmp_path / "log"),
    ]  # fmt: skip
    with child(command, stderr=subprocess.PIPE) as process:
        wait_for(lambda: list((tmp_path / "run").glob("checkpoint-*/manifest.json")), process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=HANGS_AFTER_S)
    assert process.returncode == INTERRUPTED
    assert "Traceback" not in said and said.strip().splitlines()[-1].startswith("pat tune: interrupted")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
    assert list((tmp_path / "run").glob("checkpoint-*")) and not (tmp_path / "run" / ".lock").exists()


def test_every_verb_is_tried() -> None:
    assert len(VERBS) >= 15
