"""What a user sees of a long job: a line on the terminal every few seconds, and the same lines in the log file."""

from __future__ import annotations

import logging
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from pat import __version__
from pat.io.marks import log_of
from pat.machine.processes import is_main

LINE_INTERVAL_S = 10.0
INTERRUPTED = 130
"""The exit status of what was ended by Ctrl-C."""
logger = logging.getLogger("pat")


def log_to(log: Path | None, title: str = "pat") -> None:
    """Send all log records to `log` (all but progress lines leave the terminal then), or to the terminal where it is None.

    A log begins with its `title`; one with the same title is begun again, to any other the records are added. Of several processes of a
    job the main one speaks; the others only of errors, on the terminal.
    """
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # where even the log cannot be written, the job's own message says why
    root = logging.getLogger()
    root.setLevel(logging.INFO if is_main() else logging.ERROR)
    logging.getLogger("torch").setLevel(logging.WARNING)  # as torch itself does, but not where Ctrl-C cuts its import short
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if log is not None and is_main():
        log.parent.mkdir(parents=True, exist_ok=True)
        begun_before = (log_of(log) or "").startswith(f"{title}, version ")
        handler = logging.FileHandler(log, mode="w" if begun_before else "a", encoding="utf-8", errors="backslashreplace")
        terminal = logging.StreamHandler(sys.stderr)
        terminal.setFormatter(logging.Formatter("%(message)s"))
        terminal.addFilter(lambda record: bool(getattr(record, "for_terminal", False)))
        root.addHandler(terminal)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    if isinstance(handler, logging.FileHandler):
        logger.info(f"{title}, version {__version__}")


def say(message: str) -> None:
    """Show one line on the terminal and keep it in the log."""
    logger.info(message, extra={"for_terminal": True})


def told_figure(figure: float | None, form: str = ".4g") -> str:
    """Return a figure of a record for a line; None stands for one that is too large for a number."""
    return "too large" if figure is None else format(figure, form)


def fail(message: str) -> NoReturn:
    """End the process with status 1 and a message on the terminal, and in the log file where there is one: others look there for it."""
    if any(isinstance(handler, logging.FileHandler) for handler in logging.getLogger().handlers):
        logger.error(message)
    sys.exit(f"error: {message}")


def note_traceback(error: BaseException) -> None:
    """Keep in the log file, where there is one, what the terminal is told of an error that is no user's: its traceback, then a line."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            told = (f"{type(error).__name__}: {error}".splitlines() or [""])[0]
            entries = ((logging.CRITICAL, "ended by an error that is not yours", error), (logging.ERROR, told, None))
            for level, message, cause in entries:
                exception = None if cause is None else (type(cause), cause, cause.__traceback__)
                handler.handle(logging.LogRecord(logger.name, level, __file__, 0, message, None, exception))


def interrupted(verb: str) -> NoReturn:
    """End the process as Ctrl-C does, with one line instead of a traceback; of several processes of a job the main one says it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a launcher passes on what the terminal has sent to all
    if is_main():
        print(f"pat {verb}: interrupted; the same command begins again, or goes on from its last checkpoint", file=sys.stderr)  # noqa: T201
    sys.exit(INTERRUPTED)


class Progress:
    """Counts a job's steps and shows rate-limited lines with the figures given and the time left."""

    def __init__(self, label: str, total: int) -> None:
        self.label = label
        self.total = total
        self._began = self._rated_from = self._last_line = time.monotonic()
        self._first: int | None = None

    def update(self, done: int, **figures: float) -> None:
        """Note that `done` of the steps are done; a line appears at most every ten seconds."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._rated_from = done, now  # what comes before, as a compilation, says nothing of the steps to come
        if now - self._last_line < LINE_INTERVAL_S:
            return
        self._last_line = now
        shown = "".join(f", {name} {value:.4g}" for name, value in figures.items())
        say(f"{self.label}: {done}/{self.total}{shown}{self._time_left(done, now)}")

    def _time_left(self, done: int, now: float) -> str:
        steps_since_start = done - (self._first or 0)
        if steps_since_start <= 0:
            return ""
        seconds = (now - self._rated_from) / steps_since_start * (self.total - done)
        return f", {seconds:.0f} s left"

    def finish(self, message: str = "done") -> None:
        """Show the closing line, with the wall time."""
        say(f"{self.label}: {message} ({time.monotonic() - self._began:.1f} s)")
