"""A conversation in the tokenizer's own chat template, and which of its characters the assistant says. Knows nothing of training.

Where the template marks what is generated (`{% generation %}`), transformers' mask of it is taken. Otherwise each answer is found by
rendering the conversation again: up to the answer, with the prompt for one, which says where it begins, and with a word of ours in the
answer's place, which says where it ends. The mark that ends a turn belongs to the answer, or a model would never learn to stop.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from pat.data.rows import ASSISTANT, is_learned
from pat.errors import UserError

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
WORD = "Wordinplaceofananswer"
Message = dict[str, Any]
Tools = list[Any] | None
Render = Callable[[Sequence[Message], bool], str]
"""Renders messages; the flag asks for the prompt of an answer behind them."""


def encode_chat(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], place: str, tools: Tools = None
) -> tuple[list[int], bytearray]:
    """Return a conversation's token ids, and for each whether it is learned: 1 where it holds a character that the assistant says.

    Raises UserError naming the place where the tokenizer has no template, or one that refuses these messages or hides who says what.
    """
    template = template_of(tokenizer, place)
    learned = [number for number, message in enumerate(messages) if is_learned(message)]
    try:
        render = _render_with(tokenizer, tools)
        if tools and render(messages, False) == _render_with(tokenizer, None)(messages, False):
            raise ValueError("it has no place for tools; leave that field out")
        if not GENERATION.search(template):
            return _within(tokenizer, *render_spans(render, messages, learned))
        found: Any = tokenizer.apply_chat_template(list(messages), tools=tools, return_dict=True, return_assistant_tokens_mask=True)
        ids, mask = list(found["input_ids"]), bytearray(found["assistant_masks"])
        if read := [number for number, message in enumerate(messages) if message["role"] == ASSISTANT and number not in learned]:
            only_read = _within(tokenizer, *render_spans(render, messages, read))[1]
            mask = bytearray(said and not passed for said, passed in zip(mask, only_read, strict=True))
        return ids, mask
    except (TemplateError, ValueError, TypeError) as error:
        raise UserError(f"{place}: messages do not fit the tokenizer's chat template ({error})") from None


def _within(tokenizer: PreTrainedTokenizerBase, text: str, spans: Sequence[tuple[int, int]]) -> tuple[list[int], bytearray]:
    """Return a text's tokens, and for each 1 where it holds a character of a span."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    inside = (any(first < end and start < last for first, last in spans) for start, end in encoded["offset_mapping"])
    return list(encoded["input_ids"]), bytearray(inside)


def template_of(tokenizer: PreTrainedTokenizerBase, place: str) -> str:
    """Return the chat template of a tokenizer that can say where its tokens stand. Raises UserError where it has none, or cannot."""
    if not tokenizer.chat_template:
        raise UserError(
            f"{place}: holds messages, but the model's tokenizer has no chat template; give rows of prompt and completion, "
            "or a base whose tokenizer has one"
        )
    if not tokenizer.is_fast:
        raise UserError(f"{place}: holds messages, but the model's tokenizer is a slow one, which cannot say where its tokens stand")
    return str(tokenizer.get_chat_template())


def chat_text(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], place: str, tools: Tools = None) -> str:
    """Return a conversation as the model reads it. Raises UserError as `encode_chat`."""
    template_of(tokenizer, place)
    try:
        return _render_with(tokenizer, tools)(messages, False)
    except (TemplateError, ValueError, TypeError) as error:
        raise UserError(f"{place}: messages do not fit the tokenizer's chat template ({error})") from None


def _render_with(tokenizer: PreTrainedTokenizerBase, tools: Tools) -> Render:
    def render(messages: Sequence[Message], asks: bool) -> str:
        return str(tokenizer.apply_chat_template(list(messages), tools=tools, tokenize=False, add_generation_prompt=asks))

    return render


def render_spans(render: Render, messages: Sequence[Message], answers: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
    """Return the rendered conversation and where in it each of these answers stands, to the end of its turn's mark.

    Raises ValueError where the template puts an answer where it cannot be found.
    """
    text = render(messages, False)
    return text, [_span(render, messages, answer, text) for answer in answers]


def _span(render: Render, messages: Sequence[Message], place: int, text: str) -> tuple[int, int]:
    if place and messages[place].get("tool_calls") and (found := _span_of_calls(render, messages, place, text)) is not None:
        return found
    word = WORD
    while word in text:
        word += "x"
    instead = {**messages[place], "content": word}
    before, after = _around(render([*messages[:place], instead, *messages[place + 1 :]], False), word)
    if not text.endswith(after) or len(after) > len(text):
        raise ValueError(f"what stands behind the answer messages[{place}] depends on its words")
    end = len(text) - len(after)
    start = _start(render, messages[:place], text, before)
    if not start <= end:
        raise ValueError(f"where the answer messages[{place}] begins depends on its words")
    _, close = _around(render([*messages[:place], instead], False), word)
    return start, end + _shared_length(close.rstrip(), after)


def _span_of_calls(render: Render, messages: Sequence[Message], place: int, text: str) -> tuple[int, int] | None:
    """Return where a message with calls stands, whose content many templates leave out: behind the prompt for it, as far as it is rendered
    with nothing behind it. None where the conversation does not begin with these.
    """
    prompt, whole = render(messages[:place], True), render(messages[: place + 1], False).rstrip()
    found = prompt != render(messages[:place], False) and text.startswith(prompt) and text.startswith(whole)
    return (len(prompt), len(whole)) if found and len(prompt) < len(whole) else None


def _start(render: Render, earlier: Sequence[Message], text: str, before: str) -> int:
    """Return where an answer begins: behind the prompt for one, which is what a model is given, or else where its own words do."""
    prompt = render(earlier, True) if earlier else ""
    if earlier and text.startswith(prompt) and prompt != render(earlier, False):
        return len(prompt)
    if not text.startswith(before):
        raise ValueError("the template writes what stands before an answer by the words in it, and has no prompt for one")
    return len(before)


def _shared_length(first: str, second: str) -> int:
    """Return how many characters both begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (mine, other) in pairs if mine != other), min(len(first), len(second)))


def _around(text: str, word: str) -> tuple[str, str]:
    if text.count(word) != 1:
        raise ValueError(f"the template writes an answer {text.count(word)} times")
    before, after = text.split(word)
    return before, after
