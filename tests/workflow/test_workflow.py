"""The DAG as Snakemake sees it: plans of every shipped experiment, style, phases, and what a change makes run again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from study.plan.demands import ON_GPU
from study.plan.failures import phase_of
from tests.kit.project import ROOT, snakemake

SHIPPED = sorted(path.name for path in (ROOT / "config").glob("*.yaml"))
EXPECTED_LINT = ("Specify a conda environment or container for each rule", "Shell command directly uses variable PLUGINS")


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_experiment_can_be_planned_anywhere(workflow_copy: Path, name: str) -> None:
    """No network, no data, no model on this machine: a plan needs none of them."""
    plan = snakemake(workflow_copy, "--dry-run", "--configfile", f"config/{name}")
    assert plan.returncode == 0, plan.stderr
    assert "rule all" in plan.stdout + plan.stderr


def test_the_default_is_the_demo(workflow_copy: Path) -> None:
    plan = snakemake(workflow_copy, "--dry-run")
    assert "results/demo/tables/manifest.json" in plan.stdout + plan.stderr


def test_a_text_of_the_first_of_two_files_stays_a_text(workflow_copy: Path, tmp_path: Path) -> None:
    """What stands in a file keeps its kind; Snakemake lays files over each other key by key, at every depth."""
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text((ROOT / "config/smoke.yaml").read_text().replace("  lora:\n", '  lora: {label: "1"}\n'))
    second.write_text("methods: {dora: {label: other}}\n")
    plan = snakemake(workflow_copy, "--dry-run", "--configfile", str(first), str(second))
    assert plan.returncode == 0, plan.stderr


def test_a_broken_experiment_is_one_message_without_a_traceback(workflow_copy: Path) -> None:
    broken = workflow_copy / "config" / "broken.yaml"
    broken.write_text((ROOT / "config" / "smoke.yaml").read_text().replace("  pat:\n", "  pta:\n").replace("seeds:", "sedes:"))
    plan = snakemake(workflow_copy, "--dry-run", "--configfile", "config/broken.yaml")
    broken.unlink()
    assert plan.returncode == 1
    assert "config/broken.yaml: sedes: unknown key; did you mean 'seeds'?" in plan.stderr
    assert "config/broken.yaml: methods.pta: " in plan.stderr
    assert "Traceback" not in plan.stderr
    assert "File " not in plan.stderr


@pytest.mark.parametrize("command", [("tools/run", "missing.yaml"), ("make", "--silent", "run", "CONFIG=missing.yaml")])
def test_a_missing_experiment_file_is_one_line_before_anything_is_made(command: tuple[str, ...], workflow_copy: Path) -> None:
    own = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}  # make test's
    finished = subprocess.run(command, cwd=workflow_copy, env=own, capture_output=True, text=True, check=False)
    said, *others = finished.stderr.splitlines()
    assert finished.returncode != 0 and "missing.yaml: no such file" in said
    assert all(line.startswith("make: ***") for line in others)
    assert not (workflow_copy / ".venv").exists() and not (workflow_copy / "results").exists()


def rules() -> dict[str, str]:
    """Return the text of every rule by its name; one that uses another has that one's behind its own."""
    text = "\n".join(path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk")))
    found = dict(re.findall(r"^rule (\w+):\n(.*?)(?=^(?:use )?rule |\Z)", text, re.MULTILINE | re.DOTALL))
    for base, name, own in re.findall(r"^use rule (\w+) as (\w+) with:\n(.*?)(?=^(?:use )?rule |\Z)", text, re.MULTILINE | re.DOTALL):
        found[name] = own + found[base]
    return found


def test_the_slurm_profile_and_the_advice_know_every_rule() -> None:
    """Rules that may use a GPU have its partition; a rule's advice names the block of `resources` it runs under."""
    phases = {name: found[1] for name, body in rules().items() if (found := re.search(r'mem_mb=plan\.memory\("(\w+)"\)', body))}
    profile = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())
    assert set(profile["set-resources"]) == {name for name, phase in phases.items() if phase in ON_GPU}
    assert {name: phase_of(name) for name in phases} == phases


def test_what_is_begun_is_finished_first() -> None:
    """Of two jobs that may start, the one nearer the end of its cell starts: a run that is ended early has finished cells, not begun ones."""
    priority = {
        name: int(found[1]) if (found := re.search(r"^    priority: (\d+)$", body, re.MULTILINE)) else 0 for name, body in rules().items()
    }
    for chain in (
        ["prune_base", "search_rate", "tune", "merge", "evaluate", "collect_cell"],
        ["merge", "evaluate"],
        ["prune_tuned", "evaluate"],
    ):
        assert [priority[name] for name in chain] == sorted({priority[name] for name in chain})


def test_only_what_fetches_may_look_for_a_network() -> None:
    """All other jobs run with HF_HUB_OFFLINE=1: on a compute node without a network they would wait for it."""
    online = [name for name, body in rules().items() if "online=plan.online" in body and "{params.online}" in body]
    assert set(online) == {"instruct", "task", "text", "fetch_model", "fetch_tasks"}


