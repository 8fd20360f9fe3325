"""The texts a model is asked with: the Alpaca template and the paper's lettered question (section 4.1 there).

Owns the wording and where the answer joins on. Tuning, evaluation and the embedded world all take it from here; knows nothing of tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

ANSWER_JOINT = " "  # between a prompt and its answer: byte-level tokenizers then see the answer's first word as in running text

_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)
_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)


def alpaca_prompt(instruction: str, input: str = "") -> str:
    """Return the Alpaca prompt; it ends in "### Response:" and the answer follows after ANSWER_JOINT."""
    template = _WITH_INPUT if input else _WITHOUT_INPUT
    return template.format(instruction=instruction, input=input)


def letters(count: int) -> str:
    """Return the first `count` capital letters. Raises ValueError where the alphabet has not as many."""
    if not 1 <= count <= len(ascii_uppercase):
        raise ValueError(f"count={count} choices cannot be lettered; allowed: 1 to {len(ascii_uppercase)}")
    return ascii_uppercase[:count]


def lettered_question(question: str, choices: Sequence[str]) -> str:
    """Return the instruction that asks for a choice's letter: the paper's request, the item, its choices a line each."""
    names = letters(len(choices))
    allowed = ", ".join(f"'{name}'" for name in names)
    lines = "\n".join(f"{name}. {choice}" for name, choice in zip(names, choices, strict=True))
    return (
        f"Answer the question by replying the index of the correct choice, which should be one of {allowed}.\n\n"
        f"{question}\n{lines}\nThe index of the answer is"
    )


def first_capital_prompt(question: str, choices: Sequence[str]) -> str:
    """Return the whole prompt of the generated scoring, where the first capital letter among the choices' is the answer."""
    return alpaca_prompt(lettered_question(question, choices))


def log_likelihood_prompt(question: str) -> str:
    """Return the context whose continuations, ANSWER_JOINT and a choice's text, are compared by log-likelihood."""
    return alpaca_prompt(question)
