"""A grid made in parts, on the finished smoke run: what a part makes, and that what it leaves is the whole's.

Parts of several machines are copies of the run, from which cells are removed.
"""

from __future__ import annotations

import csv
import fcntl
import json
import os
import shlex
import shutil
import subprocess
from base64 import urlsafe_b64encode
from math import fsum
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import yaml

from pat.io.artefacts import MANIFEST, check_folder, read_json, seal, sha256
from study import cli as study_cli
from study.results.made import made_in
from study.results.times import read_times
from study.tables.times import duration
from tests.kit.forked import run_module
from tests.kit.project import ROOT, copy_workflow, planned, snakemake
from tests.kit.smoke_run import CONFIG, RESULTS, checkpoints
from tests.kit.smoke_run import tables as tables_of

RAW: dict[str, Any] = yaml.safe_load((ROOT / CONFIG).read_text())
THREE_HOURS_NS = 3 * 3600 * 10**9
FIRST = ("lora", "pat")
"""Rows that a part asks for."""
CELL = "channel-magnitude-ftp"
"""A row that hangs on another's model."""


def without(finished: Path, folder: Path, *rows: str) -> Path:
    """Return a copy of the run that lacks the cells of some rows, and tables and figures."""
    shutil.copytree(finished, folder, symlinks=True)
    for row in rows:
        for part in ("checkpoints", "evaluation"):
            shutil.rmtree(folder / RESULTS / part / "tiny" / row, ignore_errors=True)
    for laid_out in ("tables", "figures", "plots"):
        shutil.rmtree(folder / RESULTS / laid_out)
    (folder / RESULTS / "metrics.json").unlink()
    return folder


def test_a_part_makes_its_cells_and_what_they_are_made_from_and_lays_nothing_out(finished: Path, tmp_path: Path) -> None:
    folder = without(finished, tmp_path / "part", *FIRST, CELL, "dora")
    jobs = planned(folder, RAW | {"only": {"rows": ["pat", CELL], "ratios": [0.5], "seeds": [0]}})
    assert {job.split(" ")[0] for job in jobs} == {"tune", "merge", "prune", "evaluate", "collect"}
    assert {job for job in jobs if "lora" in job} == {"tune tiny by lora, ratio 0, seed 0", "merge tiny, lora, ratio 0, seed 0"}
    assert not [job for job in jobs if "dora" in job]


def test_the_cells_of_a_part_are_those_of_the_whole(finished: Path) -> None:
    """Settings and inputs are the same whichever part asked for a cell: of a finished run no part is to be made, nor the whole again."""
    for part in ("{rows: [lora, pat]}", "{ratios: [0.5], seeds: [0]}", "{models: [tiny], ratios: ['0']}"):
        plan = snakemake(finished, "--dry-run", "--configfile", CONFIG, "--config", f"only={part}")
        assert "Nothing to be done" in plan.stdout + plan.stderr, plan.stdout + plan.stderr
    assert planned(finished, RAW) == set()


def test_a_row_that_the_grid_does_not_have_is_one_message_before_any_job(finished: Path) -> None:
    plan = snakemake(finished, "--dry-run", "--configfile", CONFIG, "--config", "only={rows: [pta]}")
    assert plan.returncode == 1 and f"{CONFIG}: only.rows: \"pta\" is not a row of methods; did you mean 'pat'?" in plan.stderr
    assert "Traceback" not in plan.stderr


def test_what_config_says_on_the_command_line_is_of_its_kind(finished: Path) -> None:
    """Snakemake leaves the numbers of a list as text: `--config 'ratios=[0.25]'` was refused."""
    plan = snakemake(finished, "--dry-run", "--configfile", CONFIG, "--config", "ratios=[0.5]", "seeds=[0]", "tuning={max_steps: 12}")
    assert "Nothing to be done" in plan.stdout + plan.stderr, plan.stdout + plan.stderr


