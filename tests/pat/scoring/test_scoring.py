"""How answers are read and counted."""

from __future__ import annotations

from string import ascii_uppercase

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.api.metrics import mean_stderr

from pat.scoring.answers import Outcome, accuracy, first_capital, first_capital_word, mean_over_tasks, most_likely, task_figures
from tests.kit.tiny_checkpoint import some_items


@pytest.mark.parametrize(
    ("text", "capital", "word"),
    [
        (" C", 2, 2),
        (" C.", 2, 2),
        ("Answer: C", 0, 2),  # the paper's reading takes the A of "Answer"
        ("answer: (B)", 1, 1),
        ("Blue, D", 1, 3),
        ("the index is E, or D", 3, 3),  # E is not among four choices
        ("c", None, None),
        ("CD", 2, None),
        ("", None, None),
        ("É B", 1, 1),
    ],
)
def test_the_two_readings_of_generated_text(text: str, capital: int | None, word: int | None) -> None:
    assert first_capital(text, 4) == capital
    assert first_capital_word(text, 4) == word


@given(st.text(), st.integers(2, 26))
def test_the_first_capital_has_no_other_before_it(text: str, count: int) -> None:
    place = first_capital(text, count)
    names = ascii_uppercase[:count]
    if place is None:
        assert not set(text) & set(names)
    else:
        assert not set(text[: text.index(names[place])]) & set(names)


@given(st.text(alphabet=st.characters(exclude_characters=ascii_uppercase)), st.integers(0, 3))
def test_a_lone_letter_is_read_alike_by_both(text: str, place: int) -> None:
    answer = f"{text} {ascii_uppercase[place]} {text}"
    assert first_capital(answer, 4) == first_capital_word(answer, 4) == place


def test_acc_norm_divides_by_the_choice_in_characters() -> None:
    assert most_likely([-4.0, -6.0], ["ab", "abcdef"]) == {"acc": 0, "acc_norm": 1}


@given(st.lists(st.booleans(), min_size=2, max_size=60))
def test_the_standard_error_is_lm_evals(correct: list[bool]) -> None:
    assert accuracy(correct)["stderr"] == pytest.approx(mean_stderr([float(one) for one in correct]), abs=1e-12)


def test_one_item_has_no_standard_error() -> None:
    assert accuracy([True]) == {"value": 1.0, "stderr": None}


def test_a_tasks_figure_weighs_items_and_its_groups_are_listed() -> None:
    items = some_items(8, groups=("x", "x", "x", "y"))
    outcomes = [Outcome(item, {"acc": item.answer if item.group == "x" else 9}) for item in items]
    figures = task_figures(outcomes)
    assert figures["items"] == 8
    assert figures["chance"] == 0.25
    assert figures["scores"]["acc"]["value"] == 0.75
    assert {group: one["scores"]["acc"]["value"] for group, one in figures["groups"].items()} == {"x": 1.0, "y": 0.0}
    assert "groups" not in task_figures([Outcome(item, {"acc": 0}) for item in some_items(4)])


def test_the_mean_weighs_tasks_alike() -> None:
    small = task_figures([Outcome(item, {"acc": item.answer}) for item in some_items(2)])
    large = task_figures([Outcome(item, {"acc": None}) for item in some_items(40)])
    assert mean_over_tasks({"small": small, "large": large}) == {"acc": 0.5}
    assert mean_over_tasks({}) == {}
