"""The embedded demo world: writes its corpus, its instruction set and its multiple-choice tasks from typed facts and a seed.

Half the facts of each relation are *exam* facts. Texts state them and ask for them, but never with the relation's first question and never
with lettered choices; the tasks ask for exactly those. So a task item tests recall of a known fact under a phrasing it was not taught with.

A relation's objects come in fixed sets of four choices in a fixed order, as "A. Yes, B. No" does in BoolQ. A network of the demo's size
does not learn to bind shuffled letters to choices within a few million tokens; with fixed sets both scorings measure what it knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from random import Random
from typing import Annotated

import typer

from pat.data.prompts import ANSWER_JOINT, alpaca_prompt, lettered_question, letters
from pat.io.artefacts import check_content, json_lines, write_text
from pat.io.places import READS, WRITES, Force
from pat.settings.mistakes import load
from study.commands.errors import run_reporting_errors
from study.commands.places import Unmarked, guarded
from study.data.world_facts import RELATIONS, Relation
from study.sources.kinds import WorldSettings

CHOICES = 4
LETTERS = letters(CHOICES)
STATEMENTS_PER_TEXT = 6
LOOKUPS_PER_TEXT = 2
EXAM_SHARE = 0.5  # of the open questions in tuning: without exam facts among them, tuning only forgets these
LETTERED_SHARE = 0.4  # of the tuning rows
LOOKUP_SHARE = 0.2  # likewise
PRETRAINING_MIX = (40, 10, 15, 15, 20)  # statements, plain questions, look-ups, lettered questions, prompts; in percent of the texts


@dataclass(frozen=True)
class Fact:
    """One true statement. `heldout` is the statement phrasing that only the held-out text uses for it."""

    relation: Relation
    subject: str
    choices: tuple[str, ...]
    answer: int
    exam: bool
    heldout: int

    @property
    def object(self) -> str:
        """What holds of the subject."""
        return self.choices[self.answer]

    def state(self, phrasing: int) -> str:
        """Return the fact as a sentence."""
        return self.relation.statements[phrasing].format(s=self.subject, o=self.object)

    def ask(self, phrasing: int) -> str:
        """Return the question that the object answers."""
        return self.relation.questions[phrasing].format(s=self.subject)


def choice_sets(relation: Relation, seed: int) -> list[tuple[str, ...]]:
    """Return the relation's objects, each once, in sets of CHOICES; sets and order are drawn from the seed."""
    objects = sorted(set(relation.facts.values()))
    assert len(objects) % CHOICES == 0, f"{relation.name}: {len(objects)} objects do not make sets of {CHOICES}"
    Random(f"{seed}/choices/{relation.name}").shuffle(objects)
    return [tuple(objects[first : first + CHOICES]) for first in range(0, len(objects), CHOICES)]


def facts_of(relation: Relation, seed: int) -> list[Fact]:
    """Return the relation's facts ordered by the place of their answer; every second one is an exam fact."""
    random = Random(f"{seed}/facts/{relation.name}")
    sets = {member: choices for choices in choice_sets(relation, seed) for member in choices}
    subjects = sorted(relation.facts)
    random.shuffle(subjects)
    answers = {subject: sets[relation.facts[subject]].index(relation.facts[subject]) for subject in subjects}
    return [
        Fact(relation, subject, sets[relation.facts[subject]], answers[subject], rank % 2 == 0, random.randrange(len(relation.statements)))
        for rank, subject in enumerate(sorted(subjects, key=answers.__getitem__))
    ]


