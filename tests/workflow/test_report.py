"""`snakemake --report` of the finished smoke experiment: every category, what is in each, and nothing that a browser would fetch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from study.report.shown import APART
from tests.kit.pages import read_page
from tests.kit.project import snakemake
from tests.kit.smoke_run import CONFIG, RESULTS


@pytest.fixture(scope="module")
def report(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("report") / "report.html"
    said = snakemake(finished, "--configfile", CONFIG, "--report", str(out))
    assert said.returncode == 0, said.stdout + said.stderr
    return out.read_text()


def held(report: str, name: str) -> Mapping[str, Any]:
    """Return an object that the report's scripts hold."""
    begins = re.search(rf"var {name} =\s*(?={{)", report)
    assert begins is not None
    found: Mapping[str, Any] = json.JSONDecoder().raw_decode(report, begins.end())[0]
    return found


def test_each_category_holds_its_results(report: str, finished: Path) -> None:
    named = {category: {name for them in parts.values() for name in them} for category, parts in held(report, "categories").items()}
    folder = finished / RESULTS
    pages = {path.relative_to(finished).as_posix() for path in (folder / "tables").glob("*.html")}
    apart = {page for page in pages if Path(page).stem in APART}
    figures = {path.relative_to(finished).as_posix() for path in (folder / "figures").glob("*.*") if path.suffix in (".png", ".csv")}
    health = {path.relative_to(finished).as_posix() for path in (folder / "figures").rglob("health.png")}
    assert {"table1", "sizes", "comparisons", "perplexity_comparisons"} < {Path(page).stem for page in pages - apart}
    assert named["Tables"] == pages - apart
    assert named["Figures"] == figures and len(figures) > 10
    assert named["Health"] == health | {f"{RESULTS}/tables/health.html", f"{RESULTS}/tables/masks.html"} and health
    assert named["Provenance"] == {f"{RESULTS}/tables/provenance.html", f"{RESULTS}/tables/cells.csv"}


def test_every_result_has_a_caption_and_labels(report: str) -> None:
    results = held(report, "results")
    assert all(result["caption"].startswith("<p>") and result["labels"] for result in results.values())
    (course,) = [result for name, result in results.items() if name.endswith("tiny/pat/0.5/seed0/health.png")]
    assert "<tt" in course["caption"] and "pat" in course["caption"] and course["labels"]["row"] == "pat"


def test_the_report_of_snakemake_needs_no_network(report: str) -> None:
    assert read_page(report).loaded == []
    assert "The experiment <strong>smoke</strong>" in report
