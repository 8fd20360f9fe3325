"""On a real SLURM cluster: the same tables as locally, jobs that are lost and come back, limits that are told, several processes a job.

`make test-slurm` runs these. They need root, `slurm-wlm`, `munge` and the executor plugin, and take some twenty minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from tests.kit.children import HANGS_AFTER_S
from tests.kit.project import ROOT, copy_workflow
from tests.kit.slurm_cluster import Cluster, missing_programs, running_cluster, wait_until

pytestmark = pytest.mark.slurm
SMOKE: dict[str, Any] = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
RESULTS = Path("results/smoke")
CELL = RESULTS / "checkpoints/tiny/pat/0.5/seed0"
LOG = RESULTS / "logs/tune/tiny/pat/0.5/seed0.log"
# As on this cluster; jobs are looked after more often than a real one would like.
OPTIONS = (
    "--workflow-profile", "profiles/slurm", "--slurm-no-account", "--slurm-status-command", "squeue", "--latency-wait", "10",
    "--slurm-init-seconds-before-status-checks", "3", "--seconds-between-status-checks", "3", "--jobs", "4",
)  # fmt: skip
STEPS = 400


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster that all tests share; each leaves it as it was. Not below pytest's folder, which others cannot enter: munged minds."""
    if missing := missing_programs():
        pytest.skip(f"{', '.join(missing)}: not to be found; apt-get install slurm-wlm munge")
    if find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("the executor is missing: pip install -c constraints.txt '.[slurm]'")
    with TemporaryDirectory(prefix="slurm-") as folder, running_cluster(Path(folder)) as running:
        yield running


class Workflow:
    """A copy of the workflow, or of one that has run already, with an experiment of its own, run through SLURM."""

    def __init__(self, folder: Path, begun: Path | None = None, **changes: Any) -> None:
        self.folder = shutil.copytree(begun, folder, symlinks=True) if begun else copy_workflow(folder)
        (self.folder / "config/here.yaml").write_text(yaml.safe_dump({**SMOKE, **changes}))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Snakemake; what it says comes through its standard output."""
        command = ["snakemake", *arguments, *OPTIONS, "--configfile", "config/here.yaml"]
        return subprocess.Popen(command, cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(os.environ))

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run Snakemake to its end; return its status and what it said."""
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=HANGS_AFTER_S)
        return process.returncode, said

    def tuning_job(self, cluster: Cluster, process: subprocess.Popen[str]) -> tuple[str, str]:
        """Return the SLURM job that tunes, and its node, once it has left a checkpoint."""

        def left() -> bool:
            assert process.poll() is None, process.communicate()[0]
            return any((self.folder / CELL).glob("run/checkpoint-*/manifest.json"))

        wait_until(left, "there is a checkpoint")
        listed = cluster.ask("squeue", "--noheader", "--states=RUNNING", "--format=%A %N %k").splitlines()
        job, node = next(line.split()[:2] for line in listed if "rule_tune" in line)
        return job, node


