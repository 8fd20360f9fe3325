"""A SLURM cluster on this machine, without systemd: munged, slurmctld and a slurmd a node, all below one folder; GPUs are pretended.

The daemons run in the foreground as children of this process, so that whoever starts the cluster also ends it. Needs root and Debian's
`slurm-wlm` and `munge`. By hand, until it is interrupted: python -m tests.kit.slurm_cluster FOLDER
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.kit.children import HANGS_AFTER_S

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
NODES = ("node1", "node2")
CONFIGURATION = Path("/etc/slurm")
"""Where every command looks by itself; the executor's job step takes SLURM_CONF out of the environment."""
# Accounting is off, as on many small clusters: the state of a job is asked of slurmctld. A job that takes more memory than it asked for
# is killed by SLURM's own bookkeeping, because control groups are not to be had everywhere.
SLURM_CONF = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
ReturnToService=2
SlurmdTimeout=20
KillWait=5
MinJobAge=600
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
GresTypes=gpu
{nodes}
PartitionName=gpu Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cores} RealMemory=9000 Gres=gpu:test:2 State=UNKNOWN"
GRES_CONF = "Name=gpu Type=test File=/dev/null\nName=gpu Type=test File=/dev/zero\n"


def missing_programs() -> list[str]:
    """Return which of the programs are not to be found."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


class Cluster:
    """Two nodes with two pretended GPUs each, as many cores as the machine has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start all daemons and wait until both nodes take jobs. Raises FileExistsError where the machine has a cluster already."""
        self._configure()
        for name in ("slurm.conf", "gres.conf"):
            (CONFIGURATION / name).symlink_to(self.folder / name)
        munge = [f"--{name}={self.folder}/munge.{name}" for name in ("socket",)]
        files = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "log", "pid", "seed")]
        self._daemon("munged", "munged", "--foreground", *munge, *files)
        wait_until((self.folder / "munge.socket").exists, "munged opens its socket")
        self._daemon("slurmctld", "slurmctld", "-D")
        for node in NODES:
            self.start_node(node)
        wait_until(lambda: list(self.states().values()) == ["idle"] * len(NODES), "both nodes are idle")

    def stop(self) -> None:
        """End all daemons, the nodes with what runs on them first."""
        for name in reversed(list(self._daemons)):
            self._end(name, signal.SIGTERM)
        for link in (CONFIGURATION / "slurm.conf", CONFIGURATION / "gres.conf"):
            if link.is_symlink() and link.readlink().parent == self.folder:
                link.unlink()

    def start_node(self, node: str) -> None:
        """Start a node's daemon, also after it was killed."""
        self._daemon(node, "slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """Kill a node's daemon and every process of its jobs, as when a machine loses its power."""
        jobs = self.ask("squeue", "--noheader", "--format=%A", "--nodelist", node).split()
        self._end(node, signal.SIGKILL)
        for process in [*_steps_of(jobs), *_processes_on(node)]:  # the steps first: they would report that their tasks have ended
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def states(self) -> dict[str, str]:
        """Return each node's state as sinfo words it."""
        listed = self.ask("sinfo", "--noheader", "--Node", "--format=%N %t")
        return dict(line.split() for line in listed.splitlines())

    def ask(self, *command: str) -> str:
        """Return what one of SLURM's commands prints; nothing where it fails, as while slurmctld starts."""
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def _configure(self) -> None:
        for name in ("state", *(f"spool.{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)  # munged refuses a folder that others may write to
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        host = socket.gethostname()
        port, *ports = free_ports(1 + len(NODES))
        cores = os.cpu_count() or 1
        nodes = [NODE.format(name=name, host=host, port=own, cores=cores) for name, own in zip(NODES, ports, strict=True)]
        configuration = SLURM_CONF.format(host=host, folder=self.folder, port=port, nodes="\n".join(nodes), names=",".join(NODES))
        (self.folder / "slurm.conf").write_text(configuration)
        (self.folder / "gres.conf").write_text(GRES_CONF)

    def _daemon(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as output:
            self._daemons[name] = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)

    def _end(self, name: str, how: signal.Signals) -> None:
        daemon = self._daemons.pop(name)
        daemon.send_signal(how)
        try:
            daemon.wait(timeout=20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _steps_of(jobs: list[str]) -> list[int]:
    """Return the processes by which SLURM watches the steps of these jobs."""
    titles = tuple(f"slurmstepd: [{job}." for job in jobs)
    return [process for process, title in _read_from_all("cmdline") if jobs and title.startswith(titles)]


def _processes_on(node: str) -> list[int]:
    """Return the processes that SLURM has started on a node; on one machine, only their environment tells nodes apart."""
    return [process for process, environment in _read_from_all("environ") if f"SLURMD_NODENAME={node}" in environment.split("\0")]


def _read_from_all(file: str) -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            yield int(folder.name), (folder / file).read_text(errors="replace")


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_until(condition: Callable[[], object], what: str, within_s: float = HANGS_AFTER_S) -> None:
    """Return once the condition holds. Raises TimeoutError that says what did not come."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {within_s:.0f} s in vain until {what}")
        time.sleep(0.2)


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """Within this context a cluster runs in `folder`, which must not exist yet or be empty."""
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def main() -> None:
    """Run a cluster until it is interrupted."""
    with running_cluster(Path(sys.argv[1]).resolve()) as cluster:
        sys.stdout.write(f"running: {', '.join(cluster.states())}\n")
        sys.stdout.flush()
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
