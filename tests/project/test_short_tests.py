"""`make test-unit` leaves out what starts processes, found by the code of the tests and of what they call."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.kit import commands, project, smoke_run
from tests.kit.children import child
from tests.kit.short_tests import starts_processes, uses_starter


def starts_one() -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)


def by_a_helper() -> None:
    for _ in range(2):
        starts_one()


def nothing_of_the_kind() -> str:
    return sys.executable


class Both:
    def one(self) -> None:
        by_a_helper()


@pytest.fixture
def costly() -> None:
    by_a_helper()


@pytest.mark.parametrize("named", [starts_one, by_a_helper, Both, child, project.snakemake, project.planned, smoke_run.run, costly])
def test_what_starts_processes_is_found(named: object) -> None:
    assert uses_starter(named)


@pytest.mark.parametrize("named", [nothing_of_the_kind, project.copy_workflow, commands.outcome, subprocess.run, 3])
def test_what_does_not_is_not(named: object) -> None:
    assert not uses_starter(named)


def test_a_fixture_counts_as_the_tests_own(request: pytest.FixtureRequest, costly: None) -> None:
    assert starts_processes(request.node)


def test_a_test_by_itself_starts_none(request: pytest.FixtureRequest) -> None:
    assert not starts_processes(request.node)
