"""lm-eval's model around a loaded checkpoint: answers as its stock `hf` does one by one, in far fewer passes over the model.

Requests are sorted by length over all tasks, what all prompts begin with is read once, and a question's choices share one row.
Only public methods of lm-eval's HFLM are overridden and called; a request out of the ordinary is left to them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pat.families.known import attention_window
from pat.io.progress import Progress
from pat.scoring.generation_options import none_of_its_own
from pat.scoring.greedy import Prompt, continuations
from pat.scoring.opening import Opening
from pat.scoring.packed_choices import Question, read_endings
from pat.scoring.tokenizing import prompts_of, tokens_of

BATCHES_PER_CALL = 8
"""Requests left to lm-eval are handed over in portions, between which progress is shown."""
LEAST_FILLED = 0.6
"""A shorter prompt begins a new batch: beyond that, padding costs more than a pass saves."""
PLAIN_SEARCH = {"until": [], "do_sample": False, "max_gen_toks": None}
"""Generation that is done here: greedy, ended by EOS or by its length alone."""


AnswerT = TypeVar("AnswerT")
PromptT = TypeVar("PromptT", Prompt, Question)


class BatchedLM(HFLM):  # type: ignore[misc]  # lm_eval ships no types
    """The model; `batch_size` counts prompts, whatever the number of their choices. Shows progress lines in place of lm-eval's bars."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int) -> None:
        # The probabilities of a bf16 model are taken in fp32: bf16 has three digits, choices differ in the fourth.
        logging.getLogger("lm_eval").setLevel(logging.ERROR)  # its warnings concern options that are not in use here
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, softmax_dtype="float32")
        # A window narrower than the context would have to be laid into the rows' masks; no row of ours reaches beyond it.
        self.cut_prompts: set[str] = set()
        """Prompts whose answers had not ended when they were as long as was asked for."""
        self._longest: int = min(self.max_length, attention_window(model.config) or self.max_length)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Return (log-likelihood, is greedy) of each request's continuation."""
        progress = Progress("log-likelihoods", len(requests))
        progress.update(0)
        found: dict[int, tuple[float, bool]] = {}
        for batch, opening in self._batches(self._questions([request.args for request in requests])):
            places = [place for question in batch for place in question.places]
            found |= zip(places, read_endings(self.model, batch, opening), strict=True)
            progress.update(len(found))
        found |= self._left_to_lm_eval(super().loglikelihood, requests, found, progress)
        progress.finish(f"{len(found)} done")
        return [found[place] for place in range(len(requests))]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        """Return the text generated for each request, by what it asks for alone: the model's own generation options take no part."""
        with none_of_its_own(self.model):
            return self._generated(requests)

    def _generated(self, requests: list[Any]) -> list[str]:
        progress = Progress("generated answers", len(requests))
        progress.update(0)
        new_tokens = _plain_length([request.args[1] for request in requests])
        texts = [request.args[0] for request in requests]
        prompts = self._prompts(texts, new_tokens) if new_tokens else []
        found: dict[int, str] = {}
        for batch, opening in self._batches(prompts):
            for prompt, (answer, is_cut) in zip(batch, self._answers(batch, opening, new_tokens), strict=True):
                found[prompt.place] = answer
                self.cut_prompts |= {texts[prompt.place]} if is_cut else set()
            progress.update(len(found))
        found |= self._left_to_lm_eval(super().generate_until, requests, found, progress)
        progress.finish(f"{len(found)} done")
        return [found[place] for place in range(len(requests))]

    def _left_to_lm_eval(
        self, call: Callable[..., list[AnswerT]], requests: Sequence[Any], found: Mapping[int, AnswerT], progress: Progress
    ) -> dict[int, AnswerT]:
        """Return the answers to the requests that have none yet, which are those out of the ordinary."""
        left = [place for place in range(len(requests)) if place not in found]
        size = int(self.batch_size) * BATCHES_PER_CALL
        answers: dict[int, AnswerT] = {}
        for start in range(0, len(left), size):
            portion = left[start : start + size]
            answers |= zip(portion, call([requests[place] for place in portion], disable_tqdm=True), strict=True)
            progress.update(len(found) + len(answers))
        return answers

    def _batches(self, prompts: Sequence[PromptT]) -> Iterator[tuple[list[PromptT], Opening]]:
        """Yield the prompts in batches, longest first, so that a lack of memory shows at once, each with what it may start from."""
        for are_cut in (True, False):
            alike = sorted((prompt for prompt in prompts if prompt.cut == are_cut), key=lambda prompt: -prompt.length)
            opening = Opening(self.model, [prompt.context for prompt in alike])
            for batch in _of_like_length(alike, int(self.batch_size)):
                yield batch, opening

    def _questions(self, pairs: Sequence[tuple[str, str]]) -> list[Question]:
        """Return contexts with the continuations that follow them; a pair that is out of the ordinary is in none of them."""
        # As lm-eval does: blanks that end the context belong to the continuation, which is what the whole has beyond the context.
        stems = dict.fromkeys(text.rstrip() for text, _ in pairs)
        encoded = dict(zip(stems, map(tuple, tokens_of(self, stems)), strict=True))
        wholes = tokens_of(self, (text + continuation for text, continuation in pairs))
        latest: dict[tuple[int, ...], Question] = {}
        questions: list[Question] = []
        for place, ((text, _), whole) in enumerate(zip(pairs, wholes, strict=True)):
            stem = text.rstrip()
            ending = tuple(whole[len(encoded[stem]) :])
            context = encoded[stem][-max(self.max_length + 1 - len(ending), 0) :]  # the last token is predicted, not read
            if not (stem and ending and len(ending) <= self.max_length and len(context) + len(ending) <= self._longest + 1):
                continue
            question = latest.get(context)
            if question is None or question.length + len(ending) - 1 > self._longest:
                question = latest[context] = Question(context, cut=len(context) < len(encoded[stem]))
                questions.append(question)
            question.endings.append(ending)
            question.places.append(place)
        return questions

    def _prompts(self, texts: Sequence[str], new_tokens: int) -> list[Prompt]:
        """Return the texts as tokens, without those that are out of the ordinary."""
        room = self.max_length - new_tokens
        prompts = []
        for place, tokens in enumerate(prompts_of(self, texts)):
            if 0 < min(len(tokens), room) <= self._longest - new_tokens:
                prompts.append(Prompt(tuple(tokens[-room:]), len(tokens) > room, place))
        return prompts

    def _answers(self, prompts: Sequence[Prompt], opening: Opening, new_tokens: int) -> Iterator[tuple[str, bool]]:
        """Yield the text that follows each prompt, up to EOS, and whether it was cut before there was one."""
        configured = self.model.generation_config.eos_token_id
        stops = {self.eot_token_id, *(configured if isinstance(configured, list) else [configured])} - {None}
        rows = continuations(self.model, prompts, opening, new_tokens, stops, self.tokenizer.pad_token_id)
        end = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        for row in rows:
            yield self.tok_decode(row).split(end)[0], row[-1] not in stops


def _of_like_length(prompts: Sequence[PromptT], size: int) -> Iterator[list[PromptT]]:
    """Yield batches of at most `size` prompts, given longest first, none of which is mostly padding in its batch."""
    batch: list[PromptT] = []
    for prompt in prompts:
        if batch and (len(batch) == size or prompt.length < LEAST_FILLED * batch[0].length):
            yield batch
            batch = []
        batch.append(prompt)
    if batch:
        yield batch


def _plain_length(wanted: Sequence[Mapping[str, Any]]) -> int:
    """Return the most new tokens where all requests ask for plain greedy search of that length; else 0."""
    lengths = {options.get("max_gen_toks") for options in wanted}
    if len(lengths) != 1 or any({**options, "max_gen_toks": None} != PLAIN_SEARCH for options in wanted):
        return 0
    return lengths.pop() or 0
