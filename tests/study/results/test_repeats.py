"""The spread of repeated cells: worked by hand for a `pat` that is known to differ from run to run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pat.errors import UserError
from pat.io.artefacts import write_json
from study.results.repeats import commands_of, spread, spreads

BEGIN = f"""#!/bin/sh
'''exec' "{sys.executable}" "$0" "$@"
' '''
"""
"""How a program begins that Python runs from wherever it lies: a first line of its own may hold no blank and no long path."""
FAKE_PAT = f"""{BEGIN}import json, sys
from pathlib import Path
import numpy
from safetensors.numpy import save_file

verb, options = sys.argv[1], dict(zip(sys.argv[2::2], sys.argv[3::2]))
out = Path(options["--out"])
counter = Path(options.get("--base", "base")) / "count"
if verb == "tune":
    turn = int(counter.read_text())
    counter.write_text(str(turn + 1))
    out.mkdir(parents=True)
    save_file({{"a": numpy.array([1.0, 2.0 + turn], dtype="float32")}}, out / "adapter_model.safetensors")
    (out / "tuning.json").write_text(json.dumps({{"train_loss": 2.0 + turn}}))
elif verb == "merge":
    out.mkdir(parents=True)
    (out / "loss").write_text(str(json.loads((Path(options["--adapter"]) / "tuning.json").read_text())["train_loss"]))
else:
    loss = float((Path(options["--model"]) / "loss").read_text())
    out.write_text(json.dumps({{"perplexity": {{"heldout": {{"token_perplexity": 10 * loss}}}}, "mean": {{"acc": 0.5}}}}))
"""
WITHOUT_NUMBERS = (
    FAKE_PAT.replace('{"train_loss": 2.0 + turn}', '{"train_loss": None}')
    .replace('["train_loss"]', '.get("loss", 2.0)')
    .replace("10 * loss", "None")
)
"""Of a tuning that ends before its first entry of the log, and a perplexity that is too large for a number."""


def make_cell(folder: Path, evaluated: str = "merged") -> Path:
    commands = {
        "tune": f"pat tune --base {folder} --run-dir run --out adapter --log x",
        "merge": f"pat merge --base {folder} --adapter adapter --out merged",
        "evaluate": f"pat evaluate --model {evaluated} --out evaluation.json",
    }
    cell: dict[str, Any] = {key: key for key in ("experiment", "model", "method", "label")}
    cell |= {"ratio_requested": 0.25, "seed": 0, "provenance": {step: {"command": command} for step, command in commands.items()}}
    write_json(folder / "cell.json", cell)
    return folder / "cell.json"


def test_spread_of_three_by_hand() -> None:
    assert spread([1.0, 2.0, 3.0]) == {"mean": 2.0, "sd": 1.0, "range": 2.0, "values": [1.0, 2.0, 3.0]}


def repeated(folder: Path, monkeypatch: pytest.MonkeyPatch, program_text: str) -> dict[str, Any]:
    """Return what is said of one cell that this program has made three times."""
    program = folder / "bin" / "pat"
    program.parent.mkdir()
    program.write_text(program_text)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    (folder / "count").write_text("0")
    spreads([make_cell(folder)], folder / "repeats.json", times=3, jobs=1)
    [found] = json.loads((folder / "repeats.json").read_text())["cells"]
    return dict(found)


def test_figures_that_are_no_numbers_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert repeated(tmp_path, monkeypatch, WITHOUT_NUMBERS)["figures"].keys() == {"mean acc"}


def test_a_cell_is_made_again_by_its_own_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = repeated(tmp_path, monkeypatch, FAKE_PAT)
    assert found["same_bytes"] is False
    assert found["largest_weight_difference"] == 2.0
    assert found["figures"]["train_loss"]["values"] == [2.0, 3.0, 4.0]
    assert found["figures"]["perplexity of heldout"]["sd"] == pytest.approx(10.0)
    assert found["figures"]["mean acc"]["range"] == 0.0
    assert not (tmp_path / "adapter").exists(), "the cell's own folders are left alone"


FAKE_CHAIN = f"""{BEGIN}import json, sys
from pathlib import Path
import numpy
from safetensors.numpy import save_file

verb, options = sys.argv[1], dict(zip(sys.argv[2::2], sys.argv[3::2]))
out = Path(options["--out"])
given = [Path(options[name]) for name in ("--base", "--adapter", "--model") if name in options]
trace = [step for folder in given for step in json.loads((folder / "trace").read_text())] + [verb]
if verb == "evaluate":
    out.write_text(json.dumps({{"perplexity": {{}}, "mean": {{"steps": len(trace)}}}}))
else:
    out.mkdir(parents=True)
    (out / "trace").write_text(json.dumps(trace))
    save_file({{"a": numpy.zeros(1)}}, out / "adapter_model.safetensors")
    (out / "tuning.json").write_text(json.dumps({{"train_loss": 1.0}}))
"""
"""A `pat` whose every step says what all steps before it were: of a merge those of its base and of its adapter."""


def test_all_steps_of_a_cell_that_is_pruned_between_two_tunings_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the pruned model, an intermediate one, has gone by then: each step works on what the repeated ones before it have made."""
    program, base = tmp_path / "bin" / "pat", tmp_path / "base"
    for folder in (program.parent, base):
        folder.mkdir()
    program.write_text(FAKE_CHAIN)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    (base / "trace").write_text("[]")
    commands = {
        "evaluate": "pat evaluate --model x/merged --out x/evaluation.json",
        "merge": "pat merge --base x/pruned --adapter x/adapter --out x/merged",
        "tune": "pat tune --base x/pruned --run-dir x/run --out x/adapter",
        "prune": "pat prune --base x/before/merged --out x/pruned",
        "before/merge": f"pat merge --base {base} --adapter x/before/adapter --out x/before/merged",
        "before/tune": f"pat tune --base {base} --run-dir x/before/run --out x/before/adapter",
    }
    cell: dict[str, Any] = {key: key for key in ("experiment", "model", "method", "label")} | {"ratio_requested": 0.25, "seed": 0}
    write_json(tmp_path / "cell.json", cell | {"provenance": {step: {"command": command} for step, command in commands.items()}})
    spreads([tmp_path / "cell.json"], tmp_path / "repeats.json", times=2, jobs=1)
    [found] = json.loads((tmp_path / "repeats.json").read_text())["cells"]
    assert found["steps"] == ["before/tune", "before/merge", "prune", "tune", "merge", "evaluate"]
    # tune, merge, prune is 3; the second tuning 4; the last merge has both, and itself: 8; then the evaluation
    assert found["figures"]["mean steps"]["values"] == [9.0, 9.0] and found["same_bytes"]


def test_a_cell_pruned_after_its_merge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pruned before it is evaluated"):
        commands_of(make_cell(tmp_path, evaluated="pruned"))


def test_a_cell_without_commands_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "cell.json", {"provenance": {"tune": {"command": "pat tune"}}})
    with pytest.raises(UserError, match="the command of merge, evaluate is not recorded"):
        commands_of(tmp_path / "cell.json")
