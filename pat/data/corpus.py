"""Running text as tokens: trains the byte-level tokenizer of a model made from scratch, and packs texts into equal blocks.

Nothing here knows of models or training; `pretraining` joins the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from pat.data.prompts import fixed_phrases
from pat.errors import UserError

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
SAMPLE_TEXTS = 20_000  # texts that the tokenizer is trained on, spread evenly over the corpus
ENCODE_BATCH = 1024


def train_tokenizer(texts: Sequence[str], vocab_size: int, *, whole_prompts: bool) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of at most `vocab_size` tokens: any text survives a round trip, bos opens every text.

    With `whole_prompts` each fixed phrase of the prompts is one token. Raises UserError where `vocab_size` leaves no room for words.
    """
    phrases = fixed_phrases() if whole_prompts else ()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    reserved = len(alphabet) + len((PAD, BOS, EOS)) + len(phrases)
    if vocab_size <= reserved:
        raise UserError(f"pretrain.vocab_size: {vocab_size} is too small: {reserved} tokens are bytes, marks and prompts; allowed: more")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(phrases), special_tokens=[PAD, BOS, EOS], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(_sample(texts, phrases), trainer)
    backend.add_tokens([AddedToken(phrase, normalized=False) for phrase in phrases])
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, backend.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=PAD, bos_token=BOS, eos_token=EOS, clean_up_tokenization_spaces=False
    )


def _sample(texts: Sequence[str], phrases: Sequence[str]) -> Iterator[str]:
    """Yield the texts to count words in, without the phrases that are tokens anyhow."""
    for text in texts[:: max(1, len(texts) // SAMPLE_TEXTS)]:
        words = text
        for phrase in phrases:
            words = words.replace(phrase, "\n")
        yield words


class PackedTexts(Dataset[Tensor]):
    """Texts, each between bos and eos, one after the other and cut into blocks of `length` tokens; the remainder is left out.

    Raises UserError where they do not fill one block.
    """

    def __init__(self, texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, length: int, source: str) -> None:
        tokens = np.concatenate(list(_encoded(texts, tokenizer)))
        count = len(tokens) // length
        if not count:
            raise UserError(f"{source}: {len(tokens)} tokens do not fill one context; give more text or a context_length under {length}")
        self.tokens_NT = torch.from_numpy(tokens[: count * length].reshape(count, length))

    def __len__(self) -> int:
        return len(self.tokens_NT)

    def __getitem__(self, index: int) -> Tensor:
        return self.tokens_NT[index]


def _encoded(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> Iterator[NDArray[np.int32]]:
    for first in range(0, len(texts), ENCODE_BATCH):
        batch = tokenizer(list(texts[first : first + ENCODE_BATCH]), return_attention_mask=False)["input_ids"]
        yield np.array([token for ids in batch for token in (*ids, tokenizer.eos_token_id)], dtype=np.int32)


def stack(blocks_T: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return a batch for a causal language model: every token is learned."""
    input_ids_BT = torch.stack(list(blocks_T)).long()
    return {"input_ids": input_ids_BT, "labels": input_ids_BT}
