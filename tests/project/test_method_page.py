"""docs/method.md against the code: every equation has a function that names it and a test, and every page that a docstring cites is there."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from pat.models.second_moment import root_mean_square

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").is_file())
PAGE = ROOT / "docs" / "method.md"
ROW = re.compile(r"\| (?P<equation>\d+) \| .+ \| `(?P<function>[\w.]+)` \| `(?P<file>\w+)::(?P<test>\w+)` \|")
EQUATION = re.compile(r"docs/method\.md, equation (\d+)")
NUMBER = re.compile(r"\beq(?:uations?|s?\.)\s+\(?(\d+)", re.IGNORECASE)
PAGE_CITED = re.compile(r"(?<![\w/])((?:docs|config)/[\w-]+\.md)(?:, \"([^\"]+)\")?")
ROWS = [match.groupdict() for match in map(ROW.fullmatch, PAGE.read_text(encoding="utf-8").splitlines()) if match]


def sources() -> Iterator[Path]:
    """Yield every Python file and rule of the library, the workflow, the tests and the tools."""
    for folder in ("pat", "workflow", "tests", "tools"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".smk"):
                yield path


def test_the_page_has_the_papers_twelve_equations() -> None:
    assert [int(row["equation"]) for row in ROWS] == list(range(1, 13))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["equation"])
def test_an_equations_function_names_it_and_its_test_exists(row: dict[str, str]) -> None:
    function = named(row["function"])
    assert EQUATION.findall(function.__doc__ or "") == [row["equation"]]
    files = list((ROOT / "tests").rglob(f"{row['file']}.py"))
    assert len(files) == 1, files
    tree = ast.parse(files[0].read_text(encoding="utf-8"))
    assert row["test"] in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_one_function_alone_names_an_equation() -> None:
    texts = [path.read_text(encoding="utf-8") for path in sources() if not path.is_relative_to(ROOT / "tests")]
    for form in (EQUATION, NUMBER):  # nor is there a number that leads to no page
        assert sorted(int(number) for text in texts for number in form.findall(text)) == list(range(1, 13))


def test_every_page_and_section_that_is_cited_exists() -> None:
    cited = 0
    for path in sources():
        for page, section in PAGE_CITED.findall(path.read_text(encoding="utf-8")):
            assert (ROOT / page).is_file(), f"{path}: {page}"
            cited += 1
            if section:
                headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
                assert section in headings, f"{path}: {page} has no section {section!r}"
    assert cited > 12


def test_functions_and_modules_named_in_the_text_exist() -> None:
    names = re.findall(r"`(pat\.[\w.]+)`", PAGE.read_text(encoding="utf-8"))
    assert len(names) > 20
    for name in names:
        named(name)


def test_root_mean_square_is_a_stock_norms() -> None:
    torch.manual_seed(0)
    x_ND, norm = torch.randn(5, 12), LlamaRMSNorm(12, eps=1e-3)
    assert torch.allclose(x_ND / root_mean_square(x_ND, 1e-3), norm(x_ND), atol=1e-6)
    assert root_mean_square(torch.tensor([[3.0, 4.0]]), 0.0).item() == pytest.approx(12.5**0.5)


def named(dotted: str) -> object:
    """Return the module, function, class or method of this name. Raises ImportError or AttributeError where there is none."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        return reduce(getattr, parts[count:], module)
    raise ModuleNotFoundError(dotted)
