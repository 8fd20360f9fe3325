"""How much of a text is scored: the first windows, as text again; a fraction of a plain file; and that `limit` holds for texts too."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pat.data.items import write_items
from pat.data.text_limit import first_windows
from pat.io.artefacts import read_json, write_jsonl
from pat.scoring.evaluation import evaluate
from pat.settings.jobs import EvaluationSettings
from study.data.text import first_lines, prepare
from tests.kit.tiny_checkpoint import byte_tokenizer, some_items, write_tiny_checkpoint

CONTEXT = 16
TOKENIZER = byte_tokenizer()


def windows(texts: list[str]) -> int:
    return sum(-(-len(text.encode()) // (CONTEXT - 1)) for text in texts)


@given(st.lists(st.text(st.sampled_from("ab \n"), min_size=1, max_size=80), min_size=1, max_size=6), st.integers(1, 8))
def test_the_first_windows_are_the_beginning_and_no_more_than_asked_for(documents: list[str], limit: int) -> None:
    kept = first_windows(documents, TOKENIZER, CONTEXT, limit)
    assert windows(kept) <= limit
    assert all(whole.startswith(part.rstrip(" ")) for part, whole in zip(kept, documents, strict=False))
    assert kept[:-1] == documents[: max(0, len(kept) - 1)]
    assert first_windows(documents, TOKENIZER, CONTEXT, None) == documents


def test_a_long_document_is_cut_at_the_end_of_a_line_or_of_a_word() -> None:
    assert first_windows(["one two\nthree four\nfive six\n"], TOKENIZER, CONTEXT, 1) == ["one two\n"]
    assert first_windows(["one two three four five\n"], TOKENIZER, CONTEXT, 1) == ["one two three "]
    assert first_windows(["short", "also", "third"], TOKENIZER, CONTEXT, 2) == ["short", "also"]


def test_a_long_document_without_spaces_is_cut_at_a_character() -> None:
    """Each of these has three bytes, so that fifteen hold five."""
    assert first_windows(["剪枝与微调同时进行的方法"], TOKENIZER, CONTEXT, 1) == ["剪枝与微调"]
    assert first_windows(["short", "剪枝与微调同时进行的方法"], TOKENIZER, CONTEXT, 2) == ["short", "剪枝与微调"]


@pytest.mark.parametrize(
    ("settings", "tokens"), [({}, 300), ({"limit": 2}, 28), ({"limit": 2, "text_limit": 4}, 56), ({"limit": 2, "text_limit": "all"}, 300)]
)
def test_limit_limits_texts_too_unless_text_limit_says_otherwise(tmp_path: Path, settings: dict[str, object], tokens: int) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "model")
    write_items(tmp_path / "toy.jsonl", some_items(4))
    write_jsonl(tmp_path / "text.jsonl", [{"text": "123456\n" * 43}])
    chosen = EvaluationSettings.model_validate({"perplexity_context": CONTEXT, "generate": False, "device": "cpu", **settings})
    evaluate(checkpoint, [tmp_path / "toy.jsonl"], [tmp_path / "text.jsonl"], chosen, 0, tmp_path / "out.json")
    record = read_json(tmp_path / "out.json")
    assert record["perplexity"]["text"]["tokens"] == record["perplexity"]["text"]["bytes"] == pytest.approx(tokens, abs=1)
    assert record["tasks"]["toy"]["items"] == (2 if "limit" in settings else 4)


def test_a_fraction_of_a_plain_text_is_the_lines_it_begins_with(tmp_path: Path) -> None:
    text = "".join(f"line {number}\n" for number in range(10))
    assert first_lines(text, 1.0) == text
    assert first_lines(text, 0.5) == "".join(f"line {number}\n" for number in range(5))
    assert first_lines(text, 0.51) == "".join(f"line {number}\n" for number in range(6))
    assert first_lines("no line's end", 0.1) == "no line's end"
    (tmp_path / "a.txt").write_text(text)
    said = prepare(f'{{"source": "text", "path": "{tmp_path / "a.txt"}", "fraction": 0.5}}', 0, tmp_path / "out.jsonl")
    assert "1 document(s), 35 characters" in said
