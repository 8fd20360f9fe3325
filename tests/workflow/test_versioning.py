"""DVC over the DAG on the finished smoke run: phases that agree with Snakemake, restore after a clone, remotes that fail half-way."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pat.io.artefacts import sha256
from pat.io.marks import SEAL
from study.experiment.file import load_experiment
from study.plan.phases import PHASES
from tests.kit.children import TRIES, child, wait_until
from tests.kit.dvc_workspace import call, clone, commit, dvc, objects, restore, versioned
from tests.kit.project import ROOT, planned, snakemake
from tests.kit.smoke_run import CONFIG, RESULTS

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
UNVERSIONED = ("logs", "benchmarks")
CELLS = len(load_experiment(ROOT / CONFIG, CONFIG).cells())


@pytest.fixture(autouse=True, scope="module")
def _own_dvc_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what DVC remembers of workspaces out of the machine's own folders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path_factory.mktemp("dvc-state")))
        yield


@pytest.fixture(scope="module")
def workspace(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke run locked, committed and pushed; the remote lies beside it."""
    folder = tmp_path_factory.mktemp("versioned")
    made = versioned(finished, folder / "workspace", folder / "remote")
    dvc(made, "push")
    return made


@pytest.fixture(scope="module")
def restored(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which the results have been restored."""
    folder = clone(workspace, tmp_path_factory.mktemp("restored") / "clone")
    restore(folder)
    return folder


def contents(folder: Path) -> dict[str, str]:
    """Return name: checksum of every versioned file of the smoke experiment."""
    results = folder / RESULTS
    files = [path for path in results.rglob("*") if path.is_file() and path.relative_to(results).parts[0] not in UNVERSIONED]
    return {path.relative_to(results).as_posix(): sha256(path) for path in files}


def outs(stage: dict[str, Any], name: str) -> list[str]:
    """Return the paths that a stage of dvc.yaml keeps for an experiment."""
    listed = [out for kind in ("outs", "metrics", "plots") for out in stage["do"].get(kind, [])]
    return [path.replace("${item}", name) for out in listed for path in out]


def test_dvc_yaml_runs_the_phases_and_keeps_what_they_make() -> None:
    assert list(STAGES) == list(PHASES)
    for name, phase in PHASES.items():
        stage = STAGES[name]
        assert stage["do"]["cmd"] == " ".join(["tools/run config/${item}.yaml", *phase.targets])
        assert outs(stage, "x") == [f"results/x/{part}" for part in (*phase.folders, *phase.files)]
        assert all(
            options["persist"] for kind in ("outs", "metrics", "plots") for out in stage["do"].get(kind, []) for options in out.values()
        )
        assert stage["do"]["params"] == [{"config/${item}.yaml": None}]
        assert {"Snakefile", "workflow", "pat", "config"} <= set(stage["do"]["deps"])
    read = {f"results/${{item}}/{folder}" for folder in ("rotated", "refitted", "checkpoints", "evaluation")}
    assert read <= set(STAGES["tables"]["do"]["deps"]), "tables tell of bases too"


def test_every_result_but_logs_lies_in_one_phase(finished: Path) -> None:
    kept = [path for name in PHASES for path in outs(STAGES[name], "smoke")]
    for path in (finished / RESULTS).rglob("*"):
        name = path.relative_to(finished).as_posix()
        if path.is_file() and path.relative_to(finished / RESULTS).parts[0] not in UNVERSIONED:
            assert sum(name == out or name.startswith(f"{out}/") for out in kept) == 1, name


def test_every_phases_targets_are_the_dags(workspace: Path) -> None:
    targets = [target for phase in PHASES.values() for target in phase.targets]
    listed = snakemake(workspace, "--list-target-rules", "--configfile", CONFIG).stdout.split()
    assert set(targets) <= set(listed)
    plan = snakemake(workspace, *targets, "--dry-run", "--configfile", CONFIG)
    assert "Nothing to be done" in plan.stdout + plan.stderr


def test_a_locked_run_is_up_to_date_and_its_numbers_can_be_compared(workspace: Path) -> None:
    assert "up to date" in dvc(workspace, "status").stdout
    shown = dvc(workspace, "metrics", "show").stdout
    assert "pat.50%.first_capital" in shown
    rows = dvc(workspace, "plots", "show", "--json").stdout
    assert "PAT, 50 %" in rows


def test_after_clone_and_restore_all_is_there_byte_by_byte_and_nothing_is_to_be_done(workspace: Path, restored: Path) -> None:
    assert contents(restored) == contents(workspace)
    again = call(restored, "tools/run", CONFIG, "--dry-run")
    assert "Nothing to be done" in again.stdout + again.stderr
    assert "up to date" in dvc(restored, "status").stdout


@pytest.mark.parametrize(
    ("keys", "value", "jobs"),
    [
        (("evaluation", "limit"), 2, {"evaluate": CELLS, "collect": CELLS, "write": 2}),
        (("methods", "dora"), {"lora": {"rank": 2}}, {"tune": 1, "merge": 1, "evaluate": 1, "collect": 1, "write": 2}),
    ],
)
def test_after_a_restore_a_changed_setting_reruns_what_it_touches_alone(
    restored: Path, keys: tuple[str, str], value: object, jobs: dict[str, int]
) -> None:
    raw = yaml.safe_load((ROOT / CONFIG).read_text())
    raw[keys[0]][keys[1]] = value
    words = [job.split(" ", 1)[0] for job in planned(restored, raw)]
    assert {word: words.count(word) for word in set(words) - {"draw"}} == jobs


def test_pulled_results_without_a_restore_are_refused(workspace: Path, tmp_path: Path) -> None:
    folder = clone(workspace, tmp_path / "clone")
    dvc(folder, "pull")
    refused = call(folder, "tools/run", CONFIG, expect=1)
    assert "make restore" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_temporary_experiment_is_refused_and_leaves_no_result(workspace: Path) -> None:
    refused = dvc(workspace, "exp", "run", "--temp", "-S", f"{CONFIG}:+evaluation.limit=2", expect=None)
    assert refused.returncode != 0
    assert "in the workspace, without them" in refused.stdout + refused.stderr
    assert dvc(workspace, "exp", "list").stdout.strip() == ""


def test_another_commits_results_are_noticed_before_they_are_taken_for_these(workspace: Path, tmp_path: Path) -> None:
    """The workspace goes to results of other settings by dvc checkout; Snakemake's record stays behind."""
    folder = tmp_path / "moved"
    shutil.copytree(workspace, folder, symlinks=True)
    cell = folder / RESULTS / "evaluation/tiny/pat/0.5/seed0/cell.json"
    cell.write_text(cell.read_text() + "\n")
    call(folder, sys.executable, "-m", "study", "seal", CONFIG)
    dvc(folder, "commit", "--force")
    commit(folder, "other results")
    call(folder, "git", "checkout", "--quiet", "HEAD~1")
    dvc(folder, "checkout")
    assert "results/smoke/evaluation" in call(folder, "tools/run", CONFIG, expect=1).stderr
    restore(folder)
    again = call(folder, "tools/run", CONFIG, "--dry-run")
    assert "Nothing to be done" in again.stdout + again.stderr


@pytest.mark.parametrize("name", ["config/smoke.yaml", "pat/method/mask.py", "workflow/new.py", "dvc.lock"])
def test_code_or_settings_that_are_not_committed_are_refused_by_name(restored: Path, name: str) -> None:
    path = restored / name
    before = path.read_text() if path.exists() else None
    path.write_text((before or "") + "\n# changed\n")
    said = restore(restored, expect=1)
    path.write_text(before) if before is not None else path.unlink()
    assert name in said and "changed since the last commit" in said


def test_code_that_differs_from_what_was_locked_is_refused(workspace: Path, tmp_path: Path) -> None:
    folder = clone(workspace, tmp_path / "clone")
    (folder / "pat/method/mask.py").write_text((folder / "pat/method/mask.py").read_text() + "\n# changed\n")
    commit(folder, "new code, old results")
    said = restore(folder, expect=1)
    assert "differ from those locked together" in said and "pat" in said
    assert not (folder / ".snakemake/metadata").exists()


def test_an_experiment_that_nobody_has_locked_is_refused(restored: Path) -> None:
    said = call(restored, sys.executable, "-m", "study", "restore", "config/demo.yaml", expect=1)
    assert "holds no phase of config/demo.yaml" in said.stderr


def flipped(whole: bytes) -> bytes:
    """Return the bytes with one bit in the middle turned."""
    middle = len(whole) // 2
    return whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]


