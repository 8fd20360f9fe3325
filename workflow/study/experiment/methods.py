"""The registry of methods: what each tunes, what prunes it, in which order. Rules read an entry and never ask for a name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from pat.pruners import PRUNERS, Pruner
from pat.settings.config import PAT_G
from pat.settings.tuners import MASKED

Tuner = Literal["lora", "dora", "pat", "pat-dora"]
Order = Literal["tune", "prune-tune", "tune-prune", "tune-prune-tune", "given"]
CHECKPOINT = "checkpoint"
"""The method of a row that is a checkpoint made elsewhere; a row that names a checkpoint has it without saying so."""


@dataclass(frozen=True)
class Method:
    """One way from a base model to a tuned checkpoint.

    `order` names the path: "tune" trains the base (and, for a pruning tuner, prunes while it does); "prune-tune" prunes first;
    "tune-prune" takes the merged model of the unpruned `tuner` and prunes it; "tune-prune-tune" tunes for a part of the steps, prunes, and
    tunes for the rest; "given" does nothing to a model that is there. A method that does not prune has ratio 0 alone. `pruner` is a name
    in the registry. `pat` holds mask settings that are the method's own, where a row of an experiment does not say otherwise. `summary`,
    `reach` and `when` are its sentences in the docs: what it does, at which ratios, when to take it.
    """

    name: str
    label: str
    mode: str
    tuner: Tuner | None
    pruner: str | None
    order: Order
    prunes: bool
    pat: Mapping[str, object] = field(default_factory=dict, hash=False)
    summary: str = ""
    reach: str = ""
    when: str = ""

    def __post_init__(self) -> None:
        if (self.pruner is None) != (self.order in ("tune", "given")) or (self.tuner is None) != (self.order == "given"):
            raise ValueError(
                f"method {self.name}: order {self.order!r}, tuner {self.tuner!r} and pruner {self.pruner!r} do not go together"
            )
        if self.pruner is not None and not self.prunes:
            raise ValueError(f"method {self.name}: has the pruner {self.pruner!r} but does not prune")

    @property
    def tunes(self) -> bool:
        """Whether the method has a tuning of its own."""
        return self.order in ("tune", "prune-tune", "tune-prune-tune")

    @property
    def in_two_parts(self) -> bool:
        """Whether the tuning is cut in two by the pruning."""
        return self.order == "tune-prune-tune"

    @property
    def masked(self) -> bool:
        """Whether the method trains a mask."""
        return self.tuner in MASKED

    @property
    def narrows(self) -> bool:
        """Whether the method makes the hidden size smaller, so that its ratio has to give a width that stock software takes."""
        return self.prunes and (self.pruner is None or PRUNERS[self.pruner].narrows)


_OWN = (
    Method(
        "base", "Base, untouched", "", None, None, "given", prunes=False, reach="0",
        summary="nothing: the untouched base, beside all that is made of it; one seed", when="to see what tuning itself is worth",
    ),
    Method(
        CHECKPOINT, "Checkpoint", "", None, None, "given", prunes=False, reach="its own",
        summary="nothing: a checkpoint made elsewhere, see below; one seed", when="to set a model that is there beside yours",
    ),
    Method(
        "lora", "LoRA", "", "lora", None, "tune", prunes=False, reach="0",
        summary="tune", when="what all others are measured by; FT→P rows and distillation need it",
    ),
    Method(
        "dora", "DoRA", "", "dora", None, "tune", prunes=False, reach="0",
        summary="tune with DoRA", when="to compare with the paper's table 3",
    ),
    Method(
        "pat", "PAT", "PAT", "pat", None, "tune", prunes=True, reach="all",
        summary="tune with the mask, prune on the way", when="to compare with the paper, whose method it is",
    ),
    Method(
        "pat-dora", "PAT (DoRA)", "PAT", "pat-dora", None, "tune", prunes=True, reach="all",
        summary="the same with DoRA", when="to compare with the paper's table 3",
    ),
    Method(
        "pat-g", "PAT-G", "PAT", "pat", None, "tune", prunes=True, reach="all", pat=PAT_G,
        summary="`pat` with other defaults of its mask: the leading directions of the gradient basis, cut at once behind refitted readers, "
        "no operators; what the row's `pat` says wins",
        when="where the number of layers and their inner sizes have to stay",
    ),
)  # fmt: skip
MODES: dict[Order, tuple[str, str]] = {
    "prune-tune": ("pft", "P→FT"), "tune-prune": ("ftp", "FT→P"), "tune-prune-tune": ("ftpft", "FT→P→FT"),
}  # fmt: skip
"""The end of a method's name and what the tables call it, for a pruner before tuning, after it, and between its two parts."""


@lru_cache(maxsize=1)
def _methods_of(pruners: tuple[Pruner, ...]) -> dict[str, Method]:
    """Return PAT's own methods and the unpruned ones, then those of the pruners: a plan asks for them some thousand times."""
    pruned = [
        Method(
            f"{pruner.name}-{MODES[order][0]}",
            pruner.label,
            MODES[order][1],
            "lora",
            pruner.name,
            order,
            prunes=True,
            summary=pruner.summary,
            reach=pruner.reach,
            when=pruner.when,
        )
        for pruner in pruners
        for order in pruner.orders
    ]
    return {method.name: method for method in (*_OWN, *pruned)}


class _Methods(Mapping[str, Method]):
    """All methods, those of the pruners in the order of their registry, in which a plugin may have put its own."""

    def _all(self) -> dict[str, Method]:
        return _methods_of(tuple(PRUNERS.values()))

    def __getitem__(self, name: str) -> Method:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


METHODS: Mapping[str, Method] = _Methods()


def method_name(row: str, own: Mapping[str, object]) -> object:
    """Return what a row with these settings names as its method: what it says, else `checkpoint` where it gives one, else its own name."""
    return own.get("method") or (CHECKPOINT if own.get("checkpoint") is not None else row)


def name_of_row(label: str, mode: str) -> str:
    """Return a row's name where it has one place alone: a pruner's with its mode, in which another row may have it too."""
    return label if mode in ("", "PAT") else f"{label} {mode}"
