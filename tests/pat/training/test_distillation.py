"""Distillation: the term against its formula, no teacher's trace where it does not count, and the same whatever the accumulation."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pat.checkpoints import checkpoint
from pat.errors import UserError
from pat.models.token_loss import IGNORED_LABEL, learned_tokens
from pat.settings.jobs import TuneJob
from pat.training.distillation import summed_divergence
from pat.training.tuning import tune
from tests.kit.tiny_world import tiny_tokenizer, write_world
from tests.kit.tuning_requests import asked
from tests.kit.tunings import adapter_bytes, job, run_until

pytestmark = pytest.mark.lengthy

LABELS_BT = torch.tensor([[IGNORED_LABEL, 1, IGNORED_LABEL, 3], [IGNORED_LABEL, IGNORED_LABEL, 2, 0]])


def logits(seed: int, vocabulary: int = 5) -> Tensor:
    return torch.randn(*LABELS_BT.shape, vocabulary, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def kullback_leibler(student_BTV: Tensor, teacher_BTV: Tensor, labels_BT: Tensor, temperature: float) -> Tensor:
    """The term of a batch: a mean over its learned tokens."""
    tokens = learned_tokens(labels_BT)
    return summed_divergence(tokens.among(student_BTV), tokens.among(teacher_BTV), temperature) / len(tokens.targets_N)


def distilled(weight: float = 0.5, temperature: float = 1.0, **changes: Any) -> TuneJob:
    return job(distillation={"weight": weight, "temperature": temperature}, **changes)


def write_pair(folder: Path) -> None:
    """Write a world and a teacher whose distribution is far from the base model's."""
    base, _ = write_world(folder)
    teacher = shutil.copytree(base, folder / "teacher")
    weights = load_file(base / "model.safetensors")
    weights["lm_head.weight"] = 40 * weights["lm_head.weight"]
    save_file(weights, teacher / "model.safetensors", metadata={"format": "pt"})


def run(folder: Path, name: str, settings: TuneJob, tuner: str = "pat", teacher: str | None = "teacher") -> dict[str, Any]:
    ratio = 0.25 if tuner.startswith("pat") else 0.0
    paths = folder / f"run-{name}", folder / name, folder / teacher if teacher else None
    return tune(asked(folder / "base", folder / "instruct.jsonl", tuner, ratio, 7, settings, *paths))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_term_and_its_gradient_are_those_of_the_formula(temperature: float) -> None:
    """d/dz of T²·KL(p‖softmax(z/T)) is T·(softmax(z/T) - p), at the positions before the learned tokens alone."""
    student_BTV, teacher_BTV = logits(1).requires_grad_(), logits(2)
    term = kullback_leibler(student_BTV, teacher_BTV, LABELS_BT, temperature)
    term.backward()
    expected, gradient_BTV = 0.0, torch.zeros_like(teacher_BTV)
    for row, position in [(0, 0), (0, 2), (1, 1), (1, 2)]:
        q_V = torch.softmax(student_BTV.detach()[row, position] / temperature, dim=0)
        p_V = torch.softmax(teacher_BTV[row, position] / temperature, dim=0)
        expected += float((p_V * (p_V / q_V).log()).sum()) * temperature**2 / 4
        gradient_BTV[row, position] = temperature * (q_V - p_V) / 4
    assert term.item() == pytest.approx(expected, rel=1e-12)
    assert student_BTV.grad is not None
    torch.testing.assert_close(student_BTV.grad, gradient_BTV, rtol=1e-10, atol=1e-14)


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it() -> None:
    assert float(kullback_leibler(logits(1), logits(1), LABELS_BT, 2.0)) == 0.0


def test_logits_of_low_precision_are_compared_in_a_higher_one() -> None:
    assert kullback_leibler(logits(1).bfloat16(), logits(2).bfloat16(), LABELS_BT, 1.0).dtype == torch.float32


@pytest.mark.parametrize("tuner", ["pat", "lora"])
def test_weight_0_is_plain_training(tuner: str, tmp_path: Path) -> None:
    write_pair(tmp_path)
    plain = run(tmp_path, "plain", job(), tuner, teacher=None)
    weightless = run(tmp_path, "weightless", distilled(0.0), tuner)
    assert adapter_bytes(tmp_path / "plain") == adapter_bytes(tmp_path / "weightless")
    for mine, other in zip(plain["history"], weightless["history"], strict=True):
        assert other["distillation_loss"] > 0 and "distillation_loss" not in mine
        assert other["instruct_loss"] == pytest.approx(mine["instruct_loss"], rel=1e-6) and other["loss"] == mine["loss"]


