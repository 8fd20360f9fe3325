"""A GGUF file says what its model says: read again it computes the same, and what llama.cpp would compute otherwise is refused."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader, dequantize
from transformers import (
    FalconConfig,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    Qwen3Config,
    SmolLM3Config,
)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from pat.checkpoints import checkpoint
from pat.checkpoints.gguf_import import import_gguf
from pat.errors import UserError
from pat.export.gguf_families import EXPORTED, exported_as, frequency_divisors, in_pairs
from pat.export.gguf_file import TYPES, write_gguf
from pat.families.known import FAMILIES
from tests.kit.exported_models import CONFIGS, PROMPT, SHAPE, write_base, write_narrow
from tests.kit.tiny_models import LLAMA_3, MORE, tiny_model
from tests.kit.tiny_world import tiny_tokenizer


@torch.no_grad()
def logits(folder: Path) -> torch.Tensor:
    model = checkpoint.load_model(folder, torch.float32)
    tokens = torch.randint(3, 400, (2, 12), generator=torch.Generator().manual_seed(0))
    found: torch.Tensor = model(input_ids=tokens).logits
    return found


def field(reader: GGUFReader, key: str) -> Any:
    found = reader.get_field(key)
    return None if found is None else found.contents()


@pytest.mark.parametrize("name", ["llama", "llama-tied", "qwen3-tied"])
def test_read_again_a_narrow_model_computes_the_same(tmp_path: Path, name: str) -> None:
    narrow = write_narrow(tmp_path, name)
    made = write_gguf(narrow, tmp_path / "model.gguf", "f32")
    import_gguf(tmp_path / "model.gguf", tmp_path / "again", "fp32")
    torch.testing.assert_close(logits(tmp_path / "again"), logits(narrow), rtol=1e-6, atol=1e-6)
    config = checkpoint.load_config(tmp_path / "again")
    assert (config.hidden_size, config.num_attention_heads * config.head_dim) == (96, 512 if name == "qwen3-tied" else 128)
    before, after = checkpoint.open_tokenizer(narrow), checkpoint.open_tokenizer(tmp_path / "again")
    assert before(PROMPT)["input_ids"] == after(PROMPT)["input_ids"]
    assert made["left_in_f16"] == []


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_holds_the_weights_as_the_gguf_package_rounds_them(tmp_path: Path, kind: str) -> None:
    base = write_base(tmp_path / "base", LlamaConfig(**SHAPE))
    made = write_gguf(base, tmp_path / "model.gguf", kind)
    stored = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "model.gguf").tensors}
    assert Counter(tensor.tensor_type.name.lower() for tensor in stored.values()) == {kind: 16, "f32": 5} if kind != "f32" else {"f32": 21}
    weights = dict(checkpoint.tensors(base))
    read = dequantize(stored["blk.1.ffn_down.weight"].data, stored["blk.1.ffn_down.weight"].tensor_type)
    true = weights["model.layers.1.mlp.down_proj.weight"].numpy()
    bits = {"f32": 24, "f16": 11, "bf16": 8, "q8_0": 7, "q5_1": 5, "q5_0": 4, "q4_1": 4, "q4_0": 3}[kind]
    assert 0 <= np.abs(read - true).max() <= np.abs(true).max() * 2.0**-bits * 1.2
    assert made["type"] == kind


@pytest.mark.parametrize(("stored_as", "kind"), [(torch.bfloat16, "bf16"), (torch.float64, "f32")])
def test_by_default_the_weights_stay_as_they_are_stored_and_fp64_is_rounded(stored_as: torch.dtype, kind: str, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", LlamaConfig(**SHAPE), dtype=stored_as)
    assert write_gguf(base, tmp_path / "model.gguf")["type"] == kind
    stored = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "model.gguf").tensors}
    read = dequantize(stored["token_embd.weight"].data, stored["token_embd.weight"].tensor_type)
    assert np.array_equal(read, dict(checkpoint.tensors(base))["model.embed_tokens.weight"].float().numpy())


def test_rows_that_fit_no_block_stay_in_f16_and_are_told(tmp_path: Path) -> None:
    narrow = write_narrow(tmp_path, "llama-tied", align=4, ratio=0.3)  # a width of 88
    made = write_gguf(narrow, tmp_path / "model.gguf", "q8_0")
    assert made["formats"] == {"F16": 11, "F32": 5, "Q8_0": 4}
    assert (made["matrices"], len(made["left_in_f16"])) == (15, 11)  # what reads the stream; what writes to it has rows of its own
    assert "blk.0.attn_q.weight" in made["left_in_f16"]
    assert "blk.0.ffn_down.weight" not in made["left_in_f16"]


def test_the_keys_say_what_the_config_says(tmp_path: Path) -> None:
    narrow = write_narrow(tmp_path, "llama3")
    write_gguf(narrow, tmp_path / "model.gguf", "f16")
    reader = GGUFReader(tmp_path / "model.gguf")
    found = {
        key: field(reader, f"llama.{key}")
        for key in ("embedding_length", "context_length", "attention.key_length", "attention.head_count_kv")
    }
    assert found == {"embedding_length": 96, "context_length": 128, "attention.key_length": 32, "attention.head_count_kv": 2}
    assert field(reader, "llama.rope.freq_base") == 500.0
    assert [field(reader, f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "eot")] == [1, 2, 5]
    assert "rope_freqs.weight" in {tensor.name for tensor in reader.tensors}


def test_the_divisors_of_llama_3_are_transformers_own() -> None:
    config = LlamaConfig(**SHAPE, head_dim=64, rope_parameters=LLAMA_3 | {"original_max_position_embeddings": 256})
    turned, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 1.0 / LLAMA_3["rope_theta"] ** (torch.arange(0, 64, 2) / 64)
    divisors = frequency_divisors(config)
    assert divisors is not None
    torch.testing.assert_close(torch.from_numpy(divisors), plain / turned, rtol=1e-6, atol=0)
    assert {1.0, 4.0} < set(divisors.tolist())
    assert frequency_divisors(LlamaConfig(**SHAPE)) is None


def test_pairs_are_the_halves_of_each_head_in_turn() -> None:
    assert in_pairs(np.arange(8), 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_gains_multiply_as_they_are(tmp_path: Path) -> None:
    """Gemma's multiply by 1 + g, and llama.cpp's by what the file holds; biases and matrices are not moved."""
    base = write_base(tmp_path / "base", GemmaConfig(**SHAPE, head_dim=32))
    write_gguf(base, tmp_path / "model.gguf", "f32")
    stored = {tensor.name: tensor.data for tensor in GGUFReader(tmp_path / "model.gguf").tensors}
    weights = dict(checkpoint.tensors(base))
    for theirs, ours in (("output_norm", "model.norm"), ("blk.0.ffn_norm", "model.layers.0.post_attention_layernorm")):
        assert np.array_equal(stored[f"{theirs}.weight"], weights[f"{ours}.weight"].numpy() + np.float32(1))
    assert np.array_equal(stored["blk.0.attn_q.weight"], weights["model.layers.0.self_attn.q_proj.weight"].numpy())


def test_fused_layers_are_split(tmp_path: Path) -> None:
    narrow = write_narrow(tmp_path, "phi3")
    write_gguf(narrow, tmp_path / "model.gguf", "f32")
    stored = {tensor.name: tensor.data for tensor in GGUFReader(tmp_path / "model.gguf").tensors}
    fused = dict(checkpoint.tensors(narrow))["model.layers.1.self_attn.qkv_proj.weight"].numpy()
    assert np.array_equal(stored["blk.1.attn_q.weight"], in_pairs(fused[:128], 4))
    assert np.array_equal(stored["blk.1.attn_k.weight"], in_pairs(fused[128:192], 2))
    assert np.array_equal(stored["blk.1.attn_v.weight"], fused[192:])
    assert stored["blk.1.ffn_gate.weight"].shape == stored["blk.1.ffn_up.weight"].shape == (96, 96)


def test_a_window_that_llama_cpp_lacks_ends_the_context(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base = write_base(tmp_path / "base", MistralConfig(**SHAPE, sliding_window=48))
    with caplog.at_level(logging.WARNING):
        write_gguf(base, tmp_path / "model.gguf")
    assert field(GGUFReader(tmp_path / "model.gguf"), "llama.context_length") == 48
    assert "a context of 48 tokens" in caplog.text


REFUSED: dict[str, tuple[Any, str]] = {
    "weights of experts": (MORE["qwen3-moe"], "leaves the weights of its experts as they are"),
    "weights scaled": (MORE["qwen2-moe-tied"], "scales the weights of its experts to a sum of 1"),
    "head of its own": (lambda: GemmaConfig(**SHAPE, head_dim=32, tie_word_embeddings=False), "has a head of its own"),
    "biases": (lambda: Qwen3Config(**SHAPE, attention_bias=True), "llama.cpp's 'qwen3' has no biases, and the model has"),
    "scale": (lambda: Gemma3TextConfig(**SHAPE, head_dim=32, query_pre_attn_scalar=7), "query_pre_attn_scalar=7"),
    "windows": (
        lambda: Gemma3TextConfig(**SHAPE, head_dim=32, query_pre_attn_scalar=32, layer_types=["full_attention"] * 2),
        "has other layers with a sliding window",
    ),
    "norms over heads": (lambda: Olmo2Config(**SHAPE | {"head_dim": 64}), "has norms over all heads, 256 numbers, .* hidden size 128"),
    "positions": (lambda: SmolLM3Config(**SHAPE, no_rope_layers=[1, 0]), "has other layers without positions"),
    "partly turned": (lambda: Phi3Config(**SHAPE | {"partial_rotary_factor": 0.5}), "turns a part of each head alone"),
    "rope": (lambda: LlamaConfig(**SHAPE, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}), "rope_type 'dynamic'"),
    "activation": (lambda: LlamaConfig(**SHAPE, hidden_act="relu"), "has the activation 'relu', .* has 'silu'"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_llama_cpp_computes_otherwise_is_refused(tmp_path: Path, case: str) -> None:
    make, message = REFUSED[case]
    config = make()
    config.vocab_size = SHAPE["vocab_size"]
    base = write_base(tmp_path / "base", config)
    with pytest.raises(UserError, match=message) as raised:
        write_gguf(base, tmp_path / "model.gguf", "f32")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "model.gguf").exists()


def test_other_types_name_the_tool_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"llama-quantize model-bf16\.gguf model\.gguf q4_k_m") as raised:
        write_gguf(tmp_path, tmp_path / "model.gguf", "q4_k_m")
    assert "rows of 256" in str(raised.value)


def test_numbers_beyond_f16_are_refused(tmp_path: Path) -> None:
    model: Any = tiny_model("llama")
    model.resize_token_embeddings(len(tiny_tokenizer()))
    with torch.no_grad():
        model.model.embed_tokens.weight[3, 4] = 1e6
    model.save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    with pytest.raises(UserError, match="beyond f16's range; give --type bf16"):
        write_gguf(tmp_path / "base", tmp_path / "model.gguf", "f16")


def test_every_family_is_written() -> None:
    assert set(EXPORTED) == FAMILIES.keys() - {"opt", "gpt_neox", "phi"}  # refused, as any other (test_unnarrowed_families.py)
    never_narrower = {"olmo2", "qwen2_moe"}  # whose own in llama.cpp take no narrower stream
    assert {make().model_type for make in CONFIGS.values()} == set(EXPORTED) - never_narrower


def test_another_family_is_refused() -> None:
    with pytest.raises(UserError, match="'falcon' models are not written; those that are: llama, mistral"):
        exported_as(FalconConfig())


def test_experts_are_one_tensor_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    narrow = write_narrow(tmp_path, "qwen3-moe")
    write_gguf(narrow, tmp_path / "model.gguf", "q8_0")
    stored = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "model.gguf").tensors}
    weights = dict(checkpoint.tensors(narrow))
    gates = stored["blk.1.ffn_gate_exps.weight"]
    for number, gate in enumerate(dequantize(gates.data, gates.tensor_type)):
        true = weights[f"model.layers.1.mlp.experts.{number}.gate_proj.weight"].numpy()
        assert np.abs(gate - true).max() <= np.abs(true).max() / 127
    assert stored["blk.1.ffn_gate_inp.weight"].tensor_type.name == "F32"  # what weighs them
