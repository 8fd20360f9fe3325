"""What each job of an experiment reads, writes and may use, and its options: paths, arguments and resources, as functions of its wildcards.

The rules take these methods as they are, so that the logic can be tested without Snakemake. Runs nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from study.experiment.schema import Experiment
from study.plan.allowances import Allowances
from study.plan.bases import PreparedBases
from study.plan.benchmarks import Benchmarks
from study.plan.cells import Cells
from study.plan.data import PreparedData
from study.plan.demands import Demands
from study.plan.encodings import Encodings
from study.plan.figures import Figures
from study.plan.models import Models
from study.plan.paths import Paths, Wildcards
from study.plan.tunings import Tunings
from study.plan.values import as_json

OFFLINE = 'AS_THE_USER_HAS_IT="${{HF_HUB_OFFLINE:-0}}"; export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TRANSFORMERS_OFFLINE=1;'
"""Before every job: the hub's libraries look for no network. Braces are doubled, as Snakemake wants them."""
ONLINE = "HF_HUB_OFFLINE=$AS_THE_USER_HAS_IT HF_DATASETS_OFFLINE=$AS_THE_USER_HAS_IT TRANSFORMERS_OFFLINE=$AS_THE_USER_HAS_IT"
"""Before the command of a job that fetches: they do, unless the user has forbidden it."""


class Plan:
    """One experiment's jobs, a part for each subject."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.paths = Paths(experiment.name)
        self.data = PreparedData(experiment, self.paths.results)
        self.bases = PreparedBases(experiment, self.paths.results)
        self.models = Models(experiment, self.paths)
        self.encodings = Encodings(experiment, self.paths)
        self.tunings = Tunings(experiment, self.paths, self.data, self.bases)
        self.cells = Cells(experiment, self.paths, self.bases)
        self.benchmarks = Benchmarks(experiment, self.paths)
        self.figures = Figures(experiment, self.paths, self.data, self.benchmarks, self.cells)
        tasks = [Path(name) for name in self.data.files("tasks/")]
        models = Path(self.bases.base).parent.parent
        self.allowances = Allowances(Demands(experiment, self.bases, models, Path(self.data.instruct_file()), tasks))
        self.gpu, self.memory, self.time = self.allowances.gpu, self.allowances.memory, self.allowances.time

    def fetched_files(self) -> list[str]:
        """Return what only a machine with a network can make."""
        models = [self.bases.base.format(model=model) for model in self.models.come_from("hub")]
        return [*self.data.fetched_files(), *models, *self.data.harness_file()]

    def online(self, wildcards: Wildcards, output: Any) -> str:
        """Return what a job that fetches begins with. Derived from its output, so Snakemake keeps no record of it."""
        return ONLINE

    def table_settings(self, wildcards: Wildcards) -> str:
        """Return which tables the experiment has."""
        return as_json(self.experiment.tables)
