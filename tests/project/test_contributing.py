"""The walk-throughs of CONTRIBUTING.md, followed: each file as it stands there, in a folder of its own, by the commands it names."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GlmConfig, GlmForCausalLM

from tests.kit.cell_maker import cell
from tests.kit.children import HANGS_AFTER_S
from tests.kit.forked import forks
from tests.kit.project import ROOT, copy_workflow
from tests.kit.tiny_checkpoint import write_tiny_checkpoint

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILE = re.compile(r'^```(?P<kind>\w+) title="(?P<path>[^"]+)"\n(?P<content>.*?)^```$', re.DOTALL | re.MULTILINE)


def section(heading: str) -> str:
    """Return the text of a walk-through."""
    _, found, rest = TEXT.partition(f"\n### {heading}\n")
    assert found, heading
    return re.split(r"^#{2,3} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def written(heading: str, folder: Path) -> Path:
    """Write the files of a walk-through into a folder that has what a checkout has; return it."""
    files = list(FILE.finditer(section(heading)))
    assert files
    for file in files:
        path = folder / file["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        text = changed(path.read_text(encoding="utf-8"), file["content"]) if file["kind"] == "diff" else file["content"]
        path.write_text(text, encoding="utf-8")
    return folder


def changed(text: str, difference: str) -> str:
    """Return the text with a change made, whose lines begin with a blank, a minus or a plus; what it starts from must be there once."""
    lines = difference.splitlines(keepends=True)
    before, after = ("".join(line[1:] for line in lines if line[0] in signs) for signs in (" -", " +"))
    assert text.count(before) == 1, before
    return text.replace(before, after)


def command(heading: str, begins: str) -> list[str]:
    """Return the command of a walk-through that begins so, as a user calls it."""
    (found,) = (line.split("#")[0].split() for line in section(heading).splitlines() if line.startswith(f"    {begins}"))
    return found


def run(folder: Path, arguments: list[str]) -> str:
    """Run one of our commands in a folder; return what it said."""
    more = forks()
    environment = {**os.environ, **more, "PYTHONPATH": os.pathsep.join((str(folder / "workflow"), str(ROOT), more["PYTHONPATH"]))}
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=HANGS_AFTER_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_task(tmp_path: Path) -> None:
    folder = written("A task", copy_workflow(tmp_path))
    said = run(folder, command("A task", "study validate"))
    assert "tiny" in said and "pat" in said
    run(folder, ["snakemake", "results/colours/data/tasks/colours.jsonl", "--cores", "1", "--configfile", "config/colours.yaml"])
    items = [json.loads(line) for line in (folder / "results/colours/data/tasks/colours.jsonl").read_text().splitlines()]
    assert [(item["task"], item["choices"][item["answer"]]) for item in items] == [("colours", "white"), ("colours", "red")]


def test_a_pruner(tmp_path: Path) -> None:
    folder = written("A pruner", copy_workflow(tmp_path))
    base = write_tiny_checkpoint(folder / "model")
    run(folder, command("A pruner", "pat prune"))
    whole, pruned = (AutoModelForCausalLM.from_pretrained(place).state_dict() for place in (base, folder / "pruned"))
    embedding = "model.embed_tokens.weight"
    assert torch.allclose(pruned[embedding], whole[embedding][:, :24] * (24 / 32) ** 0.5, atol=1e-6)
    said = run(folder, ["study", "validate", "config/first.yaml"])
    assert "first-channels-pft" in said


def test_a_family(tmp_path: Path) -> None:
    folder = written("A family of models", copy_workflow(tmp_path))
    torch.manual_seed(0)
    write_tiny_checkpoint(folder / "glm")  # for its tokenizer
    config = GlmConfig(
        vocab_size=259, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        max_position_embeddings=640, pad_token_id=0, bos_token_id=1, eos_token_id=2, initializer_range=0.3,
    )  # fmt: skip
    GlmForCausalLM(config).save_pretrained(folder / "glm")
    run(folder, command("A family of models", "pat prune"))
    pruned = AutoModelForCausalLM.from_pretrained(folder / "pruned")
    assert pruned.config.model_type == "glm" and pruned.config.hidden_size == 24
    record = json.loads((folder / "pruned" / "prune.json").read_text())
    assert record["logit_gap"] < 1e-4 and record["provenance"]["plugins"].keys() == {"glm.py"}


def test_a_figure(tmp_path: Path) -> None:
    folder = written("A figure", copy_workflow(tmp_path))
    for method, ratio in (("pat", 0.25), ("pat", 0.5), ("lora", 0.0)):
        place = folder / "results" / "demo" / "evaluation" / "tiny" / method / f"{ratio:g}" / "seed0" / "cell.json"
        place.parent.mkdir(parents=True)
        place.write_text(json.dumps(cell(method, ratio)), encoding="utf-8")
    *words, pattern = command("A figure", "study figure")
    run(folder, [*words, *(str(path.relative_to(folder)) for path in sorted(folder.glob(pattern)))])
    assert {path.name for path in (folder / "figures").iterdir()} == {"removed.png", "removed.pdf", "removed.csv"}
    assert "PAT PAT,0.25,0.25" in (folder / "figures" / "removed.csv").read_text()
    shutil.rmtree(folder / "results")
    run(folder, ["tools.keys"])  # what `make keys` calls
    assert '"removed"' in (folder / "config" / "schema.json").read_text() and "`removed`" in (folder / "config" / "README.md").read_text()
    assert "draw the figure removed" in run(folder, command("A figure", "snakemake"))


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:pat|workflow|tests|config|docs)/[\w/.]+)`", TEXT))))
def test_every_file_that_is_named_is_there(path: str) -> None:
    assert (ROOT / path).exists()