@pytest.fixture(scope="module")
def base(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workflow that has come as far as its base model."""
    workflow = Workflow(tmp_path_factory.mktemp("base") / "workflow", methods={"pat": None})
    status, said = workflow.run("results/smoke/models/tiny/manifest.json")
    assert status == 0, said
    return workflow.folder


def long_tuning(folder: Path, base: Path, steps: int = STEPS, **resources: Any) -> Workflow:
    """Return an experiment whose only row tunes for a minute or two, with a checkpoint every few seconds."""
    tuning = SMOKE["tuning"] | {"max_steps": steps, "checkpoint_steps": 20, "device": "cpu"}
    return Workflow(folder, base, methods={"pat": None}, tuning=tuning, resources={"tune": resources} if resources else {})


def finished(process: subprocess.Popen[str]) -> str:
    """Return what a run said that must end well."""
    said, _ = process.communicate(timeout=HANGS_AFTER_S)
    assert process.returncode == 0, said
    return said


def resumed(workflow: Workflow) -> bool:
    """Return whether the last attempt at the tuning went on from a checkpoint, and came to its end."""
    record = json.loads((workflow.folder / CELL / "adapter/tuning.json").read_text())
    return "resuming from" in (workflow.folder / LOG).read_text() and record["steps"] == STEPS


def tables(folder: Path) -> dict[str, bytes]:
    """Return the tables' bytes by name."""
    return {path.name: path.read_bytes() for path in (folder / RESULTS / "tables").iterdir()}


def test_the_smoke_experiment_ends_in_the_same_tables_as_locally(cluster: Cluster, tmp_path: Path) -> None:
    there = Workflow(tmp_path / "slurm")
    status, said = there.run()
    assert status == 0, said
    here = copy_workflow(tmp_path / "local")
    subprocess.run(["snakemake", "--cores", "2", "--configfile", "config/smoke.yaml"], cwd=here, check=True, capture_output=True)
    assert tables(there.folder) == tables(here)


def test_a_cancelled_tuning_is_submitted_again_and_goes_on(cluster: Cluster, base: Path, tmp_path: Path) -> None:
    workflow = long_tuning(tmp_path / "cancelled", base)
    process = workflow.start("checkpoints")
    job, _ = workflow.tuning_job(cluster, process)
    cluster.ask("scancel", job)
    said = finished(process)
    assert "SLURM status is: 'CANCELLED'" in said
    assert resumed(workflow)


def test_a_tuning_whose_node_dies_is_started_on_another_and_goes_on(cluster: Cluster, base: Path, tmp_path: Path) -> None:
    workflow = long_tuning(tmp_path / "dead", base)
    process = workflow.start("checkpoints")
    _, node = workflow.tuning_job(cluster, process)
    cluster.kill_node(node)
    try:
        wait_until(lambda: cluster.states()[node].startswith("down"), "SLURM notices")
        finished(process)
    finally:
        cluster.start_node(node)
        wait_until(lambda: cluster.states()[node] == "idle", "the node is back")
    assert resumed(workflow)


def test_a_drained_node_ends_what_it_has_and_the_other_does_the_rest(cluster: Cluster, base: Path, tmp_path: Path) -> None:
    workflow = long_tuning(tmp_path / "drained", base)
    process = workflow.start("checkpoints")
    _, node = workflow.tuning_job(cluster, process)
    cluster.ask("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    try:
        finished(process)
    finally:
        cluster.ask("scontrol", "update", f"nodename={node}", "state=resume")
    assert not resumed(workflow), "it was left alone"
    last = cluster.ask("squeue", "--noheader", "--states=COMPLETED", "--sort=i", "--format=%N").split()[-1]
    assert last != node


@pytest.mark.parametrize(
    ("resources", "state", "key"),
    [({"runtime": 1}, "TIMEOUT", "resources.tune.runtime"), ({"mem_mb": 200}, "FAILED", "resources.tune.mem_mb")],
)
def test_a_job_over_its_limit_says_what_to_change(resources: dict[str, int], state: str, key: str, base: Path, tmp_path: Path) -> None:
    workflow = long_tuning(tmp_path / "limited", base, steps=100_000, **resources)
    status, said = workflow.run("checkpoints", "--retries", "0")
    assert status != 0
    assert f"SLURM status is: '{state}'" in said
    assert said.count("A job of the rule tune") == 1 and key in said and "goes on from its last checkpoint" in said


def test_a_job_with_two_gpus_is_one_job_of_two_processes(cluster: Cluster, base: Path, tmp_path: Path) -> None:
    workflow = Workflow(tmp_path / "two", methods={"pat": None}, tuning=SMOKE["tuning"] | {"device": "cpu"}, resources={"tune": {"gpu": 2}})
    status, said = workflow.run("evaluation")
    assert status == 0, said
    assert json.loads((workflow.folder / CELL / "adapter/tuning.json").read_text())["processes"] == 2
    assert (workflow.folder / RESULTS / "evaluation/tiny/pat/0.5/seed0/cell.json").exists(), "evaluation waits for nobody"
