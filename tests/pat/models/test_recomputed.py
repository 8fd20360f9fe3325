"""Feed-forward blocks that are computed again in the backward pass: the same gradients and courses, fewer bytes kept, nothing else changed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from pat import PatConfig, PatModel, attach
from pat.checkpoints.merge import merge
from pat.errors import UserError
from pat.families.known import FAMILIES, family_of
from pat.method.lora_inputs import taken_as_they_are
from pat.method.model import lora_config
from pat.models import recomputed
from pat.models.compiled import compile_layers
from pat.models.hooks import removed_behind
from pat.models.kept_activations import kept_bytes
from pat.models.recomputed import recompute_feed_forward, recomputed_feed_forward
from pat.models.reshaped import ReshapedConfig, ReshapedForCausalLM
from pat.training.trainer import parameter_groups
from pat.training.tuning import tune
from tests.kit.pruning_inputs import write_base
from tests.kit.tiny_models import CONFIGS, MORE, UNNARROWED, random_tokens, tiny_model
from tests.kit.tiny_world import write_world
from tests.kit.training import random_text
from tests.kit.tuning_requests import asked, twelve_steps
from tests.kit.tunings import adapter_bytes, job, run

STEPS = 12
LORA_OF_ALL = ["llama", "gemma", "gemma2", "gemma3", "olmo2", "phi3", "granite", "smollm3", "phi", "pythia"]
PATS: list[dict[str, Any]] = [
    {},
    {"mask": "fisher", "hio_rank": "dense"},
    {"mask": "random", "closing": "at-once", "hio_rank": 0},
    {"variant": "release"},
    {"mask_learning": "gradient"},
    {"use_dora": True},
]


def tuned(name: str, tuner: str, dropout: float = 0.0, stock: PreTrainedModel | None = None, **choices: Any) -> PeftModel:
    """Return an untrained model whose adapters are far from their start, the same each time."""
    stock = stock or tiny_model(name)
    stock.config.use_cache = False
    generator = torch.Generator().manual_seed(1)
    if tuner == "pat":
        settings = {"pruning_ratio": 0.25, "hio_rank": 5, "lora_rank": 3, "lora_dropout": dropout, "total_steps": STEPS} | choices
        model: Any = attach(stock, PatConfig(**settings), random_text())
    else:
        torch.manual_seed(0)
        model = get_peft_model(stock, lora_config(family_of(stock.config), 3, 6.0, dropout, use_dora=tuner == "dora"))
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.requires_grad and not parameter_name.endswith("mask.proxy"):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    assert isinstance(model, PeftModel)
    return model.train()


def stock_of(model: PeftModel) -> Any:
    return model.get_base_model()


def recomputing(model: PeftModel) -> PeftModel:
    recompute_feed_forward(stock_of(model))
    return model


def course(model: Any, steps: int = STEPS, *, compact: bool = False) -> list[Tensor]:
    """Train a model with plain steps; return the losses and what is trained at the end."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameter_groups(model, 5e-3) if isinstance(model, PatModel) else trained, lr=5e-3)
    losses = []
    for step in range(steps):
        if compact and not model.compacted and model.sparsifier.mask.closed:
            model.compact()
        torch.manual_seed(step)
        tokens = random_tokens(seed=step)
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if isinstance(model, PatModel):
            model.advance()
        losses.append(loss.detach())
    return [torch.stack(losses), *(parameter.detach() for parameter in trained)]


def gradients(model: PeftModel) -> dict[str, Tensor]:
    torch.manual_seed(3)
    tokens = random_tokens()
    model(input_ids=tokens, labels=tokens).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def check_same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("name", LORA_OF_ALL)
def test_the_gradients_of_lora_are_those_of_a_plain_pass_in_every_family(name: str, dropout: float) -> None:
    expected = gradients(tuned(name, "lora", dropout))
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 1e-3
    check_same(gradients(recomputing(tuned(name, "lora", dropout))), expected)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_so_are_those_of_dora_and_of_pat_before_its_milestone(dropout: float) -> None:
    check_same(gradients(recomputing(tuned("llama", "dora", dropout))), gradients(tuned("llama", "dora", dropout)))
    check_same(gradients(recomputing(tuned("llama", "pat", dropout))), gradients(tuned("llama", "pat", dropout)))


@pytest.mark.lengthy
@pytest.mark.parametrize("choices", PATS)
def test_pat_takes_the_same_course_through_its_milestone_and_learns_the_same_mask(choices: dict[str, Any]) -> None:
    plain, again = tuned("llama-grouped", "pat", 0.3, **choices), recomputing(tuned("llama-grouped", "pat", 0.3, **choices))
    check_same(course(again), course(plain))
    masks: list[Any] = [model.sparsifier.mask for model in (again, plain)]
    assert masks[0].finished and torch.equal(masks[0](), masks[1]()) and masks[0]().min() < 1


