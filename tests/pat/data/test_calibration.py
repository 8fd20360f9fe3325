"""Calibration text: both forms of row, packing, padding, seeds, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors
from transformers import PreTrainedTokenizerBase

from pat.data.calibration import Calibration, blocks
from pat.errors import UserError
from pat.io.artefacts import write_jsonl
from tests.kit.pruning_inputs import word_tokenizer, write_text


def test_rows_are_packed_with_end_tokens_between_and_padding_at_the_end(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"text": "w3 w4 w5"}, {"text": "w3 w4 w5"}])
    found = blocks(Calibration(tmp_path / "a.jsonl"), word_tokenizer(), length=3, tokens=100)
    assert found.ids_NT.tolist() == [[1, 3, 4], [5, 2, 3], [1, 4, 5], [2, 0, 0]]
    assert found.mask_NT.tolist() == [[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 0, 0]]


def of_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> list[list[int]]:
    write_jsonl(folder / "a.jsonl", [{"text": "w3 w4 w5"}, {"text": "w3 w4 w5"}])
    found: list[list[int]] = blocks(Calibration(folder / "a.jsonl"), tokenizer, length=4, tokens=100).ids_NT.tolist()
    return found


def test_only_a_bos_that_nothing_else_shows_opens_blocks(tmp_path: Path) -> None:
    plain, ended, without, opening = (word_tokenizer() for _ in range(4))
    ended.bos_token, without.bos_token = ended.eos_token, None
    parts: Any = opening.backend_tokenizer
    parts.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    assert of_tokenizer(plain, tmp_path) == [[1, 3, 4, 5], [2, 3, 4, 5], [1, 2, 0, 0]]
    assert of_tokenizer(ended, tmp_path) == of_tokenizer(without, tmp_path) == [[3, 4, 5, 2], [3, 4, 5, 2]]
    assert of_tokenizer(opening, tmp_path) == [[1, 3, 4, 5], [2, 1, 3, 4], [5, 2, 0, 0]]


@pytest.mark.parametrize(("own", "papers", "expected"), [(None, 20, 20), (10, 20, 10), (9, 20, 9)])
def test_the_number_of_tokens(own: int | None, papers: int, expected: int, tmp_path: Path) -> None:
    found = blocks(Calibration(write_text(tmp_path / "a.jsonl"), own), word_tokenizer(), length=5, tokens=papers)
    assert int(found.mask_NT.sum()) == expected


@pytest.mark.parametrize(("asked", "told"), [(None, False), (60, False), (10**6, True)])
def test_less_text_than_was_asked_for_is_told(asked: int | None, told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    blocks(Calibration(write_text(tmp_path / "a.jsonl"), asked), word_tokenizer(), length=5, tokens=10**6)
    assert ("of the 1,000,000 calibration tokens asked for; all are measured on" in caplog.text) is told


def test_a_seed_chooses_the_rows(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.jsonl")
    first, again, other = (blocks(Calibration(path, 60, seed), word_tokenizer(), 10, 0).ids_NT for seed in (0, 0, 1))
    assert first.equal(again) and not first.equal(other)


def test_an_instruction_is_rendered_as_in_tuning(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"instruction": "w5", "input": "w6", "output": "w7"}])
    ids = blocks(Calibration(tmp_path / "a.jsonl"), word_tokenizer(), 4, 1000).ids_NT.flatten().tolist()
    assert [token for token in ids if token > 3] == [5, 6, 7], "all other words of the prompt are unknown here"


def test_a_row_of_neither_form_is_named(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"text": "w5"}, {"question": "w5"}])
    with pytest.raises(UserError, match=r"a\.jsonl:2: lacks the fields of a row"):
        blocks(Calibration(tmp_path / "a.jsonl"), word_tokenizer(), 4, 8)
