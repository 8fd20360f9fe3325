"""The prompts' laws: what stands where, and that tuning and evaluation read the same text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pat.data.prompts import alpaca_prompt, first_capital_prompt, fixed_phrases, lettered_question, letters, log_likelihood_prompt


@given(st.text(min_size=1), st.text(min_size=1))
def test_an_alpaca_prompt_holds_its_parts_in_order_and_ends_where_the_answer_begins(instruction: str, context: str) -> None:
    prompt = alpaca_prompt(instruction, context)
    places = [prompt.index(f"### Instruction:\n{instruction}"), prompt.rindex(f"### Input:\n{context}"), prompt.rindex("### Response:")]
    assert places == sorted(places)
    assert prompt.endswith("### Response:")


def test_without_input_the_prompt_says_nothing_of_one() -> None:
    assert "Input" not in alpaca_prompt("Add 1 and 2.")
    assert "further context" not in alpaca_prompt("Add 1 and 2.")


def test_braces_in_the_data_are_plain_text() -> None:
    assert "{instruction} {0}" in alpaca_prompt("{instruction} {0}")


def test_a_lettered_question_names_each_letter_and_each_choice_on_its_line() -> None:
    text = lettered_question("What is 1 + 1?", ["two", "three", "four"])
    assert "'A', 'B', 'C'." in text
    assert "'D'" not in text
    assert "\nA. two\nB. three\nC. four\n" in text
    assert text.endswith("The index of the answer is")


def test_both_scorings_ask_inside_the_alpaca_template() -> None:
    assert first_capital_prompt("q", ["a", "b"]) == alpaca_prompt(lettered_question("q", ["a", "b"]))
    assert log_likelihood_prompt("q") == alpaca_prompt("q")


def test_the_fixed_phrases_stand_in_the_prompts() -> None:
    prompts = [alpaca_prompt("q", "i")] + [first_capital_prompt("q", ["x"] * count) for count in (2, 3, 4, 5)]
    assert all(any(phrase in prompt for prompt in prompts) for phrase in fixed_phrases())


@pytest.mark.parametrize("count", [0, 27])
def test_more_choices_than_letters_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"count={count}"):
        letters(count)
