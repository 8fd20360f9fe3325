"""PEFT's public methods on a PatModel: each agrees with what it means on any PeftModel, HSMs included, or raises one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModelForCausalLM, get_peft_model
from peft.tuners.lora import LoraLayer, LoraModel
from torch import Tensor, nn

from pat import PatConfig, PatModel, attach
from pat.errors import UserError
from pat.families.known import family_of
from pat.method.model import lora_config
from tests.kit.tiny_models import random_tokens, tiny_model
from tests.kit.training import trained

TOKENS = random_tokens()
OTHER = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
TIGHT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-10}
ANOTHER_WIDTH: dict[str, Any] = {"rtol": 0.0, "atol": 2e-6}
"""Where a norm sums fewer channels: it does so in fp32, whatever the model's precision. Logits are of order one."""


def model_of(name: str = "llama-grouped", **choices: Any) -> PatModel:
    """Return a trained model in double precision, so that what agrees does so to rounding."""
    model = trained(name, **choices)
    model.double()
    return model.eval()


@torch.no_grad()
def logits(model: Any) -> Tensor:
    found: Tensor = model(input_ids=TOKENS).logits
    return found


def base_logits(name: str = "llama-grouped") -> Tensor:
    return logits(tiny_model(name).double())


# What agrees, by what shows it: a function of a fresh trained model.


def merges_in_place_and_back(model: PatModel) -> None:
    before = logits(model)
    model.merge_adapter(safe_merge=True)
    assert all(layer.merged for layer in model.modules() if isinstance(layer, LoraLayer))
    torch.testing.assert_close(logits(model), before, **TIGHT)
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), base_logits(), **TIGHT)
    torch.testing.assert_close(logits(model), before, **TIGHT)
    model.merge_adapter()
    model.unmerge_adapter()
    torch.testing.assert_close(logits(model), before, **TIGHT)
    assert not model.adapter_merged


def merges_and_unloads_once(model: Any) -> None:
    """Whether or not LoRA is part of the base's weights already."""
    before = logits(model)
    steps: tuple[Callable[[], Any], ...] = (lambda: None, model.merge_adapter, model.unmerge_adapter)
    for prepare in steps:
        prepare()
        torch.testing.assert_close(logits(model.merge_and_unload(safe_merge=True)), before, **ANOTHER_WIDTH)
        torch.testing.assert_close(logits(model), before, **TIGHT)
    with pytest.raises(UserError, match="adapter 'other': a PatModel has one adapter, named 'default'"):
        model.merge_and_unload(adapter_names=["other"])
    with torch.no_grad():
        model.a_lora_layer().lora_B["default"].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"safe_merge=True.*not finite"):
        model.merge_and_unload(safe_merge=True)


def unloads_the_base(model: PatModel) -> None:
    stock = model.unload()
    assert type(stock) is type(tiny_model("llama-grouped"))
    assert not any(module._forward_hooks for module in stock.modules())
    torch.testing.assert_close(logits(stock), base_logits(), **TIGHT)
    again = attach(stock, PatConfig(pruning_ratio=0.25, hio_rank=4)).eval()
    torch.testing.assert_close(logits(again), base_logits(), rtol=1e-5, atol=1e-6)


def is_switched_off_with_lora(model: PatModel) -> None:
    """By the context, nested too, and by the layers' switches, the model's or those of the tuner below it."""
    before, base = logits(model), base_logits()
    with model.disable_adapter():
        with model.disable_adapter():
            torch.testing.assert_close(logits(model), base, **TIGHT)
        torch.testing.assert_close(logits(model), base, **TIGHT)
    torch.testing.assert_close(logits(model), before, **TIGHT)
    tuner: Any = model.base_model
    for owner in (model, tuner):
        owner.disable_adapter_layers()
        torch.testing.assert_close(logits(model), base, **TIGHT)
        with model.disable_adapter():
            pass
        torch.testing.assert_close(logits(model), base, **TIGHT)
        owner.enable_adapter_layers()
        torch.testing.assert_close(logits(model), before, **TIGHT)
    with pytest.raises(ZeroDivisionError), model.disable_adapter():
        raise ZeroDivisionError
    torch.testing.assert_close(logits(model), before, **TIGHT)


