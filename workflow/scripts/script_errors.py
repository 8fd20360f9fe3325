"""How every script of the workflow ends: one line on success, a user's mistake as one message and exit status 1."""

from __future__ import annotations

from collections.abc import Callable

import typer

from pat.errors import UserError


def run_reporting_errors(action: Callable[[], str]) -> None:
    """Run `action` and show the line it returns; show a UserError's message in place of a traceback."""
    try:
        typer.echo(action())
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
