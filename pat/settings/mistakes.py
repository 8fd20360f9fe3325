"""The reader of settings, and the wording of a mistake in them: the field as the user wrote it, its value, and what would be right."""

from __future__ import annotations

import difflib
import json
import re
import types
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pat.errors import UserError
from pat.io.artefacts import parse_json
from pat.io.yaml_files import read_yaml
from pat.settings.fields import PartOf, Settings

PLAIN_WORDS = {
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
    "string_type": "text",
}
"""Pydantic's error types whose own wording speaks of Python to somebody who wrote YAML."""
IN_ONE_LINE = "; in one line they are JSON, keys and texts in double quotes; YAML has to be in a file, which is named in their place"
KEY = "[key]"
"""The last step of pydantic's path to a key of a mapping that is refused."""
SHOULD = re.compile(r"[A-Z]\w+ should (be )?")
"""How most of pydantic's sentences begin: Input should be, String should have, Tuple should have."""
OWN = ("Value error, ", "must ")
AFTERTHOUGHT = re.compile(r" after validation, not \d+$")
SettingsT = TypeVar("SettingsT", bound=Settings)


def load(model: type[SettingsT], text_or_path: str | Path) -> SettingsT:
    """Return checked settings from JSON text (it starts with a brace) or a YAML or JSON file.

    Raises UserError that lists every problem, each with its field, value and what is allowed.
    """
    is_text = isinstance(text_or_path, str) and text_or_path.lstrip().startswith("{")
    source = "settings" if is_text else str(text_or_path)
    data = parse_json(str(text_or_path), source, IN_ONE_LINE, unique_keys=True) if is_text else read_yaml(Path(text_or_path))
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise UserError("\n".join(f"{source}: {problem}" for problem in problems(model, error))) from None


def problems(model: type[BaseModel], error: ValidationError, prefix: Sequence[str] = ()) -> list[str]:
    """Return one line per problem, "field.path: value …: what is allowed", unknown keys with the nearest known one."""
    found: dict[str, list[str]] = {}  # what is wrong -> what would be right, from each branch of a union
    misspelt = {detail["loc"][:-1] for detail in error.errors() if detail["type"] == "extra_forbidden"}
    for detail in error.errors():
        if _follows(detail, misspelt):
            continue
        wrong, right = _problem(model, detail, prefix)
        found.setdefault(wrong, []).append(right)
    return [wrong + " or ".join(right) for wrong, right in found.items()]


def _follows(detail: ErrorDetails, misspelt: Container[tuple[int | str, ...]]) -> bool:
    """Return whether a problem only follows from another.

    A list is called too short because its entries were refused, or one of several keys left out where one that is not known stands.
    """
    if detail["type"] == "too_short":
        return bool(len(detail["input"]) >= detail.get("ctx", {})["min_length"])
    return detail["type"] == "value_error" and detail["input"] is None and detail["loc"][:-1] in misspelt


def _problem(model: type[BaseModel], detail: ErrorDetails, prefix: Sequence[str]) -> tuple[str, str]:
    field, known = _locate(model, [step for step in detail["loc"] if step != KEY])
    if detail["type"] == "invalid_key" or detail["loc"][-1:] == (KEY,):
        right = wanted(detail["msg"]) if isinstance(detail["input"], str) else "must be text; write it in quotes"
        return f"{'.'.join([*prefix, *field[:-1], shown(detail['input'])])}: is not allowed as a key: ", right
    path = ".".join([*prefix, *field]) or "top level"
    if detail["type"] == "extra_forbidden":
        return f"{path}: unknown key", nearest(field[-1], known)
    if detail["type"] == "missing":
        return f"{path}: is required", ""
    if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return _kind_problem(f"{path}.source", detail)
    plain = PLAIN_WORDS.get(detail["type"])
    return f"{path}: {shown(detail['input'])} is not allowed: ", f"must be {plain}" if plain else wanted(detail["msg"])


def wanted(message: str) -> str:
    """Return one of pydantic's sentences as what must be; a check of our own says the whole of it."""
    if message.startswith(OWN):
        return message.removeprefix(OWN[0])
    begins = SHOULD.match(message)
    return AFTERTHOUGHT.sub("", f"must {begins[1] or ''}{message[begins.end() :]}" if begins else f"must be {message}")


def _kind_problem(path: str, detail: ErrorDetails) -> tuple[str, str]:
    """Word the refusal of a union whose members are told apart by `source`."""
    if not isinstance(detail["input"], Mapping):
        return f"{path.removesuffix('.source')}: {shown(detail['input'])} is not allowed: ", "must be a mapping"
    if "source" not in detail["input"]:
        return f"{path}: is required", ""
    given, known = detail["input"]["source"], detail.get("ctx", {})["expected_tags"]
    return f"{path}: {shown(given)} is not allowed: ", f"must be one of {known}"


def shown(value: object) -> str:
    """Return a value as a message shows it: JSON where possible, cut at 60 characters."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean …? allowed: …" for a name that is not among the known ones."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint}; allowed: {', '.join(names)}" if names else hint


def located(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """Return the place of one of pydantic's errors as the user wrote it."""
    return _locate(model, location)[0]


def _locate(model: type[BaseModel], location: Sequence[int | str]) -> tuple[list[str], list[str]]:
    """Return the field path as the user wrote it and the keys allowed at its last step.

    Pydantic's own path also names the branch of a union that it tried; those steps are not the user's and are left out.
    """
    path: list[str] = []
    candidates: list[Any] = [model]
    known: list[str] = []
    for step in location:
        models = [kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)]
        tagged = [kind for kind in models if len(models) > 1 and step in _tags(kind)] or [kind for kind in models if step == kind.__name__]
        if tagged:
            candidates = tagged
            continue
        deeper = [inner for kind in candidates for inner in _step(kind, step)]
        if not deeper and any(kind not in models and kind is not type(None) for kind in candidates):
            continue  # a union branch of a plain value or a list ("int", "literal[...]", "tuple[...]")
        known = sorted({name for kind in models for name in kind.model_fields})
        path.append(str(step))
        candidates = deeper
    return path, known


def _tags(model: type[BaseModel]) -> set[object]:
    """Return the values of a model's `source` field, which tell the members of a union apart."""
    field = model.model_fields.get("source")
    return set(get_args(field.annotation)) if field else set()


def _step(kind: Any, step: int | str) -> Iterator[Any]:
    """Yield the types that can stand under `step` of a value of type `kind`."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if step in kind.model_fields:
            field = kind.model_fields[str(step)]
            part = next((mark.model for mark in field.metadata if isinstance(mark, PartOf)), None)
            yield from _members(field.annotation if part is None else part)
    elif get_origin(kind) in (dict, Mapping):
        yield from _members(get_args(kind)[1])
    elif get_origin(kind) in (list, tuple) and isinstance(step, int):
        yield from _members(get_args(kind)[0])


def _members(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    elif get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    else:
        yield annotation