def join(folders: list[Path], into: Path, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Join the smoke results of some folders into those of another; return the exit status and all that was said."""
    with pytest.raises(SystemExit) as ended:
        study_cli.main(["join", *(str(folder / RESULTS) for folder in folders), "--into", str(into / RESULTS)])
    said = capsys.readouterr()
    return ended.value.code, said.out + said.err


@pytest.fixture
def halves(finished: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """Two machines of which each has made some rows, the second three hours before the first, and a third where nothing is yet.

    Both have tuned `lora`, whose model the second has pruned. A model in another basis and the benchmarks are on the second alone.
    """
    mine = without(finished, tmp_path / "a", "base", "dora", "pat", "pat-g", CELL)
    theirs = without(finished, tmp_path / "b", "pat-dora", "channel-magnitude-pft", "channel-magnitude-ftpft")
    for part in ("refitted", "rotated", "benchmark"):
        shutil.rmtree(mine / RESULTS / part)
    for path in theirs.rglob("*"):
        found = path.lstat()
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns - THREE_HOURS_NS), follow_symlinks=False)
    return mine, theirs, copy_workflow(tmp_path / "c")


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    """Return the checksum and the time of every file of the results."""
    files = [path for path in sorted((folder / RESULTS).rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): (sha256(path), path.stat().st_mtime_ns) for path in files}


def phases(folder: Path, raw: dict[str, Any]) -> set[str]:
    """Return the first words of the jobs that a run would make."""
    return {job.split(" ")[0] for job in planned(folder, raw)}


LAID_OUT = {"draw", "write"}


def test_two_halves_make_a_whole_of_which_only_tables_and_figures_are_left(
    halves: tuple[Path, Path, Path], finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, theirs, into = halves
    code, said = join([mine, theirs], into, capsys)
    assert code == 0, said
    assert f"of {mine / RESULTS}: 4 cells" in said and f"of {theirs / RESULTS}: 5 cells" in said and "left out" not in said
    assert phases(into, RAW) == LAID_OUT
    made = checkpoints(finished)
    assert {name: made[name] for name in checkpoints(into)} == checkpoints(into)
    assert made.keys() == checkpoints(into).keys()
    cells = sorted((finished / RESULTS / "evaluation").rglob("cell.json"))
    assert all((into / path.relative_to(finished)).read_bytes() == path.read_bytes() for path in cells)
    times = [sorted((job.step, job.wall_s) for job in read_times(folder / RESULTS) if job.step != "report") for folder in (into, finished)]
    assert times[0] == times[1]
    # a change of settings is noticed, as it is where the files were made
    assert phases(into, RAW | {"evaluation": RAW["evaluation"] | {"limit": 2}}) == {*LAID_OUT, "evaluate", "collect"}
    before = contents(into)
    code, said = join([mine, theirs], into, capsys)
    assert code == 0 and "0 files copied" in said and contents(into) == before


def test_a_part_joined_into_one_s_own_replaces_nothing(halves: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    mine, theirs, _ = halves
    before = contents(mine)
    code, said = join([theirs], mine, capsys)
    assert code == 0 and "left out" not in said, said
    after = contents(mine)
    assert {name: after[name][0] for name in before} == {name: known for name, (known, _) in before.items()}
    assert phases(mine, RAW) == LAID_OUT


def test_a_join_that_is_interrupted_can_be_repeated(
    halves: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, theirs, into = halves
    real, left = shutil.copy2, iter(range(100))

    def interrupted(source: Path, target: Path) -> None:
        if next(left, None) is None:
            target.write_bytes(source.read_bytes()[:3])
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(shutil, "copy2", interrupted)
    assert join([mine, theirs], into, capsys)[0] not in (0, None)
    monkeypatch.setattr(shutil, "copy2", real)
    for manifest in (into / RESULTS).rglob("manifest.json"):
        check_folder(manifest.parent)  # what is there as finished is whole
    assert join([mine, theirs], into, capsys)[0] == 0
    assert phases(into, RAW) == LAID_OUT and not list((into / RESULTS).rglob("*.tmp"))
    whole = into.with_name("whole")
    assert join([mine, theirs], copy_workflow(whole), capsys)[0] == 0 and contents(whole) == contents(into)


def with_other_bytes(folder: Path, *models: str) -> None:
    """Make models of the same settings that differ in a bit, as a GPU does."""
    for model in models:
        weights = next((folder / RESULTS / model).glob("*.safetensors"))
        time = weights.with_name("manifest.json").stat()
        weights.write_bytes(weights.read_bytes()[:-1] + bytes([weights.read_bytes()[-1] ^ 1]))
        seal(weights.parent)
        os.utime(weights.with_name("manifest.json"), ns=(time.st_atime_ns, time.st_mtime_ns))


def test_a_cell_is_never_a_mix_of_two_chains(halves: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Both have tuned `lora`, to other bytes: what the second has pruned of its own is no pruned model of the first's."""
    mine, theirs, into = halves
    lora = "tiny/lora/0/seed0"
    with_other_bytes(theirs, f"checkpoints/{lora}/adapter", f"checkpoints/{lora}/merged")
    code, said = join([mine, theirs], into, capsys)
    assert code == 0
    assert f"{lora}: that of {mine / RESULTS} is taken, {theirs / RESULTS} has other bytes" in said
    assert (
        f"tiny/{CELL}/0.5/seed0 of {theirs / RESULTS}: it was made from checkpoints/{lora}/merged/manifest.json of its own folder" in said
    )
    assert {job for job in planned(into, RAW) if job.split(" ")[0] not in LAID_OUT} == {
        f"prune the tuned tiny by {CELL}, ratio 0.5, seed 0",
        f"evaluate tiny, {CELL}, ratio 0.5, seed 0",
        f"collect tiny, {CELL}, ratio 0.5, seed 0",
    }
    assert (into / RESULTS / "checkpoints" / lora / "merged/model.safetensors").read_bytes() == (
        mine / RESULTS / "checkpoints" / lora / "merged/model.safetensors"
    ).read_bytes()
    other = copy_workflow(into.with_name("d"))
    code, said = join([theirs, mine], other, capsys)
    assert code == 0 and "left out" not in said and f"{lora}: that of {theirs / RESULTS} is taken" in said
    assert phases(other, RAW) == LAID_OUT


def test_a_cell_is_not_a_mix_of_chains_where_what_was_pruned_between_them_is_gone(
    halves: tuple[Path, Path, Path], finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its first tuning stands behind the pruned model, of which Snakemake's record alone is left."""
    row = "channel-magnitude-ftpft"
    mine, _, into = halves
    theirs = without(finished, into.with_name("theirs"))
    for part in ("checkpoints", "evaluation"):
        shutil.rmtree(mine / RESULTS / part / "tiny" / row / "0.5")
    with_other_bytes(theirs, *(f"checkpoints/tiny/{row}/before/seed0/{part}" for part in ("adapter", "merged")))
    code, said = join([mine, theirs], into, capsys)
    assert code == 0
    assert f"tiny/{row}/0.5/seed0 of {theirs / RESULTS}: it was made from checkpoints/tiny/{row}/before/seed0/merged/manifest.json" in said
    assert not (into / RESULTS / "evaluation/tiny" / row).exists()


def test_a_change_of_a_pruning_is_noticed_where_the_pruned_model_is_gone(
    halves: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    mine, theirs, into = halves
    assert join([mine, theirs], into, capsys)[0] == 0
    row = "channel-magnitude-pft"
    jobs = planned(into, RAW | {"methods": RAW["methods"] | {row: {"prune": {"writers": "refitted"}}}})
    assert {job for job in jobs if row in job and "prune" in job} == {f"prune tiny by {row}, ratio 0.5"}


def test_a_row_whose_record_has_the_longest_name_is_joined(halves: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    mine, theirs, into = halves
    made = next(it for it in made_in(theirs / RESULTS) if it.path.as_posix() == f"evaluation/tiny/{CELL}/0.5/seed0/cell.json")
    path = Path("evaluation/tiny", "r" * 138, "0.5/seed0/cell.json")
    record = urlsafe_b64encode(str(RESULTS / path).encode()).decode()
    assert 240 < len(record) <= 255, "a name that leaves no room for an ending"
    (theirs / RESULTS / path).parent.mkdir(parents=True)
    shutil.copy2(theirs / RESULTS / made.path, theirs / RESULTS / path)
    shutil.copy2(theirs / ".snakemake/metadata" / made.record, theirs / ".snakemake/metadata" / record)
    code, said = join([mine, theirs], into, capsys)
    assert code == 0, said
    assert (into / RESULTS / path).is_file() and (into / ".snakemake/metadata" / record).is_file()


def test_data_of_one_s_own_that_are_younger_than_what_was_made_of_them_elsewhere_are_told(
    halves: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    mine, theirs, into = halves
    for folder in (mine, theirs):
        (record,) = (it.record for it in made_in(folder / RESULTS) if it.path.as_posix() == "data/world/instruct.jsonl")
        place = folder / ".snakemake/metadata" / record
        place.write_text(json.dumps(read_json(place) | {"input": ["own/large.jsonl", "own/small.jsonl"]}))
    (into / "own").mkdir()
    (into / "own/large.jsonl").write_bytes(bytes(1_000_001))
    (into / "own/small.jsonl").write_bytes(bytes(9))
    code, said = join([mine, theirs], into, capsys)
    assert code == 0 and "younger than what was made from them elsewhere" in said
    assert said.endswith(f"  {into}/own/large.jsonl\n") and "small.jsonl" not in said
    os.utime(into / "own/large.jsonl", ns=(0, 0))
    assert "younger" not in join([mine, theirs], into, capsys)[1]


def test_results_that_snakemake_s_records_are_not_about_are_refused(
    halves: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """As after `dvc checkout`: other settings would be taken for those on record."""
    mine, theirs, into = halves
    seal_file = theirs / RESULTS / "evaluation/.seal"
    seal_file.write_text(seal_file.read_text() + f"{'0' * 64}  other\n")
    code, said = join([mine, theirs], into, capsys)
    assert code == 1 and f"{seal_file.parent}: not the results that Snakemake's records in {theirs}/.snakemake are about" in said
    assert not (into / "results").exists()


def test_files_that_lie_there_without_their_records_get_them(halves: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody has copied results by hand before: without records no change of settings would be noticed, and by their times all is made again."""
    mine, theirs, into = halves
    shutil.copytree(mine / RESULTS, into / RESULTS, copy_function=shutil.copyfile, ignore=shutil.ignore_patterns(".seal"))
    assert join([mine, theirs], into, capsys)[0] == 0
    assert phases(into, RAW) == LAID_OUT
    assert phases(into, RAW | {"evaluation": RAW["evaluation"] | {"limit": 2}}) == {*LAID_OUT, "evaluate", "collect"}
    made = made_in(mine / RESULTS)
    assert {it.path for it in made if it.path.parts[0] not in ("tables", "figures")} <= {it.path for it in made_in(into / RESULTS)}


def test_no_time_is_made_earlier_than_that_of_what_a_file_was_made_from(
    halves: tuple[Path, Path, Path], finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that has a merged model no more without its adapter says nothing of when that was made."""
    mine, _, into = halves
    theirs = without(finished, into.with_name("theirs"))
    merged = theirs / RESULTS / "checkpoints/tiny/lora/0/seed0/merged/manifest.json"
    os.utime(merged, ns=(merged.stat().st_atime_ns, merged.stat().st_mtime_ns - THREE_HOURS_NS))
    shutil.rmtree(theirs / RESULTS / "checkpoints/tiny/lora/0/seed0/adapter")
    assert join([theirs], mine, capsys)[0] == 0
    here = mine / RESULTS / "checkpoints/tiny/lora/0/seed0"
    assert (here / "merged/manifest.json").stat().st_mtime_ns >= (here / "adapter/manifest.json").stat().st_mtime_ns


def test_a_cell_whose_origin_is_gone_is_not_hung_on_another_s(halves: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    mine, theirs, into = halves
    shutil.rmtree(theirs / RESULTS / "checkpoints/tiny/lora")
    code, said = join([mine, theirs], into, capsys)
    assert code == 0 and f"{CELL}/0.5/seed0 of {theirs / RESULTS}: it was made from checkpoints/tiny/lora/0/seed0/merged/" in said
    assert "which is not there any more" in said


def test_the_folder_that_has_gone_further_with_a_cell_is_taken(
    halves: tuple[Path, Path, Path], finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And whole: an adapter of one machine is not merged with what another has made of its own."""
    mine, theirs, into = halves
    cell = "checkpoints/tiny/pat/0.5/seed0"
    shutil.copytree(finished / RESULTS / cell / "adapter", mine / RESULTS / cell / "adapter")
    with_other_bytes(mine, f"{cell}/adapter")
    assert join([mine, theirs], into, capsys)[0] == 0
    for name in ("adapter/adapter_model.safetensors", "merged/model.safetensors"):
        assert (into / RESULTS / cell / name).read_bytes() == (theirs / RESULTS / cell / name).read_bytes()
    code, said = join([theirs], mine, capsys)
    assert code == 0 and f"tiny/pat/0.5/seed0 of {theirs / RESULTS}: {mine / RESULTS / cell}/adapter/" in said
    assert "is there already, with other content" in said and not (mine / RESULTS / cell / "merged").exists()


def test_what_does_not_belong_together_is_refused_before_anything_is_copied(
    halves: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    mine, theirs, into = halves

    def refused(*parts: str) -> None:
        code, said = join([mine, theirs], into, capsys)
        assert code == 1 and all(part in said for part in parts), said
        assert not (into / "results").exists()

    (theirs / RESULTS).rename(theirs / "results/other")
    with pytest.raises(SystemExit):
        study_cli.main(["join", str(mine / RESULTS), str(theirs / "results/other"), "--into", str(into / RESULTS)])
    assert "are of the experiments 'other' and 'smoke'" in capsys.readouterr().err
    (theirs / "results/other").rename(theirs / RESULTS)

    instruct = theirs / RESULTS / "data/world/instruct.jsonl"
    was = instruct.read_bytes()
    instruct.write_bytes(was + was.splitlines(keepends=True)[0])
    refused(f"{mine / RESULTS}/data/world/instruct.jsonl and {instruct}: differ, and all cells hang on them; nothing is joined")
    instruct.write_bytes(was)

    (record,) = (
        it.record for it in made_in(theirs / RESULTS) if it.path.as_posix() == "checkpoints/tiny/lora/0/seed0/adapter/manifest.json"
    )
    place = theirs / ".snakemake/metadata" / record
    said = read_json(place)
    was = place.read_bytes()
    place.write_text(json.dumps(said | {"params": [it.replace('"max_steps":12', '"max_steps":13') for it in said["params"]]}))
    refused(
        f"{mine / RESULTS}/checkpoints/tiny/lora/0/seed0/adapter/manifest.json and "
        f"{theirs / RESULTS}/checkpoints/tiny/lora/0/seed0/adapter/manifest.json: were made with different settings "
        '("max_steps":12; "max_steps":13); nothing is joined',
    )
    place.write_bytes(was)

    weights = theirs / RESULTS / "checkpoints/tiny/pat/0.5/seed0/merged/model.safetensors"
    was = weights.read_bytes()
    weights.write_bytes(was[:-1])
    refused(f"{weights}: is missing or not as long as {weights.with_name('manifest.json')} lists it; copy the folder again, or delete it")
    weights.write_bytes(was)

    (into / ".snakemake/locks").mkdir()
    (into / ".snakemake/locks/0.output.lock").touch()
    refused(f"{into}: a run is at work there, or was killed and has left its lock")
    shutil.rmtree(into / ".snakemake/locks")

    with (into / ".snakemake/run.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused(f"{into}: a run is at work there")

    (theirs / ".snakemake").rename(theirs / "elsewhere")
    refused(f"{theirs}/.snakemake/metadata: no such folder", "Copy it along")
    (theirs / "elsewhere").rename(theirs / ".snakemake")

    with_other_bytes(theirs, "models/tiny")
    refused(
        f"{mine / RESULTS}/models/tiny/manifest.json and {theirs / RESULTS}/models/tiny/manifest.json: differ",
        "Make data and base models once",
    )


def progress(folder: Path, *options: str, config: str = CONFIG) -> tuple[int, str]:
    """Ask how far the run in a folder is; return the exit status and all that was said."""
    own = os.environ | {"PYTHONPATH": str(folder / "workflow")}
    asked = run_module(["study", "progress", config, *options], folder, own)
    return asked.returncode, asked.stdout + asked.stderr


def measured(results: Path, step: str, left_out: str) -> list[float]:
    """Return how long the jobs of a step took, but for those of a row."""
    files = [path for path in (results / "benchmarks" / step).rglob("*.tsv") if left_out not in path.parts]
    return [float(next(csv.DictReader(path.open(), delimiter="\t"))["s"]) for path in files]


def test_progress_counts_what_is_finished_and_lays_it_out_as_unfinished(finished: Path, tmp_path: Path) -> None:
    folder = without(finished, tmp_path / "part", "dora")
    tables, page = tmp_path / "so far", tmp_path / "so far.html"
    code, said = progress(folder, "--tables", str(tables), "--report", str(page))
    assert code == 0 and said.startswith("smoke: 8 of 9 cells are finished\n"), said
    assert "| tiny | dora | 0 of 1 | – |" in said and "| tiny | pat | – | 1 of 1 |" in said
    rest_s = fsum(median(measured(folder / RESULTS, step, "dora")) for step in ("tune", "merge", "evaluate", "collect"))
    assert (
        "4 jobs are left, tables and figures not counted." in said and f"4 of them take about {duration(rest_s)} one after another" in said
    )
    for path in [*tables.glob("*.md"), *tables.glob("*.tex"), *tables.glob("*.html"), page]:
        assert "UNFINISHED, 8 of 9 cells" in path.read_text(), path
    rows = {line["method"] for line in csv.DictReader((tables / "cells.csv").open())}
    assert rows == set(RAW["methods"]) - {"dora"} and not (folder / RESULTS / "tables").exists()
    assert (folder / RESULTS / "evaluation").is_dir() and phases(folder, RAW) >= {"tune"}, "nothing was made on the way"


def test_a_finished_run_has_nothing_left_and_its_tables_stay(finished: Path) -> None:
    before = tables_of(finished)
    code, said = progress(finished)
    assert code == 0 and "smoke: 9 of 9 cells are finished" in said and "Nothing is left but tables and figures" in said
    for place in (f"{RESULTS}/tables", f"{RESULTS}/tables/more"):
        code, said = progress(finished, "--tables", place)
        assert code == 1 and said == f"error: --tables {place}: is where the finished tables lie; name another folder\n"
    assert tables_of(finished) == before


def test_a_cell_that_is_to_be_made_again_is_not_finished_and_a_part_is_not_the_whole(finished: Path, tmp_path: Path) -> None:
    folder = without(finished, tmp_path / "changed")
    own = folder / "config/own.yaml"
    own.write_text(yaml.safe_dump(RAW | {"evaluation": RAW["evaluation"] | {"limit": 2}, "only": {"rows": ["pat"]}}))
    code, said = progress(folder, config="config/own.yaml")
    assert code == 0 and "smoke: 0 of 9 cells are finished" in said
    assert "18 jobs are left" in said and "Of 18 nothing is known yet: 9 collect_cell of tiny, 9 evaluate of tiny." in said
    code, said = progress(folder, "--tables", str(tmp_path / "tables"), config="config/own.yaml")
    assert code == 1 and said == "error: smoke: no cell is finished yet, so there is nothing to lay out\n"


def test_progress_says_what_keeps_snakemake_from_a_plan(tmp_path: Path) -> None:
    code, said = progress(tmp_path, config=str(ROOT / CONFIG))
    assert code == 1 and "Snakemake makes no plan of it in this folder" in said and "Traceback" not in said


def documented(command: str) -> str:
    """Return the line of the cluster's page that begins with a command, for the smoke experiment."""
    lines = (line.strip() for line in (ROOT / "docs/cluster.md").read_text().splitlines())
    return next(line for line in lines if line.startswith(command)).replace("results/mine", str(RESULTS))


def test_what_came_home_without_weights_and_data_is_counted_by_its_records(finished: Path, tmp_path: Path) -> None:
    """Every method of the registry's orders is among the smoke run's rows: what was asked of each is what its records say."""
    away, home, tables = without(finished, tmp_path / "away", "dora"), copy_workflow(tmp_path / "home"), tmp_path / "so far"
    for folder, command in ((away, "tar cJf"), (home, "tar xJf")):
        subprocess.run(shlex.split(documented(command).replace("part.tar.xz", str(tmp_path / "part.tar.xz"))), cwd=folder, check=True)
    assert not [*(home / RESULTS).rglob("*.safetensors"), *(home / RESULTS).rglob("instruct.jsonl")]

    code, said = progress(home)
    assert code == 0 and said.startswith("smoke: 0 of 9 cells are finished\n"), said
    code, said = progress(home, "--records", "--tables", str(tables))
    assert code == 0 and said.startswith("smoke: 8 of 9 cells are finished\n"), said
    assert "| tiny | dora | 0 of 1 | – |" in said and "Counted by their records" in said and "jobs are left" not in said
    before = tmp_path / "before"
    assert progress(away, "--tables", str(before))[0] == 0
    for path in before.iterdir():
        if path.name not in (MANIFEST, "provenance.html"):
            assert (tables / path.name).read_bytes() == path.read_bytes(), path.name

    (home / RESULTS / "checkpoints/tiny/lora/0/seed0/merged/merge.json").unlink()
    code, said = progress(home, "--records")
    rows = [line.split("/")[4] for line in said.splitlines()]
    assert code == 1 and rows == ["lora", CELL] and said.count("merge.json is not there, though the cell was made from it") == 2, said
    (home / "config/own.yaml").write_text(yaml.safe_dump(RAW | {"evaluation": RAW["evaluation"] | {"limit": 2}}))
    code, said = progress(home, "--records", config="config/own.yaml")
    assert code == 1 and "evaluate: limit is null, in config/own.yaml 2" in said and "Traceback" not in said
