"""The environment's upkeep: installed once and compiled, again when the needs change and not when a copy has other times; a copied one
runs its own folder's code.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.kit.project import ROOT
from tools import environment

NEEDS = {"pyproject.toml": "[project]\n", "constraints.txt": "torch==1\n"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with an environment whose scripts name their folder, as pip writes them."""
    root = tmp_path / "original"
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / "pat").mkdir()
    (root / "pat" / "__init__.py").write_text("import pathlib\nprint(pathlib.Path(__file__).parent.parent.name)\n")
    for name, text in NEEDS.items():
        (root / name).write_text(text)
    python = root / ".venv" / "bin" / "python"
    python.symlink_to(sys.executable)
    site = root / ".venv" / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    for name in ("pat", "other"):
        script = root / ".venv" / "bin" / name
        script.write_text(f"#!{root}/.venv/bin/python\nimport sys\nprint(sys.argv[0])\n")
        script.chmod(0o755)
    (root / ".venv" / "bin" / "activate").write_text(f'VIRTUAL_ENV="{root}/.venv"\n')
    (root / ".venv" / "bin" / "program").write_bytes(b"\x7fELF\xff\xfe" + str(root).encode())
    (site / "__editable___x_finder.py").write_text(f"MAPPING = {{'pat': {str(root / 'pat')!r}}}\n")
    return root


def test_a_copied_environment_runs_what_lies_beside_it(project: Path) -> None:
    copied = Path(shutil.copytree(project, project.parent / "ä b's copy", symlinks=True))
    assert environment.former_place(copied / ".venv") == str(project)
    program = (copied / ".venv" / "bin" / "program").read_bytes()
    environment.mend(copied, str(project))
    assert environment.former_place(copied / ".venv") == str(copied)
    for name in ("pat", "other"):
        script = copied / ".venv" / "bin" / name
        assert os.access(script, os.X_OK)
        assert subprocess.run([script], capture_output=True, text=True, check=True).stdout.strip() == str(script)
    finder: dict[str, dict[str, str]] = {}
    exec((copied / ".venv/lib/python3.11/site-packages/__editable___x_finder.py").read_text(), finder)
    assert finder["MAPPING"] == {"pat": str(copied / "pat")}
    assert f'"{copied}/.venv"' in (copied / ".venv" / "bin" / "activate").read_text()
    assert (copied / ".venv" / "bin" / "program").read_bytes() == program
    assert str(project) in (project / ".venv" / "bin" / "pat").read_text(), "the original is as it was"
    again = Path(copied.rename(copied.with_name("again")))
    environment.mend(again, str(copied))
    assert environment.former_place(again / ".venv") == str(again)


def test_what_is_installed_is_told_by_the_needs_and_not_by_times(project: Path) -> None:
    stamp = project / ".venv" / ".base"
    assert not environment.is_installed(project, stamp)
    stamp.write_text(environment.needs(project))
    os.utime(project / "pyproject.toml")
    assert environment.is_installed(project, stamp)
    (project / "constraints.txt").write_text("torch==2\n")
    assert not environment.is_installed(project, stamp)


def test_an_empty_stamp_of_an_earlier_version_is_judged_by_its_time(project: Path) -> None:
    stamp = project / ".venv" / ".base"
    stamp.touch()
    newest = max((project / name).stat().st_mtime for name in NEEDS)
    os.utime(stamp, (newest + 1, newest + 1))
    assert environment.is_installed(project, stamp)
    os.utime(stamp, (newest - 1, newest - 1))
    assert not environment.is_installed(project, stamp)


def test_a_group_that_holds_another_is_installed_in_one_go(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for group, held in environment.HELD.items():
        (named,) = (found[1].split(",") for need in extras[group] if (found := re.fullmatch(r"pruning-aware-tuning\[(.+)\]", need)))
        assert {environment.EXTRA[each] for each in held} <= set(named)
    installed: list[str] = []
    monkeypatch.setattr(environment, "ROOT", project)
    monkeypatch.setattr(environment, "VENV", project / ".venv")
    monkeypatch.setattr(environment, "install", lambda _root, group: installed.append(group))
    for groups in (["dev"], ["base", "dev"]):
        environment.main(groups)
    assert installed == ["dev"]
    (project / "constraints.txt").write_text("torch==2\n")
    environment.main(["base"])
    assert installed == ["dev", "base"]


def test_what_is_installed_is_compiled_but_tests_of_others_and_what_is_no_python(project: Path) -> None:
    (site,) = project.glob(".venv/lib/python3*/site-packages")
    for name in ("one.py", "other/tests.py", "other/tests/test_it.py", "other/template.py"):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text("{{ name }} = 1 1\n" if "template" in name else "pass\n")
    environment.compile_all(site)
    compiled = {path.name.partition(".")[0] for path in (site / "other").rglob("*.pyc")}
    assert compiled == {"tests"} and list(site.glob("__pycache__/one.*.pyc"))


@pytest.mark.parametrize(("found", "asked"), [("23.2.1", [f"pip=={environment.PIP}", ".[dev]"]), (environment.PIP, [".[dev]"])])
def test_another_pip_is_replaced_and_installs_where_that_cannot_be(
    found: str, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 1 if command[-1].startswith("pip==") else 0)

    monkeypatch.setattr(environment, "version", {"pip": found}.__getitem__)
    monkeypatch.setattr("tools.environment.subprocess.run", run)
    environment.install(tmp_path, "dev")
    assert [command[-1] for command in commands] == asked
