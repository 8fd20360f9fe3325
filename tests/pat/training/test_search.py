"""The search for a rate: dev rows never learned from, the best rate found, the same after a kill, a record that says how sure it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import stdev
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

import pat.data.encoding
import pat.training.search
import pat.training.tuning
from pat.checkpoints import checkpoint
from pat.data.instructions import Instructions
from pat.errors import UserError
from pat.io.artefacts import write_jsonl
from pat.settings.jobs import TuneJob
from pat.training.dev_loss import DevLoss, dev_loss
from pat.training.request import TuningRequest
from pat.training.search import LOSSES, NORMAL_95, candidate_job, search_rate, split, with_searched_rate
from pat.training.tuned_model import build_model
from pat.training.tuning import tune
from tests.kit.tiny_world import ROWS, write_world
from tests.kit.tuning_requests import asked
from tests.kit.tunings import RECIPE, adapter_bytes

pytestmark = pytest.mark.lengthy


def tokens(rows: Instructions) -> list[dict[str, list[int]]]:
    return [rows[number] for number in range(len(rows))]


SHORT = {key: value for key, value in RECIPE.items() if key != "learning_rate"}


def job(*rates: float, dev_rows: int = 16, steps: int | None = None, **changes: Any) -> TuneJob:
    search = {"learning_rates": rates, "dev_rows": dev_rows, "steps": steps}
    return TuneJob.model_validate({"tuning": SHORT | changes | {"search": search}, "pat": {"hio_rank": 3}})


def run(folder: Path, settings: TuneJob, tuner: str = "lora", teacher: Path | None = None) -> dict[str, Any]:
    ratio = 0.25 if tuner.startswith("pat") else 0.0
    return search_rate(
        asked(folder / "base", folder / "instruct.jsonl", tuner, ratio, 7, settings, folder / "run", folder / "rate.json", teacher)
    )


rows = st.lists(st.fixed_dictionaries({"instruction": st.sampled_from("abcdefgh"), "output": st.integers().map(str)}), min_size=1)


@given(rows, st.integers(1, 12), st.integers(0, 3))
def test_no_dev_row_asks_what_a_training_row_asks(rows: list[dict[str, Any]], dev_rows: int, seed: int) -> None:
    try:
        parts = split(rows, dev_rows, seed, Path("x.jsonl"))
    except UserError as error:
        assert f"x.jsonl: holds {len(rows)} rows" in str(error)
        return
    training, held_out = ([rows[number] for number in part] for part in parts)
    assert not {row["instruction"] for row in training} & {row["instruction"] for row in held_out}
    assert len(held_out) >= dev_rows and training
    assert sorted(map(str, training + held_out)) == sorted(map(str, rows))
    assert split(rows, dev_rows, seed, Path("x.jsonl")) == parts


def test_rows_without_an_input_and_with_an_empty_one_ask_the_same() -> None:
    alike = [{"instruction": "a", "output": "1"}, {"instruction": "a", "input": "", "output": "2"}, {"instruction": "b", "output": "3"}]
    training, held_out = split(alike, 1, 0, Path("x.jsonl"))
    assert [{alike[number]["instruction"] for number in part} for part in (training, held_out)] in ([{"a"}, {"b"}], [{"b"}, {"a"}])


def test_the_candidate_trains_on_the_training_part_and_is_judged_on_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What either reads are the tokens of its rows, in the file's order, and no row is encoded a second time for it."""
    base, _ = write_world(tmp_path)
    seen: list[tuple[list[Any], list[Any], float | None]] = []
    encoded: list[int] = []

    def train(request: TuningRequest) -> Any:
        rows = [json.loads(line) for line in request.data.read_text().splitlines()]
        assert request.columns == {} and tokens(request.rows) == tokens(Instructions(request.data, request.tokenizer, 256))
        seen.append((rows, [], request.tuning.learning_rate))
        return None, None

    def judge(_: Any, request: TuningRequest) -> DevLoss:
        seen[-1][1].extend(tokens(request.rows))
        return DevLoss([1.0] * 16, [1] * 16)

    def count(rows: Any, tokenizer: Any) -> Any:
        encoded.append(len(rows))
        return encode(rows, tokenizer)

    with monkeypatch.context() as patched:
        patched.setattr(pat.training.search, "train", train)
        patched.setattr(pat.training.search, "dev_loss", judge)
        record = run(tmp_path, job(1e-2, 1e-3))
    for training, dev, _ in seen:
        assert [row for row in ROWS if row in training] == training
        write_jsonl(tmp_path / "rest.jsonl", [row for row in ROWS if row not in training])
        assert dev == tokens(Instructions(tmp_path / "rest.jsonl", checkpoint.load_tokenizer(base), 256))
    assert [rate for _, _, rate in seen] == [1e-2, 1e-3]
    assert record["learning_rate"] == 1e-3, "of equal losses the smaller rate"
    assert (record["training_rows"], record["dev_rows"]) == (48, 16)
    encode = pat.data.encoding.encoded_rows
    monkeypatch.setattr(pat.data.encoding, "encoded_rows", count)
    run(tmp_path, job(1e-3, 3e-3, steps=8))
    assert sum(encoded) == len(ROWS)


