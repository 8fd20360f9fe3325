"""The merge is exact and stock: for every family, operator, variant and adapter the merged model computes what the masked one does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from pat import PatModel
from pat.checkpoints.merge import merge
from pat.errors import UserError
from pat.io import artefacts
from tests.kit.pairs import all_pairs
from tests.kit.stock_models import reload
from tests.kit.tiny_models import CONFIGS, random_tokens, tiny_model
from tests.kit.training import trained

EXACT = 1e-4
"""The project's bound on |Δlogit| in fp32 on CPU."""
OPERATORS: dict[str, dict[str, Any]] = {
    "low-rank": {},
    "dense": {"hio_rank": "dense"},
    "release": {"variant": "release"},
    "mask": {"hio_rank": 0},
}


def save_pair(model: PatModel, name: str, folder: Path) -> tuple[Path, Path]:
    """Save the untouched base and the adapter as two folders."""
    tiny_model(name).save_pretrained(folder / "base")
    model.save_pretrained(str(folder / "adapter"))
    return folder / "base", folder / "adapter"


@pytest.mark.lengthy
@pytest.mark.parametrize(("name", "operator", "adapter"), all_pairs(CONFIGS, OPERATORS, ["lora", "dora"]))
def test_merged_equals_masked(name: str, operator: str, adapter: str, tmp_path: Path) -> None:
    model = trained(name, use_dora=adapter == "dora", **OPERATORS[operator])
    record = merge(*save_pair(model, name, tmp_path), tmp_path / "merged")
    stock = reload(tmp_path / "merged")
    tokens = random_tokens(3, 12, seed=99)
    with torch.no_grad():
        expected, found = model(input_ids=tokens).logits, stock(input_ids=tokens).logits
    assert expected.std() > 0.05, "the model must say something, or equality means nothing"
    assert (expected - found).abs().max() <= EXACT
    assert record["logit_gap"] <= EXACT
    assert stock.config.hidden_size == 36 and stock.config.model_type == CONFIGS[name]().model_type
    assert not (tmp_path / "merged").joinpath("pytorch_model.bin").exists()


@pytest.mark.parametrize("name", ["llama-grouped", "gemma", "qwen3-tied"])
def test_in_memory_and_on_disk_merges_agree(name: str, tmp_path: Path) -> None:
    model = trained(name)
    merge(*save_pair(model, name, tmp_path), tmp_path / "merged")
    on_disk, in_memory = reload(tmp_path / "merged").state_dict(), model.merge_and_unload().state_dict()
    assert set(on_disk) == set(in_memory)
    for tensor_name, tensor in on_disk.items():
        assert torch.equal(tensor, in_memory[tensor_name]), tensor_name


