"""The sets that an experiment learns from and is scored on: where each is prepared, and what from. Paths and arguments of jobs.

The embedded world's lie in a folder of their own, as one job writes them all. Runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from pat.settings.fields import Settings
from study.experiment.schema import Experiment
from study.plan.values import as_json, existing, repeated
from study.sources.hub_layouts import datasets_of
from study.sources.kinds import InstructSource, TaskSource, TextSource, parts

Source = InstructSource | TaskSource | TextSource
CORPUS = "text/pretrain"
MIXED = "calibration"


class Named(Protocol):
    """The wildcards of a task or a text; the instruction set has none."""

    name: str


class PreparedData:
    """The prepared sets of one experiment, and the note that lm-eval's own tasks are in the cache."""

    def __init__(self, experiment: Experiment, results: str) -> None:
        self.experiment = experiment
        self.folder = f"{results}/data"
        self.world = f"{self.folder}/world"

    def files(self, prefix: str = "") -> list[str]:
        """Return the sets whose names start with `prefix`, in the file's order; the world's lie in its own folder."""
        return [
            f"{self.world if source.source == 'world' else self.folder}/{name}.jsonl"
            for name, source in self._sources().items()
            if name.startswith(prefix)
        ]

    def instruct_file(self) -> str:
        """Return the instruction set that every tuning reads."""
        return self.files("instruct")[0]

    def calibration_file(self) -> str:
        """Return the set that bases, refits and pruners measure on."""
        parts = self._calibration_parts()
        return f"{self.folder}/{MIXED}.jsonl" if len(parts) > 1 else next(iter(parts))

    def mixed_files(self) -> list[str]:
        """Return the mixed calibration text, as a list that is empty where all of it is one set."""
        return [self.calibration_file()] if len(self._calibration_parts()) > 1 else []

    def mixed_from(self) -> list[str]:
        """Return the sets that calibration text is mixed from."""
        return list(self._calibration_parts())

    def mixing_options(self, wildcards: object) -> list[str]:
        """Return the sets as `study mix` takes them: share:file."""
        return [f"{share:g}:{path}" for path, share in self._calibration_parts().items()]

    def _calibration_parts(self) -> dict[str, float]:
        parts: dict[str, float] = {}
        for part in self.experiment.data.calibration_parts:
            path = self.instruct_file() if part.of == "instruct" else self.files(CORPUS)[0]
            parts[path] = parts.get(path, 0.0) + part.share
        return parts

    def corpus_files(self) -> list[str]:
        """Return the corpus of the models pretrained here or of the pruners, as a list that is empty where neither reads one."""
        return self.files(CORPUS)

    def text_files(self) -> list[str]:
        """Return the held-out texts."""
        return [path for path in self.files("text/") if path not in self.corpus_files()]

    def second_text(self) -> list[str]:
        """Return the text that tells of a refit what it does to other text than it was fitted to: the first held-out one, if any."""
        return self.text_files()[:1]

    def second_text_option(self, wildcards: object, input: Any) -> str:
        """Return the option that names it. Derived from the input, so that Snakemake keeps no record of its absence."""
        return repeated("--second-text", input.second)

    def world_files(self) -> list[str]:
        """Return those of the embedded world's files that the experiment uses."""
        return [path for path in self.files() if path.startswith(f"{self.world}/")]

    def world_folder(self, wildcards: object) -> str:
        """Return where the embedded world's job writes; it knows which files of which names."""
        return self.world

    def fetched_files(self) -> list[str]:
        """Return the sets that only a machine with a network can prepare."""
        online = [name for name, source in self._sources().items() if any(_is_online(part) for part in parts(source))]
        return [f"{self.folder}/{name}.jsonl" for name in online]

    def harness_tasks(self) -> list[str]:
        """Return lm-eval's own tasks that any model is scored on."""
        return sorted({task for model in self.experiment.models for task in self.experiment.evaluation_of(model).harness_tasks})

    def harness_file(self) -> list[str]:
        """Return the note that lm-eval's own tasks are in the cache; none where there are no such tasks."""
        return [f"{self.folder}/harness.json"] if self.harness_tasks() else []

    def instruct_datasets(self, wildcards: object, input: object) -> str:
        """Return the options that name the data sets of the hub that the instructions are from, for the cards of what is tuned on them.

        Derived as a teacher's option: cards alone have it, so that no finished model is made again for its sake.
        """
        return repeated("--dataset", datasets_of(self.experiment.data.instruct))

    def corpus_datasets(self, wildcards: object, input: object) -> str:
        """Return the same of the corpus that models are pretrained on."""
        corpus = self.experiment.data.pretrain
        return repeated("--dataset", datasets_of(corpus) if corpus is not None else ())

    # a set's job; its kind is instruct, tasks or text

    def source_files(self, kind: str) -> Callable[[Named], list[str]]:
        """Return the input function of a set's job: the local files it is prepared from."""

        def files(wildcards: Named) -> list[str]:
            paths = [getattr(part, "path", None) for part in parts(self._source(kind, wildcards))]
            return [file for path in paths if path for file in existing(Path(self.experiment.path(path)))]

        return files

    def source(self, kind: str) -> Callable[[Named], str]:
        """Return the parameter function of a set's job: its source block, the path as seen from the working folder."""

        def argument(wildcards: Named) -> str:
            return as_json(self._rooted(self._source(kind, wildcards).model_dump(mode="json", exclude_none=True)))

        return argument

    def _rooted(self, block: dict[str, Any]) -> dict[str, Any]:
        """Return a source block with its paths, and those of the blocks inside it, as seen from the working folder."""
        inner = {key: self._rooted(value) if isinstance(value, dict) else value for key, value in block.items()}
        return inner | ({"path": self.experiment.path(block["path"])} if isinstance(block.get("path"), str) else {})

    def _source(self, kind: str, wildcards: Named) -> Source:
        return self._sources()[f"{kind}/{wildcards.name}" if kind != "instruct" else kind]

    def _sources(self) -> dict[str, Source]:
        """Return every prepared set's source; the key is its file's name below the data folder."""
        data = self.experiment.data
        pretrained = any(model.pretrain is not None for model in self.experiment.models.values())
        read = pretrained or any(part.of == "pretrain" for part in data.calibration_parts)
        corpus: dict[str, Source] = {CORPUS: data.pretrain} if data.pretrain and read else {}
        tasks: dict[str, Source] = {f"tasks/{name}": source for name, source in data.tasks.items()}
        texts: dict[str, Source] = {f"text/{name}": source for name, source in data.text.items()}
        return {"instruct": data.instruct, **corpus, **tasks, **texts}


def _is_online(source: Settings) -> bool:
    return getattr(source, "source", None) == "hub" and not getattr(source, "path", None)
