"""The pages of the site that do not lie in docs/: the front page, the keys, the results, the interface; and every link between files.

A hook of mkdocs.yml. A page that is a file of the repository is that file, so that nothing is written twice; a link to a file that is no
page leads to a copy of it. Knows nothing of torch.
"""

from __future__ import annotations

import ast
import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "index.md": "README.md",
    "keys.md": "config/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changes.md": "CHANGELOG.md",
}
"""Files of the repository that are pages, by what the site calls them."""
REFERENCES = "results/reference"
PACKAGES = {"pat": "pat", "study": "workflow/study"}
"""The packages, and where they lie."""
LINK = re.compile(r"(?P<head>!?\[[^\]]*\]\()(?P<target>[^)\s#]*)(?P<anchor>#[^)\s]*)?(?P<tail>\))")
CODE = re.compile(r"(```.*?```|`(?:[^`\n]|\n(?!\n))*`)", re.DOTALL)
FRONT_OF_API = """\
# API

What `import pat` offers; below it, every module by package. A `PatConfig` holds the [keys of `pat`](../keys.md#pat), and the choices of the
run: `pruning_ratio`, `width`, `total_steps`, `lora_rank`, `lora_alpha`, `lora_dropout`, `use_dora` and `seed`.

::: pat
    options: {heading_level: 2}
"""
KINDS = {
    "table1": "Mean accuracy",
    "table3": "Accuracy after tuning on the tasks",
    "ablation": "Ablation",
    "per_task": "Accuracy per task",
    "comparisons": "Accuracy compared",
    "perplexity_comparisons": "Perplexity compared",
    "masks": "What trained masks keep",
    "rotations": "Changes of basis",
    "fits": "Fits of readers",
    "ridges": "Ridges of fits of readers",
}
"""What a table shows, by how its file's name begins."""
SCORINGS = {
    "_first_capital_word": "by the first capital word",
    "_acc_norm": "by log-likelihood per character",
    "_acc": "by log-likelihood",
}
"""How answers were scored, by how a table's name ends; by the first capital letter where it ends otherwise."""
FIRST_TABLES = ("table1.md", "table3.md", "perplexity.md", "sizes.md", "masks.md")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let the pages of results and of the interface stand below their front pages."""
    below = {front: [page for page, _ in pages if page != front] for front, pages in (("results.md", RESULTS), ("api/index.md", API))}
    config.nav = _with_pages_below(config.nav, below)
    return config


def _with_pages_below(nav: Any, below: dict[str, list[str]]) -> Any:
    if isinstance(nav, list):
        return [_with_pages_below(each, below) for each in nav]
    if isinstance(nav, dict):
        return {
            title: [entry, *below[entry]] if isinstance(entry, str) and entry in below else _with_pages_below(entry, below)
            for title, entry in nav.items()
        }
    return nav


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and the files that any page links to."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for page, text in [*RESULTS, *API]:
        files.append(File.generated(config, page, content=text))
    uris = _uris(files)
    for target in linked_files({place: files.src_uris[uri].content_string for place, uri in uris.items()}):
        files.append(File.generated(config, f"files/{target}", abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Return the page's text with each link leading to where the site has what it names."""
    uris = _uris(files)
    place = next(place for place, uri in uris.items() if uri == page.file.src_uri)
    return with_links(markdown, place, uris)


def linked_files(texts: Mapping[str, str]) -> list[str]:
    """Return the files that pages link to and that are no pages, given the pages' texts by their places in the repository.

    Raises PluginError on a link to a file that is not there.
    """
    found = set()
    for place, text in texts.items():
        for part in CODE.split(text)[::2]:
            for link in LINK.finditer(part):
                target = _target(place, link["target"])
                if target is not None and target not in texts:
                    if not (ROOT / target).is_file():
                        raise PluginError(f"{place}: links to {link['target']}, which is no file of the repository")
                    found.add(target)
    return sorted(found)


def with_links(markdown: str, place: str, uris: Mapping[str, str]) -> str:
    """Return the text of the page at `place` of the repository with its links as the site needs them; code stays as it is.

    `uris` says what the site calls the pages.
    """

    def led(found: re.Match[str]) -> str:
        target = _target(place, found["target"])
        if target is None:
            return found[0]
        there = uris.get(target, f"files/{target}")
        return f"{found['head']}{posixpath.relpath(there, posixpath.dirname(uris[place]))}{found['anchor'] or ''}{found['tail']}"

    parts = CODE.split(markdown)
    return "".join(part if index % 2 else LINK.sub(led, part) for index, part in enumerate(parts))