@pytest.mark.parametrize(
    ("length", "steps", "expected"),
    [
        ({"epochs": 2.0}, None, 16),
        ({"epochs": 2.0, "share": (0.5, 1.0)}, None, 8),
        ({"epochs": 2.0, "share": (0.5, 1.0)}, 5, 5),
        ({"max_steps": 6}, None, 6),
    ],
)
def test_a_candidate_has_the_steps_of_the_tuning_or_its_own(
    length: dict[str, Any], steps: int | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With epochs too, of which the rows that are kept apart, half of all here, would take half away."""
    write_world(tmp_path)
    seen: list[int] = []

    def train(request: TuningRequest) -> Any:
        assert request.tuning.steps_for(len(request.rows)) == request.steps
        seen.append(request.steps)
        return None, None

    monkeypatch.setattr(pat.training.search, "train", train)
    monkeypatch.setattr(pat.training.search, "dev_loss", lambda *_: DevLoss([1.0], [1]))
    settings = {"max_steps": None, "epochs": None, "batch_size": 8} | length
    run(tmp_path, job(1e-3, 1e-2, dev_rows=32, steps=steps, **settings))
    assert seen == [expected] * 2


def test_dev_rows_that_teach_nothing_are_told_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_world(tmp_path)
    long = [{**row, "instruction": f"{number} " * 300} for number, row in enumerate(ROWS[:20])]
    write_jsonl(tmp_path / "instruct.jsonl", [*long, *ROWS[:3]])
    assert split([*long, *ROWS[:3]], 1, 7, Path())[1][0] < len(long), "or the seed is to be another"
    monkeypatch.setattr(pat.training.tuning, "build_model", pytest.fail)
    with pytest.raises(UserError, match=r"instruct\.jsonl, dev rows: every prompt is longer than max_length=256"):
        run(tmp_path, job(1e-3, 3e-3, steps=2, dev_rows=1))


@pytest.mark.parametrize("tuner", ["lora", "pat"])
def test_the_best_rate_is_found_and_used(tuner: str, tmp_path: Path) -> None:
    """One rate learns next to nothing in so few steps, one diverges."""
    write_world(tmp_path)
    settings = job(1e-7, 3e-3, 30.0)
    record = run(tmp_path, settings, tuner)
    assert record == json.loads((tmp_path / "rate.json").read_text())
    assert record["learning_rate"] == 3e-3 and record["note"] is None
    losses = [candidate["dev_loss"] for candidate in record["candidates"]]
    assert losses[1] < losses[0] and (losses[2] is None or losses[2] > losses[1])
    assert record["provenance"]["seed"] == 7 and {"config_hash", "git_commit", "versions"} <= record["provenance"].keys()
    assert not (tmp_path / "run").exists()
    chosen = with_searched_rate(settings, tmp_path / "rate.json")
    base, data = tmp_path / "base", tmp_path / "instruct.jsonl"
    final = asked(base, data, tuner, 0.25 if tuner == "pat" else 0.0, 7, chosen, tmp_path / "tune", tmp_path / "adapter")
    tuned = tune(replace(final, rate_from=tmp_path / "rate.json"))
    assert tuned["learning_rate"] == 3e-3
    assert tuned["search"] == {"steps": None, "dev_rows": record["dev_rows"], "candidates": record["candidates"]}
    assert tuned["provenance"]["settings"]["tuning"]["learning_rate"] == 3e-3
    assert tuned["steps"] == 24 and adapter_bytes(tmp_path / "adapter")


def test_a_search_that_goes_away_during_its_tuning_is_on_record_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, data = write_world(tmp_path)
    rate, found = tmp_path / "rate.json", {"learning_rate": 3e-3, "dev_rows": 16, "candidates": [{"learning_rate": 3e-3, "dev_loss": 1.0}]}
    rate.write_text(json.dumps(found))

    def built(request: Any) -> Any:
        rate.unlink()
        return build_model(request)

    monkeypatch.setattr(pat.training.tuning, "build_model", built)
    settings = with_searched_rate(job(1e-3, 3e-3, steps=8), rate)
    final = asked(base, data, "lora", 0.0, 7, settings, tmp_path / "tune", tmp_path / "adapter")
    assert tune(replace(final, rate_from=rate))["search"] == {"steps": 8, "dev_rows": 16, "candidates": found["candidates"]}


def test_what_speaks_against_the_best_candidate_is_noted(tmp_path: Path) -> None:
    """Rates that next to nothing parts, and one that learns, in a third of the tuning's steps."""
    write_world(tmp_path)
    record = run(tmp_path, job(1e-9, 1.01e-9, steps=8))
    note, tried = record["note"], record["candidates"]
    assert "candidate: the best of all may lie beyond" in note and "each candidate had 8 of the tuning's 24 steps" in note
    assert [candidate["told_apart"] for candidate in tried if candidate["learning_rate"] != record["learning_rate"]] == [False]
    assert "the dev rows do not tell 1" in note
    (tmp_path / "rate.json").unlink()
    clear = run(tmp_path, job(1e-7, 3e-3, steps=24))
    assert [candidate["told_apart"] for candidate in clear["candidates"]] == [True, None]
    assert (
        "do not tell" not in clear["note"] and "of the tuning's" not in clear["note"] and "0.003, is the largest candidate" in clear["note"]
    )


def test_the_error_of_a_difference_is_the_paired_one_where_rows_are_alike() -> None:
    one, two = [3.0, 5.0, 4.0, 8.0], [1.0, 4.0, 4.5, 6.0]
    error = DevLoss(one, [2] * 4).difference_error(DevLoss(two, [2] * 4))
    assert error == pytest.approx(stdev(first / 2 - second / 2 for first, second in zip(one, two, strict=True)) / 4**0.5)
    assert DevLoss([1.0], [2]).difference_error(DevLoss([2.0], [2])) is None


def test_equal_models_are_told_apart_by_chance_one_time_in_twenty() -> None:
    """Rows of very different lengths, each with a loss a token of its own, and two models that differ from it by noise alone."""
    draw = np.random.default_rng(0)
    apart = 0
    for _ in range(2000):
        tokens = draw.integers(1, 200, 100)
        level = draw.gamma(2.0, 1.0, 100)
        one, two = (DevLoss(list(tokens * (level + draw.normal(0, 0.3, 100))), tokens.tolist()) for _ in range(2))
        error = one.difference_error(two)
        assert error is not None
        apart += abs(one.mean - two.mean) > NORMAL_95 * error
    assert apart / 2000 == pytest.approx(0.05, abs=0.015)


def test_a_search_that_was_killed_goes_on_to_the_same_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_world(tmp_path)
    straight = run(tmp_path, job(1e-3, 3e-3, steps=8))
    measured: list[DevLoss | None] = []

    def measure(*arguments: Any) -> DevLoss | None:
        if measured:
            raise KeyboardInterrupt
        measured.append(dev_loss(*arguments))
        return measured[0]

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(pat.training.search, "dev_loss", measure)
        run(tmp_path, job(1e-3, 3e-3, steps=8))
    tried: list[float] = []

    def noted(settings: TuneJob, rate: float, steps: int) -> TuneJob:
        tried.append(rate)
        return candidate_job(settings, rate, steps)

    monkeypatch.setattr(pat.training.search, "candidate_job", noted)
    assert run(tmp_path, job(1e-3, 3e-3, steps=8))["candidates"] == straight["candidates"]
    assert tried == [3e-3], "the first was measured before"


def test_losses_of_another_search_are_not_taken_over(tmp_path: Path) -> None:
    write_world(tmp_path)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "job.json").write_text("{}")
    (run_dir / LOSSES).write_text('{"0.001": {"sums": [0.0], "tokens": [1]}, "0.003": {"sums": [9.0], "tokens": [1]}}')
    assert run(tmp_path, job(1e-3, 3e-3, steps=8))["learning_rate"] == 3e-3


