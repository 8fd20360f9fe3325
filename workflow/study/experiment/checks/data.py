"""The data that an experiment needs: what models learn from and are scored on, and what figures are drawn from."""

from __future__ import annotations

from collections.abc import Iterator

from pat.settings.mistakes import nearest, shown
from study.experiment.checks.settings import taken
from study.experiment.schema import Experiment
from study.sources.kinds import WORLD_TASKS, WORLD_TEXTS, World


def data_problems(experiment: Experiment) -> Iterator[str]:
    """Check that the embedded world has what is asked of it, and that there is a corpus where one is read."""
    data = experiment.data
    for section, sources, known in (("tasks", data.tasks, WORLD_TASKS), ("text", data.text, WORLD_TEXTS)):
        for name, source in sources.items():
            if isinstance(source, World) and name not in known:
                yield f"data.{section}.{name}: the embedded world has nothing of this name{nearest(name, known)}"
    pretrained = [name for name, source in experiment.models.items() if source.pretrain is not None]
    if data.pretrain is None and pretrained:
        yield f"data.pretrain: is required, because models.{pretrained[0]} is pretrained"
    if data.pretrain is None and any(part.of == "pretrain" for part in data.calibration_parts):
        how = "is" if data.calibration == "pretrain" else "mixes in"
        yield f"data.pretrain: is required, because data.calibration {how} 'pretrain'"


def figure_problems(experiment: Experiment) -> Iterator[str]:
    """Check that there is data for every figure that the file names."""
    for name in experiment.figures or ():
        if what := taken(experiment.lacks, name):
            yield f"figures: {shown(name)} needs {what}, which the experiment does not have"
