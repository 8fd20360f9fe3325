"""The table of what runs where in docs/runtimes.md, made from the record of a run of `make test-runtimes`.

    python -m tools.runtimes_table .runtimes/run.xml

A test notes its runtime, model and format; the table says "yes" where all such tests passed, and else why not. A run without one of the
runtimes leaves its column as it was not tried.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

from tools.runtimes.install import VLLM

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "runtimes.md"
BEGIN, END = "<!-- what runs where: made by python -m tools.runtimes_table -->", "<!-- end -->"
LLAMA_CPP = re.search(r'"node-llama-cpp": "([^"]+)"', (ROOT / "tools" / "runtimes" / "package.json").read_text(encoding="utf-8"))
WHOLE = {"llama.cpp": "GGUF f32, f16", "vLLM": "as merged"}
"""The formats in which every family is tried."""
TOKENIZER = "tokenizer"
Outcome = tuple[str, str, str, str]
"""Runtime, model, format, and what came of it."""


def outcomes(record: Path) -> list[Outcome]:
    """Return what the tests of a run noted, in their order. Tests that were skipped tell nothing."""
    found: list[Outcome] = []
    for case in ElementTree.parse(record).iter("testcase"):
        noted = {item.get("name", ""): item.get("value", "") for item in case.iter("property")}
        if "runtime" in noted:
            found.append((noted["runtime"], noted["model"], noted["format"], _said(case)))
    return found


def _said(case: ElementTree.Element) -> str:
    failed = case.find("failure") if case.find("failure") is not None else case.find("error")
    if failed is not None:
        return "no: the test fails"
    expected = case.find("skipped")
    return "yes" if expected is None else f"no: {expected.get('message', '')}"


def table(found: list[Outcome]) -> str:
    """Return three paragraphs: models by runtime, formats of a Llama, and the rules of tokenizers."""
    by_model: dict[str, dict[str, str]] = defaultdict(dict)
    formats, rules = [], []
    for runtime, model, form, said in found:
        if model == TOKENIZER:
            rules.append(form if said == "yes" else f"{form} ({said})")
        elif form in WHOLE.values():
            by_model[model][runtime] = said
        else:
            formats.append(f"| {form} | {runtime} | {said} |")
    lines = ["| merged model | " + " | ".join(f"{runtime} ({form})" for runtime, form in WHOLE.items()) + " |", "| --- | --- | --- |"]
    lines += ["| " + " | ".join([model, *(said.get(runtime, "not tried") for runtime in WHOLE)]) + " |" for model, said in by_model.items()]
    lines += ["", "| format, of a merged Llama | runtime | |", "| --- | --- | --- |", *formats]
    return "\n".join([*lines, "", f"Rules of tokenizers that llama.cpp follows token by token: {', '.join(rules)}."])


def main(record: Path, document: Path = DOCUMENT) -> None:
    """Put the tables into the document, in place of those that are there."""
    found = outcomes(record)
    tried = {runtime for runtime, *_ in found}
    if tried != WHOLE.keys():
        sys.stderr.write(f"{document.name} stays as it is: only {', '.join(sorted(tried)) or 'nothing'} was tried\n")
        return
    assert LLAMA_CPP is not None
    text = document.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    versions = f"Tried with node-llama-cpp {LLAMA_CPP[1]} and {VLLM.replace('==', ' ')}, on a CPU."
    document.write_text(f"{before}{BEGIN}\n\n{versions}\n\n{table(found)}\n\n{END}{after}", encoding="utf-8")
    sys.stdout.write(f"{document.name}: {len(found)} outcomes\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