def test_damaged_objects_of_the_remote_are_named_and_never_used(workspace: Path, tmp_path: Path) -> None:
    remote, folder = tmp_path / "remote", clone(workspace, tmp_path / "clone")
    shutil.copytree(workspace.parent / "remote", remote)
    dvc(folder, "remote", "modify", "--local", "local", "url", str(remote))
    *_, truncated, turned = objects(remote)
    whole = {path: path.read_bytes() for path in (truncated, turned)}
    for path, damaged in ((truncated, whole[truncated][:100]), (turned, flipped(whole[turned]))):
        path.chmod(0o644)
        path.write_bytes(damaged)
    said = restore(folder, expect=1)
    for path in (truncated, turned):
        names = [name for name, digest in contents(workspace).items() if digest == hashlib.sha256(whole[path]).hexdigest()]
        assert any(f"results/smoke/{name}" in said for name in names)
        path.write_bytes(whole[path])
    assert "damaged in the remote" in said and "Traceback" not in said
    restore(folder)
    assert contents(folder) == contents(workspace)


def test_a_damaged_object_of_the_local_cache_is_named_and_never_used(restored: Path, tmp_path: Path) -> None:
    """DVC trusts an object of its cache whose time has not changed, as on a failing disk; the seals and manifests do not."""
    folder = tmp_path / "copy"
    shutil.copytree(restored, folder, symlinks=True)
    content = next((folder / RESULTS).rglob("model.safetensors")).read_bytes()
    weights = next(path for path in objects(folder / ".dvc/cache/files") if path.read_bytes() == content)
    before = weights.stat()
    weights.chmod(0o644)
    weights.write_bytes(flipped(weights.read_bytes()))
    weights.chmod(before.st_mode)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    shutil.rmtree(folder / RESULTS)
    said = restore(folder, expect=1)
    assert "model.safetensors" in said


