"""The one exception that stands for a user's mistake. Everything else is a bug of ours and keeps its traceback."""

from __future__ import annotations


class UserError(Exception):
    """A mistake of the user's: the command line prints the message alone and exits with status 1."""
