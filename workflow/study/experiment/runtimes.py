"""Which formats of other runtimes the widths of an experiment rule out, reported before it is run."""

from __future__ import annotations

from collections.abc import Iterator

from pat.models.width import target_width
from pat.settings.formats import ruled_out
from study.experiment.schema import Experiment
from study.experiment.shortfall import known_shape


def formats_ruled_out(experiment: Experiment) -> Iterator[str]:
    """Yield a sentence for each width that a model of known shape is narrowed to and that some format does not take."""
    for model in experiment.models:
        shape = known_shape(experiment, model)
        told: set[int] = set()
        for row in experiment.methods if shape else ():
            assert shape is not None
            align = experiment.tune_job(model, row).pat.align
            for ratio in experiment.ratios_of(model, row) if experiment.method(row).narrows else ():
                width = target_width(shape.hidden_size, shape.heads, experiment.ratio_for(model, row, ratio), align)
                if width not in told and (what := ruled_out(width)):
                    told.add(width)
                    yield f"models.{model}: width {width} (ratio {ratio:g}): {what}; see pat.align and docs/runtimes.md"
