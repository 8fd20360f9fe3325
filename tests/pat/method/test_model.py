"""The masked model as a Python user meets it: attach, train, pad, generate, save, load."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, Trainer, TrainerControl, TrainerState, TrainingArguments

from pat import PatCallback, PatConfig, PatModel, attach
from pat.errors import SettingError, UserError
from pat.settings.config import Mask
from tests.kit.tiny_models import CONFIGS, VOCABULARY, random_tokens, tiny_model
from tests.kit.training import random_text, trained
from tests.kit.training_rows import RandomRows, arguments

FAMILIES_ONCE = ["llama", "gemma", "mistral", "qwen2", "qwen3"]


def weights(model: PatModel) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_fresh_model_computes_what_the_base_does(name: str) -> None:
    tokens = random_tokens()
    with torch.no_grad():
        expected = tiny_model(name)(input_ids=tokens).logits
        found = attach(tiny_model(name), PatConfig(pruning_ratio=0.25, hio_rank=4)).eval()(input_ids=tokens).logits
    assert torch.allclose(expected, found, atol=1e-6)


def test_trained_parameters_are_the_papers_and_the_base_stays_frozen() -> None:
    model = attach(tiny_model("llama"), PatConfig(pruning_ratio=0.25, hio_rank=4, lora_rank=3))
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(".lora_" in name or name.startswith("sparsifier.") for name in trainable)
    d, f, rank, hio, layers = 48, 80, 3, 4, 3
    lora = layers * rank * (4 * (d + d) + 3 * (d + f))
    hsms = (2 * layers + 1) * (2 * d * hio + hio)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == lora + hsms + d
    before = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    tokens = random_tokens()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    model.train()(input_ids=tokens, labels=tokens).loss.backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        if name in before:
            assert parameter.grad is None and torch.equal(parameter, before[name]), name


def test_on_tied_models_the_embedding_gets_the_mask_alone() -> None:
    model = attach(tiny_model("llama-grouped-tied"), PatConfig(pruning_ratio=0.25, hio_rank=4))
    state = model.sparsifier.named_state()
    assert not [name for name in state if name.startswith("model.embed_tokens.")]
    assert "model.layers.0.self_attn.o_proj.operator.up" in state


def test_any_trainer_takes_the_mask_through_its_schedule(tmp_path: Path) -> None:
    model = attach(tiny_model("llama"), PatConfig(pruning_ratio=0.25, hio_rank=4, lora_rank=3))
    Trainer(model=model, args=arguments(tmp_path), train_dataset=RandomRows(), callbacks=[PatCallback()]).train()
    assert model.pat_config.total_steps == 12 and model.sparsifier.mask.step == 12
    assert model.sparsifier.mask.kept_count() == model.width == 36
    assert model.merge_and_unload().config.hidden_size == 36


def test_a_schedule_that_contradicts_the_trainer_is_refused(tmp_path: Path) -> None:
    model = attach(tiny_model("llama"), PatConfig(pruning_ratio=0.25, hio_rank=4, total_steps=99))
    with pytest.raises(ValueError, match="total_steps=99, but the trainer takes 12"):
        Trainer(model=model, args=arguments(tmp_path), train_dataset=RandomRows(), callbacks=[PatCallback()]).train()


class TwoGpus(TrainingArguments):
    """As the stock class is where one process sees two GPUs."""

    @property
    def n_gpu(self) -> int:
        return 2


def test_replicas_of_a_model_are_refused_before_the_first_step(tmp_path: Path) -> None:
    model = attach(tiny_model("llama"), PatConfig(pruning_ratio=0.25, hio_rank=4))
    seen = TwoGpus(output_dir=str(tmp_path), max_steps=12, use_cpu=True)
    with pytest.raises(ValueError, match=r"sees 2 GPUs.*CUDA_VISIBLE_DEVICES.*torchrun"):
        PatCallback().on_train_begin(seen, TrainerState(max_steps=12), TrainerControl(), model=model)


def run(folder: Path, **changes: Any) -> dict[str, torch.Tensor]:
    choices = PatConfig(pruning_ratio=0.25, hio_rank=4, lora_rank=3, lora_dropout=0.0, identity_weight=0.5, count="loss")
    model = attach(tiny_model("llama"), choices)
    Trainer(model=model, args=arguments(folder, optim="sgd", **changes), train_dataset=RandomRows(), callbacks=[PatCallback()]).train()
    return weights(model)


@pytest.mark.lengthy
def test_gradient_accumulation_changes_nothing(tmp_path: Path) -> None:
    """L_active and L_identity enter each optimizer step once, however the batch is cut and however items are spread over it."""
    whole = run(tmp_path, per_device_train_batch_size=8, gradient_accumulation_steps=1)
    parts = run(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    for name, tensor in whole.items():
        assert torch.allclose(tensor, parts[name], atol=2e-5), name


@pytest.mark.lengthy
def test_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    plain = run(tmp_path)
    for reentrant in (False, True):
        kwargs = {"use_reentrant": reentrant}
        checkpointed = run(tmp_path, activation_checkpointing=True, activation_checkpointing_kwargs=kwargs)
        for name, tensor in plain.items():
            assert torch.allclose(tensor, checkpointed[name], atol=1e-6), name


def test_loss_terms_enter_only_in_training() -> None:
    model = attach(tiny_model("llama"), PatConfig(pruning_ratio=0.25, hio_rank=4, identity_weight=10.0, total_steps=30))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("operator.down"):
                parameter.mul_(3)
    tokens = random_tokens()
    instruct = model.eval()(input_ids=tokens, labels=tokens).loss
    total = model.train()(input_ids=tokens, labels=tokens).loss
    terms = model.loss_terms
    # ‖9·I − I‖² / rank² = 8² / rank for each of the 7 HSMs.
    assert terms["identity_loss"].item() == pytest.approx(7 * 8**2 / 4, rel=1e-4)
    assert total.item() == pytest.approx(terms["instruct_loss"].item() + 10 * terms["identity_loss"].item(), rel=1e-5)
    assert instruct.item() < total.item() / 10


def test_bf16_trains_and_keeps_dead_channels_at_zero(tmp_path: Path) -> None:
    stock: Any = tiny_model("llama")
    model = attach(stock.to(torch.bfloat16), PatConfig(pruning_ratio=0.25, hio_rank=4, lora_rank=3))
    assert model.sparsifier.mask.proxy.dtype == torch.float32
    Trainer(model=model, args=arguments(tmp_path, bf16=True), train_dataset=RandomRows(), callbacks=[PatCallback()]).train()
    dead = ~model.sparsifier.mask.kept
    streams: list[torch.Tensor] = []
    stock.model.norm.register_forward_pre_hook(lambda _module, inputs: streams.append(inputs[0]))
    model.eval()(input_ids=random_tokens())
    assert streams[0].dtype == torch.bfloat16 and streams[0][..., dead].abs().max() == 0
    merged: Any = model.merge_and_unload()
    assert merged.dtype == torch.bfloat16


@pytest.mark.parametrize("name", FAMILIES_ONCE)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(name: str, side: str) -> None:
    model = trained(name)
    tokens = random_tokens(1, 7)
    padding = torch.zeros(1, 4, dtype=torch.long)
    padded = torch.cat([padding, tokens] if side == "left" else [tokens, padding], dim=1)
    attention = (padded != 0).long()
    positions = (attention.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        alone = model(input_ids=tokens).logits
        together = model(input_ids=padded, attention_mask=attention, position_ids=positions).logits
    assert torch.allclose(alone, together[:, 4:] if side == "left" else together[:, :7], atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES_ONCE)
def test_generation_with_and_without_cache_and_in_a_padded_batch(name: str) -> None:
    model: Any = trained(name)
    settings: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    long, short = random_tokens(1, 8, seed=1), random_tokens(1, 5, seed=2)
    cached = model.generate(input_ids=long, use_cache=True, **settings)
    assert torch.equal(cached, model.generate(input_ids=long, use_cache=False, **settings))
    batch = torch.cat([long, torch.cat([torch.zeros(1, 3, dtype=torch.long), short], dim=1)])
    together = model.generate(input_ids=batch, attention_mask=(batch != 0).long(), **settings)
    alone = model.generate(input_ids=short, **settings)
    assert torch.equal(together[1, 8:], alone[0, 5:])


@pytest.mark.lengthy
@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"hio_rank": "dense"},
        {"variant": "release"},
        {"mask": "frozen"},
        {"use_dora": True},
        {"mask": "fisher"},
        {"mask": "variance", "closing": "at-once", "hio_rank": 0},
    ],
)
def test_saving_and_loading_brings_back_the_same_model(choices: dict[str, Any], tmp_path: Path) -> None:
    model = trained("llama-grouped", **choices)
    model.save_pretrained(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
        "hsm.safetensors",
        "pat_config.json",
    }
    loaded = PatModel.from_pretrained(tiny_model("llama-grouped"), tmp_path)
    tokens = random_tokens()
    with torch.no_grad():
        assert torch.equal(model(input_ids=tokens).logits, loaded(input_ids=tokens).logits)
    assert loaded.pat_config == model.pat_config and loaded.sparsifier.mask.finished
    assert not any(p.requires_grad for p in loaded.parameters())
    again = PatModel.from_pretrained(tiny_model("llama-grouped"), tmp_path, is_trainable=True)
    assert set(weights(again)) == set(weights(model))


@pytest.mark.parametrize("name", ["llama", "phi"])
def test_a_copy_is_independent(name: str) -> None:
    """Of its operators and of its mask, which a Phi's norms follow as well."""
    model = trained(name)
    tokens = random_tokens()
    with torch.no_grad():
        before = model(input_ids=tokens).logits
        twin = copy.deepcopy(model)
        for parameter in model.sparsifier.hsms.parameters():
            parameter.add_(1.0)
        model.sparsifier.mask.kept.copy_(model.sparsifier.mask.kept.flip(0))
        assert torch.equal(twin(input_ids=tokens).logits, before)
        assert not torch.allclose(model(input_ids=tokens).logits, before, atol=1e-2)