@pytest.mark.lengthy
def test_what_a_compacted_model_has_for_layers_is_recomputed_too() -> None:
    plain, again = tuned("llama", "pat"), recomputing(tuned("llama", "pat"))
    check_same(course(again, compact=True), course(plain, compact=True))
    assert calls_of_the_gates(again) == 2 * calls_of_the_gates(plain) > 0


def test_a_reshaped_models_blocks_are_recomputed_as_a_stock_ones() -> None:
    def reshaped() -> PreTrainedModel:
        torch.manual_seed(0)
        return ReshapedForCausalLM(ReshapedConfig.of(CONFIGS["llama"](), groups=[3, 4, 2], neurons=[40, 48, 24]))

    plain, again = (tuned("llama", "lora", stock=reshaped()) for _ in range(2))
    check_same(gradients(recomputing(again)), gradients(plain))
    assert calls_of_the_gates(again) == 2 * calls_of_the_gates(plain) > 0


def calls_of_the_gates(model: PeftModel, *, backward: bool = True) -> int:
    """Return how many times the gates of all layers are computed in a step."""
    called: list[nn.Module] = []
    gates = [layer.mlp.gate_proj for layer in stock_of(model).model.layers]
    with removed_behind([gate.register_forward_hook(lambda module, *_: called.append(module)) for gate in gates]):
        loss = model(input_ids=random_tokens(), labels=random_tokens()).loss
        if backward:
            loss.backward()
    return len(called)


def test_a_pass_without_a_gradient_recomputes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = recomputing(tuned("llama", "lora"))
    layers = len(stock_of(model).model.layers)
    assert calls_of_the_gates(model) == 2 * layers
    monkeypatch.setattr(recomputed, "checkpoint", None)
    with torch.no_grad():
        assert calls_of_the_gates(model, backward=False) == layers
    with torch.inference_mode():
        assert calls_of_the_gates(model.eval(), backward=False) == layers


def test_it_is_given_back_and_nothing_is_left_of_it() -> None:
    model = tuned("llama", "lora")
    before = {name: dict(module.__dict__) for name, module in model.named_modules()}
    with pytest.raises(InterruptedError), recomputed_feed_forward(stock_of(model)):
        assert calls_of_the_gates(model) == 2 * len(stock_of(model).model.layers)
        raise InterruptedError
    assert calls_of_the_gates(model) == len(stock_of(model).model.layers)
    assert all(module.__dict__.keys() == before[name].keys() for name, module in model.named_modules())


def test_a_copy_computes_its_own_blocks() -> None:
    model = recomputing(tuned("llama", "lora"))
    expected = gradients(copy.deepcopy(model))
    assert all(parameter.grad is None for parameter in model.parameters())
    check_same(gradients(model), expected)


def kept_of_a_token(model: PeftModel) -> float:
    """Return the bytes that one more token costs: the difference between two numbers of rows, which has no constants in it."""
    counts = []
    with torch.autocast("cpu", torch.bfloat16), taken_as_they_are(model, autocast=True):
        for rows in (2, 4):
            tokens = random_tokens(rows, 16)
            counts.append(kept_bytes(lambda tokens=tokens: model(input_ids=tokens), (*model.parameters(), *model.buffers())))  # type: ignore[misc]
    return (counts[1] - counts[0]) / (2 * 16)


@pytest.mark.parametrize("tuner", ["lora", "pat"])
def test_what_is_kept_falls_by_what_the_neurons_kept(tuner: str) -> None:
    """Per token and layer in bf16: gate, its activation, up and their product, of 80 neurons each; LoRA's three products, of rank 3.

    Of PAT also what the operator behind the block's write is given, on 48 channels. The block's input is kept either way.
    """
    plain = kept_of_a_token(tuned("llama", tuner, stock=tiny_model("llama").bfloat16()))
    again = kept_of_a_token(recomputing(tuned("llama", tuner, stock=tiny_model("llama").bfloat16())))
    operator = 48 if tuner == "pat" else 0
    assert plain - again == 3 * 2 * (4 * 80 + 3 * 3 + operator)


@pytest.mark.lengthy
@pytest.mark.parametrize(("tuner", "compact"), [("lora", False), ("pat", True)])
def test_compiled_layers_take_the_same_course_and_share_their_graphs_as_plain_ones_do(tuner: str, compact: bool) -> None:
    """As dynamo has them, and cut into forward and backward. One is built for each state: without a gradient before, closed, compacted."""
    plain, again, cut = (tuned("llama", tuner) for _ in range(3))
    expected = course(tuned("llama", tuner), compact=compact)
    counts = []
    for model in (plain, recomputing(again)):
        graphs: list[Any] = []
        check_same(compiled_course(model, noting(graphs), compact=compact), expected)
        counts.append(len(graphs))
    assert counts[0] == counts[1] < stock_of(plain).config.num_hidden_layers
    check_same(compiled_course(recomputing(cut), "aot_eager", compact=compact), expected)


