"""A folder with a tiny base model, its tokenizer and an instruction set: what a tuning job reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pat.data.prompts import ANSWER_JOINT, alpaca_prompt
from pat.io.artefacts import write_jsonl

ROWS = [{"instruction": f"Which number comes after {i}?", "input": "" if i % 3 else "Think.", "output": str(i + 1)} for i in range(64)]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer that knows the prompt's words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = [alpaca_prompt(row["instruction"], row["input"]) + ANSWER_JOINT + row["output"] for row in ROWS]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def write_world(folder: Path, hidden_size: int = 32, seed: int = 0) -> tuple[Path, Path]:
    """Write a base model with tokenizer and an instruction set; return both paths."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    shape: dict[str, Any] = {"hidden_size": hidden_size, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=0, **shape)
    LlamaForCausalLM(config).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    write_jsonl(folder / "instruct.jsonl", ROWS)
    return folder / "base", folder / "instruct.jsonl"
