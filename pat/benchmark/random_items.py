"""Items of random words whose lengths resemble the paper's 14 zero-shot tasks, and a tokenizer of one token a word.

A word begins with a capital, so that generated words are answers under the first-capital scoring.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from string import ascii_uppercase

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pat.benchmark.random_checkpoint import MARKS
from pat.data.corpus import BOS, EOS, PAD
from pat.data.items import Item

TASK_LENGTHS = {
    "arc_challenge": (31, 4, 6),
    "arc_easy": (26, 4, 4),
    "boolq": (152, 2, 1),
    "copa": (17, 2, 7),
    "hellaswag": (45, 4, 28),
    "mmlu": (60, 4, 10),
    "multirc": (330, 2, 1),
    "openbookqa": (30, 4, 4),
    "piqa": (9, 2, 23),
    "rte": (86, 2, 1),
    "siqa": (29, 3, 4),
    "wic": (41, 2, 1),
    "winogrande": (25, 2, 2),
    "wsc": (63, 2, 1),
}
"""Mean tokens of a question, number of choices, mean tokens of a choice. Eleven are means over the first 200 items of the authors' release,
under a byte-level BPE of 32,000 tokens; HellaSwag, MMLU and MultiRC, which it lacks, are estimates."""
SPREAD = 0.45
"""Standard deviation of a length's logarithm; the release's questions have 0.3 to 0.6."""


def random_tasks(items: int, vocab_size: int, seed: int) -> dict[str, list[Item]]:
    """Return `items` items of each of the 14 tasks, in words of `capital_tokenizer`; equal seeds give equal items."""
    random = Random(seed)

    def text(mean: int) -> str:
        length = max(1, round(mean * math.exp(random.gauss(-(SPREAD**2) / 2, SPREAD)))) if mean > 1 else 1
        return " ".join(word(random.randrange(len(MARKS), vocab_size)) for _ in range(length))

    return {task: [_item(task, number, text) for number in range(items)] for task in TASK_LENGTHS}


def _item(task: str, number: int, text: Callable[[int], str]) -> Item:
    question, count, choice = TASK_LENGTHS[task]
    return Item(f"{task}-{number}", text(question), tuple(text(choice) for _ in range(count)), number % count, task)


def word(token: int) -> str:
    """Return a token's word."""
    return f"{ascii_uppercase[token % len(ascii_uppercase)]}{token}"


def capital_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer of as many tokens as the model has, the first of them marks; other words, as in prompts, are all one mark."""
    vocabulary = {mark: place for place, mark in enumerate(MARKS)} | {word(token): token for token in range(len(MARKS), vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=PAD))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS)
