"""Distillation: the student also learns the distribution that a tuned, unpruned teacher gives every token of the answer.

Owns the teacher and the Kullback-Leibler term. What the term is added to is tuning.py's.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pat import artefacts, checkpoint
from pat.errors import UserError
from pat.model import IGNORED_LABEL
from pat.settings import DistillationSettings


class Distillation:
    """A frozen teacher and how much its distribution counts; `terms` holds the loss terms of the last forward pass.

    No part of the student, so that no checkpoint holds it.
    """

    def __init__(self, teacher: PreTrainedModel, settings: DistillationSettings) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.settings = settings
        self.terms: dict[str, Tensor] = {}

    @torch.no_grad()
    def teacher_logits(self, ids_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
        """Return the teacher's logits (B, T, V)."""
        logits_BTV: Tensor = self.teacher(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).logits
        return logits_BTV


def load_distillation(
    folder: Path, settings: DistillationSettings, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, sharded: bool = False
) -> Distillation:
    """Return the distillation from the model of a folder, in the student's dtype and on its device, or in shards as the student is.

    Raises UserError where the folder is broken, or its tokens are not the student's.
    """
    artefacts.check_if_listed(folder)
    teacher = checkpoint.load_model(folder, student.dtype, sharded=sharded)
    sizes = teacher.config.vocab_size, student.config.vocab_size
    if sizes[0] != sizes[1] or checkpoint.load_tokenizer(folder).get_vocab() != tokenizer.get_vocab():
        raise UserError(
            f"--teacher {folder}: its vocabulary ({sizes[0]} tokens) is not the base model's ({sizes[1]}): "
            "distillation compares the two token by token; give a teacher tuned from the same base"
        )
    if not sharded:
        teacher.to(student.device)  # type: ignore[arg-type]  # transformers' annotation wraps nn.Module.to wrongly
    return Distillation(teacher, settings)


def kullback_leibler(
    student_BTV: Tensor, teacher_BTV: Tensor, labels_BT: Tensor, temperature: float, items: Tensor | int | None = None
) -> Tensor:
    """Return T² · Σ KL(teacher ‖ student) / items over the tokens that are learned, both distributions softened by temperature T.

    Logits at position t foretell token t + 1, so labels are shifted; ignored labels do not count. `items` is what the cross-entropy is
    divided by: the learned tokens of the whole accumulated batch, or, by default, of this one. T² keeps the gradient's size whatever T
    (Hinton, Vinyals and Dean, 2015).
    """
    learned_BT = labels_BT[:, 1:] != IGNORED_LABEL
    student_NV, teacher_NV = (_log_softened(logits_BTV[:, :-1][learned_BT], temperature) for logits_BTV in (student_BTV, teacher_BTV))
    summed = nn.functional.kl_div(student_NV, teacher_NV, reduction="sum", log_target=True)
    return temperature**2 * summed / (learned_BT.sum() if items is None else items)


def _log_softened(logits_NV: Tensor, temperature: float) -> Tensor:
    """Return log-probabilities in fp32 at least, as the cross-entropy is computed."""
    wide = torch.promote_types(logits_NV.dtype, torch.float32)
    return nn.functional.log_softmax(logits_NV.to(wide) / temperature, dim=-1)
