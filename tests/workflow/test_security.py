"""Names and paths from a config, and files from elsewhere: none reaches a shell unquoted, leaves the results folder or runs as code."""

from __future__ import annotations

import ast
import json
import re
import shlex
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pat.errors import UserError
from pat.io.artefacts import MANIFEST, check_folder, write_json
from study.experiment.file import load_experiment
from study.plan.jobs import Plan
from study.plan.values import repeated
from tests.kit.project import ROOT, snakemake

SMOKE = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
SOURCES = [*sorted((ROOT / "pat").rglob("*.py")), *sorted((ROOT / "workflow").rglob("*.py"))]
RULES = [ROOT / "Snakefile", *sorted((ROOT / "workflow" / "rules").glob("*.smk"))]
OPTIONS = {
    "params.tasks",
    "params.texts",
    "params.steps",
    "params.teacher",
    "params.rate",
    "params.encoded",
    "params.data",
    "params.second",
    "params.ridges",
    "params.parts",
    "params.tie",
    "params.datasets",
    "params.before",
}
READY = OPTIONS | {"params.online", "params.launcher", "params.reads", "params.figure", "PLUGINS"}
"""What the plan has put together and quoted by itself: options, and what stands before a command."""
RUNS_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
CALLS_CODE = {"eval", "exec", "os.system", "os.popen", "torch.hub.load", "yaml.unsafe_load", "yaml.full_load"}
PIECES = (
    " ",
    "'",
    '"',
    ";",
    "$(touch x)",
    "`touch x`",
    "\n",
    "\0",
    "../",
    "/etc",
    "-",
    "--out",
    "&&",
    "|",
    "*",
    "~",
    "{log}",
    "{",
    "%",
    "é",
    "\u202e",
    "a",
)
NASTY = st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map("".join)
NAMES: tuple[tuple[str, ...], ...] = (
    ("name",), ("models",), ("methods",), ("data", "tasks"), ("data", "text"), ("benchmark", "shapes"),
)  # fmt: skip


def renamed(place: tuple[str, ...], name: str) -> dict[str, Any]:
    """Return the smoke experiment with a name of the user's own at a place."""
    raw: dict[str, Any] = deepcopy(SMOKE)
    block = raw
    for key in place[:-1]:
        block = block[key]
    if place == ("name",):
        raw["name"] = name
    else:
        entries = block[place[-1]]
        first = "pat" if place == ("methods",) else next(iter(entries))
        entries[name] = entries.pop(first) if place != ("methods",) else {"method": entries.pop(first) or "pat"}
        if place[0] == "data":
            entries[name] = {"source": "json", "path": "x.jsonl"}
    return raw


@pytest.mark.parametrize("place", NAMES, ids=".".join)
@settings(max_examples=40)
@given(name=NASTY)
@example(name="../../outside")
@example(name="a\n")
@example(name="a; touch x")
def test_a_name_is_refused_or_stays_inside_the_results(place: tuple[str, ...], name: str) -> None:
    try:
        experiment = load_experiment(renamed(place, name), "own.yaml")
    except UserError as error:
        assert "own.yaml: " in str(error)
        return
    plan = Plan(experiment)
    for path in [*plan.cells.merged_models(), *plan.cells.results(), *plan.data.files(), *plan.figures.files(), *plan.benchmarks.files()]:
        assert path.startswith("results/") and ".." not in Path(path).parts
        assert shlex.quote(path) == path


@given(path=NASTY)
def test_a_path_reaches_a_job_as_it_is_written(path: str) -> None:
    raw = deepcopy(SMOKE)
    raw["data"]["tasks"] = {"own": {"source": "json", "path": path}}
    raw["models"] = {"own": {"path": path}}
    try:
        plan = Plan(load_experiment(raw, "own.yaml"))
    except UserError as error:
        assert "own.yaml: " in str(error)
        return
    wildcards: Any = SimpleNamespace(model="own", name="own")
    assert plan.models.path(wildcards) == json.loads(plan.data.source("tasks")(wildcards))["path"] == str(Path(path))
    assert plan.models.files(wildcards) == [] or Path(path).exists()


