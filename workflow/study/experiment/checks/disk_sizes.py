"""The sizes of models on this disk, and the ranks, ratios, windows and answers of an experiment that they are too small for.

Config files and headers alone are read: of a checkpoint those of its weights, of a GGUF file its keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pat.checkpoints.base_checks import check_base
from pat.checkpoints.stored import stored_tensors
from pat.families.known import is_passed_over
from pat.io.artefacts import read_record
from pat.io.storage import check_regular
from pat.models.on_paper import PaperModel
from study.experiment.checks.sizes import cut_problems, width_problems
from study.experiment.footprint import shape_of
from study.experiment.schema import Experiment
from study.sources.kinds import ModelSource

SIZES = ("hidden_size", "num_attention_heads", "max_position_embeddings")


@dataclass(frozen=True)
class Size:
    """What settings have to fit: channels of the stream, heads, the most tokens that are read, and of a dense decoder the model on paper.

    The ratios of a base that is pretrained here are checked with the file (sizes.py).
    """

    hidden: int
    heads: int
    context: int
    paper: PaperModel | None = None


def size_of(experiment: Experiment, source: ModelSource) -> Size | None:
    """Return a model's sizes; None where they are not known before it is fetched. Raises UserError where it cannot be worked on."""
    if source.pretrain is not None:
        return Size(source.pretrain.hidden_size, source.pretrain.heads, source.pretrain.context_length)
    if source.gguf is not None:
        from pat.checkpoints.gguf_import import checked_fields

        file = Path(experiment.path(source.gguf))
        check_regular(file)
        return _size_in(checked_fields(file))
    if source.path is None:
        return None
    folder = Path(experiment.path(source.path))
    check_base(folder, tokenizer=True)
    shapes = {name: tensor.shape for name, tensor in stored_tensors(folder).items() if not is_passed_over(name)}
    return _size_in(read_record(folder / "config.json"), shapes)


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


def size_problems_of(experiment: Experiment, model: str, size: Size) -> Iterator[str]:
    """Yield what a model is too small for."""
    if experiment.models[model].pretrain is None:
        yield from width_problems(experiment, model, size.hidden, size.heads)
    if size.paper is not None:
        yield from cut_problems(experiment, model, size.paper)
    yield from _scoring_problems(experiment, model, size.context)


def _scoring_problems(experiment: Experiment, model: str, context: int) -> Iterator[str]:
    """Yield windows and answers longer than what the model reads."""
    settings, data = experiment.evaluation_of(model), experiment.data
    if data.text and settings.perplexity_context > context:
        yield (
            f"evaluation.perplexity_context: {settings.perplexity_context} is not allowed: must be at most the context of models.{model}, "
            f"{context}"
        )
    if data.tasks and settings.generate and settings.max_new_tokens >= context:
        yield (
            f"evaluation.max_new_tokens: {settings.max_new_tokens} is not allowed: must be less than the context of models.{model}, "
            f"{context}"
        )
