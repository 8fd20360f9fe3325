"""A printed table as a page of HTML that a browser opens by itself: its headings sort it, and it loads nothing from anywhere.

Owns how templates are read and what they may call; every value in them is escaped.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from study.tables.layouts import Layout

TEMPLATES = Path(__file__).parent / "templates"


@cache
def environment(*more: Path) -> Environment:
    """Return the templates of this folder and of `more`, which come first; a name that a template misspells is an error.

    `source(name)` in them is a style sheet or script as it stands: it is ours, and inside its element nothing is escaped.
    """
    files = FileSystemLoader([*more, TEMPLATES])
    found = Environment(loader=files, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    found.globals["source"] = lambda name: Markup(files.get_source(found, name)[0])
    return found


def table_page(layout: Layout, title: str, long: Collection[int] = ()) -> str:
    """Return a table as a page of its own; `long` are the places of columns whose entries are folded."""
    return environment().get_template("table_page.html").render(layout=layout, title=title, long=long).strip() + "\n"
