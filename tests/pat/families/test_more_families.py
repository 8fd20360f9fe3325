"""The laws of a family, for those whose blocks are not Llama's: norms behind the write, fused projections, factors, layers without positions.

Each is there in odd shapes: a head size that is not hidden size over heads, grouped queries, tied and untied, with biases.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Phi3Config

from pat import PatConfig, PatModel, attach
from pat.bases.refit import refit_readers
from pat.bases.rotate import rotate
from pat.checkpoints.merge import merge
from pat.errors import SettingError, UserError
from pat.families.known import Role, family_of, head_size, norm_eps
from pat.models.masked import kept_channels_only
from pat.pruners import PRUNERS
from pat.pruners.pruning import prune
from pat.settings.jobs import PruneSettings
from tests.kit.pairs import in_turn
from tests.kit.pruning_inputs import calibration, write_base
from tests.kit.stock_models import reload
from tests.kit.tiny_models import CONFIGS, MORE, SHAPE, logits, random_tokens, tiny_model
from tests.kit.training import trained

EXACT = 1e-4
"""The project's bound on |Δlogit| in fp32 on CPU."""
EXACT_IN_FP64 = 1e-9
FACTOR_IN_FP32 = 1e-6
"""Gemma's factor on the embedding is a number in fp32, whatever the model is in; another for another width."""
FAMILIES = tuple(dict.fromkeys(config().model_type for config in MORE.values()))
ONE_EACH = tuple(next(name for name, config in MORE.items() if config().model_type == family) for family in FAMILIES)
ROTATED = tuple(name for name in MORE if family_of(MORE[name]()).rotation_obstacle is None)
DENSE = tuple(name for name in MORE if not family_of(MORE[name]()).has_experts)
NATIVE = tuple(name for name in ONE_EACH if name not in ROTATED)
OPERATORS: dict[str, dict[str, Any]] = {"low-rank": {}, "dense": {"hio_rank": "dense"}, "release": {"variant": "release"}}
OTHER_OPERATORS = tuple(
    (name, operator)
    for family in FAMILIES
    for operator, name in in_turn(("dense", "release"), [name for name, config in MORE.items() if config().model_type == family])
)
"""Of each family all: where it has two shapes, one for each."""


class FineNorm(nn.Module):
    """A norm of the family in the precision of its input, which the stock one leaves for fp32."""

    def __init__(self, norm: nn.Module, gain_offset: float, eps: float) -> None:
        super().__init__()
        self.gain = norm.get_parameter("weight").detach() + gain_offset
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt() * self.gain


def in_fp64(model: Any) -> Any:
    """Return a stock model in fp64 throughout."""
    model = model.double()
    model.config._experts_implementation = "eager"  # the grouped product has no fp64
    family = family_of(model.config)
    for name, module in list(model.named_modules()):
        if type(module).__name__.endswith("RMSNorm"):
            model.set_submodule(name, FineNorm(module, family.gain_offset, norm_eps(model.config)))
    return model


@pytest.mark.parametrize("name", MORE)
def test_every_tensor_has_a_role_that_fits_its_shape(name: str) -> None:
    model = tiny_model(name)
    family, hidden = family_of(model.config), model.config.hidden_size
    axes = {
        Role.EMBEDDING: 1, Role.HEAD: 1, Role.WRITE: 0, Role.READ: 1, Role.NORM: 0, Role.NORM_BEHIND: 0, Role.FINAL_NORM: 0,
    }  # fmt: skip
    roles = {tensor_name: family.role(tensor_name) for tensor_name in model.state_dict()}
    for tensor_name, tensor in model.state_dict().items():
        role = roles[tensor_name]
        if role in axes and not (tensor.dim() == 1 and role in (Role.READ, Role.HEAD)):
            assert tensor.shape[axes[role] + (tensor.dim() == 3)] == hidden, tensor_name  # of all experts: which one comes first
        if role is Role.INSIDE:
            assert tensor.shape[0] % head_size(model.config) == 0
    found = {name.rpartition(".")[0] for name, role in roles.items() if role is not Role.INSIDE}
    experts = [block.experts.module for block in family.blocks if block.experts is not None]
    named = {family.embedding, family.final_norm, family.head}
    named |= {family.in_layer(layer, name) for layer in range(3) for name in (*family.weighted_in_layer(0), *family.norms, *experts)}
    assert found == named, "the entry names what is there, and nothing else"
    assert {model.get_submodule(write) for write in family.writes(3)} and {family.write_of(name) for name in found} >= set(family.writes(3))