def test_disabling_the_adapter_gives_the_base() -> None:
    model, tokens = trained("llama"), random_tokens()
    with torch.no_grad(), model.disable_adapter():
        assert torch.allclose(model(input_ids=tokens).logits, tiny_model("llama")(input_ids=tokens).logits, atol=1e-6)
    with torch.no_grad():
        assert not torch.allclose(model(input_ids=tokens).logits, tiny_model("llama")(input_ids=tokens).logits, atol=1e-2)


def test_what_cannot_work_is_refused() -> None:
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=1, n_head=2))
    with pytest.raises(UserError, match="gpt2"):
        attach(gpt2, PatConfig(pruning_ratio=0.25))
    model = attach(tiny_model("llama"), PatConfig(pruning_ratio=0.25, hio_rank=4))
    with pytest.raises(ValueError, match="input_ids only"):
        model(inputs_embeds=torch.zeros(1, 2, 48))
    with pytest.raises(ValueError, match="total_steps is not set"):
        model.advance()
    with pytest.raises(ValueError, match="hio_rank=49"):
        attach(tiny_model("llama"), PatConfig(pruning_ratio=0.25, hio_rank=49))


@pytest.mark.lengthy
@pytest.mark.parametrize("closing", ["gradual", "at-once"])
@pytest.mark.parametrize("mask", [name for name in get_args(Mask) if name != "trained"])
def test_every_fixed_mask_ends_with_exactly_the_wanted_channels(mask: str, closing: str) -> None:
    choices: dict[str, Any] = {"mask": mask, "closing": closing}
    model = trained("llama", **choices)
    assert model.sparsifier.mask().sum() == 36 == model.merge_and_unload().config.hidden_size
    assert torch.equal(model.sparsifier.mask.kept, trained("llama", **choices).sparsifier.mask.kept)
    unplanned = attach(tiny_model("llama"), PatConfig(pruning_ratio=0.25, hio_rank=0, lora_rank=3, **choices), random_text())
    assert unplanned.sparsifier.mask.closed == (closing == "at-once")