def test_lint_finds_nothing_but_the_missing_environments(workflow_copy: Path) -> None:
    """The environment is the package's own lock; one per rule would install it a dozen times.

    The options that name plugins are those of the whole run: as a parameter of each rule they would make every finished result anew.
    """
    lint = snakemake(workflow_copy, "--lint")
    findings = [line for line in (lint.stdout + lint.stderr).splitlines() if line.lstrip().startswith("* ")]
    assert [line for line in findings if not any(expected in line for expected in EXPECTED_LINT)] == []


def test_rules_are_formatted() -> None:
    command = [sys.executable, "-m", "snakefmt", "--check", "Snakefile", "workflow/rules"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


def test_sources_that_are_there_are_inputs_and_others_are_not(workflow_copy: Path, tmp_path: Path) -> None:
    """So that editing a data file runs its cells again, and a plan needs no data."""
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text()) | {"root": str(tmp_path)}
    raw["data"]["tasks"] = {"here": {"source": "json", "path": "here.jsonl"}, "gone": {"source": "json", "path": "gone.jsonl"}}
    (tmp_path / "here.jsonl").write_text("{}\n")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(raw))
    plan = snakemake(workflow_copy, "data", "--dry-run", "--configfile", str(tmp_path / "own.yaml"))
    said = plan.stdout + plan.stderr
    assert plan.returncode == 0, said
    assert "prepare the task here" in said
    assert "prepare the task gone" in said


def jobs_of(plan: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what a plan says of its jobs, in the order in which they could run."""
    return [part for part in (plan.stdout + plan.stderr).split("\n\n") if "Shell command:" in part]


def test_distilled_tunings_wait_for_the_tuned_model(workflow_copy: Path, tmp_path: Path) -> None:
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    raw["methods"]["pat"] = {"tuning": {"distillation": {"temperature": 2}}}
    raw["data"]["instruct"] = {"source": "hub", "id": "someone/rows"}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(raw))
    plan = snakemake(workflow_copy, "--dry-run", "--printshellcmds", "--configfile", str(tmp_path / "own.yaml"))
    assert plan.returncode == 0, plan.stderr
    teacher = "results/smoke/checkpoints/tiny/lora/0/seed0/merged"
    (taught,) = (job for job in jobs_of(plan) if "--teacher" in job)
    assert "tune tiny by pat, ratio 0.5" in taught
    assert f"--teacher {teacher} " in taught
    assert all("--dataset someone/rows " in job for job in jobs_of(plan) if " pat tune " in job)
    merging = next(job for job in jobs_of(plan) if "merge tiny, lora, ratio 0" in job)
    assert jobs_of(plan).index(merging) < jobs_of(plan).index(taught)


def test_searched_tunings_wait_for_one_search_an_arm(workflow_copy: Path, tmp_path: Path) -> None:
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text()) | {"seeds": [2, 0]}
    raw["methods"] = {"lora": None, "pat": None, "dora": {"tuning": {"learning_rate": 1e-3}}, "channel-magnitude-ftp": None}
    raw["methods"]["channel-magnitude-ftpft"] = None
    raw["ratios"] = [0.25, 0.5]
    raw["tuning"] = {key: value for key, value in raw["tuning"].items() if key != "learning_rate"} | {"search": {"learning_rates": [1, 2]}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(raw))
    plan = snakemake(workflow_copy, "--dry-run", "--printshellcmds", "--configfile", str(tmp_path / "own.yaml"))
    assert plan.returncode == 0, plan.stderr
    searches = [job for job in jobs_of(plan) if "pat search-rate " in job]
    assert sorted(job.split("search the learning rate of ")[1].splitlines()[0] for job in searches) == [
        "tiny, channel-magnitude-ftpft, ratio before",
        "tiny, lora, ratio 0",
        "tiny, pat, ratio 0.25",
        "tiny, pat, ratio 0.5",
    ]
    assert all(" --seed 2 " in job for job in searches)
    tunings = [job for job in jobs_of(plan) if "pat tune " in job]
    assert len(tunings) == 2 * (1 + 2 + 1 + 3), "lora, pat at two ratios, dora, and two parts of which the first is shared"
    in_two = "channel-magnitude-ftpft"
    arms = {"lora/0": "lora/0", "pat/0.25": "pat/0.25", "pat/0.5": "pat/0.5", in_two: f"{in_two}/before"}
    for job in tunings:
        arm = next((arm for place, arm in arms.items() if f"/{place}/" in job), None)
        assert (f"--rate-from results/smoke/checkpoints/tiny/{arm}/rate.json " in job) if arm else "--rate-from" not in job
        assert arm is None or min(jobs_of(plan).index(one) for one in searches if f"/{arm}/" in one) < jobs_of(plan).index(job)


def test_the_data_are_whole_before_anything_reads_them(workflow_copy: Path, tmp_path: Path) -> None:
    """DVC locks them when `data` is done: what a later phase wrote among them would not be what was locked."""
    raw = yaml.safe_load((workflow_copy / "config" / "smoke.yaml").read_text())
    raw["evaluation"]["harness_tasks"] = ["arc_easy"]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(raw))
    plan = snakemake(workflow_copy, "data", "--dry-run", "--configfile", str(tmp_path / "own.yaml"))
    assert plan.returncode == 0 and "fetch the data of lm-eval's own tasks" in plan.stdout