@pytest.mark.parametrize("name", MORE)
def test_a_channel_silent_at_every_write_is_silent_wherever_it_is_read(name: str) -> None:
    model = tiny_model(name)
    kept = torch.arange(48) % 3 != 0
    kept_channels_only(model, kept)
    seen: list[Tensor] = []
    sites = family_of(model.config).sites(3)
    for site in sites:
        model.get_submodule(site.name).register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    logits(model, random_tokens())
    assert len(seen) == len(sites) == 2 * 3 + 1
    for stream in seen:
        assert stream[..., ~kept].abs().max() == 0
        assert stream[..., kept].abs().min(dim=-1).values.max() > 0


@pytest.mark.lengthy
@pytest.mark.parametrize(("name", "operator"), [*((name, "low-rank") for name in MORE), *OTHER_OPERATORS])
def test_merged_equals_masked_and_is_stock(name: str, operator: str, tmp_path: Path) -> None:
    model = trained(name, **OPERATORS[operator])
    tiny_model(name).save_pretrained(tmp_path / "base")
    model.save_pretrained(str(tmp_path / "adapter"))
    record = merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
    stock, tokens = reload(tmp_path / "merged"), random_tokens(3, 12, seed=99)
    expected, found = logits(model, tokens), logits(stock, tokens)
    assert expected.std() > 0.05, "the model must say something, or equality means nothing"
    assert (expected - found).abs().max() <= EXACT and record["logit_gap"] <= EXACT
    assert stock.config.hidden_size == 36 and stock.config.model_type == MORE[name]().model_type
    in_memory = model.merge_and_unload().state_dict()
    assert all(torch.equal(tensor, in_memory[key]) for key, tensor in stock.state_dict().items())


@pytest.mark.lengthy
@pytest.mark.parametrize("name", [*CONFIGS, *MORE])
def test_in_fp64_the_merge_is_exact_to_its_last_digits(name: str) -> None:
    model = trained(name)
    tokens = random_tokens(3, 12, seed=99)
    base: Any = model.get_base_model()
    stock = in_fp64(model.double().merge_and_unload().double())
    in_fp64(base)
    gap = (logits(model, tokens) - logits(stock, tokens)).abs().max()
    assert gap <= (FACTOR_IN_FP32 if family_of(base.config).embedding_factor else EXACT_IN_FP64)


@pytest.mark.parametrize("use_cache", [False, True])
@pytest.mark.parametrize("name", MORE)
def test_greedy_generation_is_identical(name: str, use_cache: bool) -> None:
    model: Any = trained(name)
    stock: Any = model.merge_and_unload()
    settings = {"max_new_tokens": 12, "do_sample": False, "use_cache": use_cache, "eos_token_id": None}
    prompt = random_tokens(1, 6, seed=5)
    assert torch.equal(model.generate(input_ids=prompt, **settings), stock.generate(input_ids=prompt, **settings))


@pytest.mark.parametrize("name", MORE)
def test_the_merged_model_takes_lora_and_is_saved_and_opened_again(name: str, tmp_path: Path) -> None:
    stock: Any = trained(name).merge_and_unload()
    family, tokens = family_of(stock.config), random_tokens()
    adapted: Any = get_peft_model(stock, LoraConfig(r=4, target_modules=list(family.linears), init_lora_weights=False))
    adapted(input_ids=tokens, labels=tokens).loss.backward()
    gradients = {key: parameter.grad for key, parameter in adapted.named_parameters() if "lora_" in key}
    assert len(gradients) == 2 * 3 * len(family.linears) and all(gradient.abs().max() > 0 for gradient in gradients.values())
    tuned = logits(adapted.eval(), tokens)
    adapted.merge_and_unload().save_pretrained(tmp_path)
    again = reload(tmp_path)
    assert torch.allclose(logits(again, tokens), tuned, atol=1e-5)
    placed = {"dtype": None, "_name_or_path": None}
    assert again.config.to_dict() | placed == stock.config.to_dict() | placed


