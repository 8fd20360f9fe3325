"""What memory a process can have: that of the machine, or less where a control group says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from pat.machine import host_memory


def test_it_is_the_least_that_the_groups_around_the_process_allow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_memory, "GROUP_OF_PROCESS", tmp_path / "none")
    whole = host_memory.host_bytes()
    assert whole > 2**28
    process, groups = tmp_path / "cgroup", tmp_path / "groups"
    (groups / "slurm" / "job").mkdir(parents=True)
    process.write_text("4:memory:/elsewhere\n0::/slurm/job\n")
    monkeypatch.setattr(host_memory, "GROUP_OF_PROCESS", process)
    monkeypatch.setattr(host_memory, "GROUPS", groups)
    assert host_memory.host_bytes() == whole  # nothing is said
    (groups / "slurm" / "job" / "memory.max").write_text("max\n")
    (groups / "slurm" / "memory.max").write_text("200000000\n")
    assert host_memory.host_bytes() == 200_000_000
