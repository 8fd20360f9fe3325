"""The texts a model is asked with: the Alpaca template and the paper's lettered question.

Owns the wording and where the answer joins on. Tuning, evaluation and the embedded world all take it from here; knows nothing of tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

ANSWER_JOINT = " "  # between a prompt and its answer: byte-level tokenizers then see the answer's first word as in running text

_SYSTEM = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
_SYSTEM_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
_INSTRUCTION = "\n\n### Instruction:\n"
_INPUT = "\n\n### Input:\n"
_RESPONSE = "\n\n### Response:"
_REQUEST = "Answer the question by replying the index of the correct choice, which should be one of {allowed}.\n\n"
_CLOSING = "\nThe index of the answer is"
_USUAL_COUNTS = (2, 3, 4, 5)


def alpaca_prompt(instruction: str, input: str = "") -> str:
    """Return the Alpaca prompt; it ends in "### Response:" and the answer follows after ANSWER_JOINT."""
    if input:
        return _SYSTEM_WITH_INPUT + _INSTRUCTION + instruction + _INPUT + input + _RESPONSE
    return _SYSTEM + _INSTRUCTION + instruction + _RESPONSE


def letters(count: int) -> str:
    """Return the first `count` capital letters. Raises ValueError where the alphabet has not as many."""
    if not 1 <= count <= len(ascii_uppercase):
        raise ValueError(f"count={count} choices cannot be lettered; allowed: 1 to {len(ascii_uppercase)}")
    return ascii_uppercase[:count]


def lettered_question(question: str, choices: Sequence[str]) -> str:
    """Return the instruction that asks for a choice's letter: the paper's request, the item, its choices a line each."""
    names = letters(len(choices))
    lines = "\n".join(f"{name}. {choice}" for name, choice in zip(names, choices, strict=True))
    return _request(len(choices)) + f"{question}\n{lines}" + _CLOSING


def _request(count: int) -> str:
    return _REQUEST.format(allowed=", ".join(f"'{name}'" for name in letters(count)))


def first_capital_prompt(question: str, choices: Sequence[str]) -> str:
    """Return the whole prompt of the generated scoring, where the first capital letter among the choices' is the answer."""
    return alpaca_prompt(lettered_question(question, choices))


def log_likelihood_prompt(question: str) -> str:
    """Return the context whose continuations, ANSWER_JOINT and a choice's text, are compared by log-likelihood."""
    return alpaca_prompt(question)


def fixed_phrases() -> tuple[str, ...]:
    """Return the parts of the prompts that no item changes, longest first: a small model's tokenizer may keep each whole."""
    requests = [_request(count) for count in _USUAL_COUNTS]
    return (_SYSTEM_WITH_INPUT + _INSTRUCTION, _SYSTEM + _INSTRUCTION, *requests, _CLOSING, _INPUT, _RESPONSE)
