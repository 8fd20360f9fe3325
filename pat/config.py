"""PatConfig: what a pruning-aware run may choose. Frozen, torch-free, saved beside every adapter as `pat_config.json`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pat.artefacts import read_record, write_json
from pat.errors import SettingError, UserError
from pat.methods import PAT_G

PAT_CONFIG_NAME = "pat_config.json"

Variant = Literal["paper", "release"]
Basis = Literal["native", "pca", "gradient"]
Readers = Literal["plain", "least-squares"]
Tie = Literal["keep", "break"]
"""Whether embedding and head stay one matrix under a change of basis, where they are one."""
CHOICES = {
    "variant": ("paper", "release"),
    "basis": get_args(Basis),
    "tie": get_args(Tie),
    "readers": get_args(Readers),
    "mask": ("trained", "frozen", "leading", "variance", "fisher", "magnitude", "random"),
    "closing": ("gradual", "at-once"),
    "count": ("centre", "loss"),
    "operators": ("free", "pinned"),
    "mask_prior": ("none", "magnitude", "variance", "fisher", "leading"),
    "mask_learning": ("saliency", "gradient", "adam"),
}
Mask = Literal["trained", "frozen", "leading", "variance", "fisher", "magnitude", "random"]
MaskPrior = Literal["none", "magnitude", "variance", "fisher", "leading"]
MaskLearning = Literal["saliency", "gradient", "adam"]
AS_THE_VARIANT = ("count", "mask_learning")
"""Those that may be None."""
MEASURED_MASKS: tuple[Mask, ...] = ("variance", "fisher")
"""Those whose order is measured on text."""


@dataclass(frozen=True)
class PatConfig:
    """Choices of one run; `None` means the default of the variant, or what is only known later.

    `operators` says how the low-rank ones start: "free" with L1 = 0, or, an ablation that hardly moves, "pinned" with v = 0 and both
    factors orthonormal and held so; D = I in both. `variant="release"` follows the authors' code: scale over the output channels, Kaiming
    L0, their count and identity losses, a mask that stays soft in training, its temperature fixed from `decide_fraction` of the milestone
    on. In both, exactly `width` channels survive, unless `exact_count` is off: the release keeps those that are open in
    the end, however many. `basis` says which one the base is in: `pat rotate` puts it there, and tuning and merging refuse a base that is
    in another. `tie` says whether that left embedding and head one matrix, `readers` what `pat refit-readers` did to the base.
    Raises ValueError on a value that cannot be.
    """

    pruning_ratio: float
    width: int | None = None
    align: int | Literal["auto"] = "auto"
    hio_rank: int | Literal["dense"] = 200
    operators: Literal["free", "pinned"] = "free"
    variant: Variant = "paper"
    basis: Basis = "native"
    tie: Tie = "keep"
    mask: Mask = "trained"
    closing: Literal["gradual", "at-once"] = "gradual"
    readers: Readers = "plain"
    count: Literal["centre", "loss"] | None = None
    exact_count: bool = True
    total_steps: int | None = None
    milestone_fraction: float = 1 / 3
    decide_fraction: float | None = None
    identity_weight: float | None = None
    active_weight: float = 1.0
    mask_prior: MaskPrior = "none"
    mask_learning: MaskLearning | None = None
    mask_learning_rate: float | Literal["recipe"] | None = None
    lora_rank: int = 20
    lora_alpha: float = 4.0
    lora_dropout: float = 0.05
    use_dora: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for field, allowed in CHOICES.items():
            value = getattr(self, field)
            if value not in allowed and not (field in AS_THE_VARIANT and value is None):
                raise SettingError(f"PatConfig.{field}={value!r}: must be one of {', '.join(map(repr, allowed))}")
        self._check_variant()
        self._check_range("pruning_ratio", 0.0, 1.0, open_end=True)
        self._check_range("milestone_fraction", 0.0, 1.0, open_start=True)
        if self.decide_fraction is not None:
            self._check_range("decide_fraction", 0.0, 1.0, open_start=True)
        if self.hio_rank != "dense" and self.hio_rank < 0:
            raise SettingError(f"PatConfig.hio_rank={self.hio_rank}: must be 'dense', 0 (mask alone) or a positive rank")
        if self.lora_rank < 1:
            raise SettingError(f"PatConfig.lora_rank={self.lora_rank}: must be at least 1")
        if self.closing == "at-once" and not self.fixed_mask:
            raise SettingError("PatConfig.closing='at-once' with mask='trained': a mask that is learned has to close gradually")
        if self.readers == "least-squares" and not self.fixed_mask:
            raise SettingError("PatConfig.readers='least-squares' with mask='trained': only a fixed mask knows before tuning what it drops")
        if self.mask_prior != "none" and self.fixed_mask:
            raise SettingError(f"PatConfig.mask_prior={self.mask_prior!r} with mask={self.mask!r}: only a trained mask starts in an order")
        if self.mask_learning_rate == "recipe" and self.learning != "adam":
            raise SettingError(
                f"PatConfig.mask_learning_rate='recipe' with mask_learning={self.learning!r}: only 'adam' has a recipe's rate"
            )
        if self.total_steps is not None and self.closing == "gradual" and self.milestone_step < 2:
            raise SettingError(
                f"PatConfig.total_steps={self.total_steps} with milestone_fraction={self.milestone_fraction:g} puts the "
                f"milestone at step {self.milestone_step}: the gate needs at least 2 steps to close"
            )

    def _check_variant(self) -> None:
        if self.operators == "pinned" and self.variant == "release":
            raise SettingError("PatConfig.operators='pinned' with variant='release': released operators start in their own way; use 'free'")
        if not self.exact_count and (self.variant != "release" or self.fixed_mask):
            raise SettingError("PatConfig.exact_count=False: only the trained mask of variant='release' may end with another count")
        if self.variant == "release" and (self.mask_prior != "none" or self.mask_learning not in (None, "adam")):
            raise SettingError("PatConfig.variant='release': moves its proxy by Adam, from 0 on; leave out mask_prior and mask_learning")

    def _check_range(self, field: str, low: float, high: float, *, open_start: bool = False, open_end: bool = False) -> None:
        value = getattr(self, field)
        inside = (low < value if open_start else low <= value) and (value < high if open_end else value <= high)
        if not inside:
            bounds = f"{'(' if open_start else '['}{low:g}, {high:g}{')' if open_end else ']'}"
            raise SettingError(f"PatConfig.{field}={value!r}: must lie in {bounds}")

    @classmethod
    def pat_g(cls, pruning_ratio: float, **choices: Any) -> PatConfig:
        """Return PAT-G's: the leading directions of the gradient basis, cut at once behind refitted readers, no operators.

        `choices` win. Its base is what `prepare_base` writes, and `attach` is told the channels that it keeps.
        """
        return cls(pruning_ratio, **{**PAT_G, **choices})

    @property
    def fixed_mask(self) -> bool:
        """Whether it is known from the start which channels live."""
        return self.mask != "trained"

    @property
    def measured(self) -> bool:
        """Whether something has to be measured on calibration text before tuning."""
        return self.order in MEASURED_MASKS

    @property
    def order(self) -> Mask | None:
        """The importance that a fixed mask keeps channels by, or that a trained one starts in; None where it starts with all alike."""
        if self.fixed_mask:
            return self.mask
        return None if self.mask_prior == "none" else self.mask_prior

    @property
    def learning(self) -> MaskLearning:
        """What moves the proxy of a trained mask: its own learner, by one of two rules, or Adam with everything else (mask_learning.py)."""
        return self.mask_learning or ("adam" if self.variant == "release" else "saliency")

    @property
    def proxy_rate(self) -> float:
        """How far the proxy goes in a step, constant: it follows the milestone, or is the config's own."""
        travel = 0.5 if self.learning == "adam" else 1.0
        given = self.mask_learning_rate
        return travel / self.milestone_step if given is None or given == "recipe" else given

    @property
    def mask_follows_recipe(self) -> bool:
        """Whether the proxy has the rate and the schedule of everything else, as printed and as released, instead of a constant one."""
        return self.mask_learning_rate == "recipe" or (self.mask_learning_rate is None and self.variant == "release")

    @property
    def milestone_step(self) -> int:
        """Step s0 from which the mask is 0/1 (paper: a third of all steps), 0 where it closes at once. Else needs `total_steps`."""
        if self.closing == "at-once":
            return 0
        if self.total_steps is None:
            raise SettingError("PatConfig.total_steps is not set: give it, or train with PatCallback, which takes it from the trainer")
        return round(self.total_steps * self.milestone_fraction)

    @property
    def decide_step(self) -> int:
        """Step at which it is settled which channels live, between 1 and the milestone."""
        default = 0.8 if self.variant == "release" else 0.1 if self.learning == "adam" else 1.0
        fraction = default if self.decide_fraction is None else self.decide_fraction
        return min(max(round(fraction * self.milestone_step), 2), self.milestone_step)

    @property
    def keeps_count(self) -> Literal["centre", "loss"]:
        """How the number of open channels is held: by centring the proxy, or by L_active alone (as printed and as released)."""
        return self.count or ("loss" if self.variant == "release" else "centre")

    @property
    def weight_of_identity(self) -> float:
        """Factor of the identity loss: 1 as in the paper and the release; pinned operators would not move at all by it."""
        default = 0.01 if self.operators == "pinned" else 1.0
        return default if self.identity_weight is None else self.identity_weight

    def save(self, folder: Path) -> None:
        """Write `pat_config.json` into `folder`."""
        write_json(folder / PAT_CONFIG_NAME, dataclasses.asdict(self))

    @classmethod
    def load(cls, folder: Path) -> PatConfig:
        """Read `pat_config.json` from `folder`. Raises UserError where it is missing, or holds a field or a value that cannot be."""
        path = folder / PAT_CONFIG_NAME
        fields: dict[str, Any] = read_record(path)
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(fields) - known):
            raise UserError(f"{path}: unknown field(s) {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        if fields.get("variant") != "release":
            fields.setdefault("operators", "pinned")  # what all were before there was a choice
        try:
            return cls(**fields)
        except (TypeError, ValueError) as error:
            raise UserError(f"{path}: {error}") from None
