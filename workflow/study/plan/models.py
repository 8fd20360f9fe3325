"""Base models, and checkpoints that were made elsewhere: where each comes from."""

from __future__ import annotations

from pathlib import Path

from study.experiment.schema import Experiment
from study.plan.paths import Paths, Wildcards
from study.plan.values import as_json, existing


class Models:
    """The files and arguments of the jobs that bring an experiment's models."""

    def __init__(self, experiment: Experiment, paths: Paths) -> None:
        self.experiment, self.paths = experiment, paths

    def come_from(self, place: str) -> list[str]:
        """Return the models whose weights come from one of pretrain, path, gguf and hub."""
        return [model for model, source in self.experiment.models.items() if getattr(source, place) is not None]

    def pretrain_settings(self, wildcards: Wildcards) -> str:
        """Return a pretrained model's settings."""
        return as_json(self.experiment.models[wildcards.model].pretrain)

    def pretrain_threads(self, wildcards: Wildcards) -> int:
        """Return the threads of a pretraining."""
        settings = self.experiment.models[wildcards.model].pretrain
        return settings.threads if settings else 1

    def run_folder(self, wildcards: Wildcards) -> str:
        """Return where a pretraining keeps its checkpoints while it runs. Not an output: Snakemake would remove it with the job."""
        return f"{self.paths.results}/models/.run/{wildcards.model}"

    def path(self, wildcards: Wildcards) -> str:
        """Return the folder that a model is copied from."""
        return self.experiment.path(self.experiment.models[wildcards.model].path or "")

    def files(self, wildcards: Wildcards) -> list[str]:
        """Return the files of the folder that a model is copied from."""
        return existing(Path(self.path(wildcards)))

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
        return self.experiment.models[wildcards.model].gguf_dtype

    def hub_id(self, wildcards: Wildcards) -> str | None:
        """Return a model's id on the hub."""
        hub = self.experiment.models[wildcards.model].hub
        return hub.id if hub else None

    def hub_revision(self, wildcards: Wildcards) -> str | None:
        """Return which revision of a hub's model is fetched."""
        hub = self.experiment.models[wildcards.model].hub
        return hub.revision if hub else None
