"""The real DAG end to end on the smoke experiment: what it leaves, that it rests when it is done, and that a kill does not matter."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pat.io.artefacts import MANIFEST, check_folder, read_json
from study.experiment.file import load_experiment
from study.results.times import read_times, whole
from tests.kit.children import TRIES, found_in, wait_for, wait_until
from tests.kit.project import ROOT, planned, snakemake
from tests.kit.smoke_run import CONFIG, NAMESPACES, NO_NETWORK, RESULTS, checkpoints, run, started, tables, wait_for_orphans

EXPERIMENT = load_experiment(ROOT / CONFIG, CONFIG)


def test_every_cell_ends_in_a_stock_checkpoint_and_one_result(finished: Path) -> None:
    from transformers import AutoModelForCausalLM

    for cell in EXPERIMENT.cells():
        folder = finished / RESULTS / "checkpoints" / cell.path
        given = cell.method.order == "given"  # the model itself, to which nothing is done
        merged = finished / RESULTS / "models" / cell.model if given else folder / "merged"
        check_folder(merged)
        result = json.loads((finished / RESULTS / "evaluation" / cell.path / "cell.json").read_text())
        model = AutoModelForCausalLM.from_pretrained(merged)
        assert result["method"] == cell.row
        assert result["hidden_size"] == {"before": 32, "after": round(32 * (1 - cell.ratio))}
        assert model.config.hidden_size == result["hidden_size"]["after"]
        assert sum(parameter.numel() for parameter in model.parameters()) == result["parameters"]["after"]["unique"]
        assert result["logit_gap"] is None if given else result["logit_gap"] <= 1e-4
        assert not (folder / ("" if given else "run")).exists()


def test_a_refit_of_readers_says_what_it_does_to_a_held_out_text(finished: Path) -> None:
    [record] = (finished / RESULTS / "refitted").rglob("readers.json")
    assert list(read_json(record)["text"]) == ["calibration, held out", "second text"]
    assert read_json(record)["provenance"]["inputs"]["second_text"]["path"].endswith("text/heldout.jsonl")


def test_the_table_of_fits_tells_of_it_and_is_made_again_with_it(finished: Path) -> None:
    [record] = (finished / RESULTS / "refitted").rglob("readers.json")
    [line] = csv.DictReader(tables(finished)["fits.csv"].decode().splitlines())
    said = read_json(record)["text"]
    assert (line["model"], line["seeds"], int(line["tokens"])) == ("tiny", "1", read_json(record)["tokens"])
    figures = {"plain": "calibration, held out", "second_text_plain": "second text"}
    assert {name: float(line[name]) for name in figures} == {
        name: pytest.approx(said[text]["plain"], rel=1e-5) for name, text in figures.items()
    }
    plan = snakemake(finished, "--dry-run", "--forcerun", "refit_readers", "--configfile", CONFIG).stdout
    assert "refit the readers of tiny" in plan and "write the tables\n" in plan and "put tiny into" not in plan


def test_tables_and_figures_hold_every_row(finished: Path) -> None:
    made = {name: content.decode() for name, content in tables(finished).items()}
    labels = {EXPERIMENT.label(row) for row in EXPERIMENT.methods}
    for kind in ("csv", "md", "tex"):
        assert all(label.partition(" (")[0] in made[f"table1.{kind}"] for label in labels)
    rows = list(csv.DictReader(made["cells.csv"].splitlines()))
    assert {row["method"] for row in rows} == set(EXPERIMENT.methods)
    figures = finished / RESULTS / "figures"
    assert all(path.stat().st_size > 1000 for path in figures.rglob("*.png"))
    masked = {row for row in EXPERIMENT.methods if EXPERIMENT.method(row).masked}
    assert {path.parent.parent.parent.name for path in figures.rglob("health.png")} == masked


def test_every_number_leads_to_the_commands_that_made_it(finished: Path) -> None:
    """What the steps have recorded is what Snakemake would run."""
    listed = snakemake(finished, "--dry-run", "--forceall", "--printshellcmds", "--configfile", CONFIG)
    commands = [shlex.split(line.partition(": ")[2]) for line in listed.stdout.splitlines() if line.startswith("Shell command: ")]
    command = ["pat", "explain", str(RESULTS), "--model", "tiny", "--row", "pat-g", "--ratio", "0.5", "--task", "capitals"]
    said = subprocess.run(command, cwd=finished, capture_output=True, text=True, check=True).stdout
    recorded = [shlex.split(line.partition(": ")[2]) for line in said.splitlines() if line.startswith("   command: ")]
    assert [words[1] for words in recorded] == ["pretrain", "rotate", "refit-readers", "encode", "tune", "merge", "evaluate"]
    assert all(words in commands for words in recorded)


def test_every_job_s_time_is_on_record(finished: Path) -> None:
    """A measurement's time stamp is its job's end: what the job wrote is younger than its start, and no younger than its end."""
    jobs = read_times(finished / RESULTS)
    tuned = list((finished / RESULTS / "checkpoints").rglob("adapter/tuning.json"))
    assert {"world", "pretrain", "tune", "merge", "evaluate", "collect", "report"} <= {job.step for job in jobs}
    tunings = [job for job in jobs if job.step == "tune"]
    assert len(tunings) == len(tuned)
    assert all(any(job.started_s - 1 <= path.stat().st_mtime <= job.ended_s + 1 for job in tunings) for path in tuned)
    assert 0 < whole(jobs).busy_s <= whole(jobs).span_s


@pytest.mark.skipif(not NAMESPACES, reason="this system gives no network namespaces")
def test_no_phase_needs_a_network(finished: Path) -> None:
    """The run of the fixture had none; this makes sure of that."""
    connect = [sys.executable, "-c", "import socket; socket.create_connection(('127.0.0.1', 9))"]
    assert "unreachable" in subprocess.run([*NO_NETWORK, *connect], capture_output=True, text=True, check=False).stderr
    assert (finished / RESULTS / "tables/manifest.json").exists()


def test_a_second_run_does_nothing_and_says_so(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / RESULTS).rglob("*")}
    second = run(finished)
    assert second.returncode == 0
    assert "Nothing to be done" in second.stdout + second.stderr
    assert {path: path.stat().st_mtime_ns for path in (finished / RESULTS).rglob("*")} == before


@pytest.mark.parametrize(
    ("block", "key", "value", "phases"),
    [
        ("evaluation", "limit", 2, {"evaluate", "collect"}),
        ("resources", "tune", {"mem_mb": 8000}, set()),
        ("refit", "ridges", [1e-6, 1.2345678e-4], {"refit", "tune", "merge", "evaluate", "collect"}),
        ("tuning", "weight_decay", 0.1, {"prune tiny", "tune", "merge", "prune the tuned", "evaluate", "collect"}),
    ],
)
def test_a_changed_setting_runs_again_what_it_touches(finished: Path, block: str, key: str, value: object, phases: set[str]) -> None:
    """A model that was pruned only to be tuned is gone by then and is pruned again."""
    raw = yaml.safe_load((ROOT / CONFIG).read_text())
    raw[block] = {**raw.get(block, {}), key: value}
    jobs = {job for job in planned(finished, raw) if not job.startswith(("write the tables", "draw"))}
    assert {next(phase for phase in sorted(phases, key=len, reverse=True) if job.startswith(phase)) for job in jobs} == phases


def test_a_refit_keeps_no_record_of_ridges_that_are_not_named(finished: Path) -> None:
    """Refits of before ridges could be named have none: with one all of them would be made again, and their rows tuned again."""
    [made] = (finished / RESULTS / "refitted").rglob(MANIFEST)
    kept = finished / ".snakemake/metadata" / urlsafe_b64encode(made.relative_to(finished).as_posix().encode()).decode()
    params = json.loads(kept.read_text())["params"]
    assert params and not {"''", "()", "[]"} & set(params) and not any("ridge" in param for param in params)


def test_named_ridges_come_to_the_command_with_all_their_digits(finished: Path) -> None:
    raw = yaml.safe_load((ROOT / CONFIG).read_text()) | {"refit": {"ridges": [1e-6, 1.2345678e-4]}}
    (finished / "config/named.yaml").write_text(yaml.safe_dump(raw))
    listed = snakemake(finished, "--dry-run", "--forceall", "--printshellcmds", "--configfile", "config/named.yaml").stdout
    (finished / "config/named.yaml").unlink()
    [command] = [line for line in listed.splitlines() if "pat refit-readers " in line]
    assert " --ridge 1e-06 --ridge 0.00012345678 " in command


def test_a_changed_row_runs_its_own_cells_again(finished: Path) -> None:
    raw = yaml.safe_load((ROOT / CONFIG).read_text())
    raw["methods"]["pat"] = {"pat": {"mask": "frozen"}}
    jobs = {job for job in planned(finished, raw) if not job.startswith(("write the tables", "draw"))}
    assert {job.split(" ", 1)[0] for job in jobs} == {"tune", "merge", "evaluate", "collect"}
    assert all(" by pat," in job or " tiny, pat," in job for job in jobs)


def test_a_cell_that_is_deleted_is_made_again(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "deleted"
    shutil.copytree(finished, folder, symlinks=True)
    shutil.rmtree(folder / RESULTS / "checkpoints/tiny/pat")
    jobs = planned(folder, yaml.safe_load((ROOT / CONFIG).read_text()))
    assert {"tune tiny by pat, ratio 0.5, seed 0", "evaluate tiny, pat, ratio 0.5, seed 0", "write the tables"} <= jobs
    assert not any("lora" in job for job in jobs)


def test_the_instructions_are_encoded_once_and_again_where_rows_are_of_another_length(finished: Path) -> None:
    listed = snakemake(finished, "--dry-run", "--forceall", "--printshellcmds", "--configfile", CONFIG).stdout
    assert listed.count("Shell command: pat encode ") == 1
    assert 1 < listed.count(" pat tune ") + listed.count(": pat tune ") == listed.count(" --encoded results/smoke/encoded/tiny/192 ")
    raw = yaml.safe_load((ROOT / CONFIG).read_text())
    raw["methods"]["dora"] = {"tuning": {"max_length": 160}}
    jobs = {job for job in planned(finished, raw) if not job.startswith(("write", "draw"))}
    assert "encode the instruction set for tiny, at most 160 tokens a row" in jobs
    assert {job.split(" ", 1)[0] for job in jobs} == {"encode", "tune", "merge", "evaluate", "collect"}
    assert all("dora" in job for job in jobs if not job.startswith("encode"))


def test_tunings_of_before_there_were_encodings_stay_finished(finished: Path, tmp_path: Path) -> None:
    """Only what is made from now on reads one."""
    folder = tmp_path / "before"
    shutil.copytree(finished, folder, symlinks=True)
    shutil.rmtree(folder / RESULTS / "encoded")
    changed = 0
    for path in (folder / ".snakemake/metadata").rglob("*"):
        if path.is_file() and (inputs := json.loads(path.read_text())["input"]):
            said = json.loads(path.read_text()) | {"input": [each for each in inputs if "/encoded/" not in each]}
            changed += said["input"] != inputs
            path.write_text(json.dumps(said))
    for path in (folder / RESULTS / "checkpoints").rglob("adapter/tuning.json"):
        record = json.loads(path.read_text())
        del record["provenance"]["inputs"]["encoded"]
        path.write_text(json.dumps(record))
        changed -= 1
    assert changed == 0, "every tuning has it on record, and nothing else"
    raw = yaml.safe_load((ROOT / CONFIG).read_text())
    assert planned(folder, raw) == set()
    raw["methods"]["more"] = {"method": "lora", "label": "more", "tuning": {"weight_decay": 0.1}}
    jobs = {job for job in planned(folder, raw) if not job.startswith(("write", "draw"))}
    assert {job.split(" ", 1)[0] for job in jobs} == {"encode", "tune", "merge", "evaluate", "collect"}
    assert all("more" in job for job in jobs if not job.startswith("encode"))


def killed_when(condition: Callable[[], object], folder: Path) -> bool:
    """Start the run, and kill it with all its jobs at a moment of it; return whether that moment was met before the run ended."""
    process = started(folder, forked=True)
    try:
        wait_until(lambda: condition() or process.poll() is not None)
    finally:
        if met := process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    wait_for_orphans(folder)
    return met


def test_a_run_that_is_killed_in_the_middle_of_tuning_ends_in_the_same_table(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    shutil.copytree(finished, folder, symlinks=True)
    checkpoint_folder = folder / RESULTS / "checkpoints/tiny"
    in_two, cell = checkpoint_folder / "channel-magnitude-ftpft", checkpoint_folder / "pat/0.5/seed0"
    shutil.rmtree(in_two)
    assert killed_when((in_two / "before/seed0/adapter/manifest.json").exists, folder)
    assert not (in_two / "0.5/seed0/adapter").exists(), "killed between the parts of its tuning"

    done = cell / "adapter/manifest.json"

    def killed_in_its_training() -> bool:
        shutil.rmtree(cell, ignore_errors=True)
        return killed_when(lambda: found_in(cell, "run/checkpoint-*/manifest.json"), folder) and not done.exists()

    assert any(killed_in_its_training() for _ in range(TRIES))

    again = run(folder, forked=True)
    said = again.stdout + again.stderr
    assert again.returncode == 0, said
    assert "going on where it stopped" in said
    assert "resuming from" in said
    assert checkpoints(folder) == checkpoints(finished)
    assert tables(folder) == tables(finished)


def test_two_runs_in_one_folder_are_refused(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "busy"
    # The owner's file of the finished run stays behind: waiting for it must mean waiting for the new run.
    shutil.copytree(finished, folder, symlinks=True, ignore=shutil.ignore_patterns("results", "run.owner"))
    process = started(folder)
    try:
        wait_for((folder / ".snakemake/run.owner").exists, process)
        second = run(folder)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert second.returncode == 1
    assert "at work in this folder" in second.stderr
    assert "Traceback" not in second.stderr
