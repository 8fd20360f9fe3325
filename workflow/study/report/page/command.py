"""`study report`: writes the page of a run. Computes no number; the template says how it looks."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from pat.io.artefacts import write_text
from pat.io.places import READS, WRITES
from study.commands.errors import run_reporting_errors
from study.commands.places import PAGE, guarded
from study.report.page.cells import sections
from study.report.page.charts import BOTTOM, COURSE_HEIGHT, COURSE_LEFT, LEFT, RIGHT, TOP, WIDTH
from study.report.page.differences import differences
from study.report.page.figures import figures
from study.report.page.run import Run, opened
from study.report.page.verdict import remarks, verdict
from study.tables.origins import FOUND, health
from study.tables.page import environment
from study.tables.writing import tables_of

TEMPLATES = Path(__file__).parent / "templates"
BOX = {"width": WIDTH, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM, "height": COURSE_HEIGHT, "course_left": COURSE_LEFT}
OPEN = ("perplexity", "perplexity_comparisons", "table1", "table3", "comparisons", "sizes")
"""The tables that the page shows at once, in this order; the others open when they are pressed."""


def page(run: Run, other: Run | None = None, *, called: str = "", against: str = "") -> str:
    """Return the page of a run, with what differs from another where one is given; `called` and `against` are what a reader calls them."""
    tables = {name: layout for name, (layout, _) in tables_of(run.cells, run.table_settings).items()}
    first = [name for name in OPEN if name in tables]
    return (
        environment(TEMPLATES)
        .get_template("report.html")
        .render(
            run=run,
            called=called,
            against=against,
            findings=verdict(run),
            remarks=remarks(run),
            figures=figures(run),
            tables=[(name, tables[name], name in first) for name in [*first, *(name for name in tables if name not in first)]],
            health=health(run.cells),
            found=FOUND,
            sections=sections(run),
            differences=[] if other is None else differences(run, other),
            other=other,
            box=BOX,
        )
        .strip()
        + "\n"
    )


@guarded(PAGE)
def main(
    results: Annotated[Path, typer.Option(help="results/<experiment>, finished, or a kept reference, results/reference/<name>."), READS],
    out: Annotated[Path, typer.Option(help="The page, one file of HTML."), WRITES],
    against: Annotated[Path | None, typer.Option(help="Another run, in the same ways: the page says what differs from it."), READS] = None,
) -> None:
    """Write a run as one page of HTML: the verdict in words, tables, figures, every cell, and what differs from another run."""

    def action() -> str:
        with ExitStack() as stack:
            run = stack.enter_context(opened(results))
            other = None if against is None else stack.enter_context(opened(against))
            text = page(run, other, called=results.as_posix(), against="" if against is None else against.as_posix())
        write_text(out, text)
        return f"{out}: {run.name}, {len(run.cells)} cells"

    run_reporting_errors(action)
