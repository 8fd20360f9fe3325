"""The exceptions that stand for a user's mistake. Everything else is a bug of ours and keeps its traceback."""

from __future__ import annotations


class UserError(Exception):
    """A mistake of the user's: the command line prints the message alone and exits with status 1."""


class SettingError(UserError, ValueError):
    """A value that cannot be, or does not fit the model; to whoever calls the package from Python a ValueError like any other."""
