"""Writes constraints.txt: one set of versions that resolves on Linux for every supported Python, for CPU and GPU alike.

It is used as constraints (`pip install -c constraints.txt .`), never as requirements: the CUDA libraries that it pins are installed
only where the chosen build of torch asks for them. Resolves from scratch; needs the package index. Called by `make lock`.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "constraints.txt"
HEADER = """\
# Made by `make lock`. Use as constraints, not as requirements: pip install -c constraints.txt .
# Tested versions for Linux, Python {pythons}. The CUDA libraries are installed only beside a CUDA build of torch.
"""


def resolve(python: str, requirements: list[str], pins: Mapping[str, str]) -> dict[str, str]:
    """Return name -> version of all that pip would install into an empty environment of `python`, kept to `pins`."""
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "pins.txt"
        constraints.write_text(as_lines(pins), encoding="utf-8")
        report = Path(folder) / "report.json"
        command = [python, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        command += ["--constraint", str(constraints), "--report", str(report), *requirements]
        subprocess.run(command, check=True, cwd=ROOT)
        installs = json.loads(report.read_text(encoding="utf-8"))["install"]
    found = {item["metadata"]["name"]: item["metadata"]["version"] for item in installs}
    return {normal(name): public(version) for name, version in found.items() if normal(name) != "pruning-aware-tuning"}


def normal(name: str) -> str:
    """Return a distribution's name as all indexes spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def public(version: str) -> str:
    """Return the version without a build's local label: torch 2.13.0+cpu and the CUDA build are one release."""
    return version.partition("+")[0]


def as_lines(pins: Mapping[str, str]) -> str:
    """Return the pins as a constraints file's lines."""
    return "".join(f"{name}=={pins[name]}\n" for name in sorted(pins))


def python_version(python: str) -> str:
    """Return "3.11" and the like, as the interpreter itself says."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    """Resolve for each interpreter in turn, the earlier ones' versions being fixed for the later; write the union."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("pythons", nargs="+", help="one interpreter per supported version, the oldest first")
    parser.add_argument("--keep", action="store_true", help="keep the versions locked now; add what is missing")
    parser.add_argument("--torch", default="2.13.0", help="version of torch to lock")
    arguments = parser.parse_args()
    pins = {"torch": arguments.torch}
    if arguments.keep and OUT.exists():
        lines = OUT.read_text(encoding="utf-8").splitlines()
        pins |= dict(line.split("==") for line in lines if line and not line.startswith("#"))
    used: dict[str, str] = {}
    for python in arguments.pythons:
        used |= resolve(python, [".[versioning,slurm,docs,dev]"], pins)
        pins |= used
    versions = " and ".join(python_version(python) for python in arguments.pythons)
    OUT.write_text(HEADER.format(pythons=versions) + as_lines(used), encoding="utf-8")
    sys.stderr.write(f"{OUT.name}: {len(used)} versions for Python {versions}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
