"""The losses of the mask and the operators reach the gradient, once a step, whoever forms the loss; a step without them is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pat import PatCallback, PatConfig, PatModel, PatTrainer, attach
from tests.kit.tiny_models import random_tokens, tiny_model
from tests.kit.training_rows import RandomRows, arguments

WEIGHTS: dict[str, Any] = {"identity_weight": 5.0, "active_weight": 0.25}
NO_WEIGHTS: dict[str, Any] = {"identity_weight": 0.0, "active_weight": 0.0}


class FromLogits(Trainer):
    """Forms its loss of the logits alone, as a trainer of another kind of loss does."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_args: Any, **_kwargs: Any) -> Tensor:
        logits: Tensor = model(input_ids=inputs["input_ids"]).logits
        return functional.cross_entropy(logits[:, :-1].flatten(0, 1), inputs["labels"][:, 1:].flatten())


class OfTheBackbone(Trainer):
    """Asks the base model for hidden states, past the PatModel's forward, as a fused head does."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_args: Any, **_kwargs: Any) -> Tensor:
        hidden: Tensor = model.get_base_model().model(input_ids=inputs["input_ids"]).last_hidden_state
        return hidden.square().mean()


class Preference(Trainer):
    """Prefers a row over its reverse against the untouched base, as DPO does: three forward passes for one backward."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_args: Any, **_kwargs: Any) -> Tensor:
        chosen, rejected = inputs["input_ids"], inputs["input_ids"].flip(1)
        with torch.no_grad(), model.disable_adapter():
            reference = self._margin(model, chosen, rejected)
        return -functional.logsigmoid(self._margin(model, chosen, rejected) - reference).mean()

    def _margin(self, model: Any, *pair: Tensor) -> Tensor:
        better, worse = (-functional.cross_entropy(model(input_ids=ids).logits[:, :-1].transpose(1, 2), ids[:, 1:]) for ids in pair)
        return better - worse


def own_loss_func(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    summed: Tensor = functional.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
    return summed / int(num_items_in_batch)


class KeepGradients(TrainerCallback):
    """Keeps the gradients of the first optimizer step, as the optimizer gets them, and ends the training after it."""

    def __init__(self) -> None:
        self.gradients: dict[str, Tensor] = {}

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if not self.gradients:
            self.gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        control.should_training_stop = True


def fresh(**choices: Any) -> PatModel:
    """Return a model whose own losses have gradients from the first step."""
    settings: dict[str, Any] = {
        "pruning_ratio": 0.25,
        "hio_rank": 4,
        "lora_rank": 3,
        "lora_dropout": 0.0,
        "count": "loss",
        "mask_learning": "adam",
    }
    settings |= choices
    model = attach(tiny_model("llama"), PatConfig(**settings))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.sparsifier.hsms.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        model.sparsifier.mask.proxy.add_(torch.linspace(-0.1, 0.2, 48))
    return model


def first_gradients(folder: Path, weights: dict[str, float], trainer: type[Trainer], options: dict[str, Any], **changes: Any) -> Any:
    """Return the gradients of a model's first step."""
    keep, model = KeepGradients(), fresh(**weights)
    given = {"max_grad_norm": 0.0, "optim": "sgd", "learning_rate": 0.0} | changes
    trainer(
        model=model, args=arguments(folder, **given), train_dataset=RandomRows(), callbacks=[PatCallback(), keep], **options
    ).train()  # fmt: skip
    return keep.gradients


TRAINERS: dict[str, tuple[type[Trainer], dict[str, Any], dict[str, Any]]] = {
    "stock": (Trainer, {}, {}),
    "accumulated": (Trainer, {}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}),
    "smoothed": (Trainer, {}, {"label_smoothing_factor": 0.1}),
    "function": (Trainer, {"compute_loss_func": own_loss_func}, {}),
    "logits": (FromLogits, {}, {}),
    "accumulated-logits": (FromLogits, {}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}),
    "backbone": (OfTheBackbone, {}, {}),
    "preference": (Preference, {}, {}),
    "pat": (PatTrainer, {}, {}),
    "pat-accumulated": (PatTrainer, {}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}),
    "pat-smoothed": (PatTrainer, {}, {"label_smoothing_factor": 0.1}),
    "pat-function": (PatTrainer, {"compute_loss_func": own_loss_func}, {}),
}


