"""Conversations to tune on, and models that have no form for them: told before a base is pretrained or fetched for hours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pat.data.files import records
from pat.data.rows import row_of
from pat.errors import UserError
from pat.io.artefacts import read_record
from study.experiment.schema import Experiment
from study.sources.kinds import JsonRows, ModelSource, RowFile
from study.sources.rows import columns_of

TEMPLATE_NAME, TOKENIZER_CONFIG, FIELD = "chat_template.jinja", "tokenizer_config.json", "chat_template"
GGUF_KEY = "tokenizer.chat_template"


def chat_problems(experiment: Experiment) -> Iterator[str]:
    """Yield models without a chat template where the instruction set, a local file, begins with a conversation."""
    if not any(method.tunes for method in experiment.known_rows.values()) or not _begins_with_a_conversation(experiment):
        return
    for model, source in experiment.models.items():
        if why := _without_template(experiment, source):
            yield (
                f"models.{model}: {why}, and data.instruct holds messages: give prompts with completions, or a base whose tokenizer has "
                "a chat template"
            )


def _begins_with_a_conversation(experiment: Experiment) -> bool:
    source = experiment.data.instruct
    if not isinstance(source, JsonRows | RowFile):
        return False
    try:
        first = next(records(Path(experiment.path(source.path))), None)
        return first is not None and "messages" in row_of(first, columns_of(source))
    except UserError:  # contents.py tells it
        return False


def _without_template(experiment: Experiment, source: ModelSource) -> str | None:
    """Return why a model has no chat template; None where it has one, or where that is not known before it is fetched."""
    if source.pretrain is not None:
        return "is pretrained here, with a tokenizer that has no chat template"
    if source.gguf is not None:
        from pat.checkpoints.gguf_import import read_header

        return None if GGUF_KEY in read_header(Path(experiment.path(source.gguf))).fields else "has a GGUF file without a chat template"
    if source.path is None:
        return None
    folder = Path(experiment.path(source.path))
    config = folder / TOKENIZER_CONFIG
    has = (folder / TEMPLATE_NAME).is_file() or (config.is_file() and read_record(config).get(FIELD))
    return None if has else "has a tokenizer without a chat template"
