"""The table of folder benchmarks: read from the records, one line each, and what the document shows is what is committed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from benchmark_table import write
from pat.artefacts import write_json, write_text
from pat.errors import UserError

REFERENCES = sorted({path.parent.parent for path in (ROOT / "results" / "reference").glob("*/benchmark/*.json")})
RECORD: dict[str, Any] = {
    "kind": "prune", "pruner": "slicegpt", "wall_s": 61.4, "copy_bytes": 100, "peak_host_of_copy": 1.714, "peak_gpu_bytes": 3 * 2**29,
    "share_removed": 0.2517, "machine": {"name": "a GPU", "cores": 4},
    "provenance": {"git_commit": "0123456789abcdef", "versions": {"torch": "2.13.0"}},
}  # fmt: skip


def test_a_record_becomes_a_line(tmp_path: Path) -> None:
    write_json(tmp_path / "mine/benchmark/tiny-slicegpt.json", RECORD)
    write_json(tmp_path / "mine/benchmark/tiny-merge.json", {**RECORD, "kind": "merge", "pruner": None, "peak_gpu_bytes": None})
    document = tmp_path / "doc.md"
    write_text(document, "before\n<!-- mine:start -->\nold\n<!-- mine:end -->\nafter\n")
    write(tmp_path / "mine", document)
    shown = document.read_text()
    assert "| prune: slicegpt | tiny | 25.2% | 61 | 1.71 | 1.5 |" in shown
    assert "| merge | tiny | 25.2% | 61 | 1.71 |  |" in shown
    assert shown.startswith("before\n") and shown.endswith("after\n") and "old" not in shown
    assert "a GPU, 4 CPU cores; torch 2.13.0; commit 0123456789" in shown


@pytest.mark.parametrize(("content", "message"), [({"kind": "tuning"}, "is not a record"), (None, "holds no records")])
def test_what_is_no_record_is_refused(tmp_path: Path, content: object, message: str) -> None:
    if content is not None:
        write_json(tmp_path / "mine/benchmark/x.json", content)
    write_text(tmp_path / "doc.md", "")
    with pytest.raises(UserError, match=message):
        write(tmp_path / "mine", tmp_path / "doc.md")


def test_the_document_agrees_with_the_committed_records(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    document = tmp_path / "performance.md"
    write_text(document, text)
    shown = [folder for folder in REFERENCES if f"<!-- {folder.name}:start -->" in text]
    assert shown
    for folder in shown:
        write(folder, document)
    assert document.read_text(encoding="utf-8") == text
