"""A chat model that was tuned on conversations, pruned and merged is still a chat model: its template is there, and it answers in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from pat.checkpoints.merge import merge
from pat.data.calibration import Calibration, blocks
from pat.io.artefacts import read_json, write_jsonl
from pat.settings.jobs import TuneJob
from pat.training.tuning import tune
from tests.kit.chat_templates import MARKS, chat_tokenizer
from tests.kit.tuning_requests import asked

PAIRS = [("red", "stop"), ("green", "go")]
ROWS = [{"messages": [{"role": "user", "content": word}, {"role": "assistant", "content": said}]} for word, said in PAIRS]


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny chat model, tuned and pruned on two conversations."""
    folder = tmp_path_factory.mktemp("chat")
    tokenizer = chat_tokenizer()
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=128, initializer_range=0.1, **shape))
    end = tokenizer.convert_tokens_to_ids(MARKS[1])
    model.generation_config = GenerationConfig(eos_token_id=[tokenizer.eos_token_id, end], pad_token_id=0)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    write_jsonl(folder / "rows.jsonl", ROWS)
    recipe = {"max_steps": 120, "learning_rate": 1e-2, "batch_size": 2, "lora": {"rank": 8, "dropout": 0.0}}
    job = TuneJob.model_validate({"tuning": recipe, "pat": {"mask": "leading", "hio_rank": 4}})
    tune(asked(folder / "base", folder / "rows.jsonl", "pat", 0.25, 0, job, folder / "run", folder / "adapter"))
    merge(folder / "base", folder / "adapter", folder / "merged")
    return folder / "merged"


def test_a_merged_chat_model_answers_in_chat_form(merged: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(merged)
    model: Any = AutoModelForCausalLM.from_pretrained(merged)
    assert model.config.hidden_size == 36
    assert tokenizer.chat_template == chat_tokenizer().chat_template
    for word, said in PAIRS:
        question = [{"role": "user", "content": word}]
        prompt: Any = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt")
        answer = model.generate(**prompt, do_sample=False, max_new_tokens=12)[0, prompt["input_ids"].shape[1] :]
        assert tokenizer.decode(answer) == said + MARKS[1]


def test_conversations_are_measured_on_as_the_model_reads_them(merged: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(merged)
    found = blocks(Calibration(merged.parent / "rows.jsonl"), tokenizer, 256, 1000)
    text = tokenizer.decode(found.ids_NT[found.mask_NT.bool()])
    assert text.count("<|im_start|>user\n") == 2 and "stop<|im_end|>" in text


def test_the_record_counts_the_rows(merged: Path) -> None:
    assert read_json(merged.parent / "adapter" / "tuning.json")["rows"] == {
        "read": 2, "empty": 0, "left_out": 0, "cut": 0, "double": 0, "kept": 2, "max_length": 256,
    }  # fmt: skip
