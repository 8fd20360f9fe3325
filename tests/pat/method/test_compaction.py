"""Compaction: cut to its living channels, a model takes the course that the masked one takes, and saves what it saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pat import PatConfig, PatModel, attach
from pat.errors import UserError
from pat.method import compaction
from pat.method.compaction import compacts
from pat.models.compiled import compile_layers
from pat.settings.jobs import TuneJob
from pat.training.request import TuningRequest
from pat.training.trainer import parameter_groups
from tests.kit.tiny_models import CONFIGS, random_tokens, tiny_model
from tests.kit.training import random_text
from tests.kit.tuning_requests import asked

STEPS = 10
CHOICES: dict[str, Any] = {
    "pruning_ratio": 0.25, "hio_rank": 5, "lora_rank": 3, "lora_alpha": 6.0, "lora_dropout": 0.0, "total_steps": STEPS, "identity_weight": 0.1,
}  # fmt: skip
VARIANTS: list[dict[str, Any]] = [
    {"hio_rank": 0},
    {"hio_rank": "dense"},
    {"variant": "release", "mask": "variance"},
    {"variant": "release", "mask": "random", "hio_rank": 0},
    {"mask": "variance", "closing": "at-once"},
    {"mask": "random", "closing": "at-once", "hio_rank": 0},
]


def fresh(name: str, **choices: Any) -> PatModel:
    """Return an untrained model whose trained tensors are far from their start."""
    model = attach(tiny_model(name), PatConfig(**CHOICES | choices), random_text())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.requires_grad and not parameter_name.endswith("mask.proxy"):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.train()


def course(model: PatModel, *, compact: bool, steps: int = STEPS) -> list[tuple[float, float]]:
    """Train a model, compacting it as soon as its mask is closed; return the loss and the gradients' norm of every step."""
    groups = parameter_groups(model, 5e-3, weight_decay=0.1)
    optimizer = torch.optim.AdamW(groups)
    parameters = [parameter for group in groups for parameter in group["params"]]
    figures = []
    for step in range(steps):
        if compact and not model.compacted and model.sparsifier.mask.closed:
            model.compact()
        tokens = random_tokens(seed=step)
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        model.advance()
        figures.append((loss.item(), norm.item()))
    assert model.compacted == compact
    return figures


def closed(name: str = "llama-grouped", **choices: Any) -> PatModel:
    """Return a model right behind its milestone."""
    model = fresh(name, **choices)
    course(model, compact=False, steps=model.pat_config.milestone_step)
    return model


def check_same_course(name: str, **choices: Any) -> None:
    masked, cut = fresh(name, **choices), fresh(name, **choices)
    expected, found = course(masked, compact=False), course(cut, compact=True)
    assert torch.allclose(torch.tensor(found), torch.tensor(expected), rtol=0, atol=1e-5)
    own = dict(cut.named_parameters())
    for parameter_name, parameter in masked.named_parameters():
        if parameter.requires_grad:
            assert torch.allclose(own[parameter_name], parameter, atol=1e-3), parameter_name


@pytest.mark.lengthy
@pytest.mark.parametrize("name", CONFIGS)
def test_a_compacted_run_takes_the_masked_runs_course(name: str) -> None:
    check_same_course(name)


@pytest.mark.lengthy
@pytest.mark.parametrize("choices", VARIANTS)
@pytest.mark.parametrize("name", ["llama-biases-odd-head", "gemma"])
def test_so_it_does_with_every_operator_and_closing(name: str, choices: dict[str, Any]) -> None:
    check_same_course(name, **choices)


