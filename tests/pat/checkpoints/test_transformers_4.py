"""What is written opens in transformers 4.x too and computes there the same, with its tokenizer.

pip install --target /path/to/folder "transformers==4.57.*"
PAT_TRANSFORMERS_4=/path/to/folder python -m pytest tests/pat/checkpoints/test_transformers_4.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from pat.checkpoints.checkpoint import load_model
from pat.checkpoints.merge import merge
from pat.settings.jobs import PretrainSettings
from pat.training.pretraining import pretrain
from tests.kit.pruning_inputs import word_tokenizer
from tests.kit.rope_models import KINDS, VERBS, write
from tests.kit.tiny_models import random_tokens, tiny_model
from tests.kit.training import trained

TEXT = "w1 w2 the cat w5 sat"
PROGRAM = """
import json, sys
import torch, transformers
from safetensors.torch import load_file, save_file
assert transformers.__version__.startswith("4."), transformers.__version__
print("ready", flush=True)
for line in sys.stdin:
    folder, tokens, text, out = json.loads(line)
    try:
        model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, torch_dtype="auto", output_loading_info=True)
        assert not any(info.values()), info
        ids = transformers.AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
        with torch.no_grad():
            logits = model.float().eval()(input_ids=load_file(tokens)["tokens"]).logits
        save_file({"logits": logits.contiguous(), "ids": torch.tensor(ids)}, out)
        print(str(model.config.torch_dtype).removeprefix("torch."), flush=True)
    except Exception as error:
        print(f"error: {error!r}", flush=True)
"""
Opened = Callable[[Path, torch.Tensor, Path], dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def opened_there() -> Iterator[Opened]:
    """Yield what returns logits and token ids as transformers 4.x computes them from a model's folder."""
    place = Path(os.environ.get("PAT_TRANSFORMERS_4", ""))
    if not (place / "transformers").is_dir():
        pytest.skip("PAT_TRANSFORMERS_4 does not name a folder with transformers 4.x")
    environment = os.environ | {"PYTHONPATH": str(place), "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdin is not None and program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        asked, answers = program.stdin, program.stdout

        def opened(folder: Path, tokens: torch.Tensor, scratch: Path) -> dict[str, torch.Tensor]:
            save_file({"tokens": tokens}, scratch / "tokens.safetensors")
            asked.write(json.dumps([str(folder), str(scratch / "tokens.safetensors"), TEXT, str(scratch / "there.safetensors")]) + "\n")
            asked.flush()
            said = answers.readline().strip()
            assert said == json.loads((folder / "config.json").read_text())["dtype"], said
            return load_file(scratch / "there.safetensors")

        yield opened
        asked.close()


def check_same(folder: Path, opened_there: Opened, scratch: Path) -> None:
    tokens = random_tokens()
    there = opened_there(folder, tokens, scratch)
    with torch.no_grad():
        here = load_model(folder, torch.float32)(input_ids=tokens).logits
    assert (here - there["logits"]).abs().max() <= 1e-5 * here.abs().max()
    if json.loads((folder / "config.json").read_text())["model_type"] != "qwen2":  # 5 gives it Qwen's own, whatever the files say
        assert AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"] == there["ids"].tolist()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_s_model_computes_the_same(verb: str, opened_there: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, monkeypatch, KINDS["llama3"])
    VERBS[verb](tmp_path, tmp_path / "out")
    check_same(tmp_path / "out", opened_there, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_positions_computes_the_same(
    kind: str, opened_there: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, monkeypatch, KINDS[kind])
    VERBS["merge"](tmp_path, tmp_path / "out")
    check_same(tmp_path / "out", opened_there, tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["gemma", "gemma-untied", "mistral", "qwen2", "qwen3-tied", "llama-grouped-tied"])
def test_every_family_computes_the_same(name: str, dtype: torch.dtype, opened_there: Opened, tmp_path: Path) -> None:
    base: Any = tiny_model(name).to(dtype)  # type: ignore[arg-type]  # transformers' annotation wraps nn.Module.to wrongly
    base.save_pretrained(tmp_path / "base")
    tokenizer = word_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["w5"]})
    tokenizer.save_pretrained(tmp_path / "base")
    model: Any = trained(name)
    model.save_pretrained(str(tmp_path / "adapter"))
    merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    check_same(tmp_path / "out", opened_there, tmp_path)


def test_a_model_from_scratch_computes_the_same(opened_there: Opened, tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"text": "the cat sat on the mat " * 40}) + "\n")
    shape = {"vocab_size": 300, "hidden_size": 16, "layers": 2, "heads": 2, "intermediate_size": 32, "context_length": 32}
    settings = PretrainSettings.model_validate(shape | {"steps": 1, "batch_size": 1, "learning_rate": 1e-3})
    pretrain(tmp_path / "corpus.jsonl", settings, tmp_path / "run", tmp_path / "out")
    check_same(tmp_path / "out", opened_there, tmp_path)


def test_without_the_fields_of_4_it_would_not(opened_there: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison sees what the fields are for."""
    monkeypatch.setattr("pat.checkpoints.merge.write_both_ways", lambda _folder: None)
    write(tmp_path, monkeypatch, KINDS["llama3"])
    VERBS["merge"](tmp_path, tmp_path / "out")
    with pytest.raises(AssertionError):
        check_same(tmp_path / "out", opened_there, tmp_path)
