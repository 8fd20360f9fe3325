"""The processes of a job: a tuning may be several, started by torchrun; everything else is one, whatever the environment says.

Batch systems and launchers leave ranks and world sizes behind. A lone process that believed them would wait for others that never come.
"""

from __future__ import annotations

import os

from pat.errors import UserError
from pat.machine import gpus

LAUNCHER_MARK = "TORCHELASTIC_RUN_ID"
"""Set by torchrun and by `accelerate launch`, and by nothing else."""
RANKS = ("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK")
SIZES = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE")
ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
OF_MPI = ("PMI_", "PMIX_", "OMPI_COMM_WORLD_", "MV2_COMM_WORLD_")
"""How the names start under which MPI, and `srun` for it, tell a process its rank; accelerate reads them on a CPU."""


def launched() -> bool:
    """Return whether a launcher has started this process, as one of several or not."""
    return LAUNCHER_MARK in os.environ


def count() -> int:
    """Return of how many processes the job is."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def is_main() -> bool:
    """Return whether this process writes for all of its job."""
    return not launched() or int(os.environ["RANK"]) == 0


def stand_alone(*, gpu: bool = True) -> None:
    """Make this a job of one process: forget what the environment says of others, and see one GPU at most, the least taken, or none.

    With several GPUs in sight a Trainer would spread its model over them by threads, which hooks do not survive.
    """
    for name in list(os.environ):
        if name in (LAUNCHER_MARK, *RANKS, *SIZES, *ADDRESS) or name.startswith(OF_MPI):
            del os.environ[name]
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus.take_one(gpus.visible()) if gpu else ""


def join(device: str) -> None:
    """Meet the other processes of the job, and take the GPU of this process's place where `device` is "cuda".

    Raises UserError where more processes were started than there are GPUs.
    """
    import torch
    from accelerate import PartialState

    if not launched():
        return
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device == "cuda" and here > torch.cuda.device_count():
        raise UserError(
            f"{here} processes for {torch.cuda.device_count()} GPUs: each needs one; start as many as there are "
            "(python -m pat.machine.several COUNT pat tune …), or correct resources.tune.gpu"
        )
    PartialState(cpu=device == "cpu")