def noting(graphs: list[Any]) -> Any:
    """Return a compiler that compiles nothing and notes its graphs."""

    def backend(graph: Any, _inputs: list[Any]) -> Any:
        graphs.append(graph)
        return graph.forward

    return backend


def compiled_course(model: PeftModel, backend: Any, *, compact: bool) -> list[Tensor]:
    torch.compiler.reset()
    compile_layers(stock_of(model))
    with torch.compiler.set_stance("default", force_backend=backend):
        return course(model, compact=compact)


@pytest.mark.lengthy
def test_compiled_layers_draw_the_same_dropout_again() -> None:
    """The gradient is that of the loss that was drawn: by central differences, at the same seed."""
    torch.compiler.reset()
    model = recomputing(tuned("llama", "lora", 0.4))
    compile_layers(stock_of(model))
    with torch.compiler.set_stance("default", force_backend="aot_eager"):
        found = gradients(model)
        compared = [
            (name, parameter) for name, parameter in model.named_parameters() if "layers.1.mlp." in name and parameter.requires_grad
        ]
        for name, parameter in compared:
            way, step = found[name] / found[name].norm(), 0.02
            losses = []
            for distance in (step, -step):
                with torch.no_grad():
                    parameter.add_(distance * way)
                torch.manual_seed(3)
                losses.append(float(model(input_ids=random_tokens(), labels=random_tokens()).loss.detach()))
                with torch.no_grad():
                    parameter.sub_(distance * way)
            assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(float(found[name].norm()), rel=0.02), name
    assert len(compared) == 6


def settings(**changes: Any) -> Any:
    return job(**{"max_steps": 12, "checkpoint_steps": 6, "log_steps": 1} | changes)


@pytest.mark.lengthy
@pytest.mark.parametrize(("tuner", "ratio"), [("lora", 0.0), ("pat", 0.25)])
def test_a_tuning_has_the_same_losses_and_the_same_adapter_and_merges_to_the_same_bytes(tuner: str, ratio: float, tmp_path: Path) -> None:
    write_world(tmp_path)
    histories = {}
    for name, value in (("plain", False), ("again", "feed-forward")):
        record = run(tmp_path, name, tuner, ratio, settings(gradient_checkpointing=value))
        histories[name] = [entry["instruct_loss"] for entry in record["history"] if "instruct_loss" in entry]
        assert merge(tmp_path / "base", tmp_path / name, tmp_path / f"merged-{name}")["logit_gap"] <= 1e-4
    assert len(histories["plain"]) == 12 and histories["again"] == pytest.approx(histories["plain"], rel=1e-6)
    assert adapter_bytes(tmp_path / "again") == adapter_bytes(tmp_path / "plain")
    assert adapter_bytes(tmp_path / "merged-again") == adapter_bytes(tmp_path / "merged-plain")


@pytest.mark.lengthy
def test_a_distilled_tuning_recomputes_the_student_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_world(tmp_path)
    seen: list[PreTrainedModel] = []

    def noted(stock: PreTrainedModel) -> None:
        seen.append(stock)
        recompute_feed_forward(stock)

    monkeypatch.setattr("pat.training.tuning.recompute_feed_forward", noted)
    for name, value in (("plain", False), ("again", "feed-forward")):
        run(tmp_path, name, "pat", 0.25, settings(gradient_checkpointing=value, distillation={}), teacher=tmp_path / "base")
    assert len(seen) == 1 and adapter_bytes(tmp_path / "again") == adapter_bytes(tmp_path / "plain")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("opt", r"its feed-forward layers \(fc1, fc2\) lie in the decoder layer itself, in no module of their own"),
        ("qwen3-moe", "its feed-forward blocks are experts behind a router"),
    ],
)
def test_models_without_such_a_block_are_refused_before_anything_is_loaded(name: str, reason: str, tmp_path: Path) -> None:
    write_base(name, tmp_path / "base")
    recipe = twelve_steps()
    refused = recipe.model_copy(update={"tuning": recipe.tuning.model_copy(update={"gradient_checkpointing": "feed-forward"})})
    told = rf"tuning\.gradient_checkpointing: feed-forward with --base .*: is not possible: {reason}; set true"
    with pytest.raises(UserError, match=told):
        tune(asked(tmp_path / "base", tmp_path / "none.jsonl", "lora", 0.0, 0, refused, tmp_path / "run"))


def test_every_known_family_says_whether_it_can() -> None:
    cannot = {name for name, family in FAMILIES.items() if family.recomputation_obstacle is not None}
    assert cannot - {"tern"} == {"opt", "qwen2_moe", "qwen3_moe"}
    for name in {**CONFIGS, **MORE, **UNNARROWED}:
        stock = tiny_model(name)
        if family_of(stock.config).recomputation_obstacle is None:
            recompute_feed_forward(stock)
            changed = [module for module in stock.modules() if "forward" in module.__dict__]
            assert len(changed) == stock.config.num_hidden_layers and all(list(module.parameters()) for module in changed)