@pytest.mark.parametrize("name", DENSE)
def test_a_compacted_model_says_and_learns_what_the_masked_one_does(name: str) -> None:
    masked, cut = trained(name, lora_dropout=0.0), trained(name, lora_dropout=0.0)
    cut.compact()
    tokens = random_tokens(seed=7)
    assert (logits(masked, tokens) - logits(cut, tokens)).abs().max() <= EXACT
    for model in (masked, cut):
        model(input_ids=tokens, labels=tokens).loss.backward()
    expected, found = ({key: it.grad for key, it in model.named_parameters() if it.grad is not None} for model in (masked, cut))
    assert set(found) == set(expected)
    assert all(torch.allclose(found[key], gradient, rtol=1e-3, atol=1e-5) for key, gradient in expected.items())


@pytest.mark.parametrize("basis", ["pca", "gradient"])
@pytest.mark.parametrize("name", NATIVE)
def test_another_basis_is_refused_with_the_reason(name: str, basis: str, tmp_path: Path) -> None:
    write_base(name, tmp_path / "base")
    with pytest.raises(UserError, match=r"base: cannot be put into another basis: .*norm.*; keep the native basis"):
        rotate(tmp_path / "base", basis, calibration(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ROTATED)
def test_a_rotation_changes_nothing(name: str, tmp_path: Path) -> None:
    model = write_base(name, tmp_path / "base")
    record = rotate(tmp_path / "base", "gradient", calibration(tmp_path), tmp_path / "out", tie="break")
    tokens = random_tokens()
    assert (logits(model, tokens) - logits(reload(tmp_path / "out"), tokens)).abs().max() <= EXACT
    assert record["logit_gap"] <= EXACT


@pytest.mark.parametrize("pruner", PRUNERS)
@pytest.mark.parametrize("name", ONE_EACH)
def test_every_pruner_takes_it_or_says_why_not(name: str, pruner: str, tmp_path: Path) -> None:
    """The record's gap is between the model with what goes held at zero and the checkpoint without it."""
    write_base(name, tmp_path / "base")
    reason = PRUNERS[pruner].obstacle(family_of(MORE[name]()))
    text, own = calibration(tmp_path, 4000), PRUNERS[pruner].effective(PruneSettings(tie="break", writers="plain"))
    if reason is not None:
        with pytest.raises(UserError) as refused:
            prune(tmp_path / "base", pruner, 0.25, "auto", tmp_path / "out", text, own=own)
        assert reason in str(refused.value)
        return
    record = prune(tmp_path / "base", pruner, 0.25, "auto", tmp_path / "out", text, own=own)
    assert record["logit_gap"] <= EXACT and record["removed"] > 0
    model, tokens = reload(tmp_path / "out"), random_tokens(1, 6)
    generated = model.generate(input_ids=tokens, max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert generated.shape == (1, 10)


@pytest.mark.parametrize("name", [name for name in ONE_EACH if name in DENSE])
def test_writes_are_refitted_but_before_a_norm(name: str, tmp_path: Path) -> None:
    write_base(name, tmp_path / "base")
    own, text = PruneSettings(writers="refitted"), calibration(tmp_path, 6000)
    if family_of(MORE[name]()).refit_obstacle is not None:  # whose norms stand behind both writes of a layer
        with pytest.raises(UserError, match=r"writers: refitted is not possible for .*norms stand behind all its writes"):
            prune(tmp_path / "base", "llm-pruner-uniform", 0.25, "auto", tmp_path / "out", text, own=own)
        record = prune(tmp_path / "base", "layers-and-neurons", 0.25, "auto", tmp_path / "out", text)
        assert "writers" not in record
        return
    record = prune(tmp_path / "base", "llm-pruner-uniform", 0.25, "auto", tmp_path / "out", text, own=own)
    family = family_of(MORE[name]())
    writes = family.blocks[-1:] if family.parallel else family.blocks  # of blocks side by side what stands behind both is fitted once
    assert len(record["writers"]["errors"]) == 3 * sum(block.writes_linearly for block in writes)
    assert record["writers"]["logit_gap"] <= EXACT
    reload(tmp_path / "out")


@pytest.mark.parametrize("name", [name for name in MORE if family_of(MORE[name]()).readers_obstacle is None])
def test_readers_are_refitted_as_the_prediction_says(name: str, tmp_path: Path) -> None:
    """The record's gap is between the base whose readers get the prediction, and the checkpoint that has it in its weights."""
    write_base(name, tmp_path / "base")
    text = calibration(tmp_path, 4000)
    record = refit_readers(tmp_path / "base", "magnitude", 0.25, 1, text, tmp_path / "out")
    family = family_of(MORE[name]())
    sites = family.sites(3)
    assert set(record["error"]) == {site.name for site in (sites[:-1] if MORE[name]().tie_word_embeddings else sites)}
    assert all(error["least-squares"] <= error["plain"] for error in record["error"].values())
    assert record["logit_gap"] <= EXACT


def test_readers_behind_norms_that_subtract_a_mean_are_not_refitted(tmp_path: Path) -> None:
    write_base("phi", tmp_path / "base")
    with pytest.raises(UserError, match=r"base: its readers have no channels to do without: its norms subtract the mean of all channels"):
        refit_readers(tmp_path / "base", "magnitude", 0.25, 1, calibration(tmp_path, 4000), tmp_path / "out")


def test_a_width_that_the_stock_class_refuses_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    """Phi-3's LongRoPE has as many factors as the hidden size over the heads, whatever the head size says."""
    factors = {"rope_type": "longrope", "short_factor": [1.0] * 6, "long_factor": [2.0] * 6}
    config = Phi3Config(**SHAPE | {"original_max_position_embeddings": 128}, rope_parameters=factors)
    write_base("phi3", tmp_path / "base", AutoModelForCausalLM.from_config(config))
    said = r"ratio 0\.25: transformers takes no phi3 of hidden_size=36, so that no width can be pruned of this model: .*short_factor"
    with pytest.raises(SettingError, match=said):
        prune(tmp_path / "base", "channel-magnitude", 0.25, "auto", tmp_path / "out")
    with pytest.raises(SettingError, match=said):
        attach(reload(tmp_path / "base"), PatConfig(pruning_ratio=0.25, hio_rank=2))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["qwen2-moe", "qwen3-moe"])
def test_experts_are_not_compacted_nor_mixed_with_other_layers(name: str) -> None:
    model = trained(name)
    with pytest.raises(UserError, match="cannot be compacted: its feed-forward blocks are experts"):
        model.compact()
    config = MORE[name]()
    config.mlp_only_layers = [1]
    with pytest.raises(UserError, match=r"mlp_only_layers: \[1\]: layers of several kinds in one qwen._moe model are not known"):
        attach(AutoModelForCausalLM.from_config(config), PatConfig(pruning_ratio=0.25, hio_rank=2))


def test_what_a_layer_of_experts_drops_is_its_own(tmp_path: Path) -> None:
    """Layers go whole where heads and neurons cannot, and their writes but attention's stay plain."""
    write_base("qwen3-moe", tmp_path / "base")
    own = PruneSettings(writers="refitted")
    record = prune(tmp_path / "base", "shortgpt", 0.25, "auto", tmp_path / "out", calibration(tmp_path, 6000), own=own)
    assert set(record["writers"]["errors"]) == {f"model.layers.{layer}.self_attn.o_proj" for layer in range(2)}
    assert record["writers"]["logit_gap"] <= EXACT


def test_a_pat_model_opens_its_own_adapter(tmp_path: Path) -> None:
    for name in ONE_EACH:
        model = trained(name)
        model.save_pretrained(str(tmp_path / name))
        again = PatModel.from_pretrained(tiny_model(name), tmp_path / name)
        assert torch.equal(logits(model, random_tokens()), logits(again.eval(), random_tokens()))
