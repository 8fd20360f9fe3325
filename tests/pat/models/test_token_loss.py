"""Losses in chunks of learned tokens: value and gradients of the plain loss, to rounding, whatever stands between stream and logits."""

from __future__ import annotations

import shutil
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, Gemma2Config, GraniteConfig, PreTrainedModel, Trainer

from pat import PatCallback, PatConfig, PatTrainer, attach
from pat.models import token_loss
from pat.models.compiled import C_COMPILERS, compile_layers
from pat.models.token_loss import (
    IGNORED_LABEL,
    Head,
    cross_entropies,
    has_frozen_head,
    in_chunks,
    learned_tokens,
    log_probabilities,
    read,
)
from pat.settings.jobs import DistillationSettings
from pat.training.distillation import Distillation
from tests.kit.project import ROOT
from tests.kit.tiny_models import CONFIGS, SHAPE, VOCABULARY, random_tokens, tiny_model
from tests.kit.training import trained
from tests.kit.training_rows import RandomRows, arguments

SCALED: dict[str, Any] = {
    "gemma2": lambda: Gemma2Config(
        **SHAPE, num_key_value_heads=2, head_dim=12, final_logit_softcapping=1.5, query_pre_attn_scalar=12, tie_word_embeddings=True
    ),
    "granite": lambda: GraniteConfig(**SHAPE, num_key_value_heads=2, logits_scaling=3.0, embedding_multiplier=2.0),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _three_tokens_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_loss, "LOGITS_AT_ONCE_ON_CPU", 3 * VOCABULARY)


def labelled(seed: int = 5) -> tuple[Tensor, Tensor]:
    """Return tokens, and labels of which some rows' beginnings have none."""
    tokens = random_tokens(4, 9, seed=seed)
    labels = tokens.clone()
    for row in range(4):
        labels[row, : 2 * row] = IGNORED_LABEL
    return tokens, labels


def chunked(model: Any, stock: Any, tokens: Tensor, labels: Tensor) -> Tensor:
    learned = learned_tokens(labels)
    hidden, head = read(model, stock, {"input_ids": tokens})

    def summed(hidden_CD: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        assert len(hidden_CD) <= 3
        loss = functional.cross_entropy(head.logits(hidden_CD), learned.targets_N[part], reduction="sum")
        return loss, loss[None]

    loss, figures = in_chunks(learned.among(hidden), head.chunk(), summed)
    assert not figures.requires_grad and float(figures) == float(loss.detach())
    return loss / len(learned.targets_N)


@pytest.mark.skipif(not any(shutil.which(compiler) for compiler in C_COMPILERS), reason="needs a C compiler")
def test_a_compiled_loss_has_the_value_and_the_gradients_of_the_plain_one() -> None:
    torch.compiler.reset()
    linear = nn.Linear(8, VOCABULARY, dtype=torch.float64).requires_grad_(False)
    hidden_ND, targets_N = torch.randn(29, 8, dtype=torch.float64, requires_grad=True), torch.randint(0, VOCABULARY, (29,))
    found = []
    for compiled, size in ((False, 12), (True, 12)):
        head = Head(linear, linear.weight, scaling=3.0, softcap=1.5, compiled=compiled)
        assert head.loss_chunk() == (size if compiled else 3)

        def objective(hidden_CD: Tensor, part: slice, head: Head = head) -> tuple[Tensor, Tensor]:
            summed = head.summed_cross_entropy(hidden_CD, targets_N[part][: len(hidden_CD)])
            return summed, summed[None]

        loss, _ = in_chunks(hidden_ND, size, objective)
        found.append((loss, *torch.autograd.grad(loss, hidden_ND)))
    for plain, fast in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-12)
    empty, _ = in_chunks(hidden_ND[:0], 12, objective)
    assert float(empty.detach()) == 0.0, "a batch of which nothing is learned"


def test_a_model_whose_layers_are_compiled_has_its_losses_compiled() -> None:
    stock = tiny_model("llama")
    assert not read(stock, stock, {"input_ids": random_tokens(1, 3)})[1].compiled
    compile_layers(stock)
    with torch.compiler.set_stance("force_eager"):
        assert read(stock, stock, {"input_ids": random_tokens(1, 3)})[1].compiled


