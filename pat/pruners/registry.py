"""What a pruner says of itself, and the list of all pruners: rules, checks, sizes, the command line and the docs ask it. No torch.

A new pruner is a function of a job and a folder, and a declaration given to `register`, here or in a module of one's own.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pat.errors import UserError
from pat.families.known import Family
from pat.models.budget import Fit, Within, share_fit, width_fit
from pat.models.on_paper import Align, PaperModel
from pat.settings.jobs import PruneSettings

if TYPE_CHECKING:
    from pat.pruners.job import PruneJob

Cuts = Literal["width", "units", "slices", "layers"]
"""What gets smaller: the hidden size; heads and neurons of layers; the stream of each block by itself; the number of layers."""
PruningOrder = Literal["prune-tune", "tune-prune", "tune-prune-tune"]
ALL_ORDERS: tuple[PruningOrder, ...] = ("prune-tune", "tune-prune", "tune-prune-tune")
TUNED_AFTER: tuple[PruningOrder, ...] = ("prune-tune", "tune-prune-tune")
"""The orders in which a tuning follows the cut."""
OF_WRITERS = ("writer_tokens",)
"""Settings that come along with `writers`, where these are refitted."""
Run = Callable[["PruneJob", Path], dict[str, Any]]
"""Writes the pruned checkpoint into an empty folder and returns the record of its sizes and of how far it is from what it stands for."""
Size = Callable[[PaperModel, float, PruneSettings, Align], Hashable | None]
"""From a model on paper, a ratio and settings to the size that the ratio comes to; raises SettingError where it cannot be reached."""


@dataclass(frozen=True)
class Pruner:
    """A pruner's declaration.

    `run` is the function, or where it is, as "module:function", so that it is loaded when it is called. `measures` says whether it needs
    text. `summary`, `reach` and `when` are its sentences in the docs: what it does, which ratios it reaches, when to take it. `size` is
    how it meets a ratio, where that can be told on paper and is not the hidden size's rounding; `same` says in words that two ratios come
    to one size. `within` is how it meets a budget of parameters, where that is not by a width. `settings`
    are the keys of PruneSettings that have an effect on it; with `writers`, which brings OF_WRITERS along, its record tells the cut:
    the channels that are `kept`, where some go, and of `layers` those `dropped`. `refits` says that what it leaves has its writes refitted
    unless the settings say otherwise. `obstacle` says why a family cannot be pruned so, beside what stands in the way of every cut of the
    width.
    """

    name: str
    label: str
    run: Run | str
    cuts: Cuts
    measures: Literal["weights", "text"]
    summary: str
    reach: str
    when: str
    orders: tuple[PruningOrder, ...] = ALL_ORDERS
    size: Size | None = None
    within: Within | None = None
    same: str = "give the same sizes: must differ; keep one, or lower pat.align"
    settings: tuple[str, ...] = ()
    refits: bool = False
    obstacle: Callable[[Family], str | None] = lambda _family: None

    def __call__(self, job: PruneJob, folder: Path) -> dict[str, Any]:
        """Write the pruned checkpoint of a job into an empty folder and return its record."""
        if not isinstance(self.run, str):
            return self.run(job, folder)
        module, _, name = self.run.partition(":")
        run: Run = getattr(import_module(module), name)
        return run(job, folder)

    def fit(self, model: PaperModel, allowed: int, settings: PruneSettings, align: Align) -> Fit:
        """Return the largest size that keeps a model within so many parameters, and its ratio. Raises SettingError where there is none."""
        return (self.within or (width_fit if self.narrows else share_fit))(model, allowed, settings, align)

    def reason_not_to(self, family: Family) -> str | None:
        """Return why a family cannot be pruned so; None where it can."""
        return self.obstacle(family) or (family.width_obstacle if self.narrows else None)

    def why_idle(self, key: str, settings: PruneSettings) -> str | None:
        """Return why a key of settings has no effect on this pruner, by what these say of its writers; None where it has one."""
        if key in self.settings:
            return None
        if key not in OF_WRITERS or "writers" not in self.settings:
            return f"the settings of {self.name} are: {', '.join(self.settings) or 'none'}"
        return None if self.refits_writers(settings) else "its writers stay plain unless `writers: refitted` is set"

    def effective(self, settings: PruneSettings) -> PruneSettings:
        """Return the settings with those at their defaults that have no effect on this pruner."""
        taken = {key for key in PruneSettings.model_fields if self.why_idle(key, settings) is None}
        return PruneSettings.model_validate(settings.model_dump(include=taken))

    def refits_writers(self, settings: PruneSettings) -> bool:
        """Return whether the writes are refitted after its cut."""
        return self.refits if settings.writers is None else settings.writers == "refitted"

    @property
    def narrows(self) -> bool:
        """Whether it makes the hidden size smaller, so that a ratio has to give a width that stock software takes."""
        return self.cuts == "width"


PRUNERS: dict[str, Pruner] = {}


def pruner_named(name: str) -> Pruner:
    """Return the pruner of a name. Raises UserError where none is called so."""
    if name not in PRUNERS:
        raise UserError(f"--pruner {name!r}: must be one of {', '.join(sorted(PRUNERS))}")
    return PRUNERS[name]


def register(pruner: Pruner) -> None:
    """Add a pruner to those that are known. Raises ValueError where another of its name is known already."""
    if PRUNERS.setdefault(pruner.name, pruner) is not pruner:
        raise ValueError(f"the pruner {pruner.name!r} is registered already")
