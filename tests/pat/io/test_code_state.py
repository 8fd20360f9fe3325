"""What a record says of the code that ran: a commit only where git tracks these very files, else what tells the sources apart."""

from __future__ import annotations

import shutil
import subprocess
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from pat.io import provenance
from pat.io.artefacts import sha256
from pat.io.provenance import code_state, source_hash

SOURCES = {"__init__.py": "", "core.py": "x = 1\n", "deep/__init__.py": ""}


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def write_package(folder: Path) -> Path:
    for name, text in SOURCES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "notes").write_text("theirs")
    git(tmp_path, "add", "notes")
    git(tmp_path, "commit", "-qm", "theirs")
    return tmp_path


@pytest.fixture
def installed(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package as pip copies it into an environment that lies inside somebody's repository, which ignores it or does not."""
    site = repository / ".venv" / "lib"
    package = write_package(site / "pat")
    info = site / "pruning_aware_tuning-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pruning-aware-tuning\nVersion: 0.1.0\n")
    lines = [f"pat/{name},sha256={provenance._noted_form(package / name)},{(package / name).stat().st_size}" for name in SOURCES]
    (info / "RECORD").write_text("\n".join([*lines, "pruning_aware_tuning-0.1.0.dist-info/RECORD,,"]) + "\n")
    monkeypatch.setattr(provenance, "distribution", lambda _: PathDistribution(info))
    return package


def test_a_clone_has_its_commit(repository: Path) -> None:
    package = write_package(repository / "pat")
    git(repository, "add", "pat")
    git(repository, "commit", "-qm", "ours")
    commit = git(repository, "rev-parse", "HEAD")
    assert code_state(package) == (commit, False)
    (repository / "scratch.txt").write_text("not code")
    (package / "__pycache__").mkdir()
    assert code_state(package) == (commit, False)
    (repository / "notes").write_text("an experiment's file: what it says is recorded by itself")
    assert code_state(package) == (commit, False)
    (package / "new.py").write_text("x = 2\n")
    assert code_state(package) == (commit, True), "a module that is not committed may run"
    (package / "new.py").unlink()
    (package / "core.py").write_text("x = 2\n")
    assert code_state(package) == (commit, True)
    git(repository, "checkout", "-q", "pat/core.py")
    (repository / "workflow.smk").write_text("rule")
    git(repository, "add", "workflow.smk")
    assert code_state(package) == (commit, True), "rules are code"


@pytest.mark.parametrize("ignored", [True, False])
def test_an_installed_package_has_no_commit_of_the_repository_around_it(installed: Path, repository: Path, ignored: bool) -> None:
    if ignored:
        (repository / ".gitignore").write_text(".venv/\n")
    assert code_state(installed) == (None, False)
    (installed / "core.py").write_text("x = 2\n")
    assert code_state(installed) == (None, True)
    (installed / "core.py").write_text(SOURCES["core.py"])
    assert code_state(installed) == (None, False)
    (installed / "added.py").write_text("")
    assert code_state(installed) == (None, True)


def test_without_git_or_a_list_of_sums_nothing_is_claimed(tmp_path: Path) -> None:
    assert code_state(write_package(tmp_path / "pat")) == (None, None)


def test_the_environment_of_a_git_hook_leads_nowhere_else(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = write_package(tmp_path / "elsewhere" / "pat")
    (tmp_path / "elsewhere" / ".git").mkdir()  # no repository
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    assert code_state(package)[0] is None


def test_the_hash_is_of_names_and_contents(tmp_path: Path) -> None:
    one = write_package(tmp_path / "one")
    shutil.copytree(one, tmp_path / "other")
    assert source_hash(one) == source_hash(tmp_path / "other")
    (one / "core.py").rename(one / "kern.py")
    assert source_hash(one) != source_hash(tmp_path / "other")


def test_a_record_has_the_hash_where_it_has_no_clean_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    for state, named in ((("c0ffee", False), False), (("c0ffee", True), True), ((None, False), True), ((None, None), True)):
        monkeypatch.setattr(provenance, "_code_state", lambda state=state: state)
        record = provenance.provenance({}, 0)
        assert (record["git_commit"], record["git_dirty"]) == state
        assert ("source_hash" in record) == named


def test_a_folder_is_described_by_its_weights(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    found = provenance.described(tmp_path)
    assert found == {"path": str(tmp_path), "sha256": {"model.safetensors": sha256(tmp_path / "model.safetensors")}}