@pytest.mark.parametrize("name", [*CONFIGS, *SCALED])
def test_value_and_gradients_are_the_plain_losses(name: str) -> None:
    tokens, labels = labelled()
    stock: Any = tiny_model(name) if name in CONFIGS else AutoModelForCausalLM.from_config(SCALED[name]())
    stock.double().requires_grad_(False)
    stock.get_submodule("model.layers.0.mlp.down_proj").weight.requires_grad_(True)
    weight = stock.get_submodule("model.layers.0.mlp.down_proj").weight
    with torch.no_grad():
        for parameter in stock.parameters():
            parameter.mul_(3.0)
    logits = stock(input_ids=tokens).logits
    plain = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED_LABEL)
    expected = torch.autograd.grad(plain, weight)
    found = chunked(stock, stock, tokens, labels)
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(torch.autograd.grad(found, weight), expected, rtol=1e-9, atol=1e-14)
    with torch.no_grad():
        hidden, head = read(stock, stock, {"input_ids": tokens})
        learned = learned_tokens(labels)
        losses = cross_entropies(head, hidden, learned)
        assert losses.mean() == pytest.approx(float(plain), rel=1e-12)
        values, likeliest = log_probabilities(head, hidden, learned)
        torch.testing.assert_close(values, -losses, rtol=1e-12, atol=1e-15)
        assert torch.equal(likeliest, learned.among(logits).argmax(dim=-1) == learned.targets_N)


def test_no_logits_are_made_beside_those_of_the_chunks() -> None:
    """Neither of the prompts nor of the whole batch."""
    tokens, labels = labelled()
    model: Any = tiny_model("llama")
    shapes: list[tuple[int, ...]] = []
    model.lm_head.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape)))
    hidden, _ = read(model, model, {"input_ids": tokens})
    assert shapes == [(4, 0, VOCABULARY)] and hidden.shape == (4, 9, 48)
    assert len(learned_tokens(labels).targets_N) == int((labels[:, 1:] != IGNORED_LABEL).sum()) == 23
    assert model(input_ids=tokens).logits.shape == (4, 9, VOCABULARY), "the model is as it was"


@pytest.mark.parametrize("of_tokens", [cross_entropies, log_probabilities])
def test_a_chunks_logits_are_gone_before_the_next_ones_are_made(of_tokens: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Tensor]] = []
    logits = Head.logits

    def noted(head: Head, hidden_CD: Tensor) -> Tensor:
        assert all(one() is None for one in made)
        found = logits(head, hidden_CD)
        made.append(weakref.ref(found))
        return found

    monkeypatch.setattr(Head, "logits", noted)
    monkeypatch.setattr(token_loss, "LOGITS_AT_ONCE_ON_CPU", 4 * VOCABULARY)
    tokens, labels = labelled()
    model: Any = tiny_model("llama")
    hidden, head = read(model, model, {"input_ids": tokens})
    of_tokens(head, hidden, learned_tokens(labels))
    assert len(made) == 6, "23 tokens"


GROWTH = """
import resource
import torch
from torch import nn
from pat.models.token_loss import Head, ForetoldTokens, cross_entropies, log_probabilities

torch.set_num_threads(1)
linear = nn.Linear(16, 49152, bias=False).requires_grad_(False)
hidden_BTD, tokens = torch.randn(1, 8000, 16), ForetoldTokens(torch.arange(8000), torch.randint(0, 49152, (8000,)))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for of_tokens in (cross_entropies, log_probabilities):
    of_tokens(Head(linear, linear.weight, 1.0, None), hidden_BTD, tokens)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_processors_memory_does_not_grow_with_the_chunks() -> None:
    """All logits together are 1,500 MiB. What was kept of each chunk lay between the places of its logits, and none of these served again."""
    said = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert int(said) < 500


def test_a_batch_without_a_learned_token_has_no_loss_and_no_gradient() -> None:
    tokens = random_tokens(2, 5)
    model: Any = tiny_model("llama")
    model.lm_head.requires_grad_(False)
    learned = learned_tokens(torch.full_like(tokens, IGNORED_LABEL))
    hidden, head = read(model, model, {"input_ids": tokens})

    def summed(hidden_CD: Tensor, _part: slice) -> tuple[Tensor, Tensor]:
        loss = head.logits(hidden_CD).sum()
        return loss, loss[None]

    loss, _ = in_chunks(learned.among(hidden), head.chunk(), summed)
    loss.backward()
    assert float(loss.detach()) == 0.0 and float(model.model.norm.weight.grad.abs().max()) == 0.0
    assert cross_entropies(head, hidden, learned).shape == (0,)
    assert [each.shape for each in log_probabilities(head, hidden, learned)] == [(0,), (0,)]


def test_a_trained_or_strange_head_is_told() -> None:
    model: Any = tiny_model("llama")
    assert not has_frozen_head(model)
    model.requires_grad_(False)
    assert has_frozen_head(model)
    model.lm_head = torch.nn.Sequential(model.lm_head)
    assert not has_frozen_head(model)


class Plain(PatTrainer):
    """Takes the loss from the whole batch's logits."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        loss, _ = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        return loss


