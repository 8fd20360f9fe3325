"""The table of what runs where says what the record of a run says, and the document's is one of a whole run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.kit.exported_models import CONFIGS
from tools.runtimes_table import BEGIN, DOCUMENT, END, main

CASE = """<testcase><properties>
<property name="runtime" value="{0}"/><property name="model" value="{1}"/><property name="format" value="{2}"/>
</properties>{3}</testcase>"""
CASES = [
    ("llama.cpp", "llama", "GGUF f32, f16", ""),
    ("llama.cpp", "qwen2", "GGUF f32, f16", "<failure message='assert 1 == 2'>long</failure>"),
    ("llama.cpp", "llama-tied", "GGUF q8_0", ""),
    ("llama.cpp", "tokenizer", "gpt-2", ""),
    ("llama.cpp", "tokenizer", "tekken", "<failure message='x'/>"),
    ("vLLM", "qwen2", "as merged", "<skipped type='pytest.xfail' message='its heads'/>"),
]


def record(folder: Path, cases: list[tuple[str, str, str, str]]) -> Path:
    whole = "".join(CASE.format(*case) for case in cases)
    (folder / "run.xml").write_text(
        f"<testsuites><testsuite>{whole}<testcase><skipped message='not there'/></testcase></testsuite></testsuites>"
    )
    (folder / "page.md").write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    return folder / "run.xml"


def test_it_says_what_the_run_said(tmp_path: Path) -> None:
    main(record(tmp_path, CASES), tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert "| llama | yes | not tried |" in text
    assert "| qwen2 | no: the test fails | no: its heads |" in text
    assert "| GGUF q8_0 | llama.cpp | yes |" in text
    assert "token by token: gpt-2, tekken (no: the test fails)." in text
    assert "old" not in text and text.startswith("before\n") and text.endswith(f"{END}\nafter\n")


def test_half_a_run_leaves_the_page_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(record(tmp_path, CASES[:4]), tmp_path / "page.md")
    assert "old" in (tmp_path / "page.md").read_text()
    assert "only llama.cpp was tried" in capsys.readouterr().err


def test_the_document_has_every_model(tmp_path: Path) -> None:
    told = re.findall(
        r"^\| ([\w-]+) \| (?:yes|no)", DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0], re.MULTILINE
    )
    assert set(CONFIGS) <= set(told)
