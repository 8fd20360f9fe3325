"""The families and sizes of models on this disk, and the windows and answers that they do not read.

Config files and headers alone are read: of a checkpoint those of its weights, of a GGUF file its keys. What rows cannot do to a model is
for models.py to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pat.checkpoints.base_checks import check_base
from pat.checkpoints.stored import stored_tensors
from pat.errors import UserError
from pat.families.known import Family, family_named, family_of_fields, is_passed_over
from pat.io.artefacts import read_record
from pat.io.storage import check_regular
from pat.models.on_paper import PaperModel
from study.experiment.checks.models import Size
from study.experiment.footprint import shape_of
from study.experiment.schema import Experiment
from study.sources.kinds import ModelSource

SIZES = ("hidden_size", "num_attention_heads", "max_position_embeddings")


def check_there(path: Path) -> None:
    """Raise UserError where what an experiment names by a path is not there."""
    if not path.exists():
        raise UserError(f"{path}: no such file; put it there or correct the path, which starts from `root` where it is relative")


def family_and_size(experiment: Experiment, source: ModelSource) -> tuple[Family, Size | None] | None:
    """Return a model's family and, where its files tell it, its size; None of one that is fetched.

    Raises UserError where it cannot be worked on.
    """
    if source.pretrain is not None:
        return family_named(source.pretrain.family), Size.of(source.pretrain)
    if source.gguf is not None:
        from pat.checkpoints.gguf_import import checked_fields

        file = Path(experiment.path(source.gguf))
        check_there(file)
        check_regular(file)
        fields = checked_fields(file)
        return family_of_fields(fields), _size_in(fields)
    if source.path is None:
        return None
    folder = Path(experiment.path(source.path))
    check_base(folder, tokenizer=True)
    fields = read_record(folder / "config.json")
    shapes = {name: tensor.shape for name, tensor in stored_tensors(folder).items() if not is_passed_over(name)}
    return family_of_fields(fields), _size_in(fields, shapes)


def _size_in(fields: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]] | None = None) -> Size | None:
    hidden, heads, context = (fields.get(name) for name in SIZES)
    if not (isinstance(hidden, int) and isinstance(heads, int) and isinstance(context, int)):
        return None
    try:
        paper = PaperModel.of(shape_of(fields))
    except (ValidationError, KeyError):
        paper = None
    counted = paper if paper is None or shapes is None else paper.with_tensors(shapes)
    return Size(hidden, heads, context, counted)


def scoring_problems(experiment: Experiment, model: str, context: int) -> Iterator[str]:
    """Yield windows and answers longer than what a model reads."""
    settings = experiment.evaluation_of(model)
    window, answer, limit = settings.perplexity_context, settings.max_new_tokens, f"the context of models.{model}, {context}"
    if experiment.data.text and window > context:
        yield f"evaluation.perplexity_context: {window} is not allowed: must be at most {limit}"
    if experiment.data.tasks and settings.generate and answer >= context:
        yield f"evaluation.max_new_tokens: {answer} is not allowed: must be less than {limit}"
