"""An experiment: its file's schema, the grid of cells it spans and the settings of each cell.

Stands between the YAML file and the rules: a rule asks here and never reads the file. Knows nothing of tensors or of Snakemake.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar

from pydantic import Field, PrivateAttr

from pat.io import plugins
from pat.models.budget import Fit
from pat.models.on_paper import PaperModel
from pat.pruners import PRUNERS
from pat.settings.budget import Budget
from pat.settings.config import Basis, PatChoices, Readers
from pat.settings.fields import PartOf, Settings
from pat.settings.jobs import EvaluationSettings, PruneSettings, RefitSettings, SearchSettings, TuneJob, TuningSettings
from study.experiment.benchmark_settings import BenchmarkSettings
from study.experiment.figures import FIGURES, Figure, Need
from study.experiment.levels import fit_at, level_of, sizes_of
from study.experiment.methods import CHECKPOINT, METHODS, Method, method_name
from study.experiment.overrides import merged_job, overridden
from study.experiment.parts import in_two
from study.experiment.row import Ratios, Row, Seeds
from study.experiment.selection import Selection
from study.experiment.table_settings import TableSettings
from study.sources.kinds import Data, ModelSource
from study.sources.resources import Resources

TUNED_ROW = "lora"
"""The row whose merged model FT→P prunes, and distillation learns from."""

P = ParamSpec("P")
R = TypeVar("R")


def checked_once(join: Callable[Concatenate[Experiment, P], R]) -> Callable[Concatenate[Experiment, P], R]:
    """Make an experiment keep what it has joined and checked: a plan asks for the same settings a hundred times."""

    @wraps(join)
    def kept(experiment: Experiment, /, *args: P.args, **named: P.kwargs) -> R:
        key = (join.__name__, *args, *named.values())
        if key not in experiment._joined:
            experiment._joined[key] = join(experiment, *args, **named)
        found: R = experiment._joined[key]
        return found

    return kept


@dataclass(frozen=True)
class Cell:
    """One point of the grid; `path` is where its files lie below the experiment's results.

    `ratio` is the level that it stands at in tables and paths; what its commands are asked for is `Experiment.ratio_for`.
    """

    model: str
    row: str
    method: Method
    ratio: float
    seed: int

    @property
    def path(self) -> Path:
        """Return model/row/ratio/seed, the ratio as short as it can be written."""
        return Path(self.model, self.row, f"{self.ratio:g}", f"seed{self.seed}")


class Experiment(Settings):
    """A checked experiment file."""

    name: str = Field(description="the experiment's name and its folder below `results/`")
    root: Annotated[str, Field(min_length=1)] = Field(default=".", description="folder that all relative paths of the file start from")
    plugins: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(), strict=False, description="modules, or files ending in .py, that register families or pruners of your own"
    )
    seeds: Seeds = Field(description="every row is run with each, or with its own of them")
    ratios: Ratios = Field(default=(), description="shares to prune, for the methods that prune; or budgets")
    models: Annotated[dict[str, ModelSource], Field(min_length=1)] = Field(description="name → base model")
    methods: Annotated[dict[str, Row | None], Field(min_length=1)] = Field(
        description="row → what is different for it; nothing behind a method's name: nothing"
    )
    data: Data = Field(description="what is tuned and evaluated on")
    tuning: Annotated[dict[str, object], PartOf(TuningSettings)] = Field(description="the recipe of every row")
    pat: Annotated[dict[str, object], PartOf(PatChoices)] = Field(default={}, description="the mask and its operators")
    prune: Annotated[dict[str, object], PartOf(PruneSettings)] = Field(default={}, description="how pruners come to their sizes")
    refit: RefitSettings = Field(default=RefitSettings(), description="how readers are refitted")
    evaluation: EvaluationSettings = Field(description="how checkpoints are scored; may be `{}`")
    tables: TableSettings = Field(default=TableSettings(), description="tables beside those that every experiment has")
    benchmark: BenchmarkSettings | None = Field(default=None, description="model shapes to measure for time and memory")
    figures: Annotated[tuple[Figure, ...], Field(strict=False)] | None = Field(
        default=None, description="which figures are drawn; left out: all there is data for but `trainable_perplexity`"
    )
    only: Selection | None = Field(
        default=None, description="the part of the grid that a run makes; mostly given by `--config`. Tables and figures are of the whole"
    )
    resources: Resources = Field(default=Resources(), description="what the scheduler sets aside; never changes a number")
    _joined: dict[tuple[object, ...], Any] = PrivateAttr(default_factory=dict)

    def row(self, name: str) -> Row:
        """Return a row's overrides; `name:` alone in the file means none."""
        return self.methods[name] or Row()

    def method_name(self, row: str) -> str:
        """Return what a row names as its method."""
        return str(method_name(row, dict(self.row(row))))

    def method(self, row: str) -> Method:
        """Return the registry's entry behind a row."""
        return METHODS[self.method_name(row)]

    @property
    def known_rows(self) -> dict[str, Method]:
        """The rows whose method is in the registry, as those of a checked experiment all are."""
        return {row: self.method(row) for row in self.methods if self.method_name(row) in METHODS}

    def label(self, row: str) -> str:
        """Return the row's name in the tables: its own, else its method's, a checkpoint's the row's; it says where it is distilled."""
        method = self.method(row)
        label = self.row(row).label or (row if method.name == CHECKPOINT else method.label)
        return f"{label}, distilled" if self.distils(row) else label

    def distils(self, row: str) -> bool:
        """Return whether a row's tuning learns from a teacher too: not the teacher itself, nor a row that only prunes it."""
        recipe = {**self.tuning, **self.row(row).tuning}
        return row != TUNED_ROW and self.method(row).tunes and recipe.get("distillation") is not None

    def search_of(self, model: str, row: str) -> SearchSettings | None:
        """Return how a row's learning rate is searched; None where the file gives it, or the row tunes nothing of its own."""
        return None if not self.method(row).tunes else self.tune_job(model, row).tuning.search

    def basis_of(self, model: str, row: str) -> Basis:
        """Return the basis that a row's base is put into before tuning; native where its tuner has no mask."""
        return self.tune_job(model, row).pat.basis if self.method(row).masked else "native"

    def readers_of(self, model: str, row: str) -> Readers:
        """Return how the readers of a row's base are put before tuning; plain where its tuner has no mask."""
        return self.tune_job(model, row).pat.readers if self.method(row).masked else "plain"

    def asked_of(self, row: str) -> tuple[float | Budget, ...]:
        """Return the ratios and budgets that a row runs at: the experiment's or its own of these, 0 alone where it does not prune."""
        own = self.row(row)
        if own.checkpoint is not None:
            return (own.checkpoint.ratio,)
        return own.ratios or self.ratios if self.method(row).prunes else (0.0,)

    def plain_ratios_of(self, row: str) -> tuple[float, ...]:
        """Return the ratios among what a row runs at, without the budgets."""
        return tuple(asked for asked in self.asked_of(row) if not isinstance(asked, Budget))

    def ratios_of(self, model: str, row: str) -> tuple[float, ...]:
        """Return the levels that a row runs at on a model: ratios, and of budgets the share of the model's parameters that goes."""
        return tuple(self.level(model, asked) for asked in self.asked_of(row))

    @checked_once
    def sizes_of(self, model: str) -> tuple[PaperModel, float]:
        """Return a model's sizes and the bytes of a parameter. Raises SettingError where they are not known."""
        return sizes_of(self.models[model], f"models.{model}", Path(self.root))

    @checked_once
    def level(self, model: str, asked: float | Budget) -> float:
        """Return the ratio that a ratio or a budget stands at in the tables of a model. Raises SettingError where it is not known."""
        return level_of(*self.sizes_of(model), asked) if isinstance(asked, Budget) else asked

    @checked_once
    def fit(self, model: str, row: str, budget: Budget) -> Fit:
        """Return what a budget comes to in a row's sizes on a model. Raises SettingError where that cannot be."""
        (sizes, _), pruner = self.sizes_of(model), self.method(row).pruner
        broken = sizes.tied and self.breaks_the_tie(model, row)
        settings = PruneSettings(tie="break" if broken else "keep") if pruner is None else self.prune_settings(model, row)
        return fit_at(sizes, self.level(model, budget), pruner, settings, self.tune_job(model, row).pat.align)

    def ratio_for(self, model: str, row: str, level: float) -> float:
        """Return the ratio that a row's commands are asked for at a level: that itself, or what a budget comes to in the row's sizes."""
        budget = self.budget_at(model, row, level)
        return level if budget is None else self.fit(model, row, budget).ratio

    def breaks_the_tie(self, model: str, row: str) -> bool:
        """Return whether a row takes the head off the embedding, where the two are one matrix."""
        method = self.method(row)
        if method.masked:
            pat = self.tune_job(model, row).pat
            return pat.basis != "native" and pat.tie == "break"
        return method.pruner is not None and self.prune_settings(model, row).tie == "break"

    def budget_at(self, model: str, row: str, level: float) -> Budget | None:
        """Return the budget that stands at a level; None where it is a ratio."""
        budgets = (asked for asked in self.asked_of(row) if isinstance(asked, Budget))
        return next((budget for budget in budgets if f"{self.level(model, budget):g}" == f"{level:g}"), None)

    def seeds_of(self, row: str) -> tuple[int, ...]:
        """Return the seeds that a row runs with: the experiment's, or its own of these; one alone where nothing is drawn."""
        return self.row(row).seeds or (self.seeds if self.method(row).order != "given" else self.seeds[:1])

    def rows_on(self, model: str) -> dict[str, Method]:
        """Return the rows that are run on a model, in the order of the file: all but those of another model's checkpoint."""
        made_of = {row: given.of for row in self.methods if (given := self.row(row).checkpoint) is not None}
        return {row: method for row, method in self.known_rows.items() if made_of.get(row) in (None, model)}

    def lacks(self, figure: str) -> str | None:
        """Return what a figure is drawn from, where the experiment has none of it; None where it has."""
        scoring = "evaluation.generate or evaluation.log_likelihood"
        sources: dict[Need, tuple[object, str]] = {
            "tasks": (any(map(self.scores_tasks, self.models)), scoring if self.data.tasks else "a task in data.tasks"),
            "texts": (self.data.text, "a text in data.text"),
            "masks": (any(method.masked for method in self.known_rows.values()), "a method that trains a mask"),
            "inference": (self.benchmark is not None and self.benchmark.inference, "benchmark.inference"),
        }
        need = FIGURES[figure].needs
        return None if need is None or sources[need][0] else sources[need][1]

    def drawn(self) -> list[str]:
        """Return the figures that it asks for; where it does not say, all that there is data for and that need no asking."""
        wanted: Sequence[str] = [figure for figure, kind in FIGURES.items() if kind.unasked] if self.figures is None else self.figures
        return [figure for figure in wanted if self.lacks(figure) is None]

    def cells(self) -> list[Cell]:
        """Return the whole grid, in the order of the file."""
        return [
            Cell(model, row, method, ratio, seed)
            for model in self.models
            for row, method in self.rows_on(model).items()
            for ratio, seed in product(self.ratios_of(model, row), self.seeds_of(row))
        ]

    def chosen_cells(self) -> list[Cell]:
        """Return the cells that `only` asks for, all where it asks for nothing."""
        asked = self.only or Selection()
        named = (asked.models, asked.rows, asked.seeds)
        return [
            cell
            for cell in self.cells()
            if all(names is None or own in names for names, own in zip(named, (cell.model, cell.row, cell.seed), strict=True))
            and (asked.ratios is None or f"{cell.ratio:g}" in {f"{self.level(cell.model, each):g}" for each in asked.ratios})
        ]

    @checked_once
    def tune_job(self, model: str, row: str) -> TuneJob:
        """Return the settings of one tuning: the experiment's recipe, then the model's differences, then the row's."""
        layers = [self.model_dump(include={"tuning", "pat"}), self.models[model].model_dump(), self.row(row).model_dump()]
        job = merged_job(layers)
        if not self.distils(row):
            job["tuning"].pop("distillation", None)
        return TuneJob.model_validate(job)

    @checked_once
    def parts_of(self, model: str, row: str) -> tuple[TuneJob, TuneJob]:
        """Return the settings of a tuning that its row's pruning cuts in two: before the cut, and after it."""
        job = self.tune_job(model, row)
        before, after = (job.model_copy(update={"tuning": part}) for part in in_two(job))
        return before, after

    @checked_once
    def choices_of(self, model: str, row: str) -> PatChoices:
        """Return the mask settings of one tuning, or of what prunes in its place, joined alike."""
        return PatChoices.model_validate({**self.pat, **self.models[model].pat, **self.row(row).pat})

    @checked_once
    def prune_settings(self, model: str, row: str) -> PruneSettings:
        """Return how a row's pruner comes to its sizes: the experiment's settings, then the model's differences, then the row's.

        What the experiment or the model says for other pruners is left out.
        """
        settings = PruneSettings.model_validate({**self.prune, **self.models[model].prune, **self.row(row).prune})
        pruner = self.method(row).pruner
        return settings if pruner is None else PRUNERS[pruner].effective(settings)

    @checked_once
    def evaluation_of(self, model: str) -> EvaluationSettings:
        """Return how a model's checkpoints are scored."""
        own = self.models[model].evaluation
        return EvaluationSettings.model_validate(overridden(self.evaluation.model_dump(mode="json"), own))

    def scores_tasks(self, model: str) -> bool:
        """Return whether a model's checkpoints get an accuracy: there are tasks, and they are scored in one way at least."""
        return bool(self.data.tasks) and self.evaluation_of(model).scores_tasks

    @checked_once
    def resources_of(self, model: str) -> Resources:
        """Return what the model's jobs ask the scheduler for."""
        return Resources.model_validate(overridden(self.resources.model_dump(), self.models[model].resources))

    def plugin_options(self) -> list[str]:
        """Return the experiment's plugins as options of a command."""
        return [part for name in self.plugins for part in ("--plugin", plugin_from(self.root, name))]

    def path(self, text: str) -> str:
        """Return a path of the file as the rules use it: relative ones start from `root`."""
        return str(Path(self.root, text))


def plugin_from(root: str, name: str) -> str:
    """Return a plugin as the command line is told it: a file's path starts from the experiment's root."""
    return str(Path(root, name)) if plugins.is_file(name) else name
