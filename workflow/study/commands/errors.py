"""How every verb of the study ends: one line on success; a user's mistake, or a file that the system refuses, as one message."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from pat.errors import UserError
from pat.io.progress import INTERRUPTED
from pat.io.storage import is_refusal, refusal


def run_reporting_errors(action: Callable[[], str]) -> None:
    """Run `action` and show the line it returns, or the message of its error."""
    with errors_reported():
        typer.echo(action())


@contextmanager
def errors_reported() -> Iterator[None]:
    """Turn a user's mistake, or a file that the system refuses, into its message alone and exit status 1; Ctrl-C into one line."""
    try:
        yield
    except (UserError, OSError) as error:
        if isinstance(error, OSError) and not is_refusal(error):
            raise
        shown = refusal(error) if isinstance(error, OSError) else error
        typer.echo(f"error: {shown}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from None