def gradients(model: PatModel, tokens: Tensor) -> dict[str, Tensor]:
    model(input_ids=tokens, labels=tokens).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_gradients_are_the_masked_models_those_of_dead_entries_too() -> None:
    """L0 and LoRA's B of a write reach all channels of its output; L1 and LoRA's A of a reader the living ones alone."""
    masked, cut = closed(identity_weight=0.0), closed(identity_weight=0.0)
    cut.compact()
    tokens = random_tokens()
    expected, found = gradients(masked, tokens), gradients(cut, tokens)
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=1e-4, atol=1e-6), name
    dead = ~cut.sparsifier.mask.kept
    operator: Any = cut.sparsifier.by_write()["model.layers.1.mlp.down_proj"].operator
    assert operator.down.grad[:, dead].abs().min() > 0 and operator.up.grad[dead].abs().max() == 0
    layer = "base_model.model.model.layers.1"
    assert found[f"{layer}.mlp.down_proj.lora_B.default.weight"][dead].abs().min() > 0
    assert found[f"{layer}.self_attn.q_proj.lora_A.default.weight"][:, dead].abs().max() == 0


def test_what_is_frozen_really_is_narrower_and_stays_frozen() -> None:
    model = closed()
    model.compact()
    base: Any = model.get_base_model()
    layer = base.model.layers[0]
    assert layer.self_attn.q_proj.base_layer.weight.shape == (48, 36) and base.lm_head.weight.shape == (97, 36)
    assert layer.input_layernorm.weight.shape == (36,)
    streams: list[Tensor] = []
    layer.mlp.down_proj.register_forward_hook(lambda _module, _inputs, output: streams.append(output))
    model(input_ids=random_tokens())
    assert streams[0].shape == (2, 10, 36)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable == {name for name, parameter in closed().named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("name", ["llama-grouped-tied", "gemma"])
def test_embedding_and_head_stay_one_matrix(name: str) -> None:
    model = closed(name)
    model.compact()
    base: Any = model.get_base_model()
    assert base.get_input_embeddings().weight is base.lm_head.weight and base.lm_head.weight.shape == (97, 36)


def test_a_compacted_model_saves_the_masked_ones_bytes_and_merges_to_the_same(tmp_path: Path) -> None:
    model = closed()
    tokens = random_tokens()
    with torch.no_grad():
        expected = model.eval()(input_ids=tokens).logits
        model.save_pretrained(str(tmp_path / "masked"))
        model.compact()
        assert torch.allclose(model(input_ids=tokens).logits, expected, atol=1e-5)
    model.save_pretrained(str(tmp_path / "compacted"))
    files = sorted(path.name for path in (tmp_path / "masked").iterdir())
    assert [path.name for path in sorted((tmp_path / "compacted").iterdir())] == files
    for name in files:
        assert (tmp_path / "compacted" / name).read_bytes() == (tmp_path / "masked" / name).read_bytes(), name
    merged: Any = PatModel.from_pretrained(tiny_model("llama-grouped"), tmp_path / "compacted").merge_and_unload()
    with torch.no_grad():
        assert torch.allclose(merged(input_ids=tokens).logits, expected, atol=1e-4)


def test_generation_goes_on_as_before() -> None:
    model: Any = closed().eval()
    settings: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    expected = model.generate(input_ids=random_tokens(1, 8), **settings)
    model.compact()
    assert torch.equal(model.generate(input_ids=random_tokens(1, 8), **settings), expected)


def test_in_mixed_precision_the_losses_agree_to_its_rounding() -> None:
    losses = []
    for compact in (False, True):
        model = closed()
        model.get_base_model().to(torch.bfloat16)
        if compact:
            model.compact()
        with torch.autocast("cpu", torch.bfloat16):
            losses.append(model(input_ids=random_tokens(), labels=random_tokens()).loss)
        losses[-1].backward()
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=5e-3)


def test_what_cannot_be_compacted_says_why() -> None:
    with pytest.raises(UserError, match="the mask is still open"):
        fresh("llama").compact()
    with pytest.raises(UserError, match="DoRA"):
        closed(use_dora=True).compact()
    with pytest.raises(UserError, match="nothing is pruned"):
        fresh("llama", pruning_ratio=0.0).compact()