def _uris(files: Files) -> dict[str, str]:
    """Return what the site calls the pages, by their places in the repository; a page that is made here has one in docs/."""
    return {PAGES.get(file.src_uri, f"docs/{file.src_uri}"): file.src_uri for file in files.documentation_pages()}


def _target(place: str, target: str) -> str | None:
    """Return the file of the repository that a link on the page at `place` names; None where it leads elsewhere, or to the page itself."""
    if not target or "://" in target or target.startswith("mailto:"):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(place), target))


def result_pages() -> Iterator[tuple[str, str]]:
    """Yield the page of results and one for each reference run, from the files that the runs left."""
    runs = sorted((ROOT / REFERENCES).glob("*/origin.json"))
    lines = ["# Results\n\nEvery table and figure comes from files under `results/reference`; the command beside each makes it again.\n"]
    for origin in runs:
        run = origin.parent
        record: dict[str, Any] = json.loads(origin.read_text(encoding="utf-8"))
        commits = ", ".join(f"`{commit[:10]}`" for commit in record["git_commits"])
        made = (
            f"{record['cells']} cells on {record['machine']}; torch {record['versions']['torch']}, transformers "
            f"{record['versions']['transformers']}, commit {commits}. Again: `make reference CONFIG={record['experiment']}`.\n"
        )
        lines.append(f"## {run.name}\n\n{made}\n[All tables and figures](results/{run.name}.md)\n")
        figure = run / "figures" / "perplexity.png"
        lines += [f"![Perplexity of {run.name}](../{figure.relative_to(ROOT)})\n"] if figure.is_file() else []
        yield f"results/{run.name}.md", f"# {run.name}\n\n{made}\n{_tables(run)}{_figures(run)}"
    yield "results.md", "\n".join(lines)


def _tables(run: Path) -> str:
    found = {path.name: path for path in sorted((run / "tables").glob("*.md"))}
    order = [name for name in FIRST_TABLES if name in found]
    order += [name for name in found if name not in order]
    return "".join(f"## {_titled(name)}\n\n{found[name].read_text(encoding='utf-8').strip()}\n\n" for name in order)


def _figures(run: Path) -> str:
    pictures = sorted((run / "figures").glob("*.png"))
    shown = (f"![{_titled(picture.name)}](../../{picture.relative_to(ROOT)})\n\n" for picture in pictures)
    return "## Figures\n\n" + "".join(shown) if pictures else ""


def _titled(name: str) -> str:
    """Return the heading of a table or a figure by its file's name."""
    stem = name.rpartition(".")[0]
    scoring = next((ending for ending in SCORINGS if stem.endswith(ending)), "")
    kind = next((kind for kind in KINDS if stem.startswith(kind)), "")
    rest = stem.removesuffix(scoring).removeprefix(kind).strip("_").replace("_", " ")
    title = f"{KINDS[kind]}, {rest}" if kind and rest else KINDS.get(kind) or rest.capitalize()
    return f"{title}, {SCORINGS[scoring]}" if scoring else title


def api_pages() -> Iterator[tuple[str, str]]:
    """Yield the page of the interface and one for each package, with all public names of its modules."""
    front = [FRONT_OF_API]
    for package, place in PACKAGES.items():
        for folder in sorted({path.parent for path in (ROOT / place).rglob("*.py")}):
            name = ".".join((package, *folder.relative_to(ROOT / place).parts))
            modules = {path.stem: _first_line(path) for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")}
            if not modules:
                continue
            front.append(f"## [{name}]({name}.md)\n\n" + "".join(f"* `{name}.{module}`: {line}\n" for module, line in modules.items()))
            yield f"api/{name}.md", f"# {name}\n\n" + "".join(f"::: {name}.{module}\n\n" for module in modules)
    yield "api/index.md", "\n".join(front)


def _first_line(path: Path) -> str:
    """Return the first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


RESULTS = list(result_pages())
API = list(api_pages())
