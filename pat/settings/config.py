"""What a pruning-aware run may choose: the choices of an experiment's file (PatChoices), and with those of the run, its PatConfig.

Torch-free. A PatConfig is saved beside every adapter as `pat_config.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from pat.errors import SettingError, UserError
from pat.io.artefacts import read_record, write_json
from pat.settings.budget import NUMBER, Budget, kind_of
from pat.settings.fields import CONTRADICTION, Align, Count, CountOrZero, Number, Rate, SeedNumber, Settings, Weight, equals, is_none
from pat.settings.mistakes import nearest, wanted

PAT_CONFIG_NAME = "pat_config.json"
SHORTEST_MILESTONE = 2
"""Steps that a mask takes to close gradually, at least: the gate needs a first and a last one."""

Variant = Literal["paper", "release"]
Basis = Literal["native", "pca", "gradient"]
Readers = Literal["plain", "least-squares"]
Tie = Literal["keep", "break"]
"""Whether embedding and head stay one matrix under a change of basis, where they are one."""
Mask = Literal["trained", "frozen", "leading", "variance", "fisher", "magnitude", "random"]
MaskPrior = Literal["none", "magnitude", "variance", "fisher", "leading"]
MaskLearning = Literal["saliency", "gradient", "adam"]
MEASURED_MASKS: tuple[Mask, ...] = ("variance", "fisher")
"""Those whose order is measured on text."""
Fraction = Annotated[Number, Field(gt=0, le=1)]
PAT_G: dict[str, Any] = {"basis": "gradient", "mask": "leading", "closing": "at-once", "readers": "least-squares", "hio_rank": 0}
"""The leading directions of the gradient basis, cut at once behind readers that compensate for the others (docs/method.md)."""


@dataclass(frozen=True)
class Contradiction:
    """Choices that do not go together, told under `field`, the last of them: in the words of a file's keys, and in those of Python."""

    field: str
    there: Callable[[Mapping[str, Any]], bool]
    in_file: str
    in_python: str


CONTRADICTIONS = (
    Contradiction(
        "variant",
        lambda run: run["variant"] == "release" and run.get("operators") == "pinned",
        "must be 'paper' with operators: pinned; the released operators have a start of their own",
        "operators='pinned' with variant='release': released operators start in their own way; use 'free'",
    ),
    Contradiction(
        "closing",
        lambda run: run["closing"] == "at-once" and run.get("mask") == "trained",
        "must be 'gradual' where the mask is trained; a fixed mask may close at once",
        "closing='at-once' with mask='trained': a mask that is learned has to close gradually",
    ),
    Contradiction(
        "readers",
        lambda run: run["readers"] == "least-squares" and run.get("mask") == "trained",
        "must be 'plain' where the mask is trained; only a fixed mask knows before tuning what it drops",
        "readers='least-squares' with mask='trained': only a fixed mask knows before tuning what it drops",
    ),
    Contradiction(
        "exact_count",
        lambda run: not run["exact_count"] and (run.get("variant") != "release" or run.get("mask") != "trained"),
        "must be true but for the trained mask of variant: release, which may end with another count",
        "exact_count=False: only the trained mask of variant='release' may end with another count",
    ),
    Contradiction(
        "mask_prior",
        lambda run: run["mask_prior"] != "none" and run.get("mask") != "trained",
        "must be 'none' where the mask is fixed; only a trained mask starts from an order and leaves it",
        "mask_prior={mask_prior!r} with mask={mask!r}: only a trained mask starts in an order",
    ),
    Contradiction(
        "mask_prior",
        lambda run: run["mask_prior"] != "none" and run.get("variant") == "release",
        "must be 'none' with variant: release, whose proxy starts at 0",
        "mask_prior={mask_prior!r} with variant='release': its proxy starts at 0; leave out mask_prior",
    ),
    Contradiction(
        "mask_learning",
        lambda run: run["mask_learning"] not in (None, "adam") and run.get("variant") == "release",
        "must be 'adam' with variant: release",
        "variant='release': moves its proxy by Adam, from 0 on; leave out mask_prior and mask_learning",
    ),
    Contradiction(
        "mask_learning_rate",
        lambda run: run["mask_learning_rate"] == "recipe" and run.get("mask_learning") != "adam" and run.get("variant") != "release",
        "must be a number, or None, where mask_learning is not adam: the recipe's rate is the optimizer's",
        "mask_learning_rate='recipe' with mask_learning={learning!r}: only 'adam' has a recipe's rate",
    ),
)


