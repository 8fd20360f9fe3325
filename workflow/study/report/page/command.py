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
from study.report.page.cells import cell_index, sections
from study.report.page.charts import BOTTOM, COURSE_HEIGHT, COURSE_LEFT, LEFT, NAMES, RIGHT, TOP, VALUES, WIDTH
from study.report.page.differences import differences
from study.report.page.figures import figures
from study.report.page.glance import glance
from study.report.page.run import Run, opened
from study.report.page.tables import milestones, shown_tables
from study.report.page.verdict import remarks, verdict
from study.tables.page import environment

TEMPLATES = Path(__file__).parent / "templates"
BOX = {
    "width": WIDTH,
    "left": LEFT,
    "right": RIGHT,
    "top": TOP,
    "bottom": BOTTOM,
    "height": COURSE_HEIGHT,
    "course_left": COURSE_LEFT,
    "names": NAMES,
    "numbers": VALUES,
}


def page(run: Run, other: Run | None = None, *, called: str = "", against: str = "") -> str:
    """Return the page of a run, with what differs from another where one is given; `called` and `against` are what a reader calls them."""
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
            glance=glance(run),
            tables=shown_tables(run),
            milestones=milestones(run),
            cells=cell_index(run),
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
        return f"{out}: {run.name}, {run.counted}"

    run_reporting_errors(action)
