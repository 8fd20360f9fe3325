"""What each phase's jobs ask the scheduler for: what the experiment says, else by the model's size, else a little.

A model's size is in the experiment where it is pretrained, and in its config.json where that is on this machine: a model of the hub has
one as soon as it is fetched. The arithmetic is experiment/footprint.py's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pat.models.on_paper import Align
from pat.settings.jobs import PretrainSettings, PruneSettings
from study.experiment import footprint
from study.experiment.footprint import Shape
from study.experiment.refits import number_of_ridges, refit_of
from study.experiment.schema import Experiment
from study.plan.bases import UNTIED, PreparedBases
from study.sources.resources import PhaseResources

LEAST_MB = 4000
LEAST_MIN = footprint.SHORTEST_MIN
ON_GPU = ("pretrain", "tune", "prune", "evaluate", "benchmark")
"""Phases that work on a GPU where there is one."""
DISTINCT = ("model", "row", "shape", "basis", "mask", "align", "ratio")
"""Wildcards that can change what a phase's job asks for."""


@dataclass(frozen=True)
class Demand:
    """What one attempt at a job asks for."""

    gpu: int = 0
    mem_mb: int = LEAST_MB
    runtime: int = LEAST_MIN


class Demands:
    """The demands of one experiment's jobs. `models` is where its base models lie; the sets are counted where they are there already."""

    def __init__(self, experiment: Experiment, bases: PreparedBases, models: Path, instructions: Path, tasks: list[Path]) -> None:
        self.experiment = experiment
        self.bases = bases
        self.models = models
        self.instructions = instructions
        self.tasks = tasks
        self._known: dict[tuple[object, ...], Demand] = {}

    def of(self, phase: str, wildcards: Any) -> Demand:
        """Return what a job of a phase asks for at its first attempt; seeds do not change it.

        What is known of a model may become more: one that is fetched or imported in this run has no size before.
        """
        shape = self._shape(wildcards)
        key = (phase, shape is None, *(getattr(wildcards, name, None) for name in DISTINCT))
        if key not in self._known:
            self._known[key] = self._demand(phase, wildcards, shape)
        return self._known[key]

    def _demand(self, phase: str, wildcards: Any, shape: Shape | None) -> Demand:
        said = self._said(phase, wildcards)
        estimated = Demand() if shape is None else self._estimated(phase, wildcards, shape, said.gpu)
        return Demand(
            gpu=estimated.gpu if said.gpu is None else said.gpu,
            mem_mb=said.mem_mb or max(LEAST_MB, estimated.mem_mb),
            runtime=said.runtime or max(LEAST_MIN, estimated.runtime),
        )

    def _said(self, phase: str, wildcards: Any) -> PhaseResources:
        model = getattr(wildcards, "model", None)
        resources = self.experiment.resources_of(model) if model else self.experiment.resources
        found: PhaseResources = getattr(resources, phase)
        return found

    def _estimated(self, phase: str, wildcards: Any, shape: Shape, asked: int | None) -> Demand:
        """Return it by the model's size; `asked` are the GPUs that the experiment gives such a job, where it says so."""
        parameters = footprint.parameters_of(shape)
        device = self._device(phase, wildcards) if phase in ON_GPU else "cpu"
        gpu = footprint.gpus(parameters, device) if asked is None else asked
        on_gpu = bool(gpu) and device != "cpu"
        match phase:
            case "tune" if hasattr(wildcards, "row"):
                recipe = self.experiment.tune_job(wildcards.model, wildcards.row).tuning
                processes = asked or 1
                rows = _lines(self.instructions) or self._rows()
                needs_mb = footprint.tuning_mb(shape, recipe, on_gpu=on_gpu, processes=processes)
                return Demand(gpu, needs_mb, footprint.tuning_minutes(shape, recipe, rows, on_gpu=on_gpu, processes=processes))
            case "pretrain" if isinstance(shape, PretrainSettings):
                return Demand(gpu, footprint.pretraining_mb(shape, on_gpu=on_gpu), footprint.pretraining_minutes(shape, on_gpu=on_gpu))
            case "evaluate":
                settings = self.experiment.evaluation_of(wildcards.model)
                items = settings.limit * len(self.tasks) if settings.limit else sum(map(_lines, self.tasks))
                minutes = footprint.scoring_minutes(shape, settings, items, on_gpu=on_gpu)
                return Demand(gpu, footprint.loading_mb(parameters, settings.precision), minutes)
            case "prepare":
                return Demand(runtime=footprint.handling_minutes(parameters))
        plain = Demand(gpu, footprint.loading_mb(parameters), footprint.handling_minutes(parameters))
        if phase == "prune" and hasattr(wildcards, "mask"):  # of the jobs of this phase the refit of readers has one
            return self._refitting_readers(wildcards, shape, plain)
        cuts = phase == "prune" and hasattr(wildcards, "row")
        refit = refit_of(self.experiment, wildcards.model, wildcards.row, shape.family) if cuts else None
        return plain if refit is None else self._refitting(wildcards, shape, refit, plain, on_gpu=on_gpu)

    def _refitting(self, wildcards: Any, shape: Shape, refit: PruneSettings, plain: Demand, *, on_gpu: bool) -> Demand:
        """Return what a pruning asks for whose writers are refitted, where one without asks for `plain`."""
        tokens = refit.writer_tokens
        threads = self.experiment.tune_job(wildcards.model, wildcards.row).tuning.threads
        more_mb = footprint.refitting_mb(shape, tokens, on_gpu=on_gpu)
        return Demand(plain.gpu, plain.mem_mb + more_mb, footprint.refitting_minutes(shape, tokens, threads, on_gpu=on_gpu))

    def _refitting_readers(self, wildcards: Any, shape: Shape, plain: Demand) -> Demand:
        """Return what a refit of readers asks for, where a job that only handles the model asks for `plain`."""
        ratio, ridges = float(self.bases.refitting_ratio(wildcards)), number_of_ridges(self.experiment)
        align: Align = "auto" if wildcards.align == "auto" else int(wildcards.align)
        tied = shape.tie_embeddings and not wildcards.basis.endswith(UNTIED)
        more_mb = footprint.reader_refitting_mb(shape, ratio, align, ridges, tied=tied)
        return replace(plain, mem_mb=plain.mem_mb + more_mb)

    def _shape(self, wildcards: Any) -> Shape | None:
        if (name := getattr(wildcards, "shape", None)) and self.experiment.benchmark:
            return self.experiment.benchmark.shape(name)
        if (model := getattr(wildcards, "model", None)) is None:
            return None
        source = self.experiment.models[model]
        folder = Path(self.experiment.path(source.path)) if source.path else self.models / model
        return source.pretrain or _shape_in(folder)

    def _device(self, phase: str, wildcards: Any) -> str:
        """Return where a phase's jobs have their tensors; pruners and bases are measured where the row tunes, or the first row does."""
        if phase == "benchmark":
            kinds = (getattr(self.experiment.benchmark, kind) for kind in ("inference", "tuning"))
            return next((kind.device for kind in kinds if kind is not None), "auto")
        if phase == "evaluate":
            return self.experiment.evaluation_of(wildcards.model).device
        if phase == "pretrain":
            pretrain = self.experiment.models[wildcards.model].pretrain
            return pretrain.device if pretrain else "auto"
        row = getattr(wildcards, "row", None) or next(iter(self.experiment.methods))
        return self.experiment.tune_job(wildcards.model, row).tuning.device

    def _rows(self) -> int:
        """Return how many instructions there will be, as far as the experiment says it."""
        return self.experiment.data.world.instruct_rows if self.experiment.data.instruct.source == "world" else 0


def _shape_in(folder: Path) -> Shape | None:
    """Return the sizes of the model in a folder; None, and looked for again the next time, while there is none."""
    return _read(folder) if (folder / "config.json").is_file() else None


@cache
def _read(folder: Path) -> Shape | None:
    return footprint.shape_in(folder) or footprint.likeness_in(folder)


@cache
def _lines(path: Path) -> int:
    """Return how many rows a prepared set has; 0 while it is not there."""
    if not path.is_file():
        return 0
    with path.open("rb") as stream:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(2**20), b""))
