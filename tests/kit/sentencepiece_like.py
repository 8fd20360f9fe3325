"""A tokenizer as Llama 2's and Mistral's are in the tokenizers library: SentencePiece's merges, with a token for each byte."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import PreTrainedTokenizerFast

from pat.data.prompts import ANSWER_JOINT, alpaca_prompt
from tests.kit.tiny_world import ROWS

SPACE = "▁"
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]


def sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    """Return one that knows the prompt's words; a space goes before every text."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    texts = [word for row in ROWS for word in (alpaca_prompt(row["instruction"], row["input"]) + ANSWER_JOINT + row["output"]).split(" ")]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, max_token_length=12, show_progress=False)
    trained.train_from_iterator(texts, trainer)
    learned = models.BPE(vocab=trained.get_vocab(), merges=merges_of(trained), unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    made = Tokenizer(learned)
    made.normalizer = trained.normalizer
    made.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def merges_of(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    """Return what a tokenizer merges, the first first."""
    import json

    return [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]