class PatChoices(Settings):
    """The mask and its operators; docs/method.md says what each is. None means the default of the variant.

    `operators` says how the low-rank ones start: "free" with L1 = 0, or, an ablation that hardly moves, "pinned" with v = 0 and both
    factors orthonormal and held so; D = I in both. `variant="release"` follows the authors' code: scale over the output channels, Kaiming
    L0, their count and identity losses, a mask that stays soft in training, its temperature fixed from `decide_fraction` of the milestone
    on. In both, exactly `width` channels survive, unless `exact_count` is off: the release keeps those that are open in
    the end, however many. `basis` says which one the base is in: `pat rotate` puts it there, and tuning and merging refuse a base that is
    in another. `tie` says whether that left embedding and head one matrix, `readers` what `pat refit-readers` did to the base.
    """

    hio_rank: CountOrZero | Literal["dense"] = Field(
        default=200, description="rank of the operators; 0: the mask alone; dense: a free matrix"
    )
    operators: Literal["free", "pinned"] = Field(
        default="free",
        description="how low-rank operators start: free with L1 = 0; pinned, an ablation, with v = 0 and both factors held orthonormal",
    )
    variant: Variant = Field(default="paper", description="paper, or release: as the authors' released code does")
    basis: Basis = Field(default="native", exclude_if=equals("native"), description="rotation of the base before tuning")
    tie: Tie = Field(
        default="keep",
        exclude_if=equals("keep"),
        description="whether embedding and head stay one matrix in a new basis, where they are one",
    )
    mask: Mask = Field(default="trained", description="trained, or which channels a fixed mask keeps")
    closing: Literal["gradual", "at-once"] = Field(
        default="gradual", exclude_if=equals("gradual"), description="a fixed mask closes gradually, or is 0/1 from the first step"
    )
    readers: Readers = Field(
        default="plain",
        exclude_if=equals("plain"),
        description="least-squares, for a fixed mask: refit the readers before tuning, where that helps on held-out text",
    )
    count: Literal["centre", "loss"] | None = Field(
        default=None,
        description="how the number of open channels is held: centring, or L_active alone; left out: centre, with release loss",
    )
    exact_count: bool = Field(
        default=True,
        exclude_if=equals(True),
        description="false: the mask of release keeps the channels that are open in the end, however many",
    )
    milestone_fraction: Fraction = Field(
        default=1 / 3, description="share of all steps after which the mask is 0/1, or a `-ftpft` row is pruned"
    )
    decide_fraction: Fraction | None = Field(
        default=None,
        description="share of the milestone after which it is settled which channels live; left out: 1, with adam 0.1, with release 0.8",
    )
    identity_weight: Weight | None = Field(default=None, description="factor of the identity loss; left out: 1, with pinned operators 0.01")
    active_weight: Weight = Field(default=1.0, description="factor of the loss on the number of channels")
    mask_prior: MaskPrior = Field(
        default="none", exclude_if=equals("none"), description="order in which a trained mask starts, wide open all the same"
    )
    mask_learning: MaskLearning | None = Field(
        default=None, exclude_if=is_none, description="what moves the proxy of a trained mask; left out: saliency, with release adam"
    )
    mask_learning_rate: Rate | Literal["recipe"] | None = Field(
        default=None,
        description="how far the proxy goes per step; left out: 1 / milestone step, with adam half of it; recipe: that of everything else",
    )
    align: Align = Field(
        default="auto",
        description="widths are multiples of this and of the heads; auto: the largest power of two up to 64 that leaves 16 widths; "
        "gguf: 256, which every type of a GGUF file takes",
    )

    @field_validator(*{contradiction.field for contradiction in CONTRADICTIONS})
    @classmethod
    def _goes_with_the_others(cls, value: object, info: ValidationInfo) -> object:
        run = {**info.data, str(info.field_name): value}
        for contradiction in CONTRADICTIONS:
            if contradiction.field == info.field_name and contradiction.there(run):
                known = {name: run.get(name, cls.model_fields[name].default) for name in PatChoices.model_fields}
                known["learning"] = known["mask_learning"] or "saliency"
                raise PydanticCustomError(CONTRADICTION, contradiction.in_file, {IN_PYTHON: contradiction.in_python.format(**known)})
        return value

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

    def milestone_of(self, steps: int) -> int:
        """Return the step of a tuning of so many from which a mask that closes gradually is 0/1."""
        return round(steps * self.milestone_fraction)

    def closes_within(self, steps: int) -> bool:
        """Return whether a tuning of so many steps leaves the mask those that it takes to close."""
        return self.closing == "at-once" or self.milestone_of(steps) >= SHORTEST_MILESTONE

    @property
    def mask_follows_recipe(self) -> bool:
        """Whether the proxy has the rate and the schedule of everything else, as printed and as released, instead of a constant one."""
        return self.mask_learning_rate == "recipe" or (self.mask_learning_rate is None and self.variant == "release")

    @property
    def keeps_count(self) -> Literal["centre", "loss"]:
        """How the number of open channels is held: by centring the proxy, or by L_active alone (as printed and as released)."""
        return self.count or ("loss" if self.variant == "release" else "centre")

    @property
    def weight_of_identity(self) -> float:
        """Factor of the identity loss: 1 as in the paper and the release; pinned operators would not move at all by it."""
        default = 0.01 if self.operators == "pinned" else 1.0
        return default if self.identity_weight is None else self.identity_weight


