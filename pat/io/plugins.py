"""Modules of a user's own, which register families or pruners: imported because they are named, and for no other reason.

A plugin is a module that Python finds, or a file that ends in .py. What it enters with `pat.families.register` or `pat.pruners.register`
is there for the whole process. No torch, unless a plugin brings it.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from pat.errors import UserError
from pat.io.artefacts import sha256

PREFIX = "pat_plugin_"
"""Of the names under which files are imported, so that they hide no module."""


def is_file(name: str) -> bool:
    """Return whether a plugin is named by its file, not as a module that Python finds."""
    return name.endswith(".py")


def load(names: Iterable[str]) -> None:
    """Import the plugins that are not imported yet. Raises UserError where one is not there, or does not run."""
    for name in names:
        try:
            if is_file(name):
                _import_file(Path(name))
            else:
                import_module(name)
        except UserError:
            raise
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                raise UserError(f"plugin {name}: no such module; install it, or name its file, which ends in .py") from None
            raise _broken(name, error) from error
        except (Exception, SystemExit) as error:
            raise _broken(name, error) from error


def _import_file(path: Path) -> None:
    name = PREFIX + path.stem
    if not path.is_file():
        raise UserError(f"plugin {path}: no such file; put it there or correct the path")
    there = sys.modules.get(name)
    if there is not None and Path(str(there.__file__)).resolve() == path.resolve():
        return
    if there is not None:
        raise UserError(f"plugin {path}: has the name of the plugin {there.__file__}; rename one of them")
    spec = spec_from_file_location(name, path.resolve())
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _broken(name: str, error: BaseException) -> UserError:
    """Return the error of a plugin that does not run, with the last line of its own that was reached."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(f"{Path(name).stem}.py")]
    where = f", line {frames[-1].lineno}" if frames else ""
    return UserError(f"plugin {name}{where}: cannot be imported: {type(error).__name__}: {error}")


def files() -> Mapping[str, str]:
    """Return the SHA-256 sums of the plugin files that this process has imported, by their names."""
    loaded: list[ModuleType] = [module for name, module in sys.modules.items() if name.startswith(PREFIX)]
    return {Path(str(module.__file__)).name: sha256(Path(str(module.__file__))) for module in loaded}