def filled(folder: Path) -> int:
    """Return how many files lie below a folder that another process is filling."""
    return sum(len(files) for _, _, files in os.walk(folder))


def killed_half_way(command: str, folder: Path, target: Path, whole: int) -> bool:
    """Start DVC and kill it when some files lie in its target; return whether it was killed before the whole of them did."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    program = [sys.executable, "-m", "dvc", command]
    with child(program, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: filled(target) > 5 or process.poll() is not None)
        process.kill()
        process.wait()
    return filled(target) < whole


def test_a_push_and_a_pull_that_are_killed_half_way_go_on_with_the_same_command(workspace: Path, tmp_path: Path) -> None:
    source, remote, folder = tmp_path / "source", tmp_path / "remote", tmp_path / "clone"
    shutil.copytree(workspace, source, symlinks=True)
    dvc(source, "remote", "modify", "local", "url", str(remote))
    commit(source, "another remote")
    whole = len(objects(workspace.parent / "remote"))

    def push_is_killed() -> bool:
        shutil.rmtree(remote, ignore_errors=True)
        return killed_half_way("push", source, remote, whole)

    def pull_is_killed() -> bool:
        shutil.rmtree(folder)
        return killed_half_way("pull", clone(source, folder), folder / ".dvc/cache", whole)

    assert any(push_is_killed() for _ in range(TRIES))
    assert "missing or damaged in the remote" in restore(clone(source, folder), expect=1)
    dvc(source, "push")
    assert any(pull_is_killed() for _ in range(TRIES))
    dvc(folder, "pull")
    assert contents(folder) == contents(workspace)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_at_the_remote_ends_the_push_and_the_next_one_goes_on(workspace: Path, small_disk: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(workspace, source, symlinks=True)
    dvc(source, "remote", "modify", "local", "url", str(small_disk))
    commit(source, "another remote")
    assert "No space left" in dvc(source, "push", expect=1).stderr
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    dvc(source, "push")
    folder = clone(source, tmp_path / "clone")
    dvc(folder, "pull")
    assert contents(folder) == contents(workspace)


def test_a_full_disk_here_ends_the_restore_and_the_next_one_goes_on(workspace: Path, small_disk: Path, tmp_path: Path) -> None:
    folder = clone(workspace, tmp_path / "clone")
    dvc(folder, "config", "--local", "cache.dir", str(small_disk / "cache"))
    assert "No space left" in restore(folder, expect=1)
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    restore(folder)
    assert contents(folder) == contents(workspace)


def test_an_object_store_serves_as_well(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.server import ThreadedMotoServer

    for name, value in (("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        call(
            workspace, sys.executable, "-c", f"import boto3; boto3.client('s3', endpoint_url='{endpoint}').create_bucket(Bucket='results')"
        )
        source = tmp_path / "source"
        shutil.copytree(workspace, source, symlinks=True)
        dvc(source, "remote", "modify", "local", "url", "s3://results/pat")
        dvc(source, "remote", "modify", "local", "endpointurl", endpoint)
        commit(source, "an object store")
        dvc(source, "push")
        assert "in sync" in dvc(source, "status", "--cloud").stdout
        folder = clone(source, tmp_path / "clone")
        dvc(folder, "pull")
        assert contents(folder) == contents(workspace)
    finally:
        server.stop()


@pytest.mark.slow
def test_an_experiment_in_the_workspace_reruns_what_it_touches_and_shows_the_difference(restored: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(restored, folder, symlinks=True)
    ran = dvc(folder, "exp", "run", "--name", "fewer", "-S", f"{CONFIG}:+evaluation.limit=2")
    said = (ran.stdout + ran.stderr).splitlines()
    jobs = {found.group(1) for line in said if (found := re.match(r"Job \d+: (\w+)", line))}
    assert jobs == {"evaluate", "collect", "write", "draw"}
    assert (folder / RESULTS / "evaluation" / SEAL).read_text() != (restored / RESULTS / "evaluation" / SEAL).read_text()
    assert "first_capital" in dvc(folder, "metrics", "diff", "--all").stdout
    assert "PAT, 50 %" in dvc(folder, "plots", "diff", "--json").stdout
    assert "fewer" in dvc(folder, "exp", "show", "--csv").stdout
