"""What each job of an experiment reads, writes, is told and may use: paths, arguments and resources, as functions of its wildcards.

The rules take these methods as they are, so that the logic can be tested without Snakemake. Runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from pat.io.artefacts import MANIFEST
from pat.settings.config import MEASURED_MASKS
from study.experiment.methods import MASKED_TUNERS
from study.experiment.schema import FIGURES, FIGURES_OF_TASKS, TUNED_ROW, Experiment, Figure
from study.plan.bases import PreparedBases
from study.plan.data import PreparedData
from study.plan.demands import Demands
from study.plan.values import as_json, existing, repeated


class Wildcards(Protocol):
    """What a rule's functions are called with; which of these it has depends on the rule."""

    model: str
    row: str
    ratio: str
    seed: str
    shape: str
    mask: str


OFFLINE = 'AS_THE_USER_HAS_IT="${{HF_HUB_OFFLINE:-0}}"; export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TRANSFORMERS_OFFLINE=1;'
"""Before every job: the hub's libraries look for no network. Braces are doubled, as Snakemake wants them."""
ONLINE = "HF_HUB_OFFLINE=$AS_THE_USER_HAS_IT HF_DATASETS_OFFLINE=$AS_THE_USER_HAS_IT TRANSFORMERS_OFFLINE=$AS_THE_USER_HAS_IT"
"""Before the command of a job that fetches: they do, unless the user has forbidden it."""


