"""What the documents say of methods and pruners is what the registries say: no list is typed by hand beside them."""

from __future__ import annotations

import re

import pytest

from pat.pruners import PRUNERS
from pat.settings.jobs import PruneSettings
from study.experiment.methods import METHODS
from tests.kit.project import ROOT
from tools import methods

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "config" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OF_AN_EXAMPLE = {"first-channels-pft"}
"""That a page's own plugin brings."""


def test_the_table_has_every_method_with_all_it_says() -> None:
    page = (ROOT / "config" / "README.md").read_text(encoding="utf-8")
    assert methods.page(page) == page, "call make keys"
    for name, method in METHODS.items():
        assert method.summary and method.reach and method.when
        line = next(line for line in methods.table().splitlines() if f"`{name}`" in line.partition(" | ")[0])
        assert all(sentence in line for sentence in (method.summary, method.reach, method.when))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_method_that_is_none(page: object) -> None:
    named = set(re.findall(r"`([a-z][a-z0-9-]*-(?:pft|ftp))`", page.read_text(encoding="utf-8")))  # type: ignore[attr-defined]
    assert named - OF_AN_EXAMPLE <= METHODS.keys()


def test_a_setting_names_the_pruners_that_it_has_an_effect_on() -> None:
    for key, field in PruneSettings.model_fields.items():
        named = {name for name in PRUNERS if re.search(rf"(?<![\w-]){name}(?![\w-])", field.description or "")}
        by_default = {pruner.name for pruner in PRUNERS.values() if pruner.refits}
        effect = by_default if key == "writers" else {pruner.name for pruner in PRUNERS.values() if key in pruner.settings}
        assert not named or named == effect, key
    known = PruneSettings.model_fields.keys()
    assert all(set(pruner.settings) <= known for pruner in PRUNERS.values())