@pytest.mark.lengthy
@pytest.mark.parametrize("name", ["llama-grouped", "gemma", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("use_cache", [False, True])
def test_greedy_generation_is_identical(name: str, use_cache: bool) -> None:
    model: Any = trained(name)
    stock: Any = model.merge_and_unload()
    prompt = random_tokens(1, 6, seed=5)
    settings = {"max_new_tokens": 12, "do_sample": False, "use_cache": use_cache, "eos_token_id": None}
    assert torch.equal(model.generate(input_ids=prompt, **settings), stock.generate(input_ids=prompt, **settings))


def test_norms_are_kept_exact_for_a_reason(tmp_path: Path) -> None:
    """Guards the test itself: leaving the norms as they are must be far outside the bound."""
    model = trained("llama")
    stock: Any = model.merge_and_unload()
    with torch.no_grad():
        for name, parameter in stock.named_parameters():
            if "norm" in name:
                parameter.mul_((36 / 48) ** 0.5)
    tokens = random_tokens()
    with torch.no_grad():
        assert (model(input_ids=tokens).logits - stock(input_ids=tokens).logits).abs().max() > 100 * EXACT


def test_merging_an_open_mask_is_refused(tmp_path: Path) -> None:
    model = trained("llama", steps=2)
    with pytest.raises(UserError, match="still open: step 2 of 12"):
        model.merge_and_unload()
    with pytest.raises(UserError, match="still open"):
        merge(*save_pair(model, "llama", tmp_path), tmp_path / "merged")
    assert not (tmp_path / "merged").exists() and not list(tmp_path.glob(".merged*"))


def tamper(path: Path, change: Any) -> None:
    """Rewrite a safetensors file after `change` has had its dictionary of tensors."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def first(tensors: dict[str, torch.Tensor], ending: str) -> str:
    return next(name for name in sorted(tensors) if name.endswith(ending))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("adapter_model.safetensors", lambda t: t.update({"base_model.model.model.norm.extra": torch.zeros(1)}), "norm.extra"),
        ("adapter_model.safetensors", lambda t: t.pop(first(t, "lora_B.weight")), "lora_A, lora_B"),
        (
            "adapter_model.safetensors",
            lambda t: t.update({n.replace("layers.0", "layers.9"): t[n].clone() for n in list(t) if "layers.0" in n}),
            "layers.9",
        ),
        ("hsm.safetensors", lambda t: t.pop(first(t, "operator.up")), "missing"),
        ("hsm.safetensors", lambda t: t.update({"stray": torch.zeros(1)}), "stray"),
        ("hsm.safetensors", lambda t: t.update({"mask.proxy": torch.zeros(40)}), "wrong shape"),
    ],
)
def test_every_trained_tensor_is_accounted_for_by_name(file: str, change: Any, message: str, tmp_path: Path) -> None:
    base, adapter = save_pair(trained("llama"), "llama", tmp_path)
    tamper(adapter / file, change)
    with pytest.raises(UserError, match=message):
        merge(base, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_base_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    base, adapter = save_pair(trained("llama"), "llama", tmp_path)
    tamper(base / "model.safetensors", lambda t: t.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.up_proj"):
        merge(base, adapter, tmp_path / "merged")


def test_a_flipped_byte_is_noticed(tmp_path: Path) -> None:
    base, adapter = save_pair(trained("llama"), "llama", tmp_path)
    artefacts.write_json(base / "manifest.json", artefacts.manifest(base))
    weights = base / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors: differs from its checksum"):
        merge(base, adapter, tmp_path / "merged")


def test_the_record_counts_what_is_there(tmp_path: Path) -> None:
    record = merge(*save_pair(trained("llama-grouped-tied"), "llama-grouped-tied", tmp_path), tmp_path / "merged")
    stock = reload(tmp_path / "merged")
    unique = sum(p.numel() for p in stock.parameters())
    assert record["parameters"]["after"] == {"unique": unique, "without_embeddings": unique - 97 * 36}
    assert record["ratio_requested"] == 0.25 and record["ratio_effective"] == 0.25
    assert json.loads((tmp_path / "merged" / "merge.json").read_text()) == record
    assert "hidden size | 48 | 36" in (tmp_path / "merged" / "README.md").read_text()
    artefacts.check_folder(tmp_path / "merged")


def test_bf16_checkpoints_stay_bf16_and_close(tmp_path: Path) -> None:
    model = trained("llama-grouped")
    base, adapter = save_pair(model, "llama-grouped", tmp_path)
    halved: Any = tiny_model("llama-grouped")
    halved.to(torch.bfloat16).save_pretrained(base)
    record = merge(base, adapter, tmp_path / "merged")
    stock = reload(tmp_path / "merged")
    assert record["fold_gap"] <= 1e-5 and 0 < record["kl_on_text"] <= 1e-3 and record["kl_dtype"] == "bfloat16"
    assert {p.dtype for p in stock.parameters()} == {torch.bfloat16}
    tokens = random_tokens()
    with torch.no_grad():
        expected, found = model(input_ids=tokens).logits, stock(input_ids=tokens).logits.float()
    # bf16 keeps 8 bits: a relative step of 2^-8 through three layers.
    assert (expected - found).norm() / expected.norm() < 0.05


PEAK_MEMORY_PROBE = """
import sys
from pathlib import Path
import pat.checkpoints.merge

def kib(field):
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)).split()[1])

small, large = map(Path, sys.argv[1:])
pat.checkpoints.merge.merge(small / "base", small / "adapter", small / "merged")  # brings in every module
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
before = kib("VmRSS")
pat.checkpoints.merge.merge(large / "base", large / "adapter", large / "merged")
print(kib("VmHWM") - before)
"""


def test_streaming_needs_little_memory(tmp_path: Path) -> None:
    """A model of some 300 MB is merged and checked within 1.3 times its size, mapped pages of the files included."""
    from transformers import LlamaConfig

    config = LlamaConfig(
        vocab_size=2000, hidden_size=1024, intermediate_size=2816, num_hidden_layers=6, num_attention_heads=8, tie_word_embeddings=False
    )
    from pat import PatConfig, attach

    base: Any = AutoModelForCausalLM.from_config(config)
    base.save_pretrained(tmp_path / "base", max_shard_size="100MB")
    size = sum(path.stat().st_size for path in (tmp_path / "base").glob("*.safetensors"))
    model = attach(base, PatConfig(pruning_ratio=0.25, hio_rank=8, lora_rank=4, total_steps=6))
    for _ in range(6):
        model.advance()
    model.save_pretrained(str(tmp_path / "adapter"))
    save_pair(trained("llama"), "llama", tmp_path / "small")
    arguments = [str(tmp_path / "small"), str(tmp_path)]
    finished = subprocess.run([sys.executable, "-c", PEAK_MEMORY_PROBE, *arguments], capture_output=True, text=True, check=True)
    assert int(finished.stdout.split()[-1]) * 1024 <= 1.3 * size
