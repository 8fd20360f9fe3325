"""A GGUF file becomes a stock checkpoint: the same logits, tokenizer and chat template, and what cannot be read is refused in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, dequantize, quantize
from transformers import AutoModelForCausalLM, PreTrainedModel

from pat.checkpoints import checkpoint
from pat.checkpoints.gguf_import import import_gguf
from pat.checkpoints.origin import ORIGIN_NAME, origin_of, origin_sentence, quantised_as
from pat.cli import app
from pat.errors import UserError
from pat.io.artefacts import check_folder, read_json, sha256
from tests.kit.gguf_files import CONFIGS, TEMPLATE, random_model, write_gguf
from tests.kit.tiny_world import tiny_tokenizer

QUANTISED = "quantised"


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    tokens = torch.randint(3, model.config.vocab_size, (2, 12), generator=torch.Generator().manual_seed(0))
    found: torch.Tensor = model.eval()(input_ids=tokens).logits.float()
    return found


def expanded(model: PreTrainedModel, form: str) -> PreTrainedModel:
    """Return the model with each matrix as a format leaves it."""
    kind = GGMLQuantizationType[form]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                values = np.ascontiguousarray(parameter.detach().numpy())
                left = values.astype(np.float16).astype(np.float32) if form == "F16" else dequantize(quantize(values, kind), kind)
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(left)))
    return model


@pytest.mark.lengthy
@pytest.mark.parametrize("form", ["F32", "F16", "Q8_0"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_round_trip_keeps_every_logit(tmp_path: Path, name: str, form: str) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", random_model(name), form)
    record = import_gguf(file, tmp_path / "base", "fp32")
    check_folder(tmp_path / "base")
    read = checkpoint.load_model(tmp_path / "base")
    assert read.dtype == torch.float32
    torch.testing.assert_close(logits(read), logits(expanded(random_model(name), form)), rtol=1e-5, atol=1e-5)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32)
    assert torch.equal(logits(read), logits(theirs))
    assert record[QUANTISED] == ([form] if form == "Q8_0" else [])


def test_the_dtype_is_bf16_unless_told_otherwise_and_equals_transformers_own(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", random_model("llama-tied"), "Q8_0")
    import_gguf(file, tmp_path / "base")
    read = checkpoint.load_model(tmp_path / "base")
    assert read.dtype == torch.bfloat16
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.bfloat16)
    assert torch.equal(logits(read), logits(theirs))


@pytest.mark.parametrize(("name", "tied"), [("llama", False), ("llama-tied", True)])
def test_a_tied_embedding_stays_tied_and_an_untied_one_untied(tmp_path: Path, name: str, tied: bool) -> None:
    import_gguf(write_gguf(tmp_path / "tiny.gguf", random_model(name)), tmp_path / "base", "fp32")
    model: Any = checkpoint.load_model(tmp_path / "base")
    assert model.config.tie_word_embeddings is tied
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is tied
    assert ("lm_head.weight" in checkpoint.tensor_shapes(tmp_path / "base")) is not tied


def test_tokenizer_chat_template_and_end_tokens_come_with_it(tmp_path: Path) -> None:
    import_gguf(write_gguf(tmp_path / "tiny.gguf", random_model("llama-tied"), pre="gpt-2"), tmp_path / "base")
    tokenizer, model = checkpoint.load_tokenizer(tmp_path / "base"), checkpoint.load_model(tmp_path / "base")
    text = "Which number comes after 7?\n\n### Response:"
    assert tokenizer(text)["input_ids"] == tiny_tokenizer()(text)["input_ids"]
    assert len(tokenizer) == model.config.vocab_size  # transformers' own reading has a token of GPT-2's more, beyond the embedding
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "<s>hi</s>"
    assert tokenizer.chat_template == TEMPLATE
    assert model.generation_config is not None
    assert (tokenizer.eos_token_id, model.config.eos_token_id, model.generation_config.eos_token_id) == (2, 2, 2)
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert not {"quantization_config", "_model_name_or_path"} & config.keys()


def test_digits_are_split_as_the_files_rule_says(tmp_path: Path) -> None:
    """transformers knows no rule `smollm` and would take ` 12` for one piece, and both ends of a line before a digit for two."""
    import_gguf(write_gguf(tmp_path / "tiny.gguf", random_model("llama-tied")), tmp_path / "base")
    pieces: Any = checkpoint.open_tokenizer(tmp_path / "base").backend_tokenizer.pre_tokenizer.pre_tokenize_str("a\n\n12 b")
    assert [piece for piece, _ in pieces] == ["a", "ĊĊ", "1", "2", "Ġb"]
    unknown = import_gguf(write_gguf(tmp_path / "other.gguf", random_model("llama-tied"), pre="new-rule"), tmp_path / "other")
    assert unknown["tokenizer_split"] == {"rule": "new-rule", "followed": False}


def test_files_beside_it_are_not_taken_for_its_own(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    import_gguf(write_gguf(tmp_path / "tiny.gguf", random_model("llama")), tmp_path / "base")
    assert checkpoint.load_tokenizer(tmp_path / "base")("7")["input_ids"]


def test_the_record_holds_the_files_checksum_and_travels_with_copies(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", random_model("llama-tied"), "Q8_0")
    app(["import-model", "--gguf", str(file), "--out", str(tmp_path / "base")], standalone_mode=False)
    record = read_json(tmp_path / "base" / ORIGIN_NAME)
    assert record["sha256"] == sha256(file)
    assert record["provenance"]["inputs"]["gguf"] == {"path": str(file), "sha256": sha256(file)}
    app(["import-model", "--path", str(tmp_path / "base"), "--out", str(tmp_path / "copy")], standalone_mode=False)
    assert origin_of(tmp_path / "copy") == record
    assert "quantised" in origin_sentence(record)
    assert "Q8_0" in origin_sentence(record)
    assert "not quantised" in origin_sentence({"file": "a.gguf", "dtype": "bf16", "quantised": []})
    assert quantised_as({"quantised": ["Q4_1", "Q6_K", "Q8_0"]}) == "Q4_1, Q6_K and Q8_0"


def _cut(file: Path, share: float) -> None:
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])


BROKEN: dict[str, tuple[dict[str, Any], Callable[[Path], Any], str]] = {
    "magic": ({}, lambda file: file.write_bytes(b"GGML" + file.read_bytes()[4:]), "is no GGUF file: it begins with b'GGML'"),
    "empty": ({}, lambda file: file.write_bytes(b""), "is no GGUF file"),
    "keys cut off": ({}, lambda file: _cut(file, 0.01), "is truncated or broken"),
    "weights cut off": ({}, lambda file: _cut(file, 0.9), "is truncated or broken"),
    "missing": ({}, Path.unlink, "no such file"),
    "architecture": ({"keys": {"general.architecture": "falcon"}}, lambda _: None, "architecture 'falcon' is not known; known are gemma"),
    "unread": ({"keys": {"general.architecture": "gemma"}}, lambda _: None, "GGUF model with architecture gemma is not supported yet"),
    "no tokenizer": ({"tokenizer": False}, lambda _: None, "holds no tokenizer"),
    "scaled": ({"keys": {"llama.rope.scaling.type": "linear"}}, lambda _: None, r"scales its positions \(linear\)"),
    "factors": ({"extra": ("rope_freqs.weight",)}, lambda _: None, r"scales its positions \(rope_freqs\)"),
    "experts": ({"extra": ("blk.0.ffn_gate_exps.weight",)}, lambda _: None, r"1 tensor\(s\) that a stock 'llama' model has no place for"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_read_is_refused_in_a_sentence(tmp_path: Path, case: str) -> None:
    options, spoil, message = BROKEN[case]
    file = write_gguf(tmp_path / "tiny.gguf", random_model("llama"), **options)
    spoil(file)
    with pytest.raises(UserError, match=message) as raised:
        import_gguf(file, tmp_path / "base")
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "base").exists()


def test_a_wrong_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be one of bf16, fp16, fp32"):
        import_gguf(write_gguf(tmp_path / "tiny.gguf", random_model("llama")), tmp_path / "base", "int8")