def course(folder: Path, kind: Any, name: str, teacher: PreTrainedModel | None, changes: dict[str, Any]) -> tuple[Any, Any]:
    model = attach(tiny_model(name), PatConfig(pruning_ratio=0.25, hio_rank=4, lora_rank=3, lora_dropout=0.0))
    compact = changes.get("compact", False)
    given = {key: value for key, value in changes.items() if key != "compact"}
    options: dict[str, Any] = {"distillation": Distillation(teacher, DistillationSettings(weight=0.3, temperature=2.0))} if teacher else {}
    trainer = kind(
        model=model, args=arguments(folder, **given), train_dataset=RandomRows(), callbacks=[PatCallback(compact=compact)], **options
    )
    trainer.train()
    losses = [[entry["loss"], entry["grad_norm"]] for entry in trainer.state.log_history if "grad_norm" in entry]
    return losses, {key: p.detach() for key, p in model.named_parameters() if p.requires_grad}


@pytest.mark.lengthy
@pytest.mark.parametrize(
    ("name", "distils", "changes"),
    [
        ("llama", False, {}),
        ("gemma", False, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}),
        ("qwen2-tied", True, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}),
        ("llama-grouped", False, {"compact": True}),
        ("llama-grouped-tied", True, {"compact": True}),
        ("mistral", False, {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": False}}),
        ("qwen3", False, {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}}),
    ],
)
def test_a_run_takes_the_course_of_the_plain_loss(name: str, distils: bool, changes: dict[str, Any], tmp_path: Path) -> None:
    teacher = tiny_model(name, seed=9) if distils else None
    changes = changes | {"optim": "sgd", "max_grad_norm": 0.0}
    (losses, weights), (plain_losses, plain_weights) = (course(tmp_path, kind, name, teacher, changes) for kind in (PatTrainer, Plain))
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(plain_losses), rtol=1e-5, atol=1e-6)
    for key, weight in weights.items():
        torch.testing.assert_close(weight, plain_weights[key], rtol=1e-4, atol=1e-5, msg=key)
    assert losses[0] != losses[-1]


@pytest.mark.lengthy
def test_a_stock_trainers_losses_are_the_same(tmp_path: Path) -> None:
    ours, stock = (course(tmp_path, kind, "llama", None, {"max_steps": 12})[0] for kind in (PatTrainer, Trainer))
    assert ours[0] == pytest.approx(stock[0], rel=1e-5)


def test_evaluation_gives_logits_and_the_same_loss(tmp_path: Path) -> None:
    model = trained("llama")
    trainer = PatTrainer(model=model, args=arguments(tmp_path), train_dataset=RandomRows(), eval_dataset=RandomRows(8))
    rows = RandomRows(8)
    with torch.no_grad():
        expected = model(input_ids=rows.tokens, labels=rows.labels)
    found = trainer.predict(rows)
    assert found.metrics is not None and found.metrics["test_loss"] == pytest.approx(float(expected.loss), rel=1e-5)
    torch.testing.assert_close(torch.as_tensor(found.predictions), expected.logits, rtol=1e-4, atol=1e-5)


def test_distillation_beside_another_loss_is_refused(tmp_path: Path) -> None:
    distillation = Distillation(tiny_model("llama"), DistillationSettings())
    with pytest.raises(ValueError, match="leave out label_smoothing_factor and compute_loss_func"):
        PatTrainer(
            model=trained("llama"), args=arguments(tmp_path, label_smoothing_factor=0.1), train_dataset=RandomRows(), distillation=distillation
        )  # fmt: skip