def _is_a_ratio(value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError("must lie in [0, 1)")
    return value


class PatConfig(PatChoices):
    """The choices of one run: those of its file, its ratio and seed, its LoRA, and what is only known later, which None stands for.

    A budget in place of the ratio, `Budget(parameters=1e8)` or {"parameters": 1e8}, is solved by `attach`, which knows the model. Raises
    ValueError on a value that cannot be.
    """

    pruning_ratio: Annotated[
        Annotated[Number, AfterValidator(_is_a_ratio), Tag(NUMBER)] | Annotated[Budget, Tag(Budget.__name__)], Discriminator(kind_of)
    ]
    width: Count | None = None
    total_steps: Count | None = None
    lora_rank: Count = 20
    lora_alpha: Rate = 4.0
    lora_dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.05
    use_dora: bool = False
    seed: SeedNumber = 0

    if not TYPE_CHECKING:  # type checkers read the fields

        def __init__(self, pruning_ratio: float | Budget, **choices: Any) -> None:
            try:
                super().__init__(pruning_ratio=pruning_ratio, **choices)
            except ValidationError as error:
                raise refusal(error) from None
            self._check_one_size()
            self._check_milestone()

    @property
    def ratio(self) -> float:
        """The share of the hidden size to prune. Raises SettingError where a budget in its place is not solved yet."""
        if isinstance(self.pruning_ratio, Budget):
            raise SettingError(
                f"PatConfig.pruning_ratio: the budget {self.pruning_ratio} is not solved yet: `attach` does it for its model"
            )
        return self.pruning_ratio

    def _check_one_size(self) -> None:
        if isinstance(self.pruning_ratio, Budget) and self.width is not None:
            raise SettingError(f"PatConfig.width={self.width} with the budget {self.pruning_ratio}: give one of the two")

    def _check_milestone(self) -> None:
        if self.total_steps is not None and not self.closes_within(self.total_steps):
            raise SettingError(
                f"PatConfig.total_steps={self.total_steps} with milestone_fraction={self.milestone_fraction:g} puts the "
                f"milestone at step {self.milestone_step}: the gate needs at least {SHORTEST_MILESTONE} steps to close"
            )

    @classmethod
    def pat_g(cls, pruning_ratio: float | Budget, **choices: Any) -> PatConfig:
        """Return PAT-G's: the leading directions of the gradient basis, cut at once behind refitted readers, no operators.

        `choices` win. Its base is what `prepare_base` writes, and `attach` is told the channels that it keeps.
        """
        return cls(pruning_ratio=pruning_ratio, **{**PAT_G, **choices})

    def changed(self, **choices: Any) -> Self:
        """Return the same but for these choices. Raises ValueError on a value that cannot be."""
        return type(self)(**dict(self) | choices)

    @property
    def proxy_rate(self) -> float:
        """How far the proxy goes in a step, constant: it follows the milestone, or is the config's own."""
        travel = 0.5 if self.learning == "adam" else 1.0
        given = self.mask_learning_rate
        return travel / self.milestone_step if given is None or given == "recipe" else given

    @property
    def milestone_step(self) -> int:
        """Step s0 from which the mask is 0/1 (paper: a third of all steps), 0 where it closes at once. Else needs `total_steps`."""
        if self.closing == "at-once":
            return 0
        if self.total_steps is None:
            raise SettingError("PatConfig.total_steps is not set: give it, or train with PatCallback, which takes it from the trainer")
        return self.milestone_of(self.total_steps)

    @property
    def decide_step(self) -> int:
        """Step at which it is settled which channels live, between 1 and the milestone."""
        default = 0.8 if self.variant == "release" else 0.1 if self.learning == "adam" else 1.0
        fraction = default if self.decide_fraction is None else self.decide_fraction
        return min(max(round(fraction * self.milestone_step), 2), self.milestone_step)

    def save(self, folder: Path) -> None:
        """Write `pat_config.json` into `folder`."""
        write_json(folder / PAT_CONFIG_NAME, dict(self))

    @classmethod
    def load(cls, folder: Path) -> PatConfig:
        """Read `pat_config.json` from `folder`. Raises UserError where it is missing, or holds a field or a value that cannot be."""
        path = folder / PAT_CONFIG_NAME
        fields: dict[str, Any] = read_record(path)
        if unknown := sorted(set(fields) - cls.model_fields.keys()):
            raise UserError(f"{path}: unknown field(s) {', '.join(unknown)}; known: {', '.join(sorted(cls.model_fields))}")
        if fields.get("variant") != "release":
            fields.setdefault("operators", "pinned")  # what all were before there was a choice
        try:
            loaded = cls(**fields)
            _ = loaded.ratio  # of a run it is known
            return loaded
        except (TypeError, ValueError) as error:
            raise UserError(f"{path}: {error}") from None


IN_PYTHON = "in_python"


def refusal(error: ValidationError) -> Exception:
    """Return what is wrong with a PatConfig's arguments, as a SettingError in the words of who calls it; unknown ones are a TypeError."""
    details = error.errors()
    if of_budget := [detail for detail in details if Budget.__name__ in detail["loc"]]:
        return _budget_refusal(min(of_budget, key=lambda detail: detail["type"] != "extra_forbidden"))
    unknown = [str(detail["loc"][0]) for detail in details if detail["type"] == "extra_forbidden"]
    if unknown:
        return TypeError(f"PatConfig: has no field {unknown[0]!r}{nearest(unknown[0], PatConfig.model_fields)}")
    first = details[0]["loc"][0]
    same = [detail for detail in details if detail["loc"][0] == first]  # of a union, one for each of its branches
    if told := same[0].get("ctx", {}).get(IN_PYTHON):
        return SettingError(f"PatConfig.{told}")
    return SettingError(f"PatConfig.{first}={same[0]['input']!r}: {' or '.join(map(_wanted, same))}")


def _budget_refusal(detail: ErrorDetails) -> SettingError:
    field, _, *key = map(str, detail["loc"])
    if detail["type"] == "extra_forbidden":
        return SettingError(f"PatConfig.{field}: a budget has no field {key[0]!r}{nearest(key[0], Budget.model_fields)}")
    return SettingError(f"PatConfig.{'.'.join((field, *key))}={detail['input']!r}: {_wanted(detail)}")


def _wanted(detail: ErrorDetails) -> str:
    if detail["type"] == "literal_error" and " or " in detail["ctx"]["expected"]:
        return f"must be one of {detail['ctx']['expected'].replace(' or ', ', ')}"
    return wanted(detail["msg"])
