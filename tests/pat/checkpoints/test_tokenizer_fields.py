"""A tokenizer that transformers 5 has written is passed on under the names that 4.x reads too, and is the same one here."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import AutoTokenizer

from pat.checkpoints.checkpoint import import_model
from pat.checkpoints.tokenizer_fields import write_old_names
from tests.kit.pruning_inputs import word_tokenizer
from tests.kit.tiny_models import tiny_model

TEXT = "w1 w5 w2"


def test_a_tokenizer_is_passed_on_under_both_generations_names(tmp_path: Path) -> None:
    tokenizer = word_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["w5"]})
    tokenizer.save_pretrained(tmp_path / "base")
    written = json.loads((tmp_path / "base" / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "TokenizersBackend" and written["extra_special_tokens"] == ["w5"]
    tiny_model("llama").save_pretrained(tmp_path / "base")
    import_model(tmp_path / "base", tmp_path / "out")
    record = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert record["tokenizer_class"] == "PreTrainedTokenizerFast" and record["additional_special_tokens"] == ["w5"]
    assert "extra_special_tokens" not in record
    before, after = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("base", "out"))
    assert after(TEXT)["input_ids"] == before(TEXT)["input_ids"] and after.all_special_tokens == before.all_special_tokens
    assert after.decode(after(TEXT)["input_ids"], skip_special_tokens=True) == before.decode(
        before(TEXT)["input_ids"], skip_special_tokens=True
    )
    json_of = [(tmp_path / name / "tokenizer.json").read_bytes() for name in ("base", "out")]
    assert json_of[0] == json_of[1]


def test_what_says_it_in_the_older_way_stays_as_it_is(tmp_path: Path) -> None:
    write_old_names(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    for text in ('{"tokenizer_class": "LlamaTokenizerFast"}', '{"extra_special_tokens": {"image_token": "<image>"}}', "{}"):
        path.write_text(text)
        write_old_names(tmp_path)
        assert path.read_text() == text
