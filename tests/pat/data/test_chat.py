"""Conversations in a chat template: what is learned is exactly what the assistant says, whatever the template and however many turns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pat.data.chat import encode_chat
from pat.data.instructions import Instructions
from pat.errors import UserError
from pat.io.artefacts import write_jsonl
from tests.kit.chat_templates import CHATML, TEMPLATES, chat_tokenizer
from tests.kit.tiny_checkpoint import byte_tokenizer

TOKENIZERS = {name: chat_tokenizer(template.text) for name, template in TEMPLATES.items()}
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<>"), max_size=12)
TURNS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4)


def conversation(turns: Sequence[tuple[str, str]], system: str | None) -> list[dict[str, Any]]:
    first = [] if system is None else [{"role": "system", "content": system}]
    roles = [{"role": role, "content": said} for turn in turns for role, said in zip(("user", "assistant"), turn, strict=True)]
    return [*first, *roles]


@pytest.mark.parametrize("name", TEMPLATES)
@given(turns=TURNS, system=st.none() | WORDS)
@settings(max_examples=40)
def test_exactly_the_assistants_words_are_learned(name: str, turns: list[tuple[str, str]], system: str | None) -> None:
    messages, tokenizer = conversation(turns, system), TOKENIZERS[name]
    ids, learned = encode_chat(tokenizer, messages, "here")
    expected: list[tuple[int, bool]] = []
    for text, said in TEMPLATES[name].truth(messages):
        expected += [(token, said) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
    assert list(zip(ids, map(bool, learned), strict=True)) == expected


def test_a_conversation_without_an_answer_in_the_end_learns_the_earlier_ones() -> None:
    messages = [*conversation([("a", "b")], None), {"role": "user", "content": "c"}]
    ids, learned = encode_chat(TOKENIZERS["chatml"], messages, "here")
    said = [token for token, is_learned in zip(ids, learned, strict=True) if is_learned]
    assert TOKENIZERS["chatml"].decode(said) == "b<|im_end|>"


def said_in(ids: Sequence[int], learned: Sequence[int]) -> str:
    return str(TOKENIZERS["chatml"].decode([token for token, is_learned in zip(ids, learned, strict=True) if is_learned]))


@pytest.mark.parametrize("name", TEMPLATES)
def test_an_answer_of_weight_0_is_read_and_not_learned(name: str) -> None:
    """The rest is learned as it was, whether the template marks what is generated or not."""
    messages, tokenizer = conversation([("a", "bad"), ("c", "good"), ("d", "fine")], None), TOKENIZERS[name]
    ids, all_learned = encode_chat(tokenizer, messages, "here")
    messages[1]["weight"], messages[3]["weight"] = 0, 1
    same_ids, learned = encode_chat(tokenizer, messages, "here")
    assert same_ids == ids
    assert "bad" in said_in(ids, all_learned)
    assert said_in(ids, learned) == said_in(ids, all_learned)[len(said_in(ids, all_learned)) - len(said_in(ids, learned)) :]
    assert said_in(ids, learned).startswith("good")


def test_tools_beside_messages_are_rendered() -> None:
    tokenizer = chat_tokenizer("{% if tools %}<tools>{{ tools[0].name }}{% endif %}" + CHATML)
    messages = conversation([("a", "b")], None)
    with_tools, learned = encode_chat(tokenizer, messages, "here", [{"name": "weather"}])
    assert str(tokenizer.decode(with_tools)).startswith("<tools>weather")
    assert said_in(with_tools, learned) == "b<|im_end|>"
    with pytest.raises(
        UserError, match=r"here: messages do not fit the tokenizer's chat template \(it has no place for tools; leave that field out\)"
    ):
        encode_chat(TOKENIZERS["chatml"], messages, "here", [{"name": "weather"}])


REFUSING = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + CHATML
TWICE = "{% for message in messages %}{{ message['content'] + '|' + message['content'] }}{% endfor %}"
BY_WORDS = "{% for message in messages %}{{ message['content'] | length }}:{{ message['content'] }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "named"),
    [(None, "has no chat template"), (REFUSING, "no system here"), (TWICE, "an answer 2 times"), (BY_WORDS, "by the words in it")],
)
def test_a_template_that_cannot_be_used_is_named_with_the_row(template: str | None, named: str, tmp_path: Path) -> None:
    tokenizer = chat_tokenizer(template) if template else byte_tokenizer()
    write_jsonl(tmp_path / "rows.jsonl", [{"messages": conversation([("a", "bcd")], "s")}])
    with pytest.raises(UserError, match=rf"rows\.jsonl:1: .*{named}"):
        Instructions(tmp_path / "rows.jsonl", tokenizer, 256)


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        ("hello", r"messages is \"hello\"; must be a list"),
        ([{"role": "user", "content": None}], r"messages\[0\]: content is null"),
        ([{"role": "user"}], r"messages\[0\]: lacks the field content or value"),
        ([{"role": 3, "content": "x"}], r"messages\[0\]: role is 3"),
        (["x"], r"messages\[0\] is \"x\"; must have role and content"),
    ],
)
def test_a_broken_message_is_named_with_row_and_field(messages: object, named: str, tmp_path: Path) -> None:
    good = {"messages": conversation([("a", "b")], None)}
    write_jsonl(tmp_path / "rows.jsonl", [good, {"messages": messages}])
    with pytest.raises(UserError, match=rf"rows\.jsonl:2: {named}"):
        Instructions(tmp_path / "rows.jsonl", TOKENIZERS["chatml"], 256)


def test_sharegpt_names_and_text_of_a_table_are_the_same_conversation(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    plain = conversation([("a", "b")], None)
    write_jsonl(tmp_path / "rows.jsonl", [{"conversations": turns}, {"messages": json.dumps(plain)}, {"messages": plain}])
    rows = Instructions(tmp_path / "rows.jsonl", TOKENIZERS["chatml"], 256)
    assert rows[0] == rows[1] == rows[2] and rows.counts()["double"] == 2


def test_what_is_blank_too_long_cut_or_double_is_counted_in_one_line(tmp_path: Path) -> None:
    rows = [conversation([turn], None) for turn in (("a", "b"), ("a", "b"), ("a", "b" * 90), ("a" * 90, "b"), ("a", " "))]
    write_jsonl(tmp_path / "rows.jsonl", ({"messages": row} for row in rows))
    found = Instructions(tmp_path / "rows.jsonl", TOKENIZERS["chatml"], 60)
    assert found.counts() == {"read": 5, "empty": 1, "left_out": 1, "cut": 1, "double": 1, "kept": 3, "max_length": 60}
    said = str(found.losses())
    assert "\n" not in said and all(
        part in said for part in ("of 5 rows", "1 lose", "1 are left out, their", "they are blank", "second time")
    )


ASKS = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CALLS_BEHIND_WORDS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}{% if m.content %}{{ '\n' + m.content }}{% endif %}"
    "{% for call in m.tool_calls or [] %}{{ '\n<call>' + call.function.name }}{% endfor %}<|im_end|>\n{% endfor %}"
)
CALLS_ALONE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.tool_calls %}<call>{{ m.tool_calls[0].function.name }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
)


@pytest.mark.parametrize("template", [CALLS_BEHIND_WORDS, CALLS_ALONE])
def test_calls_of_a_message_without_words_are_learned(template: str) -> None:
    """As many templates have it: there is no content that would say where such an answer stands."""
    call = {"type": "function", "function": {"name": "add", "arguments": {}}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "1 + 2?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "It is 3."},
    ]
    tokenizer = chat_tokenizer(template + ASKS)
    ids, learned = encode_chat(tokenizer, messages, "here")
    said = tokenizer.decode([token for token, is_learned in zip(ids, learned, strict=True) if is_learned])
    assert said == "<call>add<|im_end|>It is 3.<|im_end|>"
