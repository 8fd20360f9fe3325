"""What rows do to models, against what the models' families and sizes allow: of models that the file describes, or the disk (disk.py)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from pydantic import ValidationError

from pat.errors import SettingError
from pat.families.known import Family, family_named
from pat.models.budget import Fit, of_budget
from pat.models.on_paper import PaperModel
from pat.models.width import target_width
from pat.models.writer_streams import fewest_tokens
from pat.pruners import PRUNERS
from pat.settings.budget import Budget
from pat.settings.jobs import PretrainSettings
from pat.training.fit import rank_problems
from study.experiment.checks.settings import taken
from study.experiment.schema import Experiment


@dataclass(frozen=True)
class Size:
    """What settings have to fit: channels of the stream, heads, the most tokens that are read, and a dense decoder on paper."""

    hidden: int
    heads: int
    context: int
    paper: PaperModel | None = None

    @classmethod
    def of(cls, made: PretrainSettings) -> Size:
        """Return the size of a model that is pretrained."""
        return cls(made.hidden_size, made.heads, made.context_length, PaperModel.of(made))


def model_problems(experiment: Experiment) -> Iterator[str]:
    """Check the rows of the models that are pretrained, whose family and size the file gives."""
    for model, source in experiment.models.items():
        if source.pretrain is not None:
            yield from problems_of(experiment, model, family_named(source.pretrain.family), Size.of(source.pretrain))


def problems_of(experiment: Experiment, model: str, family: Family, size: Size | None) -> Iterator[str]:
    """Yield what a model's family, and its size where that is known, does not allow; what is wrong with a width once for all rows."""
    told: set[str] = set()
    for row, method in experiment.rows_on(model).items():
        where = f"methods.{row}, models.{model}"
        for what, reason in _reasons_not_to(experiment, model, row, family):
            if reason is not None:
                yield f"{where}: {what} is not possible for a model of the family {family.model_type!r}: {reason}"
        if size is None:
            continue
        if method.tuner is not None and (job := taken(experiment.tune_job, model, row)) is not None:
            yield from (f"{where}: {problem}" for problem in rank_problems(size.hidden, method.tuner, job))
        yield from (f"{where}: {problem}" for problem in _text_problems(experiment, model, row, size.context))
        widths = [*_width_problems(experiment, model, row, size)] if method.narrows and family.width_obstacle is None else []
        yield from (f"{where}: {problem}" for problem in widths if problem not in told)
        told.update(widths)
        if size.paper is not None:
            yield from (f"{where}: {problem}" for problem in _cut_problems(experiment, model, row, size.paper))


def _reasons_not_to(experiment: Experiment, model: str, row: str, family: Family) -> Iterator[tuple[str, str | None]]:
    """Yield what a row does to a model, with why its family does not allow it, None where it does."""
    method, basis = experiment.method(row), taken(experiment.basis_of, model, row)
    if method.pruner is not None:
        yield f"the pruner {method.pruner!r}", PRUNERS[method.pruner].reason_not_to(family)
        settings = taken(experiment.prune_settings, model, row)
        if settings is not None and settings.writers == "refitted":
            yield "prune.writers: refitted", family.refit_obstacle
    if method.masked:
        yield "pruning while tuning", family.width_obstacle
        if family.width_obstacle is None and taken(experiment.readers_of, model, row) not in (None, "plain"):
            yield "pat.readers: least-squares", family.readers_obstacle
    if method.tunes and (job := taken(experiment.tune_job, model, row)) is not None and job.tuning.recomputes_feed_forward:
        yield "tuning.gradient_checkpointing: feed-forward", family.recomputation_obstacle
    if family.width_obstacle is None and basis not in (None, "native"):
        yield "pat.basis", family.rotation_obstacle


def _text_problems(experiment: Experiment, model: str, row: str, context: int) -> Iterator[str]:
    """Yield that writers are to be refitted to less text than can be fitted to and judged by."""
    settings, least = taken(experiment.prune_settings, model, row), fewest_tokens(context)
    if settings is not None and (tokens := settings.writer_tokens) is not None and tokens < least:
        yield f"prune.writer_tokens: {tokens} is not allowed: must be at least {least}, one row to fit to and one to judge by"


def _width_problems(experiment: Experiment, model: str, row: str, size: Size) -> Iterator[str]:
    """Yield ratios at which a row has no width to narrow the model to, or the same as at another."""
    if (choices := taken(experiment.choices_of, model, row)) is not None:
        width_at = partial(target_width, size.hidden, size.heads, align=choices.align)
        same = f"give width {{size}} of {size.hidden}: must differ; keep one, or lower pat.align"
        yield from _size_problems(width_at, experiment.plain_ratios_of(row), same, "ratio {ratio:g} is not allowed: {error}")


def _cut_problems(experiment: Experiment, model: str, row: str, paper: PaperModel) -> Iterator[str]:
    """Yield ratios that a row's pruner cannot bring a model to, or brings to the same sizes as another."""
    pruner, settings = PRUNERS.get(experiment.method(row).pruner or ""), taken(experiment.prune_settings, model, row)
    if pruner is None or (size := pruner.size) is None or settings is None or pruner.reason_not_to(paper.family):
        return
    choices = taken(experiment.choices_of, model, row)
    align = choices.align if choices is not None else "auto"
    same = pruner.same.format(layers=paper.layers, size="{size}")
    yield from _size_problems(lambda ratio: size(paper, ratio, settings, align), experiment.plain_ratios_of(row), same)


def _size_problems(size_at: Callable[[float], Hashable], ratios: Sequence[float], same: str, none: str = "{error}") -> Iterator[str]:
    """Check that every ratio leads to a size, and no two to the same; in words, `same` says which, and `none` that there is none."""
    by_size: dict[Hashable, float] = {}
    for ratio in ratios:
        try:
            size = size_at(ratio)
        except ValueError as error:
            yield none.format(ratio=ratio, error=error)
            continue
        if size is not None and (first := by_size.setdefault(size, ratio)) != ratio:
            yield f"the ratios {first:g} and {ratio:g} both {same.format(size=size)}"


def budget_problems(experiment: Experiment) -> Iterator[str]:
    """Check that every budget can be met by every row that has it, stands where no ratio does, and comes to a size of its own."""
    for model in experiment.models:
        for row, method in experiment.rows_on(model).items():
            asked_for, levels, fits = experiment.asked_of(row), dict[str, str](), dict[Fit, str]()
            for asked in asked_for if method.prunes and any(isinstance(each, Budget) for each in asked_for) else ():
                try:
                    name, level = str(asked), f"{experiment.level(model, asked):g}"
                    if isinstance(asked, Budget):
                        with of_budget(asked):
                            fit = experiment.fit(model, row, asked)
                        if (first := fits.setdefault(fit, name)) != name:
                            yield f"methods.{row}, models.{model}: ratios: {first} and {name} both come to {fit.size}; keep one"
                except ValidationError:
                    continue  # of the row's settings, told by override_problems
                except SettingError as error:
                    yield f"methods.{row}, models.{model}: ratios: {error}"
                    continue
                if (first := levels.setdefault(level, name)) != name:
                    yield f"methods.{row}, models.{model}: ratios: {first} and {name} both come to {level} of its parameters; keep one"
