"""What is left of a run and how long it may take: planted outputs and measurements with known middles."""

from __future__ import annotations

from pathlib import Path, PurePath

from pat.io.artefacts import write_text
from study.report.progress import left
from study.results.standing import Output, Rest, rest_of

HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def tuned(results: Path, place: str, wall_s: float | None) -> Output:
    """Return a tuning's output; finished, and measured, where it took a time."""
    model, row, ratio, seed = place.split("/")
    log = PurePath("logs", "tune", f"{place}.log")
    if wall_s is not None:
        write_text(results / "benchmarks" / "tune" / f"{place}.tsv", f"{HEADER}{wall_s}\t0:00:00\t1\t1\t1\t1\t0\t0\t99\tNA\n")
    return Output(PurePath("checkpoints", model, row, ratio, seed, "adapter", "manifest.json"), "tune", log, pending=wall_s is None)


def test_a_job_takes_as_long_as_the_middle_one_of_its_row_else_of_its_model(tmp_path: Path) -> None:
    took = {
        "small/pat/0.5/seed0": 10,
        "small/pat/0.5/seed1": 12,
        "small/pat/0.25/seed0": 50,
        "small/lora/0/seed0": 2,
        "big/pat/0.5/seed0": 900,
    }
    to_do = ("small/pat/0.25/seed1", "small/dora/0/seed0", "big/lora/0/seed0")
    outputs = [tuned(tmp_path, place, wall_s) for place, wall_s in took.items()] + [tuned(tmp_path, place, None) for place in to_do]
    assert rest_of(outputs, tmp_path) == Rest(jobs=3, known=3, wall_s=12 + 11 + 900, unknown={})


def test_of_a_rule_that_has_not_run_on_a_model_nothing_is_known(tmp_path: Path) -> None:
    outputs = [
        tuned(tmp_path, "small/pat/0.5/seed0", 10),
        tuned(tmp_path, "big/pat/0.5/seed0", None),
        tuned(tmp_path, "big/pat/0.5/seed1", None),
    ]
    outputs.append(Output(PurePath("data", "instruct.jsonl"), "instruct", None, pending=True))
    rest = rest_of(outputs, tmp_path)
    assert rest == Rest(jobs=3, known=0, wall_s=0, unknown={"instruct": 1, "tune of big": 2})
    assert list(left(rest, 1.0)) == [
        "3 jobs are left, tables and figures not counted.",
        "Of 3 nothing is known yet: 1 instruct, 2 tune of big.",
    ]


def test_a_job_counts_once_however_many_files_it_writes(tmp_path: Path) -> None:
    scores = PurePath("evaluation", "m", "pat", "0.5", "seed0")
    outputs = [Output(scores / name, "evaluate", None, pending=True) for name in ("evaluation.json", "evaluation_samples.jsonl")]
    outputs += [Output(PurePath("data", "world", name), "world", None, pending=True) for name in ("instruct.jsonl", "text/heldout.jsonl")]
    outputs += [Output(PurePath("data", "tasks", f"{name}.jsonl"), "task", None, pending=True) for name in ("ARC-e", "PIQA")]
    assert rest_of(outputs, tmp_path).unknown == {"evaluate of m": 1, "task": 2, "world": 1}


def test_a_job_that_was_not_measured_tells_nothing(tmp_path: Path) -> None:
    finished = tuned(tmp_path, "m/pat/0.5/seed0", 10)
    (tmp_path / "benchmarks/tune/m/pat/0.5/seed0.tsv").unlink()
    assert rest_of([finished, tuned(tmp_path, "m/pat/0.5/seed1", None)], tmp_path).known == 0


def test_the_time_is_told_one_after_another_and_as_many_at_a_time_as_so_far() -> None:
    (counted, told) = left(Rest(jobs=4, known=4, wall_s=7200, unknown={}), 2.0)
    assert counted.startswith("4 jobs are left") and "about 2 h 0 min one after another, 1 h 0 min with 2.0 at a time as so far" in told
    (_, alone) = left(Rest(jobs=4, known=4, wall_s=7200, unknown={}), 1.0)
    assert "at a time" not in alone
    assert list(left(Rest(0, 0, 0, {}), 1.0)) == ["Nothing is left but tables and figures, if they are not there yet."]
