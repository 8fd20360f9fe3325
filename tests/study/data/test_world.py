"""The embedded world: same seed, same bytes; true and balanced items; no exam fact in the form that the tasks ask with."""

from __future__ import annotations

import filecmp
import json
from pathlib import Path
from typing import Any

import pytest

from pat.data.prompts import lettered_question
from pat.errors import UserError
from pat.settings.mistakes import load
from study.data import world
from study.data.world_facts import RELATIONS
from study.sources.kinds import WORLD_TASKS, WORLD_TEXTS, WorldSettings

SETTINGS = WorldSettings(pretrain_texts=3000, heldout_texts=20, instruct_rows=2000, items_per_task=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    world.write_world(SETTINGS, out)
    return out


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_same_seed_gives_same_bytes_and_another_seed_others(folder: Path, tmp_path: Path) -> None:
    world.write_world(SETTINGS, tmp_path / "again")
    world.write_world(SETTINGS.model_copy(update={"seed": 1}), tmp_path / "other")
    names = files(folder)
    assert filecmp.cmpfiles(folder, tmp_path / "again", names, shallow=False)[0] == names
    assert not filecmp.cmpfiles(folder, tmp_path / "other", names, shallow=False)[0]


def test_nothing_is_written_where_one_of_its_files_is_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/sums.jsonl").write_text("mine")
    with pytest.raises(UserError, match=r"tasks/sums\.jsonl: is there already, with other content"):
        world.write_world(SETTINGS, tmp_path, replace=False)
    assert files(tmp_path) == ["tasks/sums.jsonl"]


def test_names_agree_with_those_the_experiment_file_allows(folder: Path) -> None:
    assert sorted(WORLD_TASKS) == sorted(relation.name for relation in RELATIONS)
    assert files(folder / "tasks") == sorted(f"{task}.jsonl" for task in WORLD_TASKS)
    assert {f"{text}.jsonl" for text in WORLD_TEXTS} < set(files(folder / "text"))


@pytest.mark.parametrize("relation", RELATIONS, ids=lambda relation: relation.name)
def test_items_are_true_balanced_and_at_chance_one_quarter(folder: Path, relation: Any) -> None:
    items = rows(folder / "tasks" / f"{relation.name}.jsonl")
    truths = {relation.questions[0].format(s=subject): value for subject, value in relation.facts.items()}
    assert 12 <= len(items) <= min(24, SETTINGS.items_per_task) and len({item["question"] for item in items}) == len(items)
    for item in items:
        assert set(item) == {"id", "question", "choices", "answer", "task", "group"}
        assert len(set(item["choices"])) == world.CHOICES
        assert item["choices"][item["answer"]] == truths[item["question"]]
    places = [item["answer"] for item in items]
    assert {places.count(place) for place in range(world.CHOICES)} == {len(items) // world.CHOICES}
    assert len({item["id"] for item in items}) == len(items)


@pytest.mark.parametrize("relation", RELATIONS, ids=lambda relation: relation.name)
def test_exam_questions_and_their_lettered_form_are_in_no_text_to_learn_from(folder: Path, relation: Any) -> None:
    learned = (folder / "text" / "pretrain.jsonl").read_text(encoding="utf-8") + (folder / "instruct.jsonl").read_text(encoding="utf-8")
    exam = [fact for fact in world.facts_of(relation, SETTINGS.seed) if fact.exam]
    assert {fact.ask(0) for fact in exam} >= {item["question"] for item in rows(folder / "tasks" / f"{relation.name}.jsonl")}
    for fact in exam:
        assert fact.ask(0) not in learned
        for phrasing in range(len(relation.questions)):
            assert json.dumps(f"{fact.ask(phrasing)}\nA.")[1:-1] not in learned


def test_every_fact_is_stated_but_its_heldout_phrasing_never(folder: Path) -> None:
    learned = (folder / "text" / "pretrain.jsonl").read_text(encoding="utf-8")
    heldout = (folder / "text" / "heldout.jsonl").read_text(encoding="utf-8")
    facts = [fact for relation in RELATIONS for fact in world.facts_of(relation, SETTINGS.seed)]
    for fact in facts:
        known = set(range(len(fact.relation.statements))) - {fact.heldout}
        assert any(fact.state(phrasing) in learned for phrasing in known)
        assert not any(text in learned for text in (f" {fact.state(fact.heldout)} ", f'"{fact.state(fact.heldout)}'))
    assert sum(fact.state(fact.heldout) in heldout for fact in facts) > len(facts) // 10


def test_instructions_are_alpaca_rows_and_a_capital_in_an_answer_is_the_right_letter(folder: Path) -> None:
    instructions = rows(folder / "instruct.jsonl")
    lettered = [row for row in instructions if "\nA. " in f"\n{row['instruction']}"]
    assert 0.5 < len(lettered) / len(instructions) < 0.7
    for row in instructions:
        assert set(row) == {"instruction", "input", "output"}
        capitals = [letter for letter in row["output"] if letter.isupper()]
        assert len(capitals) == (row in lettered)
        for letter in capitals:
            assert f"\n{letter}. {row['output'].removesuffix(f', {letter}')}\n" in f"\n{row['instruction']}"


def test_tuning_asks_in_the_words_of_the_scoring() -> None:
    built = world.World(SETTINGS)
    fact = next(fact for fact in built.facts["capitals"] if not fact.exam)
    prompts = {lettered_question(fact.ask(phrasing), fact.choices) for phrasing in range(len(fact.relation.questions))}
    assert prompts & {row["instruction"] for row in built.instructions()}


def test_unknown_setting_is_refused_with_its_name() -> None:
    with pytest.raises(UserError, match="instruct_row"):
        load(WorldSettings, '{"instruct_row": 3}')
