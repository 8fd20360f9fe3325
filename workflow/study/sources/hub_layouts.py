"""The paper's 14 tasks as the hub has them: where each lies and how a row of its table becomes an item.

The columns are those of the data sets' own cards. The questions' wording is ours; the choices of yes-or-no tasks are "Yes" and "No".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pat.data.items import Item
from pat.settings.fields import Settings
from study.sources.kinds import Hub, HubTask, parts

Row = Mapping[str, Any]
SUPER_GLUE = "aps/super_glue"
YES_NO = ("Yes", "No")
HELLASWAG_MARK = re.compile(r"\s*\[[^\]]*\]\s*")


@dataclass(frozen=True)
class Question:
    """What a row says: question, choices, the place of the right one, and the subject where the task has some."""

    question: str
    choices: tuple[str, ...]
    answer: int
    group: str = ""

    def item(self, task: str, identifier: str) -> Item:
        """Return the checked item. Raises ValueError where the row is broken."""
        choices = tuple(choice.strip() for choice in self.choices)
        return Item(identifier, self.question.strip(), choices, self.answer, task, self.group)


@dataclass(frozen=True)
class Layout:
    """Where a task lies on the hub (labelled rows, the split that the paper's release scores) and how its rows are read."""

    dataset: str
    config: str | None
    split: str
    read: Callable[[Row], Question]


def _by_label(row: Row, label: str) -> int:
    """Return the place of an answer named by a letter, or by a number from 1; ARC mixes both."""
    labels: list[str] = row["choices"]["label"]
    return labels.index(label)


def _arc(row: Row) -> Question:
    return Question(f"Question: {row['question']}", tuple(row["choices"]["text"]), _by_label(row, row["answerKey"]))


def _boolq(row: Row) -> Question:
    return _yes_no(f"{row['passage']}\nQuestion: {row['question']}", row["label"] == 1)


def _yes_no(question: str, yes: bool) -> Question:
    return Question(question, YES_NO, 0 if yes else 1)


def _copa(row: Row) -> Question:
    asked = {"cause": "What brought this about?", "effect": "What came of this?"}[row["question"]]
    return Question(f"{row['premise']}\nQuestion: {asked}", (row["choice1"], row["choice2"]), row["label"])


def _hellaswag(row: Row) -> Question:
    start = f"{row['ctx_a']} {row['ctx_b'].capitalize()}" if row["ctx_b"] else row["ctx_a"]
    endings = tuple(_without_marks(ending) for ending in row["endings"])
    return Question(f"{row['activity_label']}: {_without_marks(start)}\nQuestion: How does it go on?", endings, int(row["label"]))


def _without_marks(text: str) -> str:
    """Return the text without the "[title]" and "[step]" of the articles that some rows were cut from."""
    return HELLASWAG_MARK.sub(" ", text).strip()


def _mmlu(row: Row) -> Question:
    return Question(f"Question: {row['question']}", tuple(row["choices"]), row["answer"], group=row["subject"])


def _multirc(row: Row) -> Question:
    asked = f"{row['question']}\nSuggested answer: {row['answer']}\nIs the suggested answer right?"
    return _yes_no(f"{row['paragraph']}\nQuestion: {asked}", row["label"] == 1)


def _openbookqa(row: Row) -> Question:
    return Question(f"Question: {row['question_stem']}", tuple(row["choices"]["text"]), _by_label(row, row["answerKey"]))


def _piqa(row: Row) -> Question:
    return Question(row["goal"], (row["sol1"], row["sol2"]), row["label"])


def _rte(row: Row) -> Question:
    asked = f"{row['premise']}\nStatement: {row['hypothesis']}\nQuestion: Does the statement follow from the text above it?"
    return _yes_no(asked, row["label"] == 0)  # 0 is "entailment"


def _siqa(row: Row) -> Question:
    choices = (row["answerA"], row["answerB"], row["answerC"])
    return Question(f"{row['context']}\nQuestion: {row['question']}", choices, int(row["label"]) - 1)


def _wic(row: Row) -> Question:
    asked = f"Does the word '{row['word']}' mean the same in both sentences?"
    return _yes_no(f"Sentence 1: {row['sentence1']}\nSentence 2: {row['sentence2']}\nQuestion: {asked}", row["label"] == 1)


def _winogrande(row: Row) -> Question:
    question = f"{row['sentence']}\nQuestion: What belongs in the place of the _?"
    return Question(question, (row["option1"], row["option2"]), int(row["answer"]) - 1)


def _wsc(row: Row) -> Question:
    asked = f"Does '{row['span2_text']}' stand for '{row['span1_text']}' here?"
    return _yes_no(f"{_with_span_marked(row)}\nQuestion: {asked}", row["label"] == 1)


def _with_span_marked(row: Row) -> str:
    """Return the text with stars around the pronoun, which may occur twice; the span's place counts words."""
    words = row["text"].split()
    first, length = row["span2_index"], len(row["span2_text"].split())
    return " ".join([*words[:first], "*", *words[first : first + length], "*", *words[first + length :]])


LAYOUTS: dict[str, Layout] = {
    "arc_challenge": Layout("allenai/ai2_arc", "ARC-Challenge", "validation", _arc),
    "arc_easy": Layout("allenai/ai2_arc", "ARC-Easy", "validation", _arc),
    "boolq": Layout(SUPER_GLUE, "boolq", "validation", _boolq),
    "copa": Layout(SUPER_GLUE, "copa", "validation", _copa),
    "hellaswag": Layout("Rowan/hellaswag", None, "validation", _hellaswag),
    "mmlu": Layout("cais/mmlu", "all", "test", _mmlu),
    "multirc": Layout(SUPER_GLUE, "multirc", "validation", _multirc),
    "openbookqa": Layout("allenai/openbookqa", "main", "test", _openbookqa),
    "piqa": Layout("baber/piqa", None, "validation", _piqa),
    "rte": Layout(SUPER_GLUE, "rte", "validation", _rte),
    "siqa": Layout("lighteval/siqa", None, "validation", _siqa),
    "wic": Layout(SUPER_GLUE, "wic", "validation", _wic),
    "winogrande": Layout("allenai/winogrande", "winogrande_xl", "validation", _winogrande),
    "wsc": Layout(SUPER_GLUE, "wsc.fixed", "validation", _wsc),
}


def datasets_of(source: Settings) -> list[str]:
    """Return the hub's names of the data sets that a source's rows are from, each once; none of what is on no hub."""
    named = (_dataset_of(part) for part in parts(source))
    return list(dict.fromkeys(name for name in named if name is not None))


def _dataset_of(source: Settings) -> str | None:
    if isinstance(source, HubTask):
        return source.id or LAYOUTS[source.layout].dataset
    return source.id if isinstance(source, Hub) else None
