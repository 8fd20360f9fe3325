"""Other runtimes, as `make test-runtimes` installs them, and stock transformers to compare them with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from pat.checkpoints import checkpoint
from tests.kit.children import HANGS_AFTER_S
from tests.kit.project import ROOT

FOLDER = Path(os.environ.get("PAT_RUNTIMES", ROOT / ".runtimes"))
TOOLS = ROOT / "tools" / "runtimes"
TOKENS = 12
Answer = dict[str, Any]


def installed(name: str) -> bool:
    """Return whether a runtime was installed to its end."""
    return (FOLDER / f"{name}.installed").is_file()


def needs(name: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test where a runtime is not installed."""
    return pytest.mark.skipif(not installed(name), reason=f"{name} is not installed in {FOLDER.name}/; make test-runtimes installs it")


def llama_cpp(jobs: list[tuple[Path, str, int]]) -> list[Answer]:
    """Return what llama.cpp makes of files and texts: the text's tokens and so many that follow, or an error."""
    folder = FOLDER / "llama.cpp"
    shutil.copyfile(TOOLS / "llama_cpp.mjs", folder / "llama_cpp.mjs")  # which finds its packages beside itself
    asked = [{"file": str(file), "text": text, "count": count} for file, text, count in jobs]
    finished = subprocess.run(
        ["node", "llama_cpp.mjs"], cwd=folder, input=json.dumps(asked), capture_output=True, text=True, timeout=HANGS_AFTER_S, check=False
    )
    assert finished.returncode == 0, finished.stderr
    answers: list[Answer] = json.loads(finished.stdout)
    return answers


def vllm(folder: Path, text: str, dtype: str = "float32", implementation: str = "auto") -> list[int]:
    """Return the tokens that follow a text in vLLM, by its own or by transformers' implementation of the model."""
    config = checkpoint.load_config(folder)
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    job = {"folder": str(folder), "prompt": tokens_of(folder, text), "count": TOKENS, "dtype": dtype, "ends": ends}
    job["model_impl"] = implementation
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    finished = subprocess.run(
        [FOLDER / "vllm" / "bin" / "python", TOOLS / "vllm_greedy.py"], input=json.dumps(job), capture_output=True, text=True,
        env=environment | {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}, timeout=HANGS_AFTER_S, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-2000:]
    tokens: list[int] = json.loads(finished.stdout.rstrip().rpartition("\n")[2])["tokens"]
    return tokens


def tokens_of(folder: Path, text: str) -> list[int]:
    """Return a text's tokens, with what the tokenizer puts around it."""
    found: list[int] = checkpoint.open_tokenizer(folder)(text)["input_ids"]
    return found


def greedy(folder: Path, text: str) -> list[int]:
    """Return the tokens that follow a text in stock transformers in fp32, up to an end token."""
    return goes_on(checkpoint.load_model(folder, torch.float32), tokens_of(folder, text))


def goes_on(model: Any, tokens: list[int]) -> list[int]:
    """Return the tokens that follow others in a model of transformers."""
    prompt = torch.tensor([tokens])
    with torch.no_grad():
        whole = model.generate(prompt, max_new_tokens=TOKENS, do_sample=False, attention_mask=torch.ones_like(prompt))
    found: list[int] = whole[0, prompt.shape[1] :].tolist()
    return found


def furthest_behind(model: Any, prompt: list[int], tokens: list[int]) -> float:
    """Return by how much of the logits' spread a token that follows was at most behind the best one, as transformers sees it.

    A token drawn at random is 3 to 4 behind; two ways of rounding the same weights differ by some hundredths.
    """
    with torch.no_grad():
        logits_TV = model(input_ids=torch.tensor([prompt + tokens[:-1]])).logits[0, len(prompt) - 1 :].float()
    behind_T = logits_TV.amax(-1) - logits_TV[range(len(tokens)), tokens]
    return float((behind_T / logits_TV.std(-1)).max())
