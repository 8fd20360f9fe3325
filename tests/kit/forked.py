"""Commands of which each is a fork of one process: their libraries take longer to import than what they do.

What is forked has imported the libraries of others alone, none of the project's own modules.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from uuid import uuid4

from tests.kit.forks.asking import run_forked

FORKS = Path(__file__).with_name("forks")
SERVER = (sys.executable, str(FORKS / "server.py"))
OF_PLANS = (
    "snakemake.cli", "snakemake.report", "smart_open", "requests", "boto3", "jinja2", "pydantic", "typer", "yaml", "safetensors",
    "dvc.cli", "dvc.repo", "dulwich.repo", "scmrepo.git", "dvc_render",
)  # fmt: skip
OF_JOBS = (
    "pydantic", "typer", "yaml", "jinja2", "torch", "accelerate", "datasets", "lm_eval.api.model", "matplotlib.figure", "pandas", "peft",
    "transformers.trainer", "transformers.models.auto.modeling_auto", "transformers.models.llama.modeling_llama",
)  # fmt: skip


def run_module(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `python -m` with a command in `folder` to its end, in this process's environment unless one is given; return what it said."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, Path(os.devnull).open() as nothing:
        files = [each.fileno() for each in (nothing, out, err)]
        status = run_forked(_server(OF_PLANS), ["-m", *command], str(folder), os.environ if environment is None else environment, files)
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode())
    return subprocess.CompletedProcess(command, status, *said)


@cache
def _server(libraries: tuple[str, ...]) -> str:
    """Return the name of this process's server that has imported some libraries; it ends with this process: its standard input does."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [*SERVER, name := f"pat-tests-{uuid4()}", ",".join(libraries)]
    server = subprocess.Popen(command, env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdout is not None and server.stdout.readline(), "the server has ended"
    return name


def forks(but_the_first: Path | None = None) -> dict[str, str]:
    """Return what the environment of a command has more whose jobs are to be forks, whoever starts them, of one process for all commands.

    With a folder to note them in, the first job of each verb starts by itself.
    """
    return _asking(_server(OF_JOBS)) | ({} if but_the_first is None else {"PAT_TESTS_FIRST": str(but_the_first)})


def with_forked_jobs(command: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return a command whose jobs are forks of a process beside it, in whatever network that is, and what its environment has more."""
    name = f"pat-tests-{uuid4()}"
    return [*SERVER, name, ",".join(OF_JOBS), *command], _asking(name)


def _asking(server: str) -> dict[str, str]:
    return {"PAT_TESTS_FORKS": server, "PYTHONPATH": os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(FORKS)])}