@pytest.mark.lengthy
@pytest.mark.parametrize("name", TRAINERS)
def test_their_gradient_is_added_once_a_step_whoever_forms_the_loss(name: str, tmp_path: Path) -> None:
    trainer, options, changes = TRAINERS[name]
    found = first_gradients(tmp_path, WEIGHTS, trainer, options, **changes)
    of_the_data = first_gradients(tmp_path, NO_WEIGHTS, trainer, options, **changes)
    model = fresh(**WEIGHTS, total_steps=12)
    own = torch.autograd.grad(
        model.own_losses.terms().total, parameters := list(model.sparsifier.parameters()), allow_unused=True
    )  # fmt: skip
    names = [f"sparsifier.{key}" for key, _ in model.sparsifier.named_parameters()]
    assert sum(gradient is not None and bool(gradient.abs().max() > 1e-3) for gradient in own) == 8
    for key, gradient, parameter in zip(names, own, parameters, strict=True):
        expected = torch.zeros_like(parameter) if gradient is None else gradient
        torch.testing.assert_close(found[key] - of_the_data[key], expected, rtol=1e-4, atol=1e-5, msg=key)
    for key in found.keys() - set(names):
        assert torch.equal(found[key], of_the_data[key]), key


@pytest.mark.lengthy
@pytest.mark.parametrize("name", ["stock", "pat", "accumulated", "pat-accumulated"])
def test_the_gradients_are_those_of_the_models_own_loss(name: str, tmp_path: Path) -> None:
    """What a loop of one's own differentiates, for the same rows."""
    trainer, options, changes = TRAINERS[name]
    found = first_gradients(tmp_path, WEIGHTS, trainer, options, **changes, data_seed=0, train_sampling_strategy="sequential")
    model, rows = fresh(**WEIGHTS, total_steps=12).train(), RandomRows()
    model(input_ids=rows.tokens[:8], labels=rows.labels[:8]).loss.backward()
    expected = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.lengthy
def test_they_are_no_part_of_what_is_clipped(tmp_path: Path) -> None:
    """L_active has a gradient of 1 for every channel, which would scale down that of the data."""
    clipped = {"max_grad_norm": 0.05}
    found = first_gradients(tmp_path, WEIGHTS, Trainer, {}, **clipped)
    of_the_data = first_gradients(tmp_path, NO_WEIGHTS, Trainer, {}, **clipped)
    assert torch.linalg.vector_norm(torch.stack([g.norm() for g in of_the_data.values()])) == pytest.approx(0.05, rel=1e-3)
    for key, gradient in of_the_data.items():
        if ".lora_" in key:
            assert torch.equal(found[key], gradient), key


@pytest.mark.lengthy
def test_the_logged_loss_has_their_value(tmp_path: Path) -> None:
    for name in ("stock", "pat", "accumulated", "pat-accumulated"):
        kind, options, changes = TRAINERS[name]
        model = fresh(**WEIGHTS)
        trainer = kind(model=model, args=arguments(tmp_path, **changes), train_dataset=RandomRows(), callbacks=[PatCallback()], **options)
        own = float(fresh(**WEIGHTS).own_losses.terms().total.detach())
        first = own_value_of_first_step(trainer)
        assert first == pytest.approx(own, rel=1e-4), name


def own_value_of_first_step(trainer: Trainer) -> float:
    """Return how much the first logged loss lies above the data's."""
    seen: list[float] = []
    shares: list[float] = []

    class Look(TrainerCallback):
        def on_substep_end(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
        ) -> None:
            shares.append(float(model.loss_terms["instruct_loss"]))

        def on_step_end(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
        ) -> None:
            shares.append(float(model.loss_terms["instruct_loss"]))
            control.should_training_stop = True

        def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any) -> None:
            seen.append(logs.get("loss", 0.0))

    trainer.add_callback(Look())
    trainer.train()
    return seen[0] - sum(shares)


