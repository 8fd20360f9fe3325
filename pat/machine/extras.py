"""What an installation of the library alone lacks: the packages of its extras, asked for before the work that needs them."""

from __future__ import annotations

from importlib.util import find_spec

from pat.errors import UserError

EXTRAS = {"evaluation": ("lm_eval", "datasets", "pyarrow"), "gguf": ("gguf",), "export": ("compressed_tensors",)}
"""What each extra of the library installs, by the names that are imported."""


def need(extra: str, purpose: str) -> None:
    """Raise UserError that says what to install where a package of an extra is not there. `purpose` is what needs it."""
    if missing := [name for name in EXTRAS[extra] if find_spec(name) is None]:
        raise UserError(f"{purpose} needs {' and '.join(missing)}: pip install 'pruning-aware-tuning[{extra}]'")
