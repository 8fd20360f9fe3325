"""A family of invented names and a pruner of ten lines, from outside the package: the laws of the merge, and the whole smoke experiment."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from pat import families, pruners
from pat.errors import UserError
from pat.io import plugins
from pat.io.artefacts import sha256
from study.experiment.file import load_experiment
from study.experiment.methods import METHODS
from tests.kit.project import ROOT, copy_workflow, snakemake
from tests.kit.smoke_run import run_with_first_jobs_alone

PLUGIN = ROOT / "tests" / "plugins" / "tern.py"
ROWS = ("base", "lora", "pat", "pat-g", "last-channels-pft", "last-channels-ftp")


def small_experiment(folder: Path) -> Path:
    """Write the smoke experiment of an invented model and an invented pruner beside its plugin; return its path from `folder`."""
    raw: dict[str, Any] = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    raw["name"], raw["plugins"] = "plugin", ["own/tern.py"]
    raw["models"]["tiny"]["pretrain"]["family"] = "tern"
    raw["benchmark"]["shapes"]["tiny"]["family"] = "tern"
    raw["methods"], raw["figures"] = dict.fromkeys(ROWS), ["methods"]
    (folder / "own").mkdir()
    shutil.copy(PLUGIN, folder / "own" / "tern.py")
    path = Path("config", "plugin.yaml")
    (folder / path).write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


def test_an_invented_family_and_pruner_go_through_the_whole_experiment(tmp_path: Path) -> None:
    """In processes of their own: nothing of the plugin is known to this one, nor to what jobs are forked from but for the first of a verb."""
    folder, alone = copy_workflow(tmp_path / "run"), tmp_path / "alone"
    alone.mkdir()
    done = run_with_first_jobs_alone(folder, str(small_experiment(folder)), alone)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"pretrain", "rotate", "refit-readers", "encode", "prune", "tune", "merge", "evaluate", "benchmark"} <= {
        each.name for each in alone.iterdir()
    }
    results = folder / "results" / "plugin"
    for row in ROWS[1:]:
        ratio = "0.5" if row != "lora" else "0"
        merged = results / "checkpoints" / "tiny" / row / ratio / "seed0" / "merged"
        assert json.loads((merged / "config.json").read_text())["model_type"] == "tern"
        cell = json.loads((results / "evaluation" / "tiny" / row / ratio / "seed0" / "cell.json").read_text())
        assert cell["hidden_size"] == {"before": 32, "after": 16 if ratio == "0.5" else 32}
        assert cell["logit_gap"] <= 1e-4
    table = (results / "tables" / "table1.md").read_text()
    assert "Last channels" in table
    record = json.loads((results / "checkpoints/tiny/last-channels-ftp/0.5/seed0/merged/prune.json").read_text())
    assert record["provenance"]["plugins"] == {"tern.py": sha256(PLUGIN)}
    assert "--plugin own/tern.py" in record["provenance"]["command"]


def test_a_plugin_goes_to_every_verb_quoted(workflow_copy: Path, tmp_path: Path) -> None:
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    name = "own plugins/it's; $(one).py"
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text("")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(raw | {"root": str(tmp_path), "plugins": [name]}))
    listed = snakemake(workflow_copy, "--dry-run", "--printshellcmds", "--configfile", str(tmp_path / "own.yaml"))
    assert listed.returncode == 0, listed.stdout + listed.stderr
    commands = [shlex.split(line.partition(": ")[2]) for line in listed.stdout.splitlines() if line.startswith("Shell command: ")]
    verbs = [words for words in commands if "pat" in words[:2]]
    assert len(verbs) > 20 and all(words[-2:] == ["--plugin", str(tmp_path / name)] for words in verbs)


def test_without_its_plugin_the_experiment_is_refused(tmp_path: Path) -> None:
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    raw["models"]["tiny"]["pretrain"]["family"] = "tern"
    raw["methods"]["last-channels-pft"] = None
    with pytest.raises(UserError) as refused:
        load_experiment(raw, "own.yaml")
    assert 'models.tiny.pretrain.family: "tern" is not allowed: must be one of llama' in str(refused.value)
    assert 'methods.last-channels-pft: "last-channels-pft" is not a method' in str(refused.value)
    assert "tern" not in families.FAMILIES and "last-channels" not in pruners.PRUNERS and "last-channels-pft" not in METHODS


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("gone.py", None, r"own\.yaml: plugins: plugin .*gone\.py: no such file"),
        ("broken.py", "first = 1\nsecond = frist\n", r"broken\.py, line 2: cannot be imported: NameError: name 'frist'"),
        ("no_such_module_anywhere", None, r"no_such_module_anywhere: no such module; install it, or name its file"),
        ("needs.py", "import no_such_module_anywhere\n", r"needs\.py, line 1: cannot be imported: ModuleNotFoundError"),
        ("twice.py", "from pat import families\nfamilies.register(families.Family('llama', (), '', '', '', ''))\n", "registered already"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_told_by_name(name: str, content: str | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    with pytest.raises(UserError, match=said):
        load_experiment(raw | {"root": str(tmp_path), "plugins": [name]}, "own.yaml")


def test_a_plugin_is_loaded_once(tmp_path: Path) -> None:
    (tmp_path / "counted.py").write_text("from pathlib import Path\nPath(__file__).with_suffix('.txt').open('a').write('x')\n")
    plugins.load([str(tmp_path / "counted.py"), str(tmp_path / "counted.py")])
    plugins.load([str(tmp_path / "." / "counted.py")])
    assert (tmp_path / "counted.txt").read_text() == "x"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "counted.py").write_text("")
    with pytest.raises(UserError, match="has the name of the plugin"):
        plugins.load([str(tmp_path / "other" / "counted.py")])


def test_settings_that_are_no_list_of_names_are_refused() -> None:
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    with pytest.raises(UserError, match=r"plugins: \"own\.py\" is not allowed: must be a list"):
        load_experiment(raw | {"plugins": "own.py"}, "own.yaml")