def test_the_dev_loss_is_the_mean_over_learned_tokens(tmp_path: Path) -> None:
    """Whatever the batches, a token counts once; dropout is off."""
    base, data = write_world(tmp_path)
    settings = job(1e-3, 1e-2, micro_batch_size=4, lora={"rank": 2, "dropout": 0.5})
    request = asked(base, data, "lora", 0.0, 7, settings, tmp_path / "run")
    model = build_model(request)
    measured = dev_loss(model, request)
    rows = Instructions(data, checkpoint.load_tokenizer(base), settings.tuning.max_length)
    sums, tokens = [], []
    for row in (rows[index] for index in range(len(rows))):
        with torch.no_grad():
            logits_TV = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
        labels_T = torch.tensor(row["labels"][1:])
        losses = cross_entropy(logits_TV, labels_T, reduction="none")[labels_T != -100]
        sums.append(float(losses.double().sum()))
        tokens.append(len(losses))
    assert measured is not None and measured.tokens == tokens
    assert measured.sums == pytest.approx(sums, rel=1e-5) and measured.mean == pytest.approx(sum(sums) / sum(tokens), rel=1e-5)


def test_a_distilled_arm_is_searched_with_its_teacher(tmp_path: Path) -> None:
    base, _ = write_world(tmp_path)
    settings = job(1e-3, 3e-3, steps=8, distillation={})
    assert run(tmp_path, settings, "pat", teacher=base)["learning_rate"] in (1e-3, 3e-3)
    with pytest.raises(UserError, match="there is no --teacher"):
        run(tmp_path, settings, "pat")


