"""Distillation: the student also learns the distribution that a tuned, unpruned teacher gives every token of the answer.

Owns the teacher and the Kullback-Leibler term. What the term is added to is tuning.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pat.checkpoints import checkpoint
from pat.errors import UserError
from pat.io import artefacts
from pat.models.token_loss import ForetoldTokens, Head, read
from pat.settings.jobs import DistillationSettings

if TYPE_CHECKING:
    from pat.training.request import TuningRequest


class Distillation:
    """A frozen teacher and how much its distribution counts; `terms` holds the loss terms of the last forward pass.

    No part of the student, so that no checkpoint holds it.
    """

    def __init__(self, teacher: PreTrainedModel, settings: DistillationSettings) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.settings = settings
        self.terms: dict[str, Tensor] = {}

    @torch.no_grad()
    def read(self, inputs: Mapping[str, Any], tokens: ForetoldTokens) -> tuple[Head, Tensor]:
        """Return the teacher's head and what it is given for the tokens that are learned, (N, D)."""
        taken = {name: inputs.get(name) for name in ("input_ids", "attention_mask")}
        hidden_BTD, head = read(self.teacher, self.teacher, taken)
        return head, tokens.among(hidden_BTD)


def reason_not_to(request: TuningRequest) -> str | None:
    """Return why a tuning does not distil, None where it does."""
    if request.tuning.distillation is None:
        return "tuning.distillation is not set"
    return "there is no --teacher" if request.teacher is None else None


def check_teacher(request: TuningRequest) -> None:
    """Raise UserError where a tuning has a teacher and does not distil, or the other way round."""
    reason = reason_not_to(request)
    if reason and request.tuning.distillation is not None:
        raise UserError(f"tuning.distillation is set, but {reason}: give the folder of the tuned, unpruned model")
    if reason and request.teacher is not None:
        raise UserError(f"--teacher {request.teacher}: has no effect, because {reason}; set it, or leave the teacher out")


def load_distillation(request: TuningRequest, student: PreTrainedModel) -> Distillation | None:
    """Return a tuning's distillation, its teacher in the student's dtype and on its device, or in shards as the student is; None without.

    Raises UserError where the teacher's folder is broken, or its tokens are not the student's.
    """
    settings, folder = request.tuning.distillation, request.teacher
    if settings is None or folder is None:
        return None
    sharded = request.sharded
    artefacts.check_if_listed(folder)
    teacher = checkpoint.load_model(folder, student.dtype, sharded=sharded)
    sizes = teacher.config.vocab_size, student.config.vocab_size
    if sizes[0] != sizes[1] or checkpoint.load_tokenizer(folder).get_vocab() != request.tokenizer.get_vocab():
        raise UserError(
            f"--teacher {folder}: its vocabulary ({sizes[0]} tokens) is not the base model's ({sizes[1]}): "
            "distillation compares the two token by token; give a teacher tuned from the same base"
        )
    if not sharded:
        teacher.to(student.device)  # type: ignore[arg-type]  # transformers' annotation wraps nn.Module.to wrongly
    return Distillation(teacher, settings)


def summed_divergence(student_NV: Tensor, teacher_NV: Tensor, temperature: float) -> Tensor:
    """Return T² · Σ KL(teacher ‖ student) over tokens, both distributions softened by temperature T.

    T² keeps the gradient's size whatever T (Hinton, Vinyals and Dean, 2015).
    """
    student_NV, teacher_NV = (_log_softened(logits_NV, temperature) for logits_NV in (student_NV, teacher_NV))
    return temperature**2 * nn.functional.kl_div(student_NV, teacher_NV, reduction="sum", log_target=True)


def _log_softened(logits_NV: Tensor, temperature: float) -> Tensor:
    """Return log-probabilities in fp32 at least, as the cross-entropy is computed."""
    wide = torch.promote_types(logits_NV.dtype, torch.float32)
    return nn.functional.log_softmax(logits_NV.to(wide) / temperature, dim=-1)
