"""Estimates of memory and time: counts that are published, activations that torch really keeps, and bounds that must hold."""

from __future__ import annotations

from math import ceil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    PretrainedConfig,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
)

from pat.benchmark.settings import KNOWN_SHAPES, ModelShape
from pat.models.recomputed import recompute_feed_forward
from pat.settings.fields import Precision
from pat.settings.jobs import Recomputed, TuningSettings
from study.experiment import footprint

LLAMA = KNOWN_SHAPES["llama-2-7b"]


def recipe(**changes: object) -> TuningSettings:
    return TuningSettings.model_validate({"max_steps": 100, "learning_rate": 1e-4, "batch_size": 8, "precision": "bf16"} | changes)


@pytest.mark.parametrize(
    ("shape", "published"), [("llama-2-7b", 6_738_415_616), ("yi-1.5-34b", 34_388_917_248), ("gemma-2b", 2_506_172_416)]
)
def test_parameters_are_those_published(shape: str, published: int) -> None:
    assert footprint.parameters_of(KNOWN_SHAPES[shape]) == published


def test_lora_on_every_linear_layer_of_llama_has_the_papers_trainable_parameters() -> None:
    assert footprint.lora_parameters(LLAMA, rank=64) == 159_907_840


def test_a_refit_of_readers_holds_a_map_a_norm_and_ridge_and_streams_of_its_text() -> None:
    """Of 512 channels 256 · 512 tokens in fp32 are 268.4 MB a stream, and 9 norms' maps to 384 of them 14.2 MB a ridge."""
    shape = ModelShape(vocab_size=1000, hidden_size=512, layers=4, heads=4, intermediate_size=1024)
    needed = {ridges: footprint.reader_refitting_mb(shape, 0.25, 64, ridges, tied=False) for ridges in (1, 2, 20, 30)}
    stream, maps = 256 * 512 * 512 * 4 / 1e6, 9 * 512 * 384 * 8 / 1e6
    assert needed == {1: ceil(2 * maps + 2 * stream), 2: 566, 20: 566, 30: ceil(30 * maps + stream)}
    assert footprint.reader_refitting_mb(shape, 0.25, 64, 30, tied=True) == ceil(30 * maps * 8 / 9 + stream)


def test_where_a_ratio_comes_to_no_width_all_channels_are_counted() -> None:
    whole = footprint.reader_refitting_mb(LLAMA, 0.0, "auto", 2, tied=False)
    assert footprint.reader_refitting_mb(LLAMA, 0.999, "auto", 2, tied=False) == whole


