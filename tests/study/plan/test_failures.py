"""Jobs that were cut off: one line says what to change, from Snakemake's own log, and from the job itself where it could speak."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest
import torch

from pat import cli
from pat.machine.out_of_memory import memory_advice
from study.plan.failures import AGAIN, MOST_SHOWN, advice, reasons
from tests.kit.project import ROOT

SLURM_BLOCK = """
[Wed Nov 25 08:18:56 2026]
Error in rule {rule}:
    message: SLURM-job '27' failed, SLURM status is: '{state}'. Detailed failure reason unavailable (status command is not 'sacct').
    jobid: 17
    output: results/smoke/tiny/pat/0.5/seed0/adapter/manifest.json
Trying to restart job 17.
"""
GPU_MESSAGE = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.50 GiB is free. "
    "Of the allocated memory 76.20 GiB is allocated by PyTorch, and 213.23 MiB is reserved by PyTorch but unallocated."
)


def told(tmp_path: Path, *blocks: str) -> list[str]:
    (tmp_path / "log").write_text("Building DAG of jobs...\n" + "".join(blocks))
    return advice(tmp_path / "log").splitlines()


@pytest.mark.parametrize(
    ("rule", "state", "key"),
    [
        ("tune", "TIMEOUT", "resources.tune.runtime"),
        ("search_rate", "TIMEOUT", "resources.tune.runtime"),
        ("prune_base", "OUT_OF_MEMORY", "resources.prune.mem_mb"),
        ("evaluate", "OUT_OF_MEMORY", "resources.evaluate.mem_mb"),
        ("collect_cell", "TIMEOUT", "resources.prepare.runtime"),
        ("tune", "NODE_FAIL", "lost its node"),
    ],
)
def test_what_slurm_cut_off_is_told_once_with_the_key_to_change(rule: str, state: str, key: str, tmp_path: Path) -> None:
    block = SLURM_BLOCK.format(rule=rule, state=state)
    line, again = told(tmp_path, block, block)
    assert f"rule {rule} " in line and key in line
    assert again == AGAIN


@pytest.mark.parametrize(
    "words",
    [
        "slurmstepd-node1: error: StepId=8.0 exceeded memory limit (377196544 > 209715200), being killed",
        "slurmstepd: error: Detected 1 oom_kill event in StepId=8.0. Some of the step tasks have been OOM Killed.",
    ],
)
def test_a_job_that_only_failed_for_slurm_is_told_by_its_log(words: str, tmp_path: Path) -> None:
    own = tmp_path / "slurm_logs" / "rule_merge" / "8.log"
    own.parent.mkdir(parents=True)
    block = SLURM_BLOCK.format(rule="merge", state="FAILED").replace(
        "    jobid", f"    log: merge.log, {own} (check log file(s))\n    jobid"
    )
    own.write_text("error: base: no such folder\n")
    assert told(tmp_path, block) == []
    own.write_text(f"Building DAG of jobs...\n{words}\n")
    assert "resources.merge.mem_mb" in told(tmp_path, block)[0]


def test_a_tuning_without_memory_hears_what_needs_less(tmp_path: Path) -> None:
    line, _ = told(tmp_path, SLURM_BLOCK.format(rule="tune", state="OUT_OF_MEMORY"))
    assert "micro_batch_size" in line and "gradient_checkpointing" in line


@pytest.mark.parametrize("ending", ["died with <Signals.SIGKILL: 9>", "returned non-zero exit status 137"])
def test_a_job_that_the_kernel_killed_is_told_apart_from_one_that_failed(ending: str, tmp_path: Path) -> None:
    block = "RuleException:\nCalledProcessError in file x.smk:\nCommand 'pat merge' {ending}.\n[Wed Nov 25]\nError in rule {rule}:\n    message: None\n"
    lines = told(tmp_path, block.format(ending="returned non-zero exit status 1", rule="tune"), block.format(ending=ending, rule="merge"))
    assert len(lines) == 2 and "resources.merge.mem_mb" in lines[0]
    assert told(tmp_path, SLURM_BLOCK.format(rule="tune", state="FAILED")) == []


@pytest.mark.parametrize(
    ("verb", "key"),
    [
        ("tune", "tuning.micro_batch_size"),
        ("evaluate", "evaluation.batch_size"),
        ("prune", "--device cpu"),
        ("prepare", "--device cpu"),
    ],
)
def test_a_full_gpu_is_one_message_that_says_what_to_change(verb: str, key: str) -> None:
    said = memory_advice(torch.OutOfMemoryError(GPU_MESSAGE), verb)
    assert said and key in said and "79.10 GiB" in said and "reserved by PyTorch" not in said


def test_a_full_gpu_that_cuda_itself_tells_of_is_one_too_and_its_other_errors_are_not() -> None:
    said = memory_advice(torch.AcceleratorError("CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in https://…"), "tune")
    assert said and "CUDA error: out of memory\nWhat helps: set tuning.micro_batch_size" in said
    assert memory_advice(torch.AcceleratorError("CUDA error: device-side assert triggered"), "tune") is None


def test_a_torch_that_has_no_name_for_what_cuda_tells_still_tells_of_a_full_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch, "AcceleratorError")
    assert "tuning.micro_batch_size" in (memory_advice(torch.OutOfMemoryError(GPU_MESSAGE), "tune") or "")
    assert memory_advice(RuntimeError("shape mismatch"), "tune") is None


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory")])
def test_a_full_machine_names_the_memory_to_ask_for(error: BaseException) -> None:
    assert "resources.merge.mem_mb" in (memory_advice(error, "merge") or "")
    assert "resources.prune.mem_mb higher, or prune.writer_tokens lower" in (memory_advice(error, "prune") or "")
    assert "resources.prune.mem_mb higher, or fewer refit.ridges (by hand --ridge)" in (memory_advice(error, "refit-readers") or "")
    assert "resources.tune.mem_mb" in (memory_advice(error, "search-rate") or "")


def test_memory_that_torch_cannot_get_on_the_cpu_is_recognised_and_other_errors_are_not() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert "resources.tune.mem_mb" in (memory_advice(caught.value, "tune") or "")
    assert memory_advice(RuntimeError("shape mismatch"), "tune") is None
    assert memory_advice(OSError(errno.ENOENT, "gone"), "tune") is None


def test_a_verb_that_runs_out_of_memory_ends_with_the_message_and_leaves_it_in_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError(GPU_MESSAGE)

    log = tmp_path / "merge.log"
    monkeypatch.setattr("pat.checkpoints.merge.merge", full)
    monkeypatch.setattr("sys.argv", ["pat", "merge", "--base", "b", "--adapter", "a", "--out", "o", "--log", str(log)])
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(os, "environ", dict(os.environ))
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    assert str(ended.value).startswith("error: the GPU's memory is too small")
    assert "What helps" in log.read_text() and "Traceback" not in log.read_text()


FAILED_BLOCK = """
RuleException:
CalledProcessError in file "/x/workflow/rules/models.smk", line 30:
Command 'pat {rule} --settings {{"log": 3}}' returned non-zero exit status 1.
[Sat Nov 28 06:17:25 2026]
Error in rule {rule}:
    message: None
    jobid: 3
    input: a.jsonl, b.jsonl
    output: results/out/manifest.json
    log: {logs} (check log file(s) for error details)
    shell:
        pat {rule}
        (command exited with non-zero exit code)