def test_a_measured_mask_needs_text() -> None:
    with pytest.raises(ValueError, match="mask='fisher' is measured on text"):
        attach(tiny_model("llama"), PatConfig(pruning_ratio=0.25, hio_rank=4, mask="fisher"))


def test_resuming_at_another_step_than_the_trainer_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not the same run"):
        Trainer(model=trained("llama"), args=arguments(tmp_path), train_dataset=RandomRows(), callbacks=[PatCallback()]).train()


def test_a_merged_model_generates_as_its_base_is_told_to(tmp_path: Path) -> None:
    base: Any = tiny_model("llama")
    base.generation_config = GenerationConfig(eos_token_id=[2, 5], max_new_tokens=77, repetition_penalty=1.3)
    model = attach(base, PatConfig(pruning_ratio=0.25, hio_rank=4, lora_rank=3, mask="random", closing="at-once"))
    model.plan(12)
    model.merge_and_unload().save_pretrained(tmp_path)
    written = GenerationConfig.from_pretrained(tmp_path)
    assert (written.eos_token_id, written.max_new_tokens, written.repetition_penalty) == ([2, 5], 77, 1.3)


def test_an_adapter_of_another_width_is_refused_before_it_is_taken(tmp_path: Path) -> None:
    for name, ratio in (("half", 0.5), ("quarter", 0.25)):
        attach(tiny_model("llama"), PatConfig(pruning_ratio=ratio, hio_rank=4, lora_rank=3, total_steps=12)).save_pretrained(
            tmp_path / name
        )
    model = attach(tiny_model("llama"), PatConfig(pruning_ratio=0.25, hio_rank=4, lora_rank=3, total_steps=12))
    with pytest.raises(UserError, match="half: keeps 24 channels, this model's mask 36"):
        model.load_adapter(tmp_path / "half", "default")
    model.load_adapter(tmp_path / "quarter", "default")
    assert model.pat_config.ratio == 0.25


def test_what_needs_text_is_named() -> None:
    with pytest.raises(SettingError, match="mask_prior='fisher' is measured on text"):
        attach(tiny_model("llama"), PatConfig(pruning_ratio=0.25, hio_rank=4, mask_prior="fisher"))
