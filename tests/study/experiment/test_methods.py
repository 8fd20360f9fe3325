"""The registry's entries hang together, and a contradictory one is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pat.pruners import PRUNERS
from study.experiment.methods import METHODS, Method


def test_names_are_keys_and_labels_with_modes_are_unique() -> None:
    assert all(name == method.name for name, method in METHODS.items())
    assert len({(method.label, method.mode) for method in METHODS.values()}) == len(METHODS)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_a_method_prunes_by_its_mask_or_by_its_pruner(method: Method) -> None:
    assert method.prunes == (method.masked or method.pruner is not None)


def test_every_pruner_is_there_before_a_tuning_and_the_papers_after_it_too() -> None:
    orders = {method.pruner: {other.order for other in METHODS.values() if other.pruner == method.pruner} for method in METHODS.values()}
    before = {"prune-tune", "tune-prune-tune"}
    assert all(found >= before for pruner, found in orders.items() if pruner)
    papers = ("channel-fisher", "channel-magnitude", "slicegpt", "slicegpt-1q", "llm-pruner", "llm-pruner-uniform")
    assert all(orders[pruner] == before | {"tune-prune"} for pruner in papers)


def test_a_method_that_prunes_between_two_tunings_tunes_and_says_so() -> None:
    between = METHODS["shortgpt-ftpft"]
    assert (between.order, between.mode, between.tunes, between.in_two_parts) == ("tune-prune-tune", "FT→P→FT", True, True)
    assert {method.mode for method in METHODS.values() if method.in_two_parts} == {"FT→P→FT"}


@pytest.mark.parametrize(
    ("pruner", "order", "prunes"),
    [
        (None, "prune-tune", True),
        ("channel-magnitude", "tune", True),
        ("channel-magnitude", "tune-prune", False),
        (None, "tune-prune-tune", True),
    ],
)
def test_contradictions_are_refused(pruner: str | None, order: str, prunes: bool) -> None:
    with pytest.raises(ValueError, match="method x"):
        Method("x", "X", "", "lora", pruner, order, prunes=prunes)  # type: ignore[arg-type]


def test_what_a_plugin_registers_is_a_method_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(METHODS)
    monkeypatch.setitem(PRUNERS, "own", replace(PRUNERS["wanda-sp"], name="own", label="Own"))
    assert set(METHODS) - before == {"own-pft", "own-ftpft"} and METHODS["own-pft"].label == "Own"
    monkeypatch.undo()
    assert set(METHODS) == before