def test_what_cannot_work_is_one_clear_message(tmp_path: Path) -> None:
    base, data = write_world(tmp_path)
    fixed = TuneJob.model_validate({"tuning": RECIPE})
    with pytest.raises(UserError, match=r"tuning\.search is not set"):
        run(tmp_path, fixed)
    with pytest.raises(UserError, match=r"instruct\.jsonl: holds 64 rows .* too few for tuning\.search\.dev_rows=64"):
        run(tmp_path, job(1e-3, 1e-2, dev_rows=64))
    with pytest.raises(UserError, match="there is no --rate-from"):
        with_searched_rate(job(1e-3, 1e-2), None)
    with pytest.raises(UserError, match=r"contradicts tuning\.learning_rate=0\.003"):
        with_searched_rate(fixed, tmp_path / "rate.json")
    with pytest.raises(UserError, match="is not known before the search"):
        tune(asked(base, data, "lora", 0.0, 7, job(1e-3, 1e-2), tmp_path / "run", tmp_path / "adapter"))
    records: list[Any] = [{"learning_rate": 0.5}, {"learning_rate": [0.001]}, [], {}]
    for record in records:
        (tmp_path / "rate.json").write_text(json.dumps(record))
        with pytest.raises(UserError, match=r"rate\.json: its learning_rate .* is none of"):
            with_searched_rate(job(1e-3, 1e-2), tmp_path / "rate.json")
    assert with_searched_rate(fixed, None) is fixed