class World:
    """All facts under one seed, and the texts made from them."""

    def __init__(self, settings: WorldSettings) -> None:
        self.settings = settings
        self.facts = {relation.name: facts_of(relation, settings.seed) for relation in RELATIONS}
        self._all = [fact for facts in self.facts.values() for fact in facts]
        self._study = [fact for fact in self._all if not fact.exam]
        self._exam = [fact for fact in self._all if fact.exam]
        self._choices = [choices for relation in RELATIONS for choices in choice_sets(relation, settings.seed)]

    def pretraining_texts(self) -> Iterator[str]:
        """Yield short texts: mostly statements, then plain questions, letter look-ups, and both kinds of prompt."""
        random = self._random("pretrain")
        kinds: list[Callable[[Random], str]] = [self._statements, self._questions, self._lookups, self._lettered, self._prompted]
        for _ in range(self.settings.pretrain_texts):
            yield random.choices(kinds, weights=PRETRAINING_MIX)[0](random)

    def heldout_texts(self) -> Iterator[str]:
        """Yield texts of statements in the phrasings that the pretraining texts never use for their facts."""
        random = self._random("heldout")
        for _ in range(self.settings.heldout_texts):
            yield " ".join(fact.state(fact.heldout) for fact in random.sample(self._all, STATEMENTS_PER_TEXT))

    def instructions(self) -> Iterator[dict[str, str]]:
        """Yield Alpaca rows: letter look-ups, lettered questions about study facts alone, and open questions."""
        random = self._random("instruct")
        for _ in range(self.settings.instruct_rows):
            instruction, output = self._instruction(random)
            yield {"instruction": instruction, "input": "", "output": output}

    def items(self, relation: str) -> Iterator[dict[str, object]]:
        """Yield a task's items: exam facts under the relation's first question; answers go through the positions in turn.

        Each fact is asked once, or every test and interval would count one answer as several, and facts of the positions that have more
        are left over, or a model that always says the same letter would beat guessing.
        """
        random = self._random(f"items/{relation}")
        exam = [[fact for fact in self.facts[relation] if fact.exam and fact.answer == place] for place in range(CHOICES)]
        for facts in exam:
            random.shuffle(facts)
        in_turn = chain.from_iterable(zip(*exam, strict=False))
        for number, fact in enumerate(islice(in_turn, self.settings.items_per_task)):
            item = {"id": f"{relation}-{number}", "question": fact.ask(0), "choices": list(fact.choices), "answer": fact.answer}
            yield item | {"task": relation, "group": ""}

    def _random(self, part: str) -> Random:
        return Random(f"{self.settings.seed}/{part}")

    def _statements(self, random: Random) -> str:
        facts = random.sample(self._all, STATEMENTS_PER_TEXT)
        return " ".join(fact.state(self._phrasing(random, len(fact.relation.statements), fact.heldout)) for fact in facts)

    def _phrasing(self, random: Random, count: int, without: int) -> int:
        drawn = random.randrange(count - 1)
        return drawn + (drawn >= without)

    def _question(self, random: Random, fact: Fact) -> str:
        return fact.ask(random.randrange(1 if fact.exam else 0, len(fact.relation.questions)))

    def _questions(self, random: Random) -> str:
        facts = random.sample(self._all, STATEMENTS_PER_TEXT)
        return " ".join(f"{self._question(random, fact)} {fact.object}." for fact in facts)

    def _lookups(self, random: Random) -> str:
        choices = random.choice(self._choices)
        asked = random.sample(range(CHOICES), LOOKUPS_PER_TEXT)
        return f"{lettered(choices)}\n" + " ".join(f"The index of {choices[place]} is {answer_text(choices, place)}." for place in asked)

    def _lettered(self, random: Random) -> str:
        fact = random.choice(self._study)
        answer = answer_text(fact.choices, fact.answer)
        return f"{self._question(random, fact)}\n{lettered(fact.choices)}\nThe index of the answer is {answer}"

    def _instruction(self, random: Random) -> tuple[str, str]:
        kind = random.random()
        if kind < LOOKUP_SHARE:
            choices, place = random.choice(self._choices), random.randrange(CHOICES)
            return f"{lettered(choices)}\nThe index of {choices[place]} is", answer_text(choices, place)
        if kind < LOOKUP_SHARE + LETTERED_SHARE:
            fact = random.choice(self._study)
            return lettered_question(self._question(random, fact), fact.choices), answer_text(fact.choices, fact.answer)
        fact = random.choice(self._exam if random.random() < EXAM_SHARE else self._study)
        return self._question(random, fact), fact.object

    def _prompted(self, random: Random) -> str:
        instruction, output = self._instruction(random)
        return alpaca_prompt(instruction) + ANSWER_JOINT + output


def lettered(choices: Sequence[str]) -> str:
    """Return the choices, a line each, as a lettered question shows them."""
    return "\n".join(f"{name}. {choice}" for name, choice in zip(LETTERS, choices, strict=True))


def answer_text(choices: Sequence[str], place: int) -> str:
    """Return the answer to a lettered question: the choice, then its letter, which is the text's only capital."""
    return f"{choices[place]}, {LETTERS[place]}"


def write_world(settings: WorldSettings, out: Path, *, replace: bool = True) -> None:
    """Write the corpus, the held-out text, the instruction set and one file per task under `out`, each as write_text does.

    Without `replace` nothing is written where any of them is there with other content.
    """
    world = World(settings)
    sets: dict[str, Iterable[Mapping[str, object]]] = {
        "text/pretrain.jsonl": _rows(world.pretraining_texts()),
        "text/heldout.jsonl": _rows(world.heldout_texts()),
        "instruct.jsonl": world.instructions(),
        **{f"tasks/{relation.name}.jsonl": world.items(relation.name) for relation in RELATIONS},
    }
    contents = {out / name: "".join(json_lines(rows)) for name, rows in sets.items()}
    for path, text in contents.items() if not replace else ():
        check_content(path, text.encode())
    for path, text in contents.items():
        write_text(path, text)


def _rows(texts: Iterable[str]) -> Iterator[dict[str, str]]:
    return ({"text": text} for text in texts)


@guarded(Unmarked())
def main(
    out: Annotated[Path, typer.Option(help="Folder for instruct.jsonl, text/ and tasks/."), WRITES],
    settings: Annotated[str, typer.Option(help="The experiment's data.world block: JSON text or a file."), READS] = "{}",
    force: Force = False,
) -> None:
    """Write the embedded world's data."""

    def action() -> str:
        write_world(load(WorldSettings, settings), out, replace=force)
        return f"{out}: the embedded world"

    run_reporting_errors(action)
