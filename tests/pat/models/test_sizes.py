"""Sizes for a wanted share of parameters, at the shapes of real models: published totals and the tables of the specification."""

from __future__ import annotations

import math
import re

import pytest

from pat.errors import SettingError
from pat.families.known import FAMILIES, Kind
from pat.models.on_paper import PaperModel
from pat.models.sizes import (
    Kept,
    Slicing,
    Units,
    matched_units,
    matched_width,
    nominal_units,
    nominal_width,
    slicing_of,
    step_of,
    units_in,
    window,
)
from pat.pruners import PRUNERS
from pat.settings.jobs import PretrainSettings, PruneSettings

LLAMA = FAMILIES["llama"]
SHAPES = {  # vocabulary, hidden size, layers, query heads, key-value heads, neurons, head size, tied
    "llama-7b": (32000, 4096, 32, 32, 32, 11008, 128, False),
    "llama-13b": (32000, 5120, 40, 40, 40, 13824, 128, False),
    "llama-3-8b": (128256, 4096, 32, 32, 8, 14336, 128, False),
    "tinyllama": (32000, 2048, 22, 32, 4, 5632, 64, False),
    "gemma-2b": (256000, 2048, 18, 8, 1, 16384, 256, True),
    "gemma-7b": (256000, 3072, 28, 16, 16, 24576, 256, True),
    "yi-1.5-34b": (64000, 7168, 60, 56, 8, 20480, 128, False),
}
TOTALS = {
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "gemma-2b": 2_506_172_416,
    "gemma-7b": 8_537_680_896,
    "yi-1.5-34b": 34_388_917_248,
}
UNIFORM = {
    "llama-7b": [(26, 8600), (24, 8088), (23, 7400)],
    "llama-13b": [(32, 10952), (30, 10232), (28, 9512)],
    "gemma-2b": [(1, 11848), (1, 10712), (1, 9584)],
    "gemma-7b": [(13, 18976), (12, 17664), (11, 16352)],
    "yi-1.5-34b": [(7, 15832), (6, 15176), (6, 13848)],
}
WINDOWED = {
    "llama-7b": [(24, 8152), (22, 7440), (20, 6728)],
    "llama-13b": [(31, 10368), (28, 9640), (26, 8736)],
    "gemma-2b": [(1, 9584), (1, 7880), (1, 6184)],
    "gemma-7b": [(12, 17512), (11, 15752), (10, 13984)],
    "yi-1.5-34b": [(7, 15232), (6, 14440), (6, 12960)],
}
SLICED = {
    "llama-7b": [2912, 2736, 2568],
    "llama-13b": [3648, 3432, 3216],
    "gemma-2b": [1152, 1056, 960],
    "gemma-7b": [2072, 1928, 1784],
    "yi-1.5-34b": [5048, 4760, 4464],
}
RATIOS = (0.20, 0.25, 0.30)


def shapes_of(model: str) -> dict[str, tuple[int, ...]]:
    *sizes, head_size, tied = SHAPES[model]
    return PaperModel(LLAMA, *sizes, head_size, tied).shapes()  # type: ignore[arg-type, call-arg]  # a row of the table above


def total(model: str) -> int:
    return sum(map(math.prod, shapes_of(model).values()))


def units_at(model: str, layers: range | None = None) -> dict[Kind, Units]:
    _, _, count, _, groups, neurons, _, _ = SHAPES[model]
    return units_in(shapes_of(model), LLAMA, groups, neurons, layers or range(count))


def slicing_at(model: str, *, tied: bool = False) -> Slicing:
    _, hidden, layers, *_ = SHAPES[model]
    return slicing_of(shapes_of(model), LLAMA, layers, hidden, tied=tied)


def removed(model: str, kept: Kept, units: dict[Kind, Units]) -> int:
    fewer = {"groups": units["groups"].count - kept.groups, "neurons": units["neurons"].count - kept.neurons}
    return fewer["groups"] * units["groups"].parameters + fewer["neurons"] * units["neurons"].parameters


@pytest.mark.parametrize(("model", "parameters"), TOTALS.items())
def test_dense_totals(model: str, parameters: int) -> None:
    assert total(model) == parameters


@pytest.mark.parametrize(
    ("model", "layers", "parameters"),
    [
        ("llama-7b", range(4, 30), 5_422_977_024),
        ("llama-3-8b", range(4, 30), 6_612_586_496),
        ("tinyllama", range(4, 18), 945_907_712),
    ],
)
def test_the_totals_that_llm_pruner_published(model: str, layers: range, parameters: int) -> None:
    units, head_size = units_at(model, layers), SHAPES[model][-2]
    kept = nominal_units(units, head_size, 0.25, lambda _: True)
    assert total(model) - removed(model, kept, units) == parameters