def trains_or_not_as_told(model: Any) -> None:
    def trainable() -> set[bool]:
        return {p.requires_grad for name, p in model.named_parameters() if ".lora_" in name or name.startswith("sparsifier.")}

    pairs: tuple[tuple[Callable[[], Any], Callable[[], Any]], ...] = (
        (lambda: model.set_adapter("default", inference_mode=True), lambda: model.set_adapter("default")),
        (lambda: model.set_requires_grad("default", requires_grad=False), lambda: model.set_requires_grad(["default"])),
    )
    for freeze, thaw in pairs:
        freeze()
        assert trainable() == {False}
        thaw()
        assert trainable() == {True}
    for call in (model.set_adapter, model.set_requires_grad):
        with pytest.raises(UserError, match="adapter 'other'"):
            call("other")


def saves_and_loads_its_own(model: Any, folder: Path) -> None:
    before = logits(model)
    model.save_pretrained(folder)
    model.save_pretrained(folder, selected_adapters=["default"], max_shard_size="5GB")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    assert not torch.allclose(logits(model), before, atol=1e-2)
    model.load_adapter(folder, "default")
    torch.testing.assert_close(logits(model), before, **TIGHT)
    refusals: tuple[tuple[Callable[[], Any], str], ...] = (
        (lambda: model.load_adapter(folder, "second"), "adapter 'second': a PatModel has one adapter"),
        (lambda: model.load_adapter(folder, "default", key_mapping={}), "load_adapter: key_mapping: not possible"),
        (lambda: model.save_pretrained(folder, safe_serialization=False), "written as safetensors"),
        (lambda: model.save_pretrained(folder, selected_adapters=["second"]), "adapter 'second'"),
        (lambda: model.save_pretrained(folder, path_initial_model_for_weight_conversion="x"), "LoRA starts at zero"),
    )
    for refused, message in refusals:
        with pytest.raises(UserError, match=message):
            refused()
    model.merge_adapter()
    with pytest.raises(UserError, match=r"given another adapter while LoRA is merged.*unmerge_adapter\(\) first"):
        model.load_adapter(folder, "default")


def has_a_name_of_its_own(model: PatModel, folder: Path) -> None:
    model.save_pretrained(folder)
    named = PatModel.from_pretrained(tiny_model("llama-grouped"), folder, adapter_name="mine", is_trainable=True).double()
    assert named.active_adapters == ["mine"] and set(named.peft_config) == {"mine"}
    torch.testing.assert_close(logits(named.eval()), logits(model), **TIGHT)
    torch.testing.assert_close(logits(named.merge_and_unload()), logits(model), **ANOTHER_WIDTH)
    named.save_pretrained(folder / "again")
    opened = PatModel.from_pretrained(tiny_model("llama-grouped"), folder / "again").double()
    torch.testing.assert_close(logits(opened), logits(model), **TIGHT)
    named.compact()
    torch.testing.assert_close(logits(named), logits(model), **ANOTHER_WIDTH)


def writes_a_card_of_its_own(model: PatModel, folder: Path) -> None:
    model.create_or_update_model_card(str(folder))
    assert "It is no LoRA adapter" in (folder / "README.md").read_text()
    (folder / "README.md").write_text("mine")
    model.create_or_update_model_card(str(folder))
    assert (folder / "README.md").read_text() == "mine"


