"""The family table against stock transformers: every tensor has a role, every write and reader exists, strangers are refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import GPT2Config

from pat.errors import UserError
from pat.families.known import FAMILIES, Role, family_of, head_size
from pat.models.masked import kept_channels_only
from tests.kit.tiny_models import CONFIGS, random_tokens, tiny_model


@pytest.mark.parametrize("name", CONFIGS)
def test_every_tensor_of_a_stock_model_has_a_role_that_fits_its_shape(name: str) -> None:
    model = tiny_model(name)
    family, hidden = family_of(model.config), model.config.hidden_size
    for tensor_name, tensor in model.state_dict().items():
        axis = {Role.EMBEDDING: 1, Role.HEAD: 1, Role.WRITE: 0, Role.READ: 1, Role.NORM: 0, Role.FINAL_NORM: 0}
        role = family.role(tensor_name)
        if role in axis and not (tensor.dim() == 1 and role in (Role.READ, Role.HEAD)):
            assert tensor.shape[axis[role]] == hidden, tensor_name
        if role is Role.INSIDE:
            assert tuple(tensor.shape) == (head_size(model.config),)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_channel_silent_at_every_write_is_silent_in_the_whole_stream(name: str) -> None:
    model = tiny_model(name)
    kept = torch.arange(48) % 3 != 0
    kept_channels_only(model, kept)
    seen: list[torch.Tensor] = []
    for norm in [
        model.get_submodule(family_of(model.config).final_norm),
        *[m for n, m in model.named_modules() if n.endswith("layernorm")],
    ]:
        norm.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    model(input_ids=random_tokens())
    assert len(seen) == 1 + 2 * 3
    for stream in seen:
        assert stream[..., ~kept].abs().max() == 0
        assert stream[..., kept].abs().min(dim=-1).values.max() > 0


def test_norm_before_a_reader() -> None:
    llama = FAMILIES["llama"]
    assert llama.norm_before("model.layers.7.self_attn.k_proj") == "model.layers.7.input_layernorm"
    assert llama.norm_before("model.layers.0.mlp.up_proj") == "model.layers.0.post_attention_layernorm"
    assert llama.norm_before("lm_head") == "model.norm"
    with pytest.raises(KeyError):
        llama.norm_before("model.layers.0.mlp.down_proj")


def test_there_are_two_writes_a_layer_and_the_embedding() -> None:
    assert len(FAMILIES["llama"].writes(5)) == 2 * 5 + 1


def test_an_unknown_architecture_is_refused_with_what_an_entry_needs() -> None:
    with pytest.raises(UserError, match=r"'gpt2' is not known; known are gemma, gemma2, .*llama, mistral.*names its writes"):
        family_of(GPT2Config())
    with pytest.raises(UserError, match="None is not known"):
        family_of(SimpleNamespace())


def test_an_unknown_tensor_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"rotary_emb\.inv_freq"):
        FAMILIES["llama"].role("model.layers.0.self_attn.rotary_emb.inv_freq")