Logfile {logs}:
"""


def why(tmp_path: Path, *ended: tuple[str, str]) -> list[str]:
    """Return what a run says at its end whose jobs, by rule, ended with these logs."""
    blocks = []
    for number, (rule, text) in enumerate(ended):
        log = tmp_path / f"{number}.log"
        log.write_text(text)
        blocks.append(FAILED_BLOCK.format(rule=rule, logs=log))
    (tmp_path / "log").write_text("".join(blocks) + "Exiting because a job execution failed. Look above for error messages\n")
    return reasons(tmp_path / "log").splitlines()


def test_a_failed_run_ends_with_the_reason_in_the_words_of_its_jobs(tmp_path: Path) -> None:
    pat = "2026-11-28 06:17:03,052 INFO pat: a line\n2026-11-28 06:17:04,052 ERROR pat: x.json: two\nlines of one message\n"
    script = "some output\nerror: data.json:3: output is null; must be a text\n"
    ours = 'Traceback (most recent call last):\n  File "x.py", line 3\nValueError: a mistake of ours\n'
    cut_off = "2026-11-28 06:17:03,052 INFO pat: tune: step 3 of 9\n"
    first, *lines = why(tmp_path, ("tune", pat), ("instruct", script), ("merge", ours), ("tune", pat), ("prune", cut_off))
    assert first == "Not finished, because:"
    assert lines == [
        "tune: x.json: two",
        f"lines of one message ({tmp_path}/0.log)",
        f"instruct: data.json:3: output is null; must be a text ({tmp_path}/1.log)",
        f"merge: ValueError: a mistake of ours ({tmp_path}/2.log)",
        f"prune: ended without saying why, after: tune: step 3 of 9 ({tmp_path}/4.log)",
    ]


def test_many_reasons_are_counted_and_none_is_nothing(tmp_path: Path) -> None:
    lines = why(tmp_path, *[("tune", f"error: number {number}\n") for number in range(MOST_SHOWN + 2)])
    assert len(lines) == MOST_SHOWN + 2 and lines[-1] == "and 2 more, in the logs that are named above"
    assert why(tmp_path) == []


def test_the_run_says_why_last() -> None:
    script = (ROOT / "tools" / "run").read_text()
    assert "study failures" in script and script.index("say_why;") < script.index('exit "$status"')
