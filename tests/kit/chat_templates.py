"""Chat templates of the kinds that models have, each beside a plain function that says which of its text the assistant says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerFast

from tests.kit.tiny_checkpoint import byte_tokenizer

Message = dict[str, Any]
Segments = list[tuple[str, bool]]
MARKS = ("<|im_start|>", "<|im_end|>")


@dataclass(frozen=True)
class Template:
    """A template, and its truth: the text in pieces, each learned or not."""

    text: str
    truth: Callable[[Sequence[Message]], Segments]


def _chatml(messages: Sequence[Message]) -> Segments:
    found: Segments = []
    for message in messages:
        said = message["role"] == "assistant"
        found += [(f"<|im_start|>{message['role']}\n", False), (message["content"] + "<|im_end|>", said), ("\n", False)]
    return found


def _trimmed_roles(messages: Sequence[Message]) -> Segments:
    found: Segments = [("<s>", False)]
    for message in messages:
        role = "model" if message["role"] == "assistant" else message["role"]
        found += [(f"<{role}>\n", False), (message["content"].strip() + "<end>", role == "model"), ("\n", False)]
    return found


def _brackets(messages: Sequence[Message]) -> Segments:
    found: Segments = [("<s>", False)]
    for message in messages:
        said = message["role"] == "assistant"
        found += [(message["content"].strip() + "</s>", True)] if said else [(f"[INST] {message['content']} [/INST] ", False)]
    return found


def _thinking(messages: Sequence[Message]) -> Segments:
    """The last answer alone is written with an empty thought, which the model has to write too."""
    found: Segments = []
    for place, message in enumerate(messages):
        said = message["role"] == "assistant"
        thought = "<think>\n\n</think>\n\n" if said and place == len(messages) - 1 else ""
        found += [(f"<|im_start|>{message['role']}\n", False), (thought + message["content"] + "<|im_end|>", said), ("\n", False)]
    return found


_ASKS = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    + _ASKS
)
TEMPLATES = {
    "chatml": Template(CHATML, _chatml),
    "marked": Template(
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}"
        "{%- generation -%}{{ message['content'] + '<|im_end|>' }}{%- endgeneration -%}{% else %}{{ message['content'] + '<|im_end|>' }}"
        "{% endif %}{{ '\n' }}{% endfor %}" + _ASKS,
        _chatml,
    ),
    "trimmed roles": Template(
        "{{ bos_token }}{% for message in messages %}{{ '<' + ('model' if message['role'] == 'assistant' else message['role']) + '>\n' "
        "+ message['content'] | trim + '<end>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<model>\n' }}{% endif %}",
        _trimmed_roles,
    ),
    "brackets": Template(
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}{{ message['content'] | trim + eos_token }}"
        "{% else %}{{ '[INST] ' + message['content'] + ' [/INST] ' }}{% endif %}{% endfor %}",
        _brackets,
    ),
    "thinking": Template(
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' and loop.last %}"
        "{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ message['content'] + '<|im_end|>\n' }}{% endfor %}" + _ASKS,
        _thinking,
    ),
}


def chat_tokenizer(template: str = CHATML) -> PreTrainedTokenizerFast:
    """Return the byte-level tokenizer with the marks of a conversation and a template."""
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKS)})
    tokenizer.chat_template = template
    return tokenizer