@pytest.mark.parametrize("tuner", ["pat", "lora"])
def test_the_loss_is_the_weighted_sum_of_what_is_logged(tuner: str, tmp_path: Path) -> None:
    write_pair(tmp_path)
    settings = distilled(0.25, 2.0).model_dump()
    settings["pat"] |= {"identity_weight": 0.0, "active_weight": 0.0}
    record = run(tmp_path, "adapter", TuneJob.model_validate(settings), tuner)
    for entry in record["history"]:
        assert entry["loss"] == pytest.approx(0.75 * entry["instruct_loss"] + 0.25 * entry["distillation_loss"], rel=1e-4)
    assert record["distillation_loss"] == record["history"][-1]["distillation_loss"]
    assert record["provenance"]["settings"]["tuning"]["distillation"] == {"weight": 0.25, "temperature": 2.0}


def test_a_student_of_the_base_alone_stays_nearer_to_it(tmp_path: Path) -> None:
    write_pair(tmp_path)
    settings: dict[str, Any] = {"lora": {"rank": 2, "alpha": 4.0, "dropout": 0.0}}
    taught = run(tmp_path, "taught", distilled(1.0, **settings), "lora", teacher="base")
    untaught = run(tmp_path, "untaught", distilled(0.0, **settings), "lora", teacher="base")
    assert taught["distillation_loss"] < 0.1 * untaught["distillation_loss"]
    assert untaught["train_loss"] < taught["train_loss"]


@pytest.mark.parametrize("tuner", ["pat", "lora"])
def test_accumulated_batches_are_one_large_batch(tuner: str, tmp_path: Path) -> None:
    """Answers differ in length, so a mean of the micro-batches' means would be another number."""
    write_pair(tmp_path)
    still: dict[str, Any] = {"lora": {"rank": 2, "alpha": 4.0, "dropout": 0.0}, "max_steps": 6, "log_steps": 1}
    whole = run(tmp_path, "whole", distilled(micro_batch_size=8, **still), tuner)
    parts = run(tmp_path, "parts", distilled(micro_batch_size=2, **still), tuner)
    for one, other in zip(whole["history"], parts["history"], strict=True):
        for term in ("loss", "instruct_loss", "distillation_loss"):
            assert one[term] == pytest.approx(other[term], rel=1e-4), term


def test_half_and_resume_equals_straight_and_no_checkpoint_holds_the_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pair(tmp_path)
    run(tmp_path, "plain", job(), teacher=None)
    straight = run(tmp_path, "straight", distilled())
    assert adapter_bytes(tmp_path / "plain").keys() == adapter_bytes(tmp_path / "straight").keys()
    assert adapter_bytes(tmp_path / "plain") != adapter_bytes(tmp_path / "straight")
    run_until(16, tmp_path, "halves", monkeypatch, settings=distilled(), teacher=tmp_path / "teacher")
    saved = sum(len(content) for content in adapter_bytes(tmp_path / "run-halves" / "checkpoint-16").values())
    assert saved < 1.1 * sum(len(content) for content in adapter_bytes(tmp_path / "plain").values())
    resumed = run(tmp_path, "halves", distilled())
    assert resumed["history"] == straight["history"]
    assert adapter_bytes(tmp_path / "straight") == adapter_bytes(tmp_path / "halves")


def test_bf16_distils_too(tmp_path: Path) -> None:
    write_pair(tmp_path)
    record = run(tmp_path, "adapter", distilled(precision="bf16"))
    assert record["history"][-1]["instruct_loss"] < record["history"][0]["instruct_loss"]


def test_a_teacher_is_asked_for_where_it_is_needed_and_only_there(tmp_path: Path) -> None:
    write_pair(tmp_path)
    with pytest.raises(UserError, match="there is no --teacher"):
        run(tmp_path, "adapter", distilled(), teacher=None)
    with pytest.raises(UserError, match=r"--teacher .*teacher: has no effect"):
        run(tmp_path, "adapter", job())
    with pytest.raises(UserError, match="nowhere: no such folder"):
        run(tmp_path, "adapter", distilled(), teacher="nowhere")


def test_a_teacher_of_other_tokens_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["twelfth"])
    tokenizer.save_pretrained(tmp_path / "teacher")
    with pytest.raises(UserError, match="token 'twelfth' has the id 420, beyond the embedding's 420 rows"):
        run(tmp_path, "adapter", distilled())
    teacher: Any = checkpoint.load_model(tmp_path / "teacher")
    teacher.resize_token_embeddings(421)
    teacher.save_pretrained(tmp_path / "teacher")
    with pytest.raises(UserError, match=r"its vocabulary .* is not the base model's"):
        run(tmp_path, "adapter", distilled())