class Plan:
    """The files and arguments of one experiment's jobs."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.results = f"results/{experiment.name}"
        self.data = PreparedData(experiment, self.results)
        self.bases = PreparedBases(experiment, self.results)
        self.base = self.bases.base
        self.arm = f"{self.results}/checkpoints/{{model}}/{{row}}/{{ratio}}"
        self.cell = f"{self.arm}/seed{{seed}}"
        self.tuned_cell = f"{self.results}/checkpoints/{{model}}/{TUNED_ROW}/0/seed{{seed}}"
        self.scores = f"{self.results}/evaluation/{{model}}/{{row}}/{{ratio}}/seed{{seed}}"
        tasks = [Path(name) for name in self.data.files("tasks/")]
        self.demands = Demands(experiment, Path(self.base).parent.parent, Path(self.data.instruct_file()), tasks)

    # the grid

    def merged_models(self) -> list[str]:
        """Return the manifest of every cell's finished checkpoint."""
        return [self._finished(cell.method.name).format(model=cell.model, row=cell.row, ratio=f"{cell.ratio:g}", seed=cell.seed)
                for cell in self.experiment.cells()]  # fmt: skip

    def _finished(self, method: str) -> str:
        """Return where the manifest of a method's finished checkpoints lies: merged, or the base itself where nothing is done to it."""
        return self.base if method == "base" else f"{self.cell}/merged/{MANIFEST}"

    def finished(self, wildcards: Wildcards) -> str:
        """Return the manifest of the checkpoint that a cell is scored by."""
        return self._filled(self._finished(self.experiment.method(wildcards.row).name), wildcards)

    def given_rows(self, *, made_elsewhere: bool = False) -> list[str]:
        """Return the rows of models to which nothing is done; with `made_elsewhere` the checkpoints among them alone."""
        return [row for row in self.rows_of("given") if not made_elsewhere or self.experiment.row(row).checkpoint is not None]

    def cell_results(self) -> list[str]:
        """Return the file of every cell that holds all its numbers."""
        return [f"{self.results}/evaluation/{cell.path}/cell.json" for cell in self.experiment.cells()]

    def figure_files(self) -> list[str]:
        """Return the figures that the experiment asks for, all there is data for where it does not say."""
        masked = [cell for cell in self.experiment.cells() if cell.method.tuner in MASKED_TUNERS]
        there: dict[Figure, list[str]] = {
            **{name: [name] if self.experiment.data.tasks else [] for name in FIGURES_OF_TASKS},
            "perplexity": ["perplexity"] if self.data.text_files() else [],
            "speedup": ["speedup"] if self.benchmark_files("inference") else [],
            "gate": ["gate"] if masked else [],
            "health": [f"health/{cell.path}/health" for cell in masked],
        }
        asked = FIGURES if self.experiment.figures is None else self.experiment.figures
        return [f"{self.results}/figures/{figure}.png" for name in asked for figure in there[name]]

    def rows_of(self, *orders: str) -> list[str]:
        """Return the rows whose method takes its steps in one of these orders."""
        return [row for row in self.experiment.methods if self.experiment.method(row).order in orders]

    def models_from(self, place: str) -> list[str]:
        """Return the models whose weights come from one of pretrain, path, gguf and hub."""
        return [model for model, source in self.experiment.models.items() if getattr(source, place) is not None]

    # benchmarks

    @property
    def shapes(self) -> list[str]:
        """The shapes that are measured."""
        return list(self.experiment.benchmark.shapes) if self.experiment.benchmark else []

    def benchmark_files(self, *kinds: str) -> list[str]:
        """Return the records of the benchmarks of these kinds, inference and tuning; of all where none is named."""
        measured = [kind for kind in kinds or ("inference", "tuning") if getattr(self.experiment.benchmark, kind, None) is not None]
        return [f"{self.results}/benchmark/{kind}/{shape}.json" for kind in measured for shape in self.shapes]

    def benchmark_shape(self, wildcards: Wildcards) -> str:
        """Return the sizes of a shape."""
        assert self.experiment.benchmark is not None
        return as_json(self.experiment.benchmark.shape(wildcards.shape))

    def benchmark_settings(self, kind: str) -> str:
        """Return how all shapes are measured."""
        return as_json(getattr(self.experiment.benchmark, kind, None))

    def benchmark_threads(self, kind: str) -> int:
        """Return the threads of a benchmark."""
        settings = getattr(self.experiment.benchmark, kind, None)
        return settings.threads if settings else 1

    # what needs a network

    def fetched_files(self) -> list[str]:
        """Return what only a machine with a network can make."""
        models = [self.base.format(model=model) for model in self.models_from("hub")]
        return [*self.data.fetched_files(), *models, *self.data.harness_file()]

    def online(self, wildcards: Wildcards, output: Any) -> str:
        """Return what a job that fetches begins with. Derived from its output, so Snakemake keeps no record of it."""
        return ONLINE

    # base models

    def pretrain_settings(self, wildcards: Wildcards) -> str:
        """Return a pretrained model's settings."""
        return as_json(self.experiment.models[wildcards.model].pretrain)

    def pretrain_run_folder(self, wildcards: Wildcards) -> str:
        """Return where a pretraining keeps its checkpoints while it runs. Not an output: Snakemake would remove it with the job."""
        return f"{self.results}/models/.run/{wildcards.model}"

    def model_path(self, wildcards: Wildcards) -> str:
        """Return the folder that a model is copied from."""
        return self.experiment.path(self.experiment.models[wildcards.model].path or "")

    def model_files(self, wildcards: Wildcards) -> list[str]:
        """Return the files of the folder that a model is copied from."""
        return existing(Path(self.model_path(wildcards)))

    def checkpoint_path(self, wildcards: Wildcards) -> str:
        """Return the folder that a row's checkpoint is copied from."""
        given = self.experiment.row(wildcards.row).checkpoint
        return self.experiment.path(given.path) if given else ""

    def checkpoint_files(self, wildcards: Wildcards) -> list[str]:
        """Return the files of that folder."""
        return existing(Path(self.checkpoint_path(wildcards)))

    def gguf_file(self, wildcards: Wildcards) -> str:
        """Return the GGUF file that a model is read from."""
        return self.experiment.path(self.experiment.models[wildcards.model].gguf or "")

    def gguf_files(self, wildcards: Wildcards) -> list[str]:
        """Return the same as an input: none where the file is not on this machine."""
        return existing(Path(self.gguf_file(wildcards)))

    def gguf_dtype(self, wildcards: Wildcards) -> str:
        """Return what the weights of a GGUF file become."""
        return self.experiment.models[wildcards.model].dtype or "bf16"

    def hub_id(self, wildcards: Wildcards) -> str | None:
        """Return a model's id on the hub."""
        hub = self.experiment.models[wildcards.model].hub
        return hub.id if hub else None

    def hub_revision(self, wildcards: Wildcards) -> str | None:
        """Return which revision of a hub's model is fetched."""
        hub = self.experiment.models[wildcards.model].hub
        return hub.revision if hub else None

    # cells

    def tuning_base(self, wildcards: Wildcards) -> str:
        """Return the manifest of what a row tunes: the base as its mask wants it, or the pruned base where it prunes first."""
        if self.experiment.method(wildcards.row).order == "prune-tune":
            return f"{self.cell}/pruned/{MANIFEST}"
        return self.bases.of(wildcards.model, wildcards.row)

    def mask_data(self, wildcards: Wildcards) -> list[str]:
        """Return the instruction set where a mask is measured on it, as it is when tuning."""
        return [self.data.instruct_file()] if wildcards.mask in MEASURED_MASKS else []

    def mask_data_option(self, wildcards: Wildcards, input: Any) -> str:
        """Return the option that names it; derived as the teacher's."""
        return repeated("--data", input.data)

    def teacher(self, wildcards: Wildcards) -> list[str]:
        """Return the manifest of the tuned, unpruned model that a row distils from; none where it learns from the data alone."""
        distils = self.experiment.distils(wildcards.row)
        return [self._filled(f"{self.tuned_cell}/merged/{MANIFEST}", wildcards)] if distils else []

    def teacher_option(self, wildcards: Wildcards, input: Any) -> str:
        """Return the option that names a tuning's teacher. Derived from its input, so Snakemake keeps no record of its absence."""
        return repeated("--teacher", (str(Path(manifest).parent) for manifest in input.teacher))

    def rate(self, wildcards: Wildcards) -> list[str]:
        """Return the record of the search for a row's learning rate, which all its seeds share; none where the file gives the rate."""
        searched = self.experiment.search_of(wildcards.model, wildcards.row)
        return [self.arm.format(model=wildcards.model, row=wildcards.row, ratio=wildcards.ratio) + "/rate.json"] if searched else []

    def rate_option(self, wildcards: Wildcards, input: Any) -> str:
        """Return the option that names it; derived as the teacher's."""
        return repeated("--rate-from", input.rate)

    def first_seed(self, wildcards: Wildcards) -> int:
        """Return the seed that a row's learning rate is searched with."""
        return self.experiment.seeds_of(wildcards.row)[0]

    def on_first_seed(self, ask: Callable[[Wildcards], str | list[str]]) -> Callable[[Wildcards], str | list[str]]:
        """Return a function of a cell's wildcards as one of an arm's, which have no seed."""

        def asked(wildcards: Wildcards) -> str | list[str]:
            seed = str(self.first_seed(wildcards))
            cell: Any = SimpleNamespace(model=wildcards.model, row=wildcards.row, ratio=wildcards.ratio, seed=seed)
            found = ask(cell)
            return self._filled(found, cell) if isinstance(found, str) else found

        return asked

    def search_folder(self, wildcards: Wildcards) -> str:
        """Return where a search keeps its candidates while it runs; not an output, for the same reason as a tuning's."""
        return self.arm.format(model=wildcards.model, row=wildcards.row, ratio=wildcards.ratio) + "/search"

    def search_time(self, wildcards: Wildcards, attempt: int) -> int:
        """Return the minutes of a search: a tuning's for each candidate, in one process however many the tuning has."""
        search = self.experiment.search_of(wildcards.model, wildcards.row)
        processes = max(1, self.gpu("tune")(wildcards))
        return self.time("tune")(wildcards, attempt) * (len(search.learning_rates) if search else 1) * processes

    def run_folder(self, wildcards: Wildcards) -> str:
        """Return where a tuning keeps its checkpoints while it runs; not an output, for the same reason."""
        return self._filled(f"{self.cell}/run", wildcards)

    def tuner(self, wildcards: Wildcards) -> str | None:
        """Return what a row tunes with; None where it does not tune."""
        return self.experiment.method(wildcards.row).tuner

    def tuning_ratio(self, wildcards: Wildcards) -> str:
        """Return the ratio that is pruned while tuning: none where a pruner has done it before."""
        return wildcards.ratio if self.experiment.method(wildcards.row).order == "tune" else "0"

    def tune_settings(self, wildcards: Wildcards) -> str:
        """Return a tuning's settings."""
        return as_json(self.experiment.tune_job(wildcards.model, wildcards.row))

    def pruner(self, wildcards: Wildcards) -> str | None:
        """Return what a row prunes with."""
        return self.experiment.method(wildcards.row).pruner

    def prune_settings(self, wildcards: Wildcards) -> str:
        """Return how a row's pruner comes to its sizes."""
        return as_json(self.experiment.prune_settings(wildcards.model, wildcards.row))

    def align(self, wildcards: Wildcards) -> int | str:
        """Return what a pruned width is rounded to."""
        return self.experiment.tune_job(wildcards.model, wildcards.row).pat.align

    def tuning_device(self, wildcards: Wildcards) -> str:
        """Return where a row's tensors are worked on; a pruner measures there too."""
        return self.experiment.tune_job(wildcards.model, wildcards.row).tuning.device

    def evaluation_settings(self, wildcards: Wildcards) -> str:
        """Return how a model is scored."""
        return as_json(self.experiment.evaluation_of(wildcards.model))

    def tuning_record(self, wildcards: Wildcards) -> str:
        """Return the record of the tuning that a cell's model comes from; empty where nothing was tuned."""
        if self.experiment.method(wildcards.row).order == "given":
            return ""
        after_tuning = self.experiment.method(wildcards.row).order == "tune-prune"
        return self._filled(f"{self.tuned_cell if after_tuning else self.cell}/adapter/tuning.json", wildcards)

    def step_records(self, wildcards: Wildcards) -> str:
        """Return the records of the steps that made a cell's model, in their order, as options."""
        steps = {
            "tune": [*self.bases.records(wildcards.model, wildcards.row), f"{self.cell}/merged/merge.json"],
            "prune-tune": [f"{self.cell}/pruned/prune.json", f"{self.cell}/merged/merge.json"],
            "tune-prune": [f"{self.tuned_cell}/merged/merge.json", f"{self.cell}/merged/prune.json"],
            "given": [f"{self.scores}/sizes.json"],
        }
        paths = steps[self.experiment.method(wildcards.row).order]
        return repeated("--step", (self._filled(path, wildcards) for path in paths))

    def given_sizes(self, wildcards: Wildcards) -> list[str]:
        """Return the record of the sizes of a model to which nothing is done; of others their steps' own records tell them."""
        given = self.experiment.method(wildcards.row).order == "given"
        return [self._filled(f"{self.scores}/sizes.json", wildcards)] if given else []

    def cell_identity(self, wildcards: Wildcards) -> str:
        """Return what a cell is."""
        method = self.experiment.method(wildcards.row)
        return as_json(
            {
                "experiment": self.experiment.name,
                "model": wildcards.model,
                "method": wildcards.row,
                "base_method": method.name,
                "label": self.experiment.label(wildcards.row),
                "mode": method.mode,
                "ratio_requested": float(wildcards.ratio),
                "seed": int(wildcards.seed),
                "factors": self.experiment.row(wildcards.row).factors,
            }
        )

    def table_settings(self, wildcards: Wildcards) -> str:
        """Return which tables the experiment has."""
        return as_json(self.experiment.tables)

    def _filled(self, pattern: str, wildcards: Wildcards) -> str:
        return pattern.format(model=wildcards.model, row=wildcards.row, ratio=wildcards.ratio, seed=wildcards.seed)

    # what a job may use; threads are part of the settings, because numbers depend on them, and are only reserved here

    def pretrain_threads(self, wildcards: Wildcards) -> int:
        """Return the threads of a pretraining."""
        settings = self.experiment.models[wildcards.model].pretrain
        return settings.threads if settings else 1

    def tune_threads(self, wildcards: Wildcards) -> int:
        """Return the threads of a process of a tuning, and of the pruning before or after it."""
        return self.experiment.tune_job(wildcards.model, wildcards.row).tuning.threads

    def tune_cores(self, wildcards: Wildcards) -> int:
        """Return the cores of a tuning with all its processes."""
        return self.tune_threads(wildcards) * max(1, self.gpu("tune")(wildcards))

    def launcher(self, wildcards: Wildcards, resources: Any) -> str:
        """Return what starts a tuning's processes, one for each GPU of its allocation; nothing where there is one GPU or none.

        Derived from its resources, so Snakemake keeps no record of it.
        """
        return f"python -m pat.machine.several {resources.gpu}" if resources.gpu > 1 else ""

    def one_gpu(self, wildcards: Wildcards) -> int:
        """Return the GPU of a job that tunes in one process, as a search does."""
        return min(1, self.gpu("tune")(wildcards))

    def evaluation_threads(self, wildcards: Wildcards) -> int:
        """Return the threads of an evaluation."""
        return self.experiment.evaluation_of(wildcards.model).threads

    def gpu(self, phase: str) -> Callable[[Any], int]:
        """Return the resource function for a phase's GPUs."""

        def gpu(wildcards: Any) -> int:
            return self.demands.of(phase, wildcards).gpu

        return gpu

    def memory(self, phase: str) -> Callable[[Any, int], int]:
        """Return the resource function for a phase's memory in MB; each further attempt gets half as much again."""

        def mem_mb(wildcards: Any, attempt: int) -> int:
            return self.demands.of(phase, wildcards).mem_mb * (attempt + 1) // 2

        return mem_mb

    def time(self, phase: str) -> Callable[[Any, int], int]:
        """Return the resource function for a phase's time in minutes; each further attempt gets half as much again."""

        def runtime(wildcards: Any, attempt: int) -> int:
            return self.demands.of(phase, wildcards).runtime * (attempt + 1) // 2

        return runtime