@pytest.mark.parametrize(("recomputed", "neurons"), [(False, 344), ("feed-forward", 344), ("feed-forward", 1024)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_activations_are_no_more_than_estimated_and_not_far_less(precision: Precision, recomputed: Recomputed, neurons: int) -> None:
    """What autograd keeps of a forward pass of LoRA with dropout, the parameters left out.

    A plain layer's estimate is that of a Llama's neurons; what stays beside a recomputed block does not depend on them. The block that comes
    back in backward is estimated too, and not kept.
    """
    shape = ModelShape(vocab_size=1000, hidden_size=128, layers=4, heads=4, intermediate_size=neurons)
    config = LlamaConfig(vocab_size=1000, hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=neurons)
    stock = LlamaForCausalLM(config)
    stock.to(torch.float32 if precision == "fp32" else torch.bfloat16)  # type: ignore[arg-type]  # transformers wraps nn.Module.to wrongly
    model = get_peft_model(stock, LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.05)).train()
    if recomputed:
        recompute_feed_forward(stock)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # an address is given out again once its tensor is gone

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    tokens = torch.randint(0, 1000, (4, 64))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(input_ids=tokens, labels=tokens)
    estimate = footprint.activation_bytes(shape, tokens.numel(), precision, recomputed=recomputed)
    if recomputed:
        estimate -= tokens.numel() * 128 * (footprint.ACTIVATION_BYTES[precision] - footprint.BESIDE_FEED_FORWARD_BYTES[precision])
    assert 0.7 * estimate < sum(kept.values()) <= estimate


def test_llama_7b_in_numbers() -> None:
    """13.5 GB in bf16; 4·N·tokens = 5.5e15 operations for a hundred steps of 8 × 256 tokens are a minute of 1e14 a second."""
    assert footprint.tuning_mb(LLAMA, recipe(), on_gpu=True) == 3000 + 20216
    assert footprint.tuning_mb(LLAMA, recipe(distillation={}), on_gpu=True) == 3000 + 2 * 20216
    assert footprint.tuning_mb(LLAMA, recipe(), on_gpu=True, processes=4) == 4 * (3000 + 20216)
    assert footprint.tuning_mb(LLAMA, recipe(shard=True), on_gpu=True, processes=4) == 4 * 3000 + 20216
    assert footprint.tuning_mb(LLAMA, recipe(shard=True, distillation={}), on_gpu=True, processes=4) == 4 * 3000 + 2 * 20216
    minutes = footprint.tuning_minutes(LLAMA, recipe(), 0, on_gpu=True, processes=1)
    assert minutes == 60 + 26 + 2
    longer = footprint.tuning_minutes(LLAMA, recipe(max_steps=10_000), 0, on_gpu=True, processes=1)
    shared = footprint.tuning_minutes(LLAMA, recipe(max_steps=10_000), 0, on_gpu=True, processes=4)
    assert longer == 60 + 26 + 185 and shared == 60 + 26 + 47
    epochs = recipe(max_steps=None, epochs=2)
    assert footprint.tuning_minutes(LLAMA, epochs, 40_000, on_gpu=True, processes=1) == longer


@given(st.integers(1, 8), st.sampled_from(["fp32", "bf16"]), st.booleans())
def test_processes_with_the_same_rows_each_need_as_much_each_and_less_in_shards(processes: int, precision: Precision, on_gpu: bool) -> None:
    asked: dict[str, object] = {"batch_size": 8 * processes, "micro_batch_size": 2, "precision": precision}
    alone = footprint.tuning_mb(LLAMA, recipe(**asked), on_gpu=on_gpu)
    together = footprint.tuning_mb(LLAMA, recipe(**asked), on_gpu=on_gpu, processes=processes)
    sharded = footprint.tuning_mb(LLAMA, recipe(**asked, shard=True), on_gpu=on_gpu, processes=processes)
    assert together == processes * alone
    weights = footprint.loading_mb(footprint.parameters_of(LLAMA), precision) - footprint.LIBRARIES_MB
    assert together - sharded == (processes - 1) * weights


@given(st.integers(1, 64), st.integers(1, 4096), st.sampled_from(["fp32", "bf16"]), st.booleans())
def test_a_cpu_needs_more_than_a_gpu_and_less_the_more_is_recomputed(rows: int, length: int, precision: Precision, distilled: bool) -> None:
    asked: dict[str, object] = {"batch_size": rows, "max_length": max(8, length), "precision": precision} | (
        {"distillation": {}} if distilled else {}
    )
    plain, feed_forward, layers = (recipe(**asked, gradient_checkpointing=value) for value in (False, "feed-forward", True))
    on_cpu = footprint.tuning_mb(LLAMA, plain, on_gpu=False)
    assert footprint.tuning_mb(LLAMA, layers, on_gpu=False) < footprint.tuning_mb(LLAMA, feed_forward, on_gpu=False) < on_cpu
    assert footprint.tuning_mb(LLAMA, plain, on_gpu=True) < on_cpu


def test_recomputing_takes_two_operations_more_of_what_is_recomputed() -> None:
    """Of Llama 2's layer 3·11,008·4,096 weights of 4·4,096² + 3·11,008·4,096 are the feed-forward block's, 0.668."""
    assert footprint.feed_forward_share(LLAMA) == pytest.approx(135_266_304 / 202_375_168)
    minutes = {}
    for value in (False, "feed-forward", True):
        asked = recipe(gradient_checkpointing=value, max_steps=1_000_000)
        minutes[value] = footprint.tuning_minutes(LLAMA, asked, 0, on_gpu=True, processes=1) - 60 - 26
    assert minutes[True] == pytest.approx(minutes[False] * 6 / 4, abs=1)
    assert minutes["feed-forward"] == pytest.approx(minutes[False] * (4 + 2 * 0.66839) / 4, abs=1)


def test_small_models_ask_for_no_gpu_and_large_ones_for_one() -> None:
    assert footprint.gpus(32_000_000, "auto") == footprint.gpus(7 * 10**9, "cpu") == 0
    assert footprint.gpus(135_000_000, "auto") == footprint.gpus(34 * 10**9, "cuda") == 1


LIKE: dict[str, PretrainedConfig] = {
    "opt": OPTConfig(
        vocab_size=320, hidden_size=64, word_embed_proj_dim=64, num_hidden_layers=3, num_attention_heads=4, ffn_dim=96, max_position_embeddings=8
    ),
    "gpt_neox": GPTNeoXConfig(vocab_size=320, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96),
    "qwen2_moe": Qwen2MoeConfig(
        vocab_size=320, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, moe_intermediate_size=24,
        shared_expert_intermediate_size=48, num_experts=8, num_experts_per_tok=2,
    ),
    "qwen3_moe": Qwen3MoeConfig(
        vocab_size=320, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, moe_intermediate_size=24,
        num_experts=8, num_experts_per_tok=2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", LIKE)
def test_a_family_that_sizes_do_not_tell_is_estimated_by_its_like(family: str, tmp_path: Path) -> None:
    """Within 6 % of what stock transformers makes: biases, places and routers are not counted."""
    LIKE[family].save_pretrained(tmp_path)
    assert footprint.shape_in(tmp_path) is None  # nothing exact is said of it
    like = footprint.likeness_in(tmp_path)
    assert like is not None and like.family == family
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(LIKE[family])
    assert footprint.parameters_of(like) == pytest.approx(sum(parameter.numel() for parameter in model.parameters()), rel=0.06)
    idle = (
        0 if family in ("opt", "gpt_neox") else 3 * 6 * 3 * 24 * 64
    )  # in each of three layers six of eight experts, of three matrices each
    assert footprint.active_parameters_of(like) == footprint.parameters_of(like) - idle


def test_a_large_model_of_such_a_family_asks_for_a_gpu(tmp_path: Path) -> None:
    GPTNeoXConfig(hidden_size=2048, num_hidden_layers=24, num_attention_heads=16, intermediate_size=8192).save_pretrained(tmp_path)
    like = footprint.likeness_in(tmp_path)
    assert like is not None and footprint.gpus(footprint.parameters_of(like), "auto") == 1
    assert footprint.tuning_mb(like, recipe(), on_gpu=True) > 3000 + 3 * 1.3e9 / 1e6
    assert footprint.likeness_in(tmp_path / "nowhere") is None
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_embd": 64}')
    assert footprint.likeness_in(tmp_path) is None


def test_a_folders_shape_is_its_configs_and_none_where_it_cannot_be_told(tmp_path: Path) -> None:
    LlamaConfig(
        vocab_size=320, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, intermediate_size=96,
        tie_word_embeddings=True,
    ).save_pretrained(tmp_path)  # fmt: skip
    shape = footprint.shape_in(tmp_path)
    assert shape is not None
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig.from_pretrained(tmp_path))
    assert footprint.parameters_of(shape) == sum(parameter.numel() for parameter in model.parameters())
    assert footprint.shape_in(tmp_path / "nowhere") is None
    (tmp_path / "config.json").write_text('{"n_embd": 64}')
    assert footprint.shape_in(tmp_path) is None