def test_a_step_of_ones_own_without_them_is_an_error() -> None:
    tokens = random_tokens()
    model = fresh(**WEIGHTS, total_steps=30).train()
    model(input_ids=tokens).logits.square().mean().backward()
    with pytest.raises(RuntimeError, match=r"without the losses of the mask and the operators: train with PatCallback"):
        model.advance()
    model.add_own_gradients()
    model.advance()
    model(input_ids=tokens, labels=tokens).loss.backward()
    model.advance()
    assert model.sparsifier.mask.step == 2


@pytest.mark.parametrize("choices", [NO_WEIGHTS, {"mask": "magnitude", "hio_rank": 0}, {"count": "centre", "hio_rank": 0}])
def test_where_there_is_nothing_to_add_any_loss_will_do(choices: dict[str, Any]) -> None:
    model = fresh(**choices, total_steps=30).train()
    model(input_ids=random_tokens()).logits.square().mean().backward()
    model.advance()


def test_a_trainer_without_the_callback_is_stopped_at_its_second_step(tmp_path: Path) -> None:
    model = attach(tiny_model("llama"), PatConfig(pruning_ratio=0.25, hio_rank=4))
    with pytest.raises(RuntimeError, match=r"has not moved on: give the trainer PatCallback\(\)"):
        Trainer(model=model, args=arguments(tmp_path, gradient_accumulation_steps=2), train_dataset=RandomRows()).train()
    assert model.sparsifier.mask.step == 0


def test_our_trainer_brings_the_callback(tmp_path: Path) -> None:
    model = attach(tiny_model("llama"), PatConfig(pruning_ratio=0.25, hio_rank=4))
    PatTrainer(model=model, args=arguments(tmp_path), train_dataset=RandomRows()).train()
    assert model.sparsifier.mask.step == 12 and model.merge_and_unload().config.hidden_size == 36


def test_deepspeed_is_refused(tmp_path: Path) -> None:
    model = attach(tiny_model("llama"), PatConfig(pruning_ratio=0.25, hio_rank=4))
    given = arguments(tmp_path)
    given.deepspeed = "config.json"
    with pytest.raises(ValueError, match="DeepSpeed"):
        PatCallback().on_train_begin(given, TrainerState(max_steps=12), TrainerControl(), model=model)


def test_trl_at_its_defaults(tmp_path: Path) -> None:
    """TRL gives the base model a head of its own and takes the loss from log-probabilities."""
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    from tests.kit.tiny_world import tiny_tokenizer

    def gradients(weights: dict[str, float]) -> dict[str, Tensor]:
        keep, settings = KeepGradients(), arguments(tmp_path).to_dict()
        given = {key: settings[key] for key in ("output_dir", "max_steps", "report_to", "use_cpu", "save_strategy", "disable_tqdm")}
        config = trl.SFTConfig(**given, max_grad_norm=0.0, bf16=False, learning_rate=0.0)
        rows = Dataset.from_dict({"input_ids": random_tokens(96).tolist()})
        trainer = trl.SFTTrainer(
            model=fresh(**weights), args=config, train_dataset=rows, processing_class=tiny_tokenizer(), callbacks=[PatCallback(), keep]
        )
        trainer.train()
        return keep.gradients

    found, of_the_data = gradients(WEIGHTS), gradients(NO_WEIGHTS)
    model = fresh(**WEIGHTS, total_steps=12)
    [own] = torch.autograd.grad(model.own_losses.terms().total, [model.sparsifier.mask.proxy])
    torch.testing.assert_close(found["sparsifier.mask.proxy"] - of_the_data["sparsifier.mask.proxy"], own, rtol=1e-4, atol=1e-5)
