"""For all tests: one thread, no network, nothing of the caller's habits, and a copy of the workflow to run in, where a test needs one."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from pat.machine.gpus import visible
from tests.kit.gpus import ALL_GPUS
from tests.kit.made_once import made_once
from tests.kit.project import ROOT, copy_workflow
from tests.kit.short_tests import starts_processes

COLOURS = ("GITHUB_ACTIONS", "FORCE_COLOR", "PY_COLORS", "CLICOLOR_FORCE")
"""Variables for which typer and rich write colours into what is no terminal, between the letters of an option's name."""
LOCAL = ",".join([*filter(None, [os.environ.get("no_proxy", os.environ.get("NO_PROXY"))]), "127.0.0.1", "localhost"])
for name in [name for name in os.environ if name in (*COLOURS, "SNAKEMAKE_PROFILE") or name.startswith("GIT_")]:
    del os.environ[name]
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_DEACTIVATE_ASYNC_LOAD": "1",  # four threads to read a tiny model cost more than they bring
    "NO_PROXY": LOCAL,  # servers of the tests are on this machine
    "no_proxy": LOCAL,
    "COLUMNS": "80",  # help is laid out for a terminal of this width
    "GIT_CONFIG_GLOBAL": os.devnull,  # no hooks, signatures and ignored names of whoever runs the tests
    "GIT_CONFIG_NOSYSTEM": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOT / "workflow"), *filter(None, [os.environ.get("PYTHONPATH")])]),
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
}
# In sight of several GPUs a Trainer makes replicas of its model, which `pat` prevents where it starts a process: so do tests in this one.
os.environ.setdefault(ALL_GPUS, ",".join(visible()))
if "," in os.environ[ALL_GPUS]:
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ[ALL_GPUS].partition(",")[0]
gc.disable()  # until all tests are collected: what they import stays, and looking through it for garbage took a quarter of the time
# No example is too slow on a busy machine, and the examples are the same each time, whatever was tried before.
settings.register_profile("steady", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


UNITS = ("pat", "study")
"""Folders of tests that ask one module at a time."""
WHOLE = "finished"
"""The fixture of tests that need a whole run of the workflow."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make test-unit` runs: tests of the packages, but for those that start processes or are marked as lengthy.

    Tests of whole runs come first, so that no process is left alone at the end with one that takes minutes.
    """
    for item in items:
        if item.path.relative_to(ROOT / "tests").parts[0] not in UNITS or item.get_closest_marker("lengthy") is not None:
            continue
        if not _needs_a_whole_run(item) and not starts_processes(item):
            item.add_marker("unit")
    items.sort(key=lambda item: not (_needs_a_whole_run(item) or item.path.parent == ROOT / "tests" / "workflow"))


def pytest_collection_finish() -> None:
    """Have garbage looked for again."""
    gc.enable()


def _needs_a_whole_run(item: pytest.Item) -> bool:
    return WHOLE in getattr(item, "fixturenames", ())


@pytest.fixture(autouse=True, scope="module")
def _what_stays_is_not_searched() -> None:
    """Libraries and collected tests are some million objects: each training looks through them for garbage, and that takes a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Equal settings give equal bytes for a fixed number of threads alone."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_numbers_each_time() -> None:
    """A test that draws numbers without a seed of its own draws the same ones each time, whichever tests ran before it."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the workflow in which the smoke experiment has run to its end, without a network where the system can take it away.

    It is made once for all tests: copy it before changing anything. Each of several test processes has a copy of its own to plan in. Its
    jobs are forks of a process that has imported the libraries of others; the first of each verb in test_plugins, and those of test_kills, start by themselves.
    """
    from tests.kit.smoke_run import NAMESPACES, NO_NETWORK, run

    def make(folder: Path) -> None:
        first = run(copy_workflow(folder), inside=NO_NETWORK if NAMESPACES else (), forked=True)
        assert first.returncode == 0, first.stdout + first.stderr

    return made_once(tmp_path_factory, "finished", make)


@pytest.fixture(scope="session")
def workflow_copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the workflow that tests share for plans; it holds no results."""
    yield copy_workflow(tmp_path_factory.mktemp("workflow") / "copy")
