"""Reads a page of HTML as a test asks of it: is it well formed, what would a browser fetch, and what is in it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input", "col", "source", "wbr", "base", "area", "embed", "track"}
LOADING = {"src", "href", "xlink:href", "data", "poster", "srcset", "action"}
IN_STYLE = re.compile(r"@import|url\(\s*['\"]?(?!['\"]?(?:#|data:))")


@dataclass
class Page(HTMLParser):
    """A page as it was read: elements with their attributes, texts by the element they stand in, and what is wrong with it."""

    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        if len(named) != len(attrs):
            self.faults.append(f"<{tag}> names an attribute twice, line {self.getpos()[0]}")
        self.elements.append((tag, named))
        if tag not in VOID:
            self.open.append(tag)
        fetched = [value for name, value in named.items() if name in LOADING and tag != "a" and not value.startswith(("data:", "#"))]
        self.loaded += [*fetched, *([named["style"]] if IN_STYLE.search(named.get("style", "")) else [])]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            self.faults.append(f"</{tag}> closes {self.open[-1:] or 'nothing'}, line {self.getpos()[0]}")
        elif self.open:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        within = self.open[-1] if self.open else ""
        if within == "style" and IN_STYLE.search(data):
            self.loaded.append(data[:80])
        if data.strip():
            self.texts.append((within, data.strip()))

    def of(self, tag: str) -> list[dict[str, str]]:
        """Return the attributes of every element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


def read_page(text: str) -> Page:
    """Return a page as it was read to its end."""
    page = Page()
    page.feed(text)
    page.close()
    page.faults += [f"<{tag}> is not closed" for tag in page.open]
    return page
