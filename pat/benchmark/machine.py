"""The machine that a benchmark ran on: what it is, a clock that waits for it, and its memory."""

from __future__ import annotations

import gc
import os
import platform
import resource
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

OUT_OF_MEMORY = "out of memory"
"""What a record says of a model that did not fit."""
CLOCKS = ("clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "power.limit")
SDPA_KERNELS = ("cudnn", "flash", "mem_efficient", "math")
PROCESS = Path("/proc/self")
HOST_MEASURE = "resident memory of the process beyond what was held before, mapped pages of files included; on the GPU torch's allocator"


def description(device: str) -> dict[str, object]:
    """Return what a reader needs to place a timing: device, cores, memory in bytes, the versions that torch itself brings."""
    cores = {"cpu": _cpu_name(), "cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads()}
    if device == "cpu":
        return {"name": cores["cpu"], **cores}
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "sdpa_may_use": [name for name in SDPA_KERNELS if getattr(torch.backends.cuda, f"{name}_sdp_enabled")()],
        **cores,
    }


def _cpu_name() -> str:
    """Return the processor's name as Linux tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def clocks(device: str) -> dict[str, float] | None:
    """Return the GPU's present and largest clocks in MHz and its power limit in W; None where nobody tells them."""
    if device == "cpu":
        return None
    gpu = f"GPU-{torch.cuda.get_device_properties(0).uuid}"  # nvidia-smi counts all GPUs, torch those it may see
    command = ["nvidia-smi", f"--query-gpu={','.join(CLOCKS)}", "--format=csv,noheader,nounits", "-i", gpu]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()[0]
        return dict(zip(CLOCKS, map(float, answer.split(",")), strict=True))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def measured_on(device: str, clocks_before: dict[str, float] | None) -> dict[str, object]:
    """Return the entries by which a record says where its figures were had; to be asked for when the measuring is over."""
    return {
        "memory_measure": memory_measure(device),
        "machine": description(device),
        "clocks": {"before": clocks_before, "after": clocks(device)},
    }


def seconds(action: Callable[[], object], device: str) -> float:
    """Return how long `action` takes, the work that it leaves on the GPU included."""
    wait_for(device)
    started = time.perf_counter()
    action()
    wait_for(device)
    return time.perf_counter() - started


@dataclass(frozen=True)
class Mark:
    """A moment: on the CPU by the clock, on a GPU when it has done what it was given before."""

    event: Any
    clock_s: float

    def seconds_since(self, earlier: Mark) -> float:
        """Return the time between two marks; on a GPU both have to be behind it."""
        if self.event is None:
            return self.clock_s - earlier.clock_s
        milliseconds: float = earlier.event.elapsed_time(self.event)
        return milliseconds / 1e3


def mark(device: str) -> Mark:
    """Return this moment, without waiting for the device."""
    event = None
    if device == "cuda":
        event = torch.cuda.Event(enable_timing=True)
        event.record()
    return Mark(event, time.perf_counter())


def wait_for(device: str) -> None:
    """Return when the device has done all it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def memory_measure(device: str) -> str:
    """Return what `peak_bytes` counts."""
    return "torch's allocator on the GPU" if device == "cuda" else "resident memory of the process, of all models so far"


def held_bytes(device: str) -> int:
    """Return the memory that tensors hold on the GPU now; 0 on the CPU, where nobody counts it."""
    return torch.cuda.memory_allocated() if device == "cuda" else 0


def reset_peak(device: str) -> None:
    """Let the peak start from what is held now; on the CPU a process's peak cannot be reset."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_bytes(device: str) -> int:
    """Return the most memory held since the last reset."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_host_peak() -> int:
    """Let the process's resident peak start from now and return what is resident, in bytes. Linux alone tells it."""
    with suppress(OSError):  # a sandbox may forbid it; the peak is then the whole process's, which is no less
        (PROCESS / "clear_refs").write_text("5")  # see proc_pid_clear_refs(5)
    return _resident_bytes("VmRSS") or 0


def host_peak_bytes() -> int:
    """Return the most resident memory since `reset_host_peak`."""
    return _resident_bytes("VmHWM") or peak_bytes("cpu")


def _resident_bytes(field: str) -> int | None:
    """Return a size that the kernel tells of this process; None where it does not."""
    lines = (PROCESS / "status").read_text(encoding="utf-8").splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)


def release(device: str) -> None:
    """Give memory that nothing refers to any more back to the device."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
