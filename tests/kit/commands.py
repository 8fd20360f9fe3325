"""The verbs of pat and of the study, called in this process through the same doors as on the command line."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pat import cli
from study import cli as study_cli


def run(arguments: Sequence[str]) -> None:
    """Run a verb of the study, or of pat, as its command line does; ends in SystemExit."""
    command = study_cli if arguments[0] in study_cli.VERBS else cli
    command.main(arguments)


def outcome(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Run a command; return its exit status and what it said. Any other exception than SystemExit would be a traceback."""
    with pytest.raises(SystemExit) as ended:
        run(arguments)
    code = ended.value.code
    return (1, code) if isinstance(code, str) else (code, capsys.readouterr().err)
