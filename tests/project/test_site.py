"""The site of documents: it builds strictly, every link in it leads somewhere, and it asks nothing of the net."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from mkdocs.exceptions import PluginError

from tools import site_pages

PAGES = (
    "index",
    "guide",
    "method",
    "keys",
    "results",
    "evaluation",
    "dvc",
    "cluster",
    "performance",
    "architecture",
    "experiments",
    "api/index",
)


class Found(HTMLParser):
    """What a page loads, where it leads, and the places in it that can be led to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if "src" in given or tag == "link":
            self.loaded.append(given.get("src") or given.get("href", ""))
        elif tag == "a" and "href" in given:
            self.linked.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(
        command, cwd=site_pages.ROOT, capture_output=True, text=True, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def found(site: Path) -> dict[Path, Found]:
    return {path: Found(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


def test_it_has_its_pages(site: Path, found: dict[Path, Found]) -> None:
    assert {site / f"{page}.html" for page in PAGES} <= found.keys()
    assert {site / "api" / f"{package}.html" for package in site_pages.PACKAGES} <= found.keys()
    runs = {origin.parent.name for origin in (site_pages.ROOT / site_pages.REFERENCES).glob("*/origin.json")}
    assert runs and {site / "results" / f"{run}.html" for run in runs} <= found.keys()


def test_nothing_is_loaded_from_elsewhere(found: dict[Path, Found]) -> None:
    for page, each in found.items():
        assert [place for place in each.loaded if urlsplit(place).netloc] == [], page


def test_every_link_leads_to_a_page_and_a_place_in_it(site: Path, found: dict[Path, Found]) -> None:
    broken = [f"{page.relative_to(site)}: {place}" for page, each in found.items() for place in dead(page, each, found)]
    assert broken == []
    assert sum(len(each.linked) for each in found.values()) > 1000


def dead(page: Path, each: Found, found: dict[Path, Found]) -> Iterator[str]:
    """Yield what a page loads or links to that is not there."""
    if page.name == "404.html":  # its links start from the site's root, wherever that is
        return
    for place in (*each.loaded, *each.linked):
        parts = urlsplit(place)
        if parts.scheme or parts.netloc:
            continue
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        if not target.exists() or (parts.fragment and target in found and unquote(parts.fragment) not in found[target].places):
            yield place


def test_files_that_are_no_pages_are_copied_and_those_that_are_not_there_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_pages, "ROOT", tmp_path)
    (tmp_path / "LICENSE").write_text("free\n", encoding="utf-8")
    texts = {"README.md": "[m](docs/method.md#idea), [l](LICENSE), `[x](none.md)`, [here](#a)\n", "docs/method.md": "[s](../README.md)\n"}
    assert site_pages.linked_files(texts) == ["LICENSE"]
    with pytest.raises(PluginError, match=r"docs/method\.md: links to none\.md, which is no file of the repository"):
        site_pages.linked_files({**texts, "docs/method.md": "[n](none.md)"})


def test_links_lead_to_pages_and_to_copies_of_other_files() -> None:
    uris = {"README.md": "index.md", "docs/method.md": "method.md", "docs/api/pat.md": "api/pat.md"}
    text = "[m](docs/method.md#idea), ![l](LICENSE), [p](https://example.org), `[m](docs/method.md)`\n"
    expected = "[m](method.md#idea), ![l](files/LICENSE), [p](https://example.org), `[m](docs/method.md)`\n"
    assert site_pages.with_links(text, "README.md", uris) == expected
    assert (
        site_pages.with_links("`code\nover lines` [m](docs/method.md) `[m](x.md)`", "README.md", uris)
        == "`code\nover lines` [m](method.md) `[m](x.md)`"
    )
    assert site_pages.with_links("[start](../../README.md)", "docs/api/pat.md", uris) == "[start](../index.md)"


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("table1.md", "Mean accuracy"),
        ("table1_acc_norm.md", "Mean accuracy, by log-likelihood per character"),
        ("per_task_llama-32m_acc.md", "Accuracy per task, llama-32m, by log-likelihood"),
        ("ablation_mask_first_capital_word.md", "Ablation, mask, by the first capital word"),
        ("perplexity.md", "Perplexity"),
        ("perplexity_comparisons.md", "Perplexity compared"),
        ("fits.md", "Fits of readers"),
        ("ridges.md", "Ridges of fits of readers"),
        ("per_task_smollm2-1.7b.md", "Accuracy per task, smollm2-1.7b"),
    ],
)
def test_a_table_is_called_by_what_it_shows(name: str, title: str) -> None:
    assert site_pages._titled(name) == title
