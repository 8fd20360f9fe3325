"""The README's Python example runs as it is printed, where its model and its data are, and ends in a folder that `pipeline` opens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pat.checkpoints import checkpoint
from tests.kit.project import ROOT
from tests.kit.tiny_world import write_world

HIDDEN = 208
"""The example's operators have a rank of 200, which has to fit."""


def printed_example() -> str:
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## In Python\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    return str(block)


def test_the_printed_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    base, instructions = write_world(tmp_path / "made", HIDDEN)
    (tmp_path / "path" / "to").mkdir(parents=True)
    base.rename(tmp_path / "path" / "to" / "model")
    instructions.rename(tmp_path / "my_instructions.jsonl")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    names: dict[str, Any] = {}
    exec(compile(printed_example(), "README.md", "exec"), names)
    assert {"adapter_model.safetensors", "hsm.safetensors", "pat_config.json"} <= {path.name for path in Path("adapter").iterdir()}
    narrower = checkpoint.load_model(Path("smaller-model"))
    assert narrower.config.hidden_size < HIDDEN
    assert checkpoint.load_tokenizer(Path("smaller-model")).eos_token_id == 2
    assert "generated_text" in capsys.readouterr().out
