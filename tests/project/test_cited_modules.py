"""Docstrings and comments name other modules by their files: each of them is there, and where it is told from which folder, in that one."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator

import pytest

from tests.kit.project import ROOT

NAMED = re.compile(r"(?<![\w./-])((?:[\w-]+/)*\w+\.(?:py|smk))\b")
PARTS = ("pat", "workflow", "tests", "tools")
MODULES = [path for part in PARTS for path in sorted((ROOT / part).rglob("*.py"))]
PLACES = [path.relative_to(ROOT).as_posix() for part in PARTS for path in (ROOT / part).rglob("*") if path.suffix in (".py", ".smk")]
THEIRS = {"convert_hf_to_gguf.py", "convert_lora_to_gguf.py"}
"""Programs of llama.cpp."""


def told(source: str) -> Iterator[str]:
    """Yield the docstrings and comments of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def is_there(named: str) -> bool:
    return named in THEIRS or any(place == named or place.endswith(f"/{named}") for place in PLACES)


@pytest.mark.parametrize("part", PARTS)
def test_modules_that_are_named_exist(part: str) -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in MODULES if path.is_relative_to(ROOT / part)}
    found = [(path, named) for path, text in texts.items() for each in told(text) for named in NAMED.findall(each)]
    assert not [f"{path.relative_to(ROOT)}: {named}" for path, named in found if not is_there(named)]
    assert part != "pat" or len(found) > 40


def test_a_module_that_has_gone_is_noticed() -> None:
    source = '"""As plan.py\'s, and pat/method/mask.py."""\nx = "not_told.py"  # see pat/masks/mask.py\n'
    assert [named for each in told(source) for named in NAMED.findall(each) if not is_there(named)] == ["plan.py", "pat/masks/mask.py"]
