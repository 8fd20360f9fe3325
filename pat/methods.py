"""The registry of methods: what each tunes, what prunes it, in which order. Rules read an entry and never ask for a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Tuner = Literal["lora", "dora", "pat", "pat-dora"]
MASKED_TUNERS: tuple[Tuner, ...] = ("pat", "pat-dora")
DORA_TUNERS: tuple[Tuner, ...] = ("dora", "pat-dora")
Pruner = Literal[
    "channel-fisher", "channel-magnitude", "slicegpt", "slicegpt-1q", "llm-pruner", "llm-pruner-uniform", "wanda-sp", "shortgpt",
    "layers-and-neurons",
    "minitron-width",
]  # fmt: skip
WIDTH_PRUNERS: tuple[Pruner, ...] = ("channel-fisher", "channel-magnitude", "slicegpt-1q", "minitron-width")
"""Those that make the hidden size smaller; the others take out parts of layers, or layers."""
UNIT_PRUNERS: tuple[Pruner, ...] = ("llm-pruner", "llm-pruner-uniform", "wanda-sp")
"""Those that take heads and neurons out of layers."""
Order = Literal["tune", "prune-tune", "tune-prune", "given"]
CHECKPOINT = "checkpoint"
"""The method of a row that is a checkpoint made elsewhere; a row that names a checkpoint has it without saying so."""


@dataclass(frozen=True)
class Method:
    """One way from a base model to a tuned checkpoint.

    `order` names the path: "tune" trains the base (and, for a pruning tuner, prunes while it does); "prune-tune" prunes first;
    "tune-prune" takes the merged model of the unpruned `tuner` and prunes it; "given" does nothing to a model that is there. A method that
    does not prune has ratio 0 alone. `pat` holds mask settings that are the method's own, where a row of an experiment does not say
    otherwise.
    """

    name: str
    label: str
    mode: str
    tuner: Tuner | None
    pruner: Pruner | None
    order: Order
    prunes: bool
    pat: Mapping[str, object] = field(default_factory=dict, hash=False)

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
        return self.order in ("tune", "prune-tune")

    @property
    def narrows(self) -> bool:
        """Whether the method makes the hidden size smaller, so that its ratio has to give a width that stock software takes."""
        return self.prunes and (self.pruner is None or self.pruner in WIDTH_PRUNERS)


PAT_G: dict[str, Any] = {"basis": "gradient", "mask": "leading", "closing": "at-once", "readers": "least-squares", "hio_rank": 0}
"""The leading directions of the gradient basis, cut at once behind readers that compensate for the others (docs/method.md)."""

_ALL = (
    Method("base", "Base, untouched", "", None, None, "given", prunes=False),
    Method(CHECKPOINT, "Checkpoint", "", None, None, "given", prunes=False),
    Method("lora", "LoRA", "", "lora", None, "tune", prunes=False),
    Method("dora", "DoRA", "", "dora", None, "tune", prunes=False),
    Method("pat", "PAT", "PAT", "pat", None, "tune", prunes=True),
    Method("pat-dora", "PAT (DoRA)", "PAT", "pat-dora", None, "tune", prunes=True),
    Method("pat-g", "PAT-G", "PAT", "pat", None, "tune", prunes=True, pat=PAT_G),
    Method("channel-fisher-pft", "Channel Fisher", "P→FT", "lora", "channel-fisher", "prune-tune", prunes=True),
    Method("channel-fisher-ftp", "Channel Fisher", "FT→P", "lora", "channel-fisher", "tune-prune", prunes=True),
    Method("channel-magnitude-pft", "Channel magnitude", "P→FT", "lora", "channel-magnitude", "prune-tune", prunes=True),
    Method("channel-magnitude-ftp", "Channel magnitude", "FT→P", "lora", "channel-magnitude", "tune-prune", prunes=True),
    Method("slicegpt-1q-pft", "SliceGPT-1Q", "P→FT", "lora", "slicegpt-1q", "prune-tune", prunes=True),
    Method("slicegpt-1q-ftp", "SliceGPT-1Q", "FT→P", "lora", "slicegpt-1q", "tune-prune", prunes=True),
    Method("slicegpt-pft", "SliceGPT", "P→FT", "lora", "slicegpt", "prune-tune", prunes=True),
    Method("slicegpt-ftp", "SliceGPT", "FT→P", "lora", "slicegpt", "tune-prune", prunes=True),
    Method("llm-pruner-pft", "LLM-Pruner", "P→FT", "lora", "llm-pruner", "prune-tune", prunes=True),
    Method("llm-pruner-ftp", "LLM-Pruner", "FT→P", "lora", "llm-pruner", "tune-prune", prunes=True),
    Method("llm-pruner-uniform-pft", "LLM-Pruner, uniform", "P→FT", "lora", "llm-pruner-uniform", "prune-tune", prunes=True),
    Method("llm-pruner-uniform-ftp", "LLM-Pruner, uniform", "FT→P", "lora", "llm-pruner-uniform", "tune-prune", prunes=True),
    Method("wanda-sp-pft", "Wanda-sp", "P→FT", "lora", "wanda-sp", "prune-tune", prunes=True),
    Method("shortgpt-pft", "ShortGPT", "P→FT", "lora", "shortgpt", "prune-tune", prunes=True),
    Method("layers-and-neurons-pft", "Layers and neurons", "P→FT", "lora", "layers-and-neurons", "prune-tune", prunes=True),
    Method("minitron-width-pft", "Minitron-style width", "P→FT", "lora", "minitron-width", "prune-tune", prunes=True),
)
METHODS: dict[str, Method] = {method.name: method for method in _ALL}


def method_name(row: str, own: Mapping[str, object]) -> object:
    """Return what a row with these settings names as its method: what it says, else `checkpoint` where it gives one, else its own name."""
    return own.get("method") or (CHECKPOINT if own.get("checkpoint") is not None else row)
