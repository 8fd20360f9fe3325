"""A tiny random Llama with a byte-level tokenizer on disk, and a few items to ask it."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pat.data.items import Item

SPECIAL = ("<pad>", "<s>", "</s>")
CONTEXT = 640


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with a token per byte, so that no text is unknown and lengths are easy to count."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def write_tiny_checkpoint(folder: Path, seed: int = 0, context: int = CONTEXT) -> Path:
    """Write model and tokenizer; the weights are large enough that answers differ from item to item."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(SPECIAL) + 256, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=context, pad_token_id=0, bos_token_id=1, eos_token_id=2, initializer_range=0.3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def some_items(count: int = 8, task: str = "toy", groups: tuple[str, ...] = ("",)) -> list[Item]:
    """Return items of different lengths, the right places in turn, the groups one after another."""
    return [
        Item(
            id=f"{task}-{number}", question=f"Which comes {'right ' * (number % 5)}after {number}?",
            choices=(str(number + 1), f"{number} and a half", "none", "é" * (number % 3 + 1)), answer=number % 4,
            task=task, group=groups[number * len(groups) // count],
        )
        for number in range(count)
    ]  # fmt: skip
