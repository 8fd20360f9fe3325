"""A text of an experiment, for pretraining or for perplexity, from any of its sources, as one document per line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pat.data.files import opened
from pat.errors import UserError
from pat.io.artefacts import write_jsonl
from pat.settings.fields import Settings
from study.commands.sets import command_line, parse_source
from study.data.instruct import source_records
from study.sources.kinds import Hub, JsonRows, RowFile, TextFile
from study.sources.rows import columns_of, document

KINDS: dict[str, type[Settings]] = {"hub": Hub, "json": JsonRows, "file": RowFile, "text": TextFile}


def documents(source: Hub | JsonRows | RowFile | TextFile, seed: int) -> Iterator[str]:
    """Yield the source's documents; a plain text file is one, or its first lines up to a fraction. Blank ones are left out."""
    if isinstance(source, TextFile):
        with opened(Path(source.path)) as stream:
            texts = iter([first_lines(stream.read(), source.fraction)])
    else:
        texts = (document(record, columns_of(source)) for record in source_records(source, seed))
    yield from (text for text in texts if text.strip())


def first_lines(text: str, fraction: float) -> str:
    """Return the lines that a text begins with and that make up a fraction of its characters, the last of them whole; at least one."""
    wanted = fraction * len(text)
    end = text.find("\n", max(0, round(wanted) - 1)) if fraction < 1 else -1
    return text if end < 0 else text[: end + 1]


def prepare(source: str, seed: int, out: Path, *, replace: bool = True) -> str:
    """Write the documents to `out` and return what was written, in words."""
    block = parse_source(source, KINDS)
    assert isinstance(block, Hub | JsonRows | RowFile | TextFile)
    texts = list(documents(block, seed))
    if not texts:
        raise UserError(f"text {block.model_dump_json()}: holds nothing but blanks")
    write_jsonl(out, ({"text": text} for text in texts), replace=replace)
    return f"{out}: {len(texts)} document(s), {sum(map(len, texts)):,} characters"


main = command_line(prepare)