@given(values=st.lists(NASTY.filter(lambda text: "\0" not in text), max_size=3))
def test_repeated_options_are_quoted(values: list[str]) -> None:
    assert shlex.split(repeated("--task", values)) == [part for value in values for part in ("--task", value)]


def test_the_shell_commands_of_a_hostile_experiment_hold_its_paths_as_text(workflow_copy: Path, tmp_path: Path) -> None:
    hostile = 'a b\'; touch "$(pwd)/owned" #`touch owned`.jsonl'
    raw = deepcopy(SMOKE)
    raw["data"]["tasks"]["own"] = {"source": "json", "path": hostile}
    far = {name: {"hub": {"id": "a/b", "revision": said}} for name, said in (("far", "x; touch owned"), ("farther", "--help"))}
    raw["models"] = {"own": {"path": f"{hostile}/model"}, **far}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(raw))
    plan = snakemake(workflow_copy, "--dry-run", "--printshellcmds", "--configfile", str(tmp_path / "own.yaml"))
    assert plan.returncode == 0, plan.stderr
    commands = [line.partition(": ")[2] for line in (plan.stdout + plan.stderr).splitlines() if line.startswith("Shell command: ")]
    words = [word for command in commands for word in shlex.split(command)]
    assert {f"{hostile}/model", "x; touch owned", "--help"} <= set(words)
    assert all(word in (f"{hostile}/model", "x; touch owned") or word.startswith("{") for word in words if "touch" in word)


def test_every_value_in_a_shell_command_is_quoted() -> None:
    found = 0
    for file in RULES:
        for command in re.findall(r"shell:\n((?:\s+\".*\"\n)+)", file.read_text()):
            values = re.findall(r"(?<!\{)\{([^{}]+)\}", command)
            found += len(values)
            assert [value for value in values if not value.endswith(":q") and value not in READY] == [], file
    assert found > 100


def dotted(node: ast.AST) -> str:
    """Return the name that a call's function is written as."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize("file", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_unpickles_trusts_remote_code_or_calls_a_shell(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not RUNS_CODE & {module.partition(".")[0] for module in modules}
        if not isinstance(node, ast.Call):
            continue
        options = {option.arg: ast.unparse(option.value) for option in node.keywords}
        assert dotted(node.func) not in CALLS_CODE
        assert options.get("trust_remote_code", "False") == "False"
        assert options.get("shell", "False") == "False"
        assert dotted(node.func) != "torch.load" or options.get("weights_only") == "True"
        if dotted(node.func).endswith(
            ("AutoConfig.from_pretrained", "AutoModelForCausalLM.from_pretrained", "AutoTokenizer.from_pretrained")
        ):
            assert "trust_remote_code" in options


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/hostname", "a/../../outside.txt"])
def test_a_manifest_cannot_point_outside_its_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "outside.txt").write_text("x")
    (tmp_path / "folder").mkdir()
    write_json(tmp_path / "folder" / MANIFEST, {"files": {name: {"bytes": 1, "sha256": "x"}}})
    with pytest.raises(UserError, match="outside"):
        check_folder(tmp_path / "folder")


@pytest.mark.parametrize("name", ["../model.safetensors", "/tmp/model.safetensors", ""])
def test_an_index_cannot_name_a_file_outside_its_folder(name: str, tmp_path: Path) -> None:
    from pat.checkpoints.stored import INDEX_NAME, shard_files

    write_json(tmp_path / INDEX_NAME, {"weight_map": {"weight": name}})
    with pytest.raises(UserError, match="is not a file of"):
        shard_files(tmp_path)


@pytest.mark.parametrize("field", ["model", "method"])
@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside", "a b", ""])
def test_tables_refuse_cells_whose_names_would_leave_their_folder(field: str, name: str, tmp_path: Path) -> None:
    from study.tables.writing import write_tables
    from tests.kit.cell_maker import cell

    write_json(tmp_path / "cell.json", cell() | {field: name})
    with pytest.raises(UserError, match=field):
        write_tables([tmp_path / "cell.json"], tmp_path / "deep" / "tables")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cell.json"]
