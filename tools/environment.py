"""Brings the environment in .venv up to date: installs what has come to be needed, and mends one that was copied or moved with its folder.

Called by the Makefile, with the environment's own Python and nothing but Python's own library.
"""

from __future__ import annotations

import compileall
import hashlib
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
NEEDS = ("pyproject.toml", "constraints.txt")
EXTRA = {"base": "workflow"}
"""What pyproject.toml calls a group, where that is not its own name."""
HELD = {"dev": ("base",)}
"""Groups that hold others whole."""
PIP = "26.3"
"""The pip that installs: those that come with Python 3.11 and 3.12 take a minute longer to read what the index lists."""
NOT_COMPILED = re.compile(r"/site-packages/.+/tests?/")
"""Tests of others: a fifth of all files, which nobody here imports."""
PLACE = re.compile(r"(/.*)/\.venv/bin/python")
"""How a script of the environment names the folder that it was installed in."""
SCRIPT = "#!/bin/sh\n'''exec' \"{place}/.venv/bin/python\" \"$0\" \"$@\"\n' '''\n"
"""How a script begins that runs with a Python whose path may hold blanks; pip writes the same."""


def needs(root: Path) -> str:
    """Return what stands for the package's needs and the locked versions."""
    return hashlib.sha256(b"".join((root / name).read_bytes() for name in NEEDS)).hexdigest()


def is_installed(root: Path, stamp: Path) -> bool:
    """Return whether what a stamp stands for is installed; an empty one, of an earlier version, is judged by its time."""
    if not stamp.is_file():
        return False
    noted = stamp.read_text(encoding="utf-8").strip()
    return noted == needs(root) if noted else all(stamp.stat().st_mtime >= (root / name).stat().st_mtime for name in NEEDS)


def former_place(venv: Path) -> str | None:
    """Return the folder that the environment was installed in; None where no script of the package says it."""
    script = venv / "bin" / "pat"
    found = PLACE.search(script.read_text(encoding="utf-8")) if script.is_file() else None
    return found[1] if found else None


def mend(root: Path, old: str) -> None:
    """Make an environment that came from the folder `old` run the Python and the sources of this one."""
    venv = root / ".venv"
    for path in sorted((venv / "bin").iterdir()):
        if path.is_symlink() or not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a program, which names no folder
        head, _, body = text.partition("\n")
        mended = SCRIPT.format(place=root) + body if head.startswith(f"#!{old}/.venv/bin/python") else text
        if (mended := mended.replace(f"{old}/.venv", f"{root}/.venv")) != text:
            path.write_text(mended, encoding="utf-8")
    for path in venv.glob("lib/python3*/site-packages/__editable__*"):
        if path.is_file():
            named = re.compile(rf"(['\"]){re.escape(repr(old)[1:-1])}(/[^'\"]*)?\1")
            text = path.read_text(encoding="utf-8")
            path.write_text(named.sub(lambda found: repr(f"{root}{found[2] or ''}"), text), encoding="utf-8")


def install(root: Path, group: str) -> None:
    """Install the package and a group of its needs."""
    if "base" in (group, *HELD.get(group, ())):
        sys.stdout.write("Installing the environment into .venv (once; some 150 packages, a few minutes)\n")
        sys.stdout.flush()
    options = ["--quiet", "--disable-pip-version-check", "--no-compile"]  # pip compiles one file at a time
    pip = [sys.executable, "-m", "pip", "install", *options]
    if version("pip") != PIP:
        subprocess.run([*pip, f"pip=={PIP}"], cwd=root, capture_output=True, check=False)  # where it is not to be had, the other is slower
    command = [*pip, "-c", "constraints.txt", "-e", f".[{EXTRA.get(group, group)}]"]
    silent = {**os.environ, "PYTHONWARNINGS": "ignore:Editable installation"}
    if (status := subprocess.run(command, cwd=root, env=silent, check=False).returncode) != 0:
        sys.exit(status)
    for site in (root / ".venv").glob("lib/python3*/site-packages"):
        compile_all(site)


def compile_all(site: Path) -> None:
    """Compile what is not compiled yet, a process per core; what is no Python of this version stays as it is, as with pip."""
    compileall.compile_dir(site, quiet=2, workers=0, rx=NOT_COMPILED)


def main(groups: list[str]) -> None:
    """Bring groups of needs up to date: `base`, or an extra of pyproject.toml."""
    old = former_place(VENV)
    if old is not None and old != str(ROOT):
        mend(ROOT, old)
    for group in groups:
        if not is_installed(ROOT, VENV / f".{group}"):
            install(ROOT, group)
        for each in (group, *HELD.get(group, ())):
            (VENV / f".{each}").write_text(needs(ROOT), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