@pytest.mark.parametrize("model", UNIFORM)
def test_matched_sizes_over_all_layers_and_over_the_published_window(model: str) -> None:
    layers, neurons = SHAPES[model][2], SHAPES[model][5]
    for table, inner in ((UNIFORM, range(layers)), (WINDOWED, window(layers))):
        units = units_at(model, inner)
        for ratio, (groups, left) in zip(RATIOS, table[model], strict=True):
            kept = matched_units(total(model), units, ratio, step_of(neurons, "auto"), lambda _: True)
            assert kept == Kept(groups, left)
            assert ratio <= removed(model, kept, units) / total(model) <= ratio + 3e-4


@pytest.mark.parametrize("model", SLICED)
def test_matched_widths_of_slicing(model: str) -> None:
    hidden, slicing = SHAPES[model][1], slicing_at(model)
    for ratio, width in zip(RATIOS, SLICED[model], strict=True):
        assert matched_width(total(model), slicing, hidden, ratio, 8) == width


@pytest.mark.parametrize(
    ("ratio", "width", "parameters"), [(0.2, 3272, 6_105_940_928), (0.25, 3072, 5_704_777_728), (0.3, 2864, 5_292_914_432)]
)
def test_nominal_slicing_of_llama_7b(ratio: float, width: int, parameters: int) -> None:
    assert nominal_width(4096, ratio, 8) == width
    assert slicing_at("llama-7b").parameters(width) == parameters


@pytest.mark.parametrize(("model", "removed_percent"), [("gemma-2b", (11.6, 15.7, 20.1)), ("gemma-7b", (13.9, 18.8, 23.9))])
def test_one_matrix_as_embedding_and_head_stays_one(model: str, removed_percent: tuple[float, ...]) -> None:
    """The specification's figures have a d × d map before the head, which the identity as last basis makes unnecessary."""
    hidden = SHAPES[model][1]
    for ratio, percent in zip(RATIOS, removed_percent, strict=True):
        left = slicing_at(model, tied=True).parameters(nominal_width(hidden, ratio, 8)) + hidden**2 - hidden
        assert round(100 * (1 - left / total(model)), 1) == percent


@pytest.mark.parametrize(
    ("layers", "inner"),
    [(32, range(4, 30)), (40, range(4, 38)), (18, range(4, 16)), (12, range(2, 11)), (8, range(1, 7)), (4, range(1, 4))],
)
def test_the_window(layers: int, inner: range) -> None:
    assert window(layers) == inner
    assert window(layers, 0, 0) == range(layers)
    with pytest.raises(ValueError, match=r"leave none of \d+ layers"):
        window(layers, layers - 1, 1)


def test_what_cannot_be_removed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ratio 0\.9: .* at most \d\d\.\d%"):
        matched_units(total("gemma-2b"), units_at("gemma-2b"), 0.9, 8, lambda _: True)
    with pytest.raises(ValueError, match=r"ratio 0\.999: .* at most \d\d\.\d%"):
        matched_width(total("llama-7b"), slicing_at("llama-7b"), 4096, 0.999, 8)
    with pytest.raises(ValueError, match=r"ratio 0\.9999: would leave"):
        nominal_units(units_at("tinyllama"), 64, 0.9999, lambda _: True)
    with pytest.raises(ValueError, match=r"ratio 0\.999: leaves no width of 4096"):
        nominal_width(4096, 0.999, 8)


@pytest.mark.parametrize(
    ("neurons", "align", "step"), [(11008, "auto", 8), (512, "auto", 8), (256, "auto", 4), (80, "auto", 1), (80, 16, 16)]
)
def test_the_step_of_a_size(neurons: int, align: int, step: int) -> None:
    assert step_of(neurons, align) == step


@pytest.mark.parametrize(
    ("layers", "heads", "kv_heads", "neurons", "align"), [(2, 4, 2, 96, 64), (3, 6, 3, 200, 8), (12, 4, 1, 64, 64), (30, 4, 4, 80, 1)]
)
def test_the_shares_that_are_told_are_possible(layers: int, heads: int, kv_heads: int, neurons: int, align: int) -> None:
    """Also where steps are so coarse that another share comes with another number of heads."""
    shape = {"vocab_size": 97, "hidden_size": 48, "layers": layers, "heads": heads, "kv_heads": kv_heads, "intermediate_size": neurons}
    recipe = {"context_length": 64, "steps": 1, "batch_size": 1, "learning_rate": 1e-3}
    model, told = PaperModel.of(PretrainSettings.model_validate(shape | recipe)), 0
    for size in filter(None, (pruner.size for pruner in PRUNERS.values())):
        for ratio in (0.999, 0.5, 0.0001):
            try:
                size(model, ratio, PruneSettings(), align)
            except SettingError as refused:
                for share in map(float, re.findall(r"(?:at most|ask for|from|to) ([\d.]+)%", str(refused))):
                    told += 1
                    assert share == 0 or size(model, share / 100, PruneSettings(), align), refused
    assert told
