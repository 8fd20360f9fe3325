"""The verbs of pat and of the study, called in this process through the same doors as on the command line."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pat import cli
from study import cli as study_cli

REPEATED = (
    "--task",
    "--text",
    "--model",
    "--plugin",
    "--part",
    "--step",
    "--column",
    "--cells",
    "--benchmark",
    "--dataset",
    "--calibration-column",
    "--ridge",
)
"""Options that may be given more than once."""


def run(arguments: Sequence[str]) -> None:
    """Run a verb of the study, or of pat, as its command line does; ends in SystemExit.

    A test varies a whole command by options behind it: they take the place of those before, which a command line refuses.
    """
    command = study_cli if arguments[0] in study_cli.VERBS else cli
    command.main(varied(arguments))


def varied(arguments: Sequence[str]) -> list[str]:
    """Return a command of which the last of two equal options is left, but of those that may be given more than once."""
    left = list(arguments)
    for option in {word for word in left if word.startswith("--") and left.count(word) > 1} - {*REPEATED, "--force"}:
        while left.count(option) > 1:
            at = left.index(option)
            del left[at : at + 2]
    return left


def outcome(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Run a command; return its exit status and what it said. Any other exception than SystemExit would be a traceback."""
    with pytest.raises(SystemExit) as ended:
        run(arguments)
    code = ended.value.code
    return (1, code) if isinstance(code, str) else (code, capsys.readouterr().err)