def test_a_compacted_model_refuses_what_needs_the_whole_base(tmp_path: Path) -> None:
    model = closed()
    model.compact()
    model.save_pretrained(str(tmp_path))
    with pytest.raises(UserError, match="cannot be merged: save its adapter"):
        model.merge_and_unload()
    with pytest.raises(UserError, match="without its adapter"), model.disable_adapter():
        pass
    with pytest.raises(UserError, match="another adapter"):
        model.load_adapter(tmp_path, "default")
    with pytest.raises(UserError, match="compacted again"):
        model.compact()


def test_the_choice_is_made_by_device_and_method(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    caplog.set_level("INFO")
    tiny_model("llama").config.save_pretrained(tmp_path)

    def request(compact: bool | str, device: str, tuner: str = "pat", ratio: float = 0.25, *, compiles: bool = True) -> TuningRequest:
        tuning = {"max_steps": 9, "learning_rate": 1e-3, "batch_size": 2, "device": device, "compact": compact, "compile": compiles}
        return asked(tmp_path, tmp_path / "rows", tuner, ratio, 0, TuneJob.model_validate({"tuning": tuning}), tmp_path / "run")

    assert compacts(request("auto", "cuda")) and compacts(request(True, "cpu"))
    assert not compacts(request(False, "cuda")) and not compacts(request("auto", "cuda", "lora", 0.0)) and not caplog.messages
    assert not compacts(request("auto", "cuda", compiles=False)) and "held up by launching its kernels" in caplog.messages[-1]
    assert compacts(request(True, "cuda", compiles=False))
    monkeypatch.setattr(compaction, "PAYS_FROM_WIDTH", 8)
    assert compacts(request("auto", "cuda", compiles=False))
    assert not compacts(request("auto", "cpu")) and "on a CPU it gains little" in caplog.messages[-1]
    assert not compacts(request(True, "cuda", ratio=0.0)) and "nothing is pruned" in caplog.messages[-1]
    assert not compacts(request("auto", "cuda", "pat-dora")) and "DoRA" in caplog.messages[-1]
    with pytest.raises(UserError, match=r"tuning\.compact: true is not possible: DoRA"):
        compacts(request(True, "cuda", "pat-dora"))


def recording(graphs: list[tuple[int, ...]]) -> Any:
    """Return a compiler that compiles nothing and notes the shape of the stream that a graph was built for."""

    def backend(graph: Any, inputs: list[Any]) -> Any:
        graphs.append(next(tuple(found.shape) for found in inputs if isinstance(found, Tensor) and found.dim() == 3))
        return graph.forward

    return backend


def compiled_layers(model: PatModel) -> PatModel:
    base: Any = model.get_base_model()
    base.config.use_cache = False
    compile_layers(base)
    return model


@pytest.mark.lengthy
def test_compiled_layers_give_the_same_course_and_are_built_for_the_open_and_the_compacted_model_alone() -> None:
    torch.compiler.reset()
    plain, compiled = fresh("llama-grouped"), compiled_layers(fresh("llama-grouped"))
    base: Any = plain.get_base_model()
    base.config.use_cache = False
    graphs: list[tuple[int, ...]] = []
    with torch.compiler.set_stance("default", force_backend=recording(graphs)):
        found = course(compiled, compact=True)
    assert torch.allclose(torch.tensor(found), torch.tensor(course(plain, compact=True)), rtol=0, atol=1e-5)
    assert graphs == [(2, 10, 48), (2, 10, 36)]


@pytest.mark.lengthy
def test_a_second_length_has_the_layers_compiled_once_more_for_all_lengths() -> None:
    torch.compiler.reset()
    model = compiled_layers(fresh("llama-grouped"))
    graphs: list[tuple[int, ...]] = []
    with torch.compiler.set_stance("default", force_backend=recording(graphs)):
        for length, expected in ((10, 1), (12, 2), (7, 2), (11, 2), (10, 2)):
            tokens = random_tokens()[:, :length] if length <= 10 else random_tokens().repeat(1, 2)[:, :length]
            model(input_ids=tokens, labels=tokens).loss.backward()
            assert len(graphs) == expected, length
