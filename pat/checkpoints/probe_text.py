"""The text on which a model that was written is compared with the one it stands for: a few passages of ordinary prose, as its tokens.

Random tokens would not do: on what no model was trained for, rounding alone moves single logits by their own size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from pat.checkpoints import checkpoint
from pat.checkpoints.tokenizer_checks import has_tokenizer

TOKENS_A_PASSAGE = 48
FEWEST_TOKENS = 8
MOST_UNKNOWN = 0.3
PASSAGES = (
    "The river rises in the hills behind the village and runs north for about forty miles before it meets the sea. In spring, when "
    "the snow melts, the lower fields are often under water for a week, and the farmers bring their cattle to the higher ground. "
    "Nobody remembers a year in which the old stone bridge had to be closed, although the water has come close to the top of its "
    "arches more than once.",
    "Question: Which of these is a good conductor of electricity? The choices are wood, copper, glass and rubber. Answer: Copper is "
    "a metal, and metals conduct electricity well because some of their electrons can move freely. Wood, glass and rubber are "
    "insulators, which is why the handles of tools and the coating of cables are made of such materials. A wire of copper is "
    "therefore found in nearly every house.",
    "In 1969 three astronauts travelled to the Moon; the journey took 4 days and covered about 384,400 kilometres in each "
    "direction. To calculate the average speed, divide the distance by the time: 384400 / (4 * 24) is roughly 4,000 kilometres per "
    "hour. The capsule was much faster at the start and slower near the end, because the gravity of the Earth kept pulling it back "
    "until the Moon's took over.",
    'She opened the letter slowly, as if the paper itself might break. "We regret to inform you," it began, and she did not need to '
    "read the rest. Outside, children were playing football in the street and somebody was practising the piano with the window "
    "open. Two years of work, she thought, and then she laughed, put the kettle on, and looked for a pencil: the next attempt would "
    "have to be a better one.",
)


@dataclass(frozen=True)
class Probe:
    """Token ids, (B, T), and whether they are those of text, or of a vocabulary's words where that does not know the text."""

    ids_BT: Tensor
    kind: Literal["text", "vocabulary"]


def probe_for(folder: Path) -> Probe:
    """Return what a model folder is compared on; without padding, and within its context."""
    config = checkpoint.load_config(folder)
    length = min(TOKENS_A_PASSAGE, config.max_position_embeddings)
    tokenizer = checkpoint.open_tokenizer(folder) if has_tokenizer(folder) else None
    if tokenizer is not None:
        rows = [list(tokenizer(passage)["input_ids"])[:length] for passage in PASSAGES]
        unknown = sum(row.count(tokenizer.unk_token_id) for row in rows) / max(1, sum(map(len, rows)))
        shortest = min(map(len, rows))
        if unknown <= MOST_UNKNOWN and shortest >= min(FEWEST_TOKENS, length):
            return Probe(torch.tensor([row[:shortest] for row in rows]), "text")
    return Probe(_words(tokenizer, config.vocab_size, length), "vocabulary")


def _words(tokenizer: PreTrainedTokenizerBase | None, vocabulary: int, length: int) -> Tensor:
    """Return ordinary tokens of a vocabulary in a random order that is always the same, (B, T); all tokens where there are no others."""
    known = range(vocabulary) if tokenizer is None else sorted(number for number in tokenizer.get_vocab().values() if number < vocabulary)
    marks = set() if tokenizer is None else set(tokenizer.all_special_ids)
    ordinary = torch.tensor([number for number in known if number not in marks] or list(range(vocabulary)))
    return ordinary[torch.randint(len(ordinary), (len(PASSAGES), length), generator=torch.Generator().manual_seed(0))]
