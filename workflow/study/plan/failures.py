"""Why jobs of a run failed, read from Snakemake's log at its end: what each said of itself, or, of those that were cut off from outside by
SLURM or by the kernel and could say nothing, what a user can change.

    study failures LOG    what the jobs said that failed in the run of this log
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

PHASES = {
    "search_rate": "tune",
    "rotate": "prune",
    "refit_readers": "prune",
    "prune_base": "prune",
    "prune_tuned": "prune",
    "benchmark_inference": "benchmark",
    "benchmark_tuning": "benchmark",
}
"""Rules that are not named after the block of `resources` they run under; all others but these and their namesakes run under `prepare`."""
OWN_PHASES = ("pretrain", "tune", "merge", "evaluate")
NO_MEMORY = "ran out of the machine's memory: set resources.{phase}.mem_mb higher"
ADVICE = {
    "TIMEOUT": "ran out of time: set resources.{phase}.runtime (minutes) higher",
    "DEADLINE": "ran out of time: set resources.{phase}.runtime (minutes) higher",
    "OUT_OF_MEMORY": NO_MEMORY,
    "NODE_FAIL": "lost its node",
    "PREEMPTED": "had to give way to other jobs",
    "CANCELLED": "was cancelled",
    "SIGKILL": "was killed, which the kernel does to the largest process when memory runs out; if nobody else did it: "
    "set resources.{phase}.mem_mb higher, or run fewer jobs at a time (--jobs, --cores)",
}
SMALLER = "or let it need less: tuning.micro_batch_size lower, tuning.gradient_checkpointing: feed-forward or true, tuning.precision: bf16"
AGAIN = "Then call the same command again: finished jobs are kept, and a tuning goes on from its last checkpoint."
SLURM_ERROR = re.compile(
    r"^Error in rule (?P<rule>\w+):\n    message: SLURM-job .*SLURM status is: '(?P<state>\w+)'(?P<rest>.*(?:\n    .*)*)", re.MULTILINE
)
SLURM_LOG = re.compile(r"\S+/slurm_logs/\S+\.log")
OVER_MEMORY = re.compile(r"exceeded (?:job |step )?memory limit|oom[-_ ]kill|out-of-memory", re.IGNORECASE)
"""What slurmd writes of a step that it, or the kernel for it, has killed; the job's state may say no more than FAILED."""
KILLED = re.compile(r"(?:died with <Signals\.SIGKILL: 9>|returned non-zero exit status 137)\.\n+(?:\[.*\]\n)?Error in rule (?P<rule>\w+):")


FAILED = re.compile(
    r"^Error in rule (?P<rule>\w+):\n(?:    (?!log:).*\n)*    log: (?P<logs>.*?) \(check log file\(s\) for error details\)", re.MULTILINE
)
SAID = re.compile(r"(?:^error: |^\S+ \S+ ERROR pat: )(?P<message>.*(?:\n(?!\d{4}-\d\d-\d\d |error: ).*){0,5})", re.MULTILINE)
"""What a job ends with: a message of one line or of some, with or without the time before it."""
ENTRY = re.compile(r"^\S+ \S+ (?:INFO|WARNING) \S+: ")
MOST_SHOWN = 5


def reasons(log: Path) -> str:
    """Return why the jobs of a run failed, in their own words: a line for each, the same words once; nothing where none has failed."""
    found: dict[str, str] = {}
    for failed in FAILED.finditer(_read(log)):
        files = [Path(name.strip()) for name in failed["logs"].split(", ")]
        for file in (each for each in files if each.is_file()):
            if message := _last_words(_read(file)):
                found.setdefault(message, f"{failed['rule']}: {message} ({file})")
    lines = list(found.values())
    more = [f"and {len(lines) - MOST_SHOWN} more, in the logs that are named above"] if len(lines) > MOST_SHOWN else []
    return "\n".join(["Not finished, because:", *lines[:MOST_SHOWN], *more]) if lines else ""


def _last_words(text: str) -> str:
    """Return the message that a job's log ends with; of a log without one, such as a traceback's, the last line.

    That line is no reason where it is an entry like any other: the job was cut off.
    """
    said = [found["message"].strip() for found in SAID.finditer(text)]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = next(iter(lines[-1:]), "")
    return said[-1] if said else ENTRY.sub("ended without saying why, after: ", last)


def advice(log: Path) -> str:
    """Return what to change after a failed run, a line for each rule and cause; nothing where jobs have ended by themselves."""
    text = _read(log)
    ended = [(found["rule"], _cause(found["state"], found["rest"])) for found in SLURM_ERROR.finditer(text)]
    ended += [(found["rule"], "SIGKILL") for found in KILLED.finditer(text)]
    lines = [_line(rule, cause) for rule, cause in dict.fromkeys(ended) if cause in ADVICE]
    return "\n".join([*lines, AGAIN]) if lines else ""


def _cause(state: str, rest: str) -> str:
    """Return the cause of a job's end by its state and by what its own log from SLURM says."""
    log = SLURM_LOG.search(rest)
    if state == "FAILED" and log and Path(log[0]).is_file() and OVER_MEMORY.search(_read(Path(log[0]))):
        return "OUT_OF_MEMORY"
    return state


def _read(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")


def phase_of(rule: str) -> str:
    """Return the block of `resources` that a rule's jobs run under."""
    return PHASES.get(rule, rule if rule in OWN_PHASES else "prepare")


def _line(rule: str, cause: str) -> str:
    phase = phase_of(rule)
    less = f", {SMALLER}" if phase == "tune" and ADVICE[cause] == NO_MEMORY else ""
    return f"A job of the rule {rule} {ADVICE[cause].format(phase=phase)}{less}."


def main(log: Annotated[Path, typer.Argument(help="Snakemake's log of a run.")]) -> None:
    """Say what the jobs said that failed in a run."""
    if said := reasons(log):
        typer.echo(f"\n{said}", err=True)
