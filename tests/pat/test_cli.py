"""The command line: a user's mistake is one line and status 1; verbs exist as documented."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pat import cli
from tests.kit.commands import outcome

TUNE = ("tune", "--base", "b", "--data", "d", "--run-dir", "r", "--out", "x")
SEARCH = '{"tuning": {"max_steps": 1, "batch_size": 1, "search": {"learning_rates": [1, 2]}}}'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("merge", "--base", "nowhere", "--adapter", "nowhere", "--out", "x"), "nowhere"),
        (
            ("prune", "--base", "nowhere", "--pruner", "channel-magnitude", "--ratio", "0.5", "--out", "x", "--align", "seven"),
            "--align 'seven'",
        ),
        (("validate", "missing.yaml"), "missing.yaml: no such file\n"),
        (("validate", "."), ".: is a folder, where a file is needed\n"),
        (("import-model", "--out", "x"), "exactly one of --path, --hub and --gguf"),
        ((*TUNE, "--tuner", "pat", "--settings", "{}"), "tuning"),
        (
            (
                *TUNE,
                "--tuner",
                "lora",
                "--settings",
                '{"tuning": {"max_steps": 1, "learning_rate": 1, "batch_size": 1, "distillation": {}}}',
            ),
            "tuning.distillation is set, but there is no --teacher",
        ),
        ((*TUNE, "--tuner", "lora", "--settings", SEARCH), "tuning.search is set, but there is no --rate-from"),
        ((*TUNE, "--tuner", "lora", "--settings", SEARCH, "--rate-from", "rate.json"), "rate.json: no such file"),
        (("search-rate", *TUNE[1:], "--tuner", "lora", "--settings", SEARCH), "b: no such folder"),
    ],
)
def test_a_users_mistake_is_one_message(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = outcome(arguments, capsys)
    assert code == 1 and said.startswith("error: ") and message in said and "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_a_process_ends_with_the_message_and_its_status() -> None:
    command = [sys.executable, "-m", "pat.cli", "merge", "--base", "nowhere", "--adapter", "nowhere", "--out", "x"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert finished.stderr.startswith("error: nowhere") and len(finished.stderr.splitlines()) == 1


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    listed = set(re.findall(r"^\W*([a-z][a-z-]+)\s", shown, re.MULTILINE))
    verbs = {command.name or command.callback.__name__.replace("_", "-") for command in cli.app.registered_commands if command.callback}
    groups = {group.name for group in cli.app.registered_groups}
    assert len(verbs) > 10 and verbs | groups <= listed