def tells_of_itself(model: Any) -> None:
    """What reads the model alone is PEFT's as it is."""
    assert model.active_adapters == ["default"] and model.active_peft_config.r == 3 == model.peft_config["default"].r
    assert model.get_base_model() is model.base_model.model and model.base_model_torch_dtype == torch.float64
    assert model.get_model_status().enabled is True and model.get_model_status().active_adapters == ["default"]
    assert len(model.get_layer_status()) == 21 and model.has_active_enabled_adapter
    trainable, every = model.get_nb_trainable_parameters()
    assert trainable == sum(p.numel() for p in model.parameters() if p.requires_grad) and every > trainable
    model.print_trainable_parameters()
    assert not model.modules_to_save and model.supports_lora_conversion() is False
    generated = model.generate(input_ids=TOKENS, max_new_tokens=3, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert torch.equal(generated[:, 10], logits(model)[:, -1].argmax(-1))
    assert "input_ids" in model.prepare_inputs_for_generation(TOKENS, use_cache=False)
    assert model.prepare_model_for_gradient_checkpointing(model.get_base_model()) is None
    assert model.get_model_config(model.get_base_model())["hidden_size"] == 48
    assert (model.prefix, model.uses_shared_state) == ("lora_", False) or model.prefix == "lora_"


def refused(call: Callable[[PatModel], Any], message: str) -> Callable[[PatModel], None]:
    def check(model: PatModel) -> None:
        before = logits(model)
        with pytest.raises(UserError, match=message):
            call(model)
        torch.testing.assert_close(logits(model), before, rtol=0.0, atol=0.0)

    return check


ONE = "a PatModel has one adapter, whose mask and operators all of the model goes through"
CHECKS: dict[str, Callable[..., None]] = {
    "merges in place": merges_in_place_and_back,
    "merges and unloads": merges_and_unloads_once,
    "unloads": unloads_the_base,
    "is switched off": is_switched_off_with_lora,
    "trains or not": trains_or_not_as_told,
    "saves and loads": saves_and_loads_its_own,
    "has a name": has_a_name_of_its_own,
    "writes a card": writes_a_card_of_its_own,
    "tells of itself": tells_of_itself,
    "add_adapter": refused(lambda model: model.add_adapter("ref", OTHER), f"add_adapter: {ONE}"),
    "add_weighted_adapter": refused(lambda model: model.add_weighted_adapter(["default"], [1.0], "sum"), f"add_weighted_adapter: {ONE}"),
    "inject_adapter": refused(lambda model: model.inject_adapter(model.get_base_model(), "second"), f"inject_adapter: {ONE}"),
    "delete_adapter": refused(lambda model: model.delete_adapter("default"), r"the only adapter; unload\(\) gives the base model back"),
    "subtract_mutated_init": refused(lambda model: model.subtract_mutated_init({}, "default"), "LoRA starts at zero"),
    "get_prompt": refused(lambda model: model.get_prompt(2), "get_prompt: a PatModel learns no prompts"),
    "get_prompt_embedding_to_save": refused(lambda model: model.get_prompt_embedding_to_save("default"), "learns no prompts"),
}
COVERED_BY = {
    "merge_adapter": "merges in place", "unmerge_adapter": "merges in place", "merge_and_unload": "merges and unloads", "unload": "unloads",
    "disable_adapter": "is switched off", "disable_adapter_layers": "is switched off", "enable_adapter_layers": "is switched off",
    "set_adapter": "trains or not", "set_requires_grad": "trains or not", "save_pretrained": "saves and loads",
    "load_adapter": "saves and loads", "from_pretrained": "has a name", "create_or_update_model_card": "writes a card",
    **dict.fromkeys(
        (
            "active_adapters", "active_peft_config", "base_model_torch_dtype", "generate", "get_base_model", "get_layer_status",
            "get_model_status", "get_nb_trainable_parameters", "has_active_enabled_adapter", "modules_to_save", "peft_config",
            "prepare_inputs_for_generation", "prepare_model_for_gradient_checkpointing", "print_trainable_parameters",
            "supports_lora_conversion", "get_model_config", "prefix", "uses_shared_state",
        ),
        "tells of itself",
    ),
    **{
        name: name
        for name in (
            "add_adapter", "add_weighted_adapter", "inject_adapter", "delete_adapter", "subtract_mutated_init", "get_prompt",
            "get_prompt_embedding_to_save",
        )
    },
}  # fmt: skip
"""Every public name of PEFT's by the check above that shows what it does here."""
OF_OTHERS = {
    "push_to_hub": "uploads what save_pretrained writes",
    "target_module_mapping": "PEFT's table of names",
    "tuner_layer_cls": "PEFT's class",
}


def public_names(kind: type) -> set[str]:
    return {name for name in set(dir(kind)) - set(dir(nn.Module)) if not name.startswith("_")}


def test_every_public_method_of_pefts_is_accounted_for() -> None:
    """A new one has to be looked at: is it right with HSMs behind the writes, or is it refused?"""
    names = public_names(PeftModelForCausalLM) | public_names(LoraModel)
    assert names == set(COVERED_BY) | set(OF_OTHERS)
    assert set(COVERED_BY.values()) == set(CHECKS)


@pytest.mark.lengthy
@pytest.mark.parametrize("name", CHECKS)
def test_it_agrees_with_peft_or_says_why_not(name: str, tmp_path: Path) -> None:
    check = CHECKS[name]
    arguments = (tmp_path,) if "folder" in check.__code__.co_varnames[: check.__code__.co_argcount] else ()
    check(model_of(), *arguments)


@pytest.mark.parametrize("choices", [{"use_dora": True}, {"variant": "release"}, {"hio_rank": "dense"}])
@pytest.mark.parametrize("name", ["llama-grouped", "llama-grouped-tied"])
def test_a_merged_adapter_is_counted_once_in_every_kind(name: str, choices: dict[str, Any]) -> None:
    model = model_of(name, **choices)
    before = logits(model)
    model.merge_adapter()
    torch.testing.assert_close(logits(model), before, **TIGHT)
    torch.testing.assert_close(logits(model.merge_and_unload()), before, **ANOTHER_WIDTH)


def test_a_compacted_model_refuses_what_needs_its_base_whole() -> None:
    model = model_of()
    before = logits(model)
    model.merge_adapter()
    with pytest.raises(UserError, match=r"cannot be compacted while LoRA is merged into its base: call unmerge_adapter\(\) first"):
        model.compact()
    model.unmerge_adapter()
    model.compact()
    torch.testing.assert_close(logits(model), before, **ANOTHER_WIDTH)
    calls: list[Callable[[], Any]] = [
        model.merge_adapter, model.unmerge_adapter, model.merge_and_unload, model.unload, model.disable_adapter_layers, model.compact,
        lambda: model.load_adapter("anywhere", "default"), lambda: model.disable_adapter().__enter__(),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(UserError, match="a compacted model cannot be"):
            call()
    torch.testing.assert_close(logits(model), before, **ANOTHER_WIDTH)


def test_a_model_with_an_adapter_is_given_no_second_one(tmp_path: Path) -> None:
    config = PatConfig(pruning_ratio=0.25, hio_rank=4)
    model = trained("llama")
    model.save_pretrained(tmp_path)
    before = logits(model)
    stock = tiny_model("llama")
    lora: Any = get_peft_model(stock, lora_config(family_of(stock.config), 2, 4.0, 0.0, use_dora=False))
    for given, message in (
        (model, "this is a PeftModel"),
        (lora, "this is a PeftModel"),
        (model.get_base_model(), "has an adapter already"),
        (lora.get_base_model(), "has an adapter already"),
    ):
        stranger: Any = given
        with pytest.raises(UserError, match=message):
            attach(stranger, config)
        with pytest.raises(UserError, match=message):
            PatModel.from_pretrained(stranger, tmp_path)
    assert torch.equal(logits(model), before)
