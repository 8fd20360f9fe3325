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
        if (shape := known_shape(experiment, model)) is None:
            continue
        told: set[int] = set()
        for row in (row for row, method in experiment.rows_on(model).items() if method.narrows):
            align = experiment.choices_of(model, row).align
            for ratio in experiment.ratios_of(model, row):
                width = target_width(shape.hidden_size, shape.heads, experiment.ratio_for(model, row, ratio), align)
                if width not in told and (what := ruled_out(width)):
                    told.add(width)
                    yield f"models.{model}: width {width} (ratio {ratio:g}): {what}; see pat.align and docs/runtimes.md"
