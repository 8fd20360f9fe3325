"""What all phases share: the checked experiment and the plan of its jobs. The logic is in workflow/study/plan."""

import os
import shlex
import sys
from pathlib import Path

sys.path.insert(0, f"{workflow.basedir}/workflow")

from snakemake.utils import update_config

from pat.errors import UserError
from pat.io.artefacts import MANIFEST
from pat.io.yaml_files import read_yaml
from study.experiment.command_line import as_typed
from study.experiment.file import load_experiment
from study.plan.failures import advice
from study.plan.intermediates import free
from study.plan.jobs import OFFLINE, Plan
from study.plan.values import as_json, one_of, repeated
from study.results.sealed import foreign
from study.versions.seals import RESTORING, refusal, seal


def checked_experiment():
    """Return the experiment behind `config`; a mistake in it ends the run before anything else happens."""
    files = [Path(name) for name in workflow.configfiles]
    written = {}
    try:
        for file in files:  # Snakemake has read them already; a key that stands twice is seen only in the file itself
            update_config(written, read_yaml(file))
        return load_experiment(
            as_typed(config, written),
            ", ".join(os.path.relpath(file) for file in files) or "--config",
            files[-1] if files else None,
        )
    except UserError as error:
        sys.exit(f"The experiment cannot be run as it is written:\n{error}")  # an exception would add lines of Snakemake's


def tell_what_helps(logs):
    """Say at the end of a failed run what to change where SLURM or the kernel has ended jobs."""
    for log in logs:
        if said := advice(Path(log)):
            print(said, file=sys.stderr)


# The commands of the environment that runs Snakemake come first, whether or not it is activated, and the study of this very folder.
# No job but those that fetch may look for a network: on a compute node without one it would wait for it.
BIN, STUDY = (shlex.quote(str(place)) for place in (Path(sys.executable).parent, Path(workflow.basedir, "workflow")))
FOUND = f'export PATH={BIN}:"$PATH" PYTHONPATH={STUDY}"${{{{PYTHONPATH:+:$PYTHONPATH}}}}";'
shell.prefix(f"set -euo pipefail; {FOUND} {OFFLINE} ")

plan = Plan(checked_experiment())
RESULTS, DATA, CELL, SCORES = plan.paths.results, plan.data.folder, plan.paths.cell, plan.paths.scores
PLUGINS = "".join(f" {shlex.quote(option)}" for option in plan.experiment.plugin_options())

if RESTORING not in os.environ and (replaced := foreign(Path(RESULTS))):
    sys.exit(refusal(replaced))


# Also for a run that was not started by tools/run, which seals by itself: where there is nothing to do, no hook is called.
onsuccess:
    free(Path(RESULTS))
    seal(Path(RESULTS))


wildcard_constraints:
    model=one_of(plan.experiment.models),
    row=one_of(plan.experiment.methods),
    ratio=one_of(plan.cells.levels()),
    seed=one_of(plan.experiment.seeds),
    shape=one_of(plan.benchmarks.shapes),
