"""How long jobs took: planted measurements with known starts and ends, what a table and a sentence make of them, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pat.errors import UserError
from pat.io.artefacts import write_text
from study import cli
from study.results.times import JobTime, busy_s, read_times, step_of, whole
from study.tables.times import duration, sentence, times_table

BEGIN = 1_700_000_000
HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def planted(results: Path, name: str, start: float, wall: float, processor: str) -> None:
    path = results / "benchmarks" / name
    write_text(path, f"{HEADER}{wall:.2f}\t0:00:00\t1\t1\t1\t1\t0\t0\t99\t{processor}\n")
    os.utime(path, (BEGIN + start + wall, BEGIN + start + wall))


def a_run(folder: Path) -> Path:
    """Two jobs beside each other, a third within the first, a pause of 100 s, and a job after it: 0 to 30, 10 to 50, 12 to 13, 150 to 160."""
    results = folder / "results" / "toy"
    planted(results, "world.tsv", 0, 30, "20.00")
    planted(results, "tune/m/lora/0/seed0.tsv", 10, 40, "60.50")
    planted(results, "data/tasks/capitals.tsv", 12, 1, "NA")
    planted(results, "tune/m/pat/0.25/seed0.tsv", 150, 10, "9.50")
    return results


def test_times_are_those_of_the_clock(tmp_path: Path) -> None:
    jobs = read_times(a_run(tmp_path))
    assert [job.step for job in jobs] == ["world", "tune", "data/tasks", "tune"]
    assert [job.started_s - BEGIN for job in jobs] == [0, 10, 12, 150]
    told = whole(jobs)
    assert (told.jobs, told.span_s, told.busy_s, told.wall_s, told.processor_s) == (4, 160, 60, 81, 90) and told.paused
    assert busy_s(jobs[:3]) == 50 and not whole(jobs[:3]).paused


def test_a_copy_without_the_times_of_its_files_is_told(tmp_path: Path) -> None:
    results = tmp_path / "results" / "toy"
    for row in ("pat", "lora"):
        planted(results, f"tune/m/{row}/0.25/seed0.tsv", 0, 30, "1.00")
        planted(results, f"evaluate/m/{row}/0.25/seed0.tsv", 31, 20, "1.00")
    assert whole(read_times(results)).span_s == 51
    for path in results.rglob("*.tsv"):
        os.utime(path, (BEGIN, BEGIN))
    with pytest.raises(UserError, match=r"benchmarks: was copied without the times of its files, .*copy it again with its times"):
        read_times(results)


def test_a_cell_that_is_tuned_again_is_no_copy(tmp_path: Path) -> None:
    """Scored 31 to 51 and tuned again 1000 to 1030: it has its former scores until it is scored again, for good where that fails."""
    results = tmp_path / "results" / "toy"
    planted(results, "evaluate/m/pat/0.25/seed0.tsv", 31, 20, "1.00")
    planted(results, "tune/m/pat/0.25/seed0.tsv", 1000, 30, "1.00")
    assert [(job.step, job.started_s - BEGIN) for job in read_times(results)] == [("evaluate", 31), ("tune", 1000)]
    planted(results, "evaluate/m/pat/0.25/seed0.tsv", 1031, 20, "1.00")
    assert whole(read_times(results)).span_s == 51


def test_what_an_earlier_form_of_the_experiment_has_left_is_no_job_of_it(tmp_path: Path) -> None:
    """Tables of one cell in two parts, written after 1000 s: older jobs of other cells, and of other arms, are left over, later ones not."""
    results = tmp_path / "results" / "toy"
    mine = ("tune/m/cut/0.25/seed0", "tune/m/cut/before/seed0", "search/m/cut/before", "report/health/m/cut/0.25/seed0")
    common = ("pretrain/m", "data/tasks/sums", "rotate/m/pca/seed0", "refit/m/pca/leading/align-8/0.5/seed0", "report/tables")
    stale = (
        "tune/m/cut/0.5/seed0",
        "tune/m/cut/0.25/seed1",
        "evaluate/m/gone/0.25/seed0",
        "search/m/gone/0.25",
        "report/health/m/gone/0.25/seed0",
    )
    for name in (*mine, *common, *stale):
        planted(results, f"{name}.tsv", 0, 30, "1.00")
    assert len(read_times(results)) == len((*mine, *common, *stale))
    write_text(results / "tables/cells.csv", "model,json\nm,results/toy/evaluation/m/cut/0.25/seed0/cell.json\n")
    os.utime(results / "tables/cells.csv", (BEGIN + 1000, BEGIN + 1000))
    assert len(read_times(results)) == len((*mine, *common))
    planted(results, f"{stale[0]}.tsv", 2000, 30, "1.00")
    assert len(read_times(results)) == len((*mine, *common)) + 1


def test_a_sentence_and_a_table_tell_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = a_run(tmp_path)
    said = sentence(whole(read_times(results)).record())
    assert (
        said == "The 4 jobs took 1 min 0 s (2 min 40 s with pauses), 1 min 21 s one after another, at least 1 min 30 s of processor time."
    )
    layout, frame = times_table(read_times(results), "toy", "a machine")
    assert layout.caption == "How long the jobs of toy took, on a machine" and layout.notes[0] == said
    assert [row[0] for row in layout.rows] == ["world", "tune", "data/tasks", "all"]
    assert layout.rows[1] == ["tune", "2", "25.0 s", "40.0 s", "50.0 s", "1 min 10 s"] and layout.rows[2][-1] == "–"
    assert (frame["first_start"][1], frame["last_end"][1]) == ("2023-11-14T22:13:30Z", "2023-11-14T22:16:00Z")
    with pytest.raises(SystemExit) as ended:
        cli.main(["times", "--results", str(results), "--csv"])
    assert not ended.value.code and "tune,2,25,40,50,70,2023-11-14T22:13:30Z" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("world.tsv", "world"),
        ("data/instruct.tsv", "data/instruct"),
        ("data/text/c4.tsv", "data/text"),
        ("benchmark/tuning/llama.tsv", "benchmark/tuning"),
        ("report/health/m/pat/0.25/seed0.tsv", "report"),
        ("search/m/lora/0.5.tsv", "search"),  # a ratio's dot is no ending
    ],
)
def test_a_step_is_told_by_where_its_measurement_lies(name: str, step: str) -> None:
    assert step_of(Path(name)) == step


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 0 s"), (3599.6, "1 h 0 min"), (7380, "2 h 3 min")]
)
def test_a_duration_is_read_in_two_units(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_what_is_no_measurement_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no measurements of jobs \(benchmarks/\*\.tsv\)"):
        read_times(tmp_path)
    for broken in ("", "a\tb\n1\t2\n", f"{HEADER}x\n", HEADER):
        write_text(tmp_path / "benchmarks" / "tune" / "x.tsv", broken)
        with pytest.raises(UserError, match=r"tune/x\.tsv: is not what Snakemake measures of a job \("):
            read_times(tmp_path)


def test_a_single_job_is_one() -> None:
    record = whole([JobTime("tune", 5.0, None, BEGIN)]).record()
    assert sentence(record) == "The job took 5.0 s, 5.0 s one after another, at least 0.0 s of processor time."
