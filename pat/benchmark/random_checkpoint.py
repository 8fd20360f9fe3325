"""A random stock checkpoint of a shape on disk, and text of random words for it: what a job that works on folders starts from.

Holds a shard at a time, never a model. Equal seeds give equal bytes on one kind of device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from pat.benchmark.candidates import parameter_shapes, stock_config
from pat.benchmark.settings import ModelShape
from pat.checkpoints import checkpoint
from pat.data.corpus import BOS, EOS, PAD
from pat.families.known import Family, family_of
from pat.io import artefacts

DTYPE = torch.bfloat16
SPREAD = 0.02
"""Standard deviation of the weights, as stock models start with; gains start at one and biases at zero."""
MARKS = (PAD, BOS, EOS)
WORDS_A_ROW = 256


def write_random_checkpoint(shape: ModelShape, out: Path, seed: int, device: str) -> Any:
    """Write a bf16 checkpoint with a manifest and a tokenizer of one token a word; return its config. Numbers are drawn on `device`."""
    config = stock_config(shape)
    shapes = parameter_shapes(config)
    with artefacts.new_folder(out) as folder:
        named = random_tensors(shapes, family_of(config), seed, device)
        checkpoint.write_shards(folder, named, sum(map(math.prod, shapes.values())) * DTYPE.itemsize)
        config.save_pretrained(folder)
        word_tokenizer(shape.vocab_size).save_pretrained(folder)
    return config


def random_tensors(shapes: Mapping[str, tuple[int, ...]], family: Family, seed: int, device: str) -> Iterator[tuple[str, Tensor]]:
    """Yield a tensor a shape on the CPU: weights random, norms' effective gains one, biases zero."""
    generator = torch.Generator(device).manual_seed(seed)
    for name, shape in shapes.items():
        if len(shape) > 1:
            yield name, torch.empty(shape, dtype=DTYPE, device=device).normal_(std=SPREAD, generator=generator).cpu()
        else:
            yield name, torch.full(shape, 0.0 if name.endswith(".bias") else 1.0 - family.gain_offset, dtype=DTYPE)


def word_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer whose words are w3, w4, …: as many tokens as the model has, three of them marks."""
    vocabulary = {mark: place for place, mark in enumerate(MARKS)} | {f"w{place}": place for place in range(len(MARKS), vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=PAD))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS)


def write_random_text(path: Path, vocab_size: int, tokens: int, seed: int) -> Path:
    """Write rows of random words, `tokens` of them at least, and return the path."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(len(MARKS), vocab_size, (-(-tokens // WORDS_A_ROW), WORDS_A_ROW), generator=generator)
    artefacts.write_jsonl(path, ({"text": " ".join(f"w{place}" for place in row)} for row in places.tolist()))
    return path
