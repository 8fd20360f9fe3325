"""A tuning's run in W&B and MLflow: opened before the model is loaded, named, told the settings, gone on with after a kill, and ended as
the job ended. Its files lie in the run folder, unless the tracker's own variables name another place.

Left to itself, the Trainer opens them late, in the working directory, a new one after every kill. It logs to a run that is open.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pat.errors import UserError
from pat.io import artefacts
from pat.io.dotted import dotted
from pat.io.locks import acquire
from pat.io.progress import say
from pat.io.resume_folder import TRACKERS, enter, job_in
from pat.io.storage import writing
from pat.machine import processes
from pat.training.reporters import run_facts, run_name
from pat.training.request import TuningRequest
from pat.training.resume import job_identity

PROJECT = "pruning-aware-tuning"
"""W&B's project and MLflow's experiment, where the environment names none."""
SQLITE = "sqlite:///"
Identity = str | None


@contextmanager
def tracked(request: TuningRequest) -> Iterator[None]:
    """Keep a run open in each tracker that keeps runs. Raises UserError where one cannot be opened."""
    asked = [name for name in request.tuning.report_to if name in OPENED_BY] if processes.is_main() else []
    if not asked:
        yield
        return
    identity, kept = job_identity(request), request.run_dir / TRACKERS
    earlier = artefacts.read_json(kept) if job_in(request.run_dir) == identity and kept.exists() else {}
    with ExitStack() as open_runs:
        runs = {name: open_runs.enter_context(OPENED_BY[name](request, earlier.get(name))) for name in asked}
        enter(request.run_dir, identity)
        artefacts.write_json(kept, runs)
        yield


@contextmanager
def _in_wandb(request: TuningRequest, earlier: Identity) -> Iterator[Identity]:
    wandb = _imported("wandb")
    if wandb.run is not None:  # a program that calls us has its own, which the Trainer logs to
        yield None
        return
    try:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run_name(request.run_dir),
            id=earlier,
            resume="allow" if earlier else None,
            dir=os.environ.get("WANDB_DIR", str(request.run_dir)),
            config=run_facts(request),
        )
    except wandb.Error as error:
        raise _refused("wandb", error, "WANDB_MODE=offline keeps the run in its run folder") from error
    with _ended(lambda failed: run.finish(exit_code=int(failed is not None))):
        yield str(run.id)


@contextmanager
def _in_mlflow(request: TuningRequest, earlier: Identity) -> Iterator[Identity]:
    with _environment({"MLFLOW_DISABLE_TELEMETRY": "true"}):  # else it reports its own use over the network, wherever it writes
        mlflow = _imported("mlflow")
        if mlflow.active_run() is not None:
            yield None
            return
        own_store = {} if mlflow.is_tracking_uri_set() else {"MLFLOW_TRACKING_URI": f"{SQLITE}{request.run_dir.absolute()}/mlflow.db"}
        with _environment(own_store):
            try:
                with _alone_at(mlflow.get_tracking_uri()):
                    run = _mlflow_run(mlflow, request, earlier)
                mlflow.log_params(dict(dotted(run_facts(request))))  # it knows no nesting
            except ImportError as error:  # mlflow-skinny writes to a server alone
                raise _refused("mlflow", error, "a store of its own needs the whole package: pip install mlflow") from error
            except mlflow.MlflowException as error:
                raise _refused("mlflow", error, "MLFLOW_TRACKING_URI says where it writes") from error
            with _ended(lambda failed: _end_mlflow(mlflow, failed)):
                yield str(run)


@contextmanager
def _alone_at(store: str) -> Iterator[None]:
    """Let one job at a time open a store that is a file: MLflow makes its tables at the first opening, and two at once fail."""
    if not store.startswith(SQLITE):
        yield
        return
    file = Path(store.removeprefix(SQLITE))
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        while (lock := acquire(file.with_name(f".{file.name}.lock"))) is None:
            time.sleep(0.1)
    try:
        yield
    finally:
        lock.release(remove=True)


def _mlflow_run(mlflow: Any, request: TuningRequest, earlier: Identity) -> str:
    """Open the run of an earlier start of the job, or a new one where there was none, or the store no longer has it."""
    if "MLFLOW_EXPERIMENT_ID" not in os.environ:
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
    if earlier is not None:
        try:
            return str(mlflow.start_run(run_id=earlier).info.run_id)
        except mlflow.MlflowException as error:
            say(f"tune: mlflow: the run {earlier} cannot be gone on with, a new one is opened ({_first_line(error)})")
    return str(mlflow.start_run(run_name=run_name(request.run_dir)).info.run_id)


def _end_mlflow(mlflow: Any, failed: BaseException | None) -> None:
    mlflow.flush_async_logging()  # the Trainer does not wait for what it logs
    mlflow.end_run("FINISHED" if failed is None else "FAILED" if isinstance(failed, Exception) else "KILLED")


OPENED_BY: dict[str, Callable[[TuningRequest, Identity], AbstractContextManager[Identity]]] = {"wandb": _in_wandb, "mlflow": _in_mlflow}
"""By the Trainer's names, what opens a run or goes on with an earlier one; it gives what the run is known by, None where it is not ours."""


@contextmanager
def _ended(end: Callable[[BaseException | None], object]) -> Iterator[None]:
    """Call `end` with what the block raised, None where it came to its end."""
    try:
        yield
    except BaseException as error:
        end(error)
        raise
    end(None)


@contextmanager
def _environment(defaults: Mapping[str, str]) -> Iterator[None]:
    """Set variables that are not set, for as long as the block runs."""
    added = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _imported(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"tuning.report_to: {package} is installed but cannot be imported ({_first_line(error)})") from error


def _refused(name: str, error: Exception, hint: str) -> UserError:
    return UserError(f"tuning.report_to: {name} cannot open a run ({_first_line(error)}); {hint}, or leave the name out")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
