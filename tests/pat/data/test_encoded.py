"""Rows that lie encoded on the disk: the same as encoded anew, read by who they belong to alone, small in memory."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from pat.checkpoints import checkpoint
from pat.data import encoding
from pat.data.encoded import ENCODING_RECORD, TOKENS_NAME, belonging, read_encoded, tokenizer_sum, write_encoded, write_encoding_record
from pat.data.encoding import encoded_in_batches
from pat.data.instructions import Instructions
from pat.errors import UserError
from pat.io import artefacts
from pat.io.artefacts import write_json, write_jsonl
from pat.io.tensors import read_tensors
from tests.kit.sentencepiece_like import sentencepiece_tokenizer
from tests.kit.tiny_checkpoint import byte_tokenizer
from tests.kit.tiny_world import ROWS, tiny_tokenizer

TOKENIZERS: dict[str, PreTrainedTokenizerBase] = {"bytes": tiny_tokenizer(), "sentencepiece": sentencepiece_tokenizer()}
VOCABULARY = len(TOKENIZERS["bytes"])
MAPS = Path("/proc/self/maps")
words = st.sampled_from(["", " ", "Which", "number comes", "after 3?", "Think. " * 9, "ü\n"])
rows = st.lists(
    st.one_of(
        st.fixed_dictionaries({"prompt": words, "completion": words}),
        st.fixed_dictionaries({"instruction": words, "input": words, "output": words}),
        st.fixed_dictionaries({"text": words}),
    ),
    min_size=1,
    max_size=12,
)


def encoded(folder: Path, data: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, columns: Any = None) -> Path:
    with artefacts.new_folder(folder) as new:
        found = write_encoded(new, data, max_length, encoded_in_batches(data, tokenizer, max_length, columns))
        write_encoding_record(new, found, belonging(data, tokenizer, max_length, columns), {})
    return folder


def whole(ask: Callable[[], Instructions]) -> Any:
    """Return all that rows say of themselves, or why there are none."""
    try:
        found = ask()
    except UserError as error:
        return str(error)
    return [found[number] for number in range(len(found))], found.counts(), found.losses(), found.longer_than(9)


@given(rows, st.sampled_from(sorted(TOKENIZERS)), st.integers(2, 80), st.integers(1, 5))
def test_what_was_encoded_is_what_would_be(rows: list[dict[str, str]], name: str, max_length: int, at_once: int) -> None:
    """Whatever the rows, the tokenizer, and how many are encoded together."""
    tokenizer = TOKENIZERS[name]
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        data = Path(folder, "rows.jsonl")
        write_jsonl(data, rows)
        anew = whole(lambda: Instructions(data, tokenizer, max_length))
        patched.setattr(encoding, "ENCODE_BATCH", at_once)
        assert whole(lambda: Instructions(data, tokenizer, max_length)) == anew
        out = Path(folder, "encoded")
        if isinstance(anew, str):
            with pytest.raises(UserError, match=r"rows\.jsonl: "):
                encoded(out, data, tokenizer, max_length)
            assert not out.exists()
            return
        encoded(out, data, tokenizer, max_length)
        assert whole(lambda: read_encoded(out, data, tokenizer, len(tokenizer), max_length)) == anew


@pytest.mark.skipif(not MAPS.exists(), reason="needs Linux, which tells what a process has mapped")
def test_rows_are_mapped_and_not_read(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    out = encoded(tmp_path / "encoded", tmp_path / "rows.jsonl", TOKENIZERS["bytes"], 256)
    held = read_encoded(out, tmp_path / "rows.jsonl", TOKENIZERS["bytes"], VOCABULARY, 256)
    assert str(out / TOKENS_NAME) in MAPS.read_text() and len(held) == len(ROWS)


def other_end() -> PreTrainedTokenizerBase:
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = "<s>"
    return tokenizer


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokenizer": TOKENIZERS["sentencepiece"]}, "tokenizer: --encoded .* is of another tokenizer than that of --base"),
        ({"tokenizer": other_end()}, "tokenizer: --encoded .* is of another tokenizer"),
        ({"max_length": 128}, r"max_length: --encoded .* is of pieces of 256 tokens, and tuning\.max_length is 128"),
        ({"columns": {"prompt": "x"}}, r"columns: --encoded .* is of the columns \{\}, and --column says \{'prompt': 'x'\}"),
    ],
)
def test_what_does_not_belong_together_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    write_jsonl(data, ROWS)
    out = encoded(tmp_path / "encoded", data, TOKENIZERS["bytes"], 256)
    asked: dict[str, Any] = {"tokenizer": TOKENIZERS["bytes"], "max_length": 256, "columns": None} | changes
    with pytest.raises(UserError, match=rf"encoding\.json: {said}.*; call `pat encode` again, or leave out --encoded"):
        read_encoded(out, data, vocabulary=VOCABULARY, **asked)


def test_changed_rows_and_damaged_tokens_are_refused(tmp_path: Path) -> None:
    data, tokenizer = tmp_path / "rows.jsonl", TOKENIZERS["bytes"]
    write_jsonl(data, ROWS)
    out = encoded(tmp_path / "encoded", data, tokenizer, 256)
    write_jsonl(data, ROWS[1:])
    with pytest.raises(UserError, match=r"encoding\.json: data: --encoded .* is not of --data .*rows\.jsonl as it is now"):
        read_encoded(out, data, tokenizer, VOCABULARY, 256)
    write_jsonl(data, ROWS)
    whole_file = (out / TOKENS_NAME).read_bytes()
    (out / TOKENS_NAME).write_bytes(whole_file[:-1])
    with pytest.raises(UserError, match=r"tokens\.safetensors: differs from its checksum in manifest\.json"):
        read_encoded(out, data, tokenizer, VOCABULARY, 256)
    (out / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"has no manifest\.json"):
        read_encoded(out, data, tokenizer, VOCABULARY, 256)
    with pytest.raises(UserError, match="no such folder"):
        read_encoded(tmp_path / "none", data, tokenizer, VOCABULARY, 256)
    with pytest.raises(UserError, match=r"rows\.jsonl: is a file, where a folder is needed"):
        read_encoded(data, data, tokenizer, VOCABULARY, 256)
    tokenizer.save_pretrained(tmp_path / "base")
    with pytest.raises(UserError, match=r"--encoded .*base: is not what `pat encode` writes: it holds no encoding\.json"):
        read_encoded(tmp_path / "base", data, tokenizer, VOCABULARY, 256)


def record_without(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        record = json.loads((folder / ENCODING_RECORD).read_text())
        del record["rows"][name]
        write_json(folder / ENCODING_RECORD, record)

    return change


def with_token(name: str, place: int, value: int) -> Callable[[Path], None]:
    def changed(array_T: Tensor) -> Tensor:
        array_T[place] = value
        return array_T

    return tokens_with(name, changed)


def tokens_with(name: str, changed: Callable[[Tensor], Tensor]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        arrays = read_tensors(folder / TOKENS_NAME)
        save_file(arrays | {name: changed(arrays[name]).clone()}, folder / TOKENS_NAME)

    return change


ALLOWED = f"must be from 0 to {VOCABULARY - 1}, the vocabulary has {VOCABULARY} tokens"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (record_without("read"), r"encoding\.json: rows\.read is null; must be how many rows there were"),
        (tokens_with("ids_T", Tensor.float), r"tokens\.safetensors: ids_T: has 1 axes of float32, not one of int32"),
        (tokens_with("fates_R", lambda fates_R: fates_R[None]), r"fates_R: has 2 axes of uint8"),
        (tokens_with("ids_T", lambda ids_T: ids_T[1:]), "its arrays are not those of one set of rows"),
        (tokens_with("learned_T", lambda learned_T: learned_T[1:]), "its arrays are not"),
        (tokens_with("sources_N", lambda sources_N: sources_N[1:]), "its arrays are not"),
        (tokens_with("sources_N", lambda sources_N: sources_N + 1), "its arrays are not"),
        (tokens_with("lengths_N", lambda lengths_N: lengths_N.roll(1) * 0), "its arrays are not"),
        (tokens_with("fates_R", lambda fates_R: fates_R.repeat(2)), "its arrays are not"),
        (with_token("lengths_N", 0, 2**62), "its arrays are not"),
        (with_token("ids_T", 0, VOCABULARY), rf"ids_T: row 1 of those that are not blank holds {VOCABULARY}; {ALLOWED}"),
        (with_token("ids_T", -1, 2**31 - 1), rf"ids_T: row {len(ROWS)} of those that are not blank holds 2147483647; {ALLOWED}"),
        (with_token("ids_T", 0, -1), rf"ids_T: row 1 of those that are not blank holds -1; {ALLOWED}"),
        (with_token("ids_T", -1, -100), rf"ids_T: row {len(ROWS)} of those that are not blank holds -100; {ALLOWED}"),
        (with_token("learned_T", -1, 2), rf"learned_T: row {len(ROWS)} of those .* holds 2; must be from 0 to 1, 1 where it is learned"),
        (tokens_with("learned_T", lambda learned_T: learned_T * 0), "learned_T: of a piece of row 1 of those .* no token is learned"),
    ],
)
def test_a_sealed_folder_that_is_not_what_was_written_is_refused(change: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    data, tokenizer = tmp_path / "rows.jsonl", TOKENIZERS["bytes"]
    write_jsonl(data, ROWS)
    out = encoded(tmp_path / "encoded", data, tokenizer, 256)
    change(out)
    artefacts.seal(out)
    with pytest.raises(UserError, match=said + r".*; call `pat encode` again, or leave out --encoded"):
        read_encoded(out, data, tokenizer, VOCABULARY, 256)


@pytest.mark.parametrize("place", range(0, 2371, 237))
def test_the_row_that_is_named_is_the_one_that_holds_the_token(place: int, tmp_path: Path) -> None:
    """Also of texts, which become several pieces each, and behind blank rows, which have none."""
    data, tokenizer = tmp_path / "rows.jsonl", TOKENIZERS["bytes"]
    texts = ["a " * (number % 7) * number for number in range(40)]
    write_jsonl(data, ({"text": text} for text in texts))
    out = encoded(tmp_path / "encoded", data, tokenizer, 16)
    lengths = [len(tokenizer(text)["input_ids"]) + 1 for text in texts if text.strip()]  # EOS
    ends = list(accumulate(length - (length % 16 == 1) for length in lengths))  # a last token alone goes
    row = bisect_right(ends, place) + 1
    with_token("ids_T", place, VOCABULARY)(out)
    artefacts.seal(out)
    with pytest.raises(UserError, match=f"ids_T: row {row} of those that are not blank"):
        read_encoded(out, data, tokenizer, VOCABULARY, 16)


def test_a_tokenizer_is_known_by_what_it_makes_of_texts(tmp_path: Path) -> None:
    """Not by its files, which a step that copies a model may write anew, nor by what it was last asked for."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ bos_token }}{{ messages }}"
    found = tokenizer_sum(tokenizer)
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    tokenizer.save_pretrained(tmp_path / "one")
    write_json(tmp_path / "one/config.json", {"model_type": "llama"})
    write_json(tmp_path / "other/config.json", {"model_type": "mistral"})
    settings = tmp_path / "one/tokenizer_config.json"
    write_json(settings, {key: value for key, value in json.loads(settings.read_text()).items() if key != "tokenizer_class"})
    checkpoint.copy_companions(tmp_path / "one", tmp_path / "other")
    assert settings.read_bytes() != (tmp_path / "other/tokenizer_config.json").read_bytes(), "or this shows nothing"
    opened = AutoTokenizer.from_pretrained(tmp_path / "one")
    assert tokenizer_sum(opened) == tokenizer_sum(AutoTokenizer.from_pretrained(tmp_path / "other")) == found
    tokenizer(["a", "a b"], padding=True, truncation=True, max_length=1)
    assert tokenizer_sum(tokenizer) == found
    others = [other_end(), TOKENIZERS["sentencepiece"], byte_tokenizer(), tiny_tokenizer(), tiny_tokenizer()]
    others[-1].chat_template = "{{ messages }}"
    assert len({found, *map(tokenizer_sum, others)}) == 6
    tokenizer.bos_token = "<pad>"
    assert tokenizer_sum(tokenizer) != found, "the template writes another token"