def test_what_cannot_be_searched_leaves_no_folder_behind(tmp_path: Path) -> None:
    """Which the search that is meant would find in its way, as one of other settings."""
    base, data = write_world(tmp_path)
    paths = tmp_path / "run", tmp_path / "rate.json"
    meant = asked(base, data, "lora", 0.0, 7, job(1e-3, 3e-3, steps=2), *paths)
    for mistake, said in (
        ({"encoded": base}, "is not what `pat encode` writes"),
        ({"ratio": 0.25}, "only pat"),
        ({"tuner": "lorra"}, "must be one of"),
        ({"teacher": base}, "has no effect"),
    ):
        changes: dict[str, Any] = mistake
        with pytest.raises(UserError, match=said):
            search_rate(replace(meant, **changes))
        assert not paths[0].exists(), said


@pytest.mark.parametrize(
    ("tuner", "changes", "own", "said"),
    [
        ("lora", {"ratio": 0.25}, {}, "only pat"),
        ("lorra", {}, {}, "must be one of"),
        ("lora", {"teacher": Path("base")}, {}, "has no effect"),
        ("lora", {"base": Path("nowhere")}, {}, "no such folder"),
        ("lora", {}, {"tuning": {"lora": {"rank": 4096}}}, r"tuning\.lora\.rank=4096: must be at most"),
        ("pat", {"ratio": 0.5}, {"pat": {"hio_rank": 0, "align": 48}}, "align=48"),
        ("pat", {"ratio": 0.5}, {"pat": {"hio_rank": 0, "basis": "pca", "mask": "leading"}}, "is in the native basis"),
        ("pat", {"ratio": 0.5}, {"pat": {"hio_rank": 0, "readers": "least-squares", "mask": "leading"}}, "what `pat refit-readers"),
        ("pat-g", {"ratio": 0.5}, {}, "wants a base in the gradient basis"),
    ],
)
def test_what_shows_without_the_rows_is_told_before_they_are_read_and_as_a_tuning_tells_it(
    tuner: str, changes: dict[str, Any], own: dict[str, Any], said: str, tmp_path: Path
) -> None:
    base, _ = write_world(tmp_path)
    rows = tmp_path / "none.jsonl"
    told = []
    for verb, settings in ((search_rate, job(1e-3, 3e-3, steps=2)), (tune, TuneJob.model_validate({"tuning": RECIPE}))):
        both = settings.model_dump(mode="json", exclude_unset=True) | own
        both["tuning"] = settings.tuning.model_dump(mode="json", exclude_unset=True) | own.get("tuning", {})
        meant = asked(base, rows, tuner, 0.0, 7, TuneJob.model_validate(both), tmp_path / "run", tmp_path / "out")
        with pytest.raises(UserError, match=said) as caught:
            verb(replace(meant, **changes))
        told.append(str(caught.value))
        assert not (tmp_path / "run").exists()
    assert told[0] == told[1]


@pytest.mark.parametrize("candidates", [None, {"0.001": 1.0}, ["0.001"], [{"learning_rate": 1e-3}], [{"dev_loss": 1.0}]])
def test_a_record_whose_candidates_are_none_is_told_before_a_tuning(candidates: Any, tmp_path: Path) -> None:
    rate = tmp_path / "rate.json"
    rate.write_text(json.dumps({"learning_rate": 1e-3, "candidates": candidates}))
    with pytest.raises(UserError, match=r"rate\.json: its candidates are no list of learning rates with the loss of each; search again"):
        with_searched_rate(job(1e-3, 3e-3), rate)


def test_a_search_in_which_everything_diverges_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_world(tmp_path)
    monkeypatch.setattr(pat.training.search, "dev_loss", lambda *_: None)
    with pytest.raises(UserError, match=r"every candidate \(\S+, 1e\+06\) diverged"):
        run(tmp_path, job(1e5, 1e6, steps=8))
    assert not (tmp_path / "rate.json").exists()
