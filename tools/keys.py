"""Writes config/schema.json and the tables of keys in config/README.md from the settings' own fields, so that each is described once.

A table stands between `<!-- keys:PATH -->` and `<!-- /keys -->`; PATH leads through the file's keys, `*` for a name. The
table of methods (methods.py) is made with them. Called by `make keys`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from study.experiment.extends import KEY as EXTENDS
from study.experiment.extends import MEANING as MEANING_OF_EXTENDS
from study.experiment.extends import NAMED
from study.experiment.schema import Experiment
from tools import methods

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "config" / "schema.json"
PAGE = ROOT / "config" / "README.md"
BLOCK = re.compile(r"(<!-- keys:(?P<path>[^ ]*) -->\n).*?(<!-- /keys -->)", re.DOTALL)
HEAD = "| key | type | default | range | meaning |\n| --- | --- | --- | --- | --- |\n"
BOUNDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
"""How pydantic names a bound of a number that it reads with a function of ours, and how JSON Schema does."""
SIGNS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
TYPES = {"integer": "whole number", "number": "number", "boolean": "yes or no", "string": "text"}
LARGEST_COUNT = 2**31 - 1
"""Where torch's whole numbers end: a bound that goes without saying."""
Schema = dict[str, Any]


def described() -> Schema:
    """Return the JSON schema of a whole experiment, every block of keys once under `$defs`."""
    definitions: dict[str, Schema] = {}
    root = _plain(Experiment.model_json_schema(), definitions)
    definitions |= {name: _plain(block, definitions, top=True) for name, block in root.pop("$defs", {}).items()}
    return {**root, "properties": {**root["properties"], EXTENDS: _EXTENDS}, "$defs": dict(sorted(definitions.items()))}


_EXTENDS = {"type": "string", "minLength": 1, "description": MEANING_OF_EXTENDS}


def _plain(node: Any, definitions: dict[str, Schema], *, top: bool = False) -> Any:
    """Return a schema with its bounds by their JSON Schema names, and a reference to `definitions` where a block stands in place."""
    if isinstance(node, list):
        return [_plain(each, definitions) for each in node]
    if not isinstance(node, dict):
        return node
    name = node.get("title")
    inner: Schema = {
        BOUNDS.get(key, str(key)): value if key == "$defs" else _plain(value, definitions)
        for key, value in node.items()
        if not (key == "discriminator" or (key == "title" and isinstance(value, str)))
    }
    if isinstance(inner.get("description"), str):
        inner["description"] = " ".join(inner["description"].split())
    if top or name == Experiment.__name__ or not isinstance(name, str) or not isinstance(inner.get("properties"), dict):
        return inner
    kept = {key: inner.pop(key) for key in ("description", "default") if key in inner}
    definitions[name] = inner
    return {"$ref": f"#/$defs/{name}", **kept}


def of_a_file(whole: Schema) -> Schema:
    """Return the schema of what a file may say: on its own, a part of a block where blocks are joined, or over the file that it extends."""
    found: Schema = json.loads(json.dumps(whole))
    needed = found.pop("required")
    for name in _joined(found):
        found["$defs"][name].pop("required", None)
    for section, block in NAMED:
        entries = _followed(found["properties"][section], found)["properties"][block]
        entries["additionalProperties"] = {"anyOf": [entries["additionalProperties"], {"type": "null"}]}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "An experiment's file"}
    return head | found | {"anyOf": [{"required": needed}, {"required": ["name", EXTENDS]}]}


def _joined(whole: Schema) -> list[str]:
    """Return the definitions of blocks that are joined key by key, so that a file may give a part of them.

    Models, rows and sources of data are replaced as a whole.
    """
    names: set[str] = set()
    waiting = [block for key, block in whole["properties"].items() if key not in ("models", "methods")]
    while waiting:
        for name in _references(waiting.pop()):
            if name not in names and "source" not in whole["$defs"][name]["properties"]:
                names.add(name)
                waiting.append(whole["$defs"][name])
    return sorted(names)


def _references(node: Any) -> Iterator[str]:
    """Yield the names of the definitions that a schema refers to."""
    if isinstance(node, list):
        for each in node:
            yield from _references(each)
    elif isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"].rpartition("/")[2]
        for each in node.values():
            yield from _references(each)


def _followed(node: Schema, whole: Schema) -> Schema:
    """Return the block that a schema stands for: what it refers to, or the one that is not null; of a value or a block the block."""
    while "$ref" in node or (kinds := node.get("anyOf") or _of_value_or_block(node)):
        if "$ref" in node:
            node = whole["$defs"][node["$ref"].rpartition("/")[2]]
        else:
            others = [each for each in kinds if each.get("type") != "null"]
            node = next((each for each in others if "$ref" in each), others[0])
    return node


def _of_value_or_block(node: Schema) -> list[Schema]:
    """Return the kinds of what may be a value or a block; none of one of several blocks, which their source distinguishes."""
    kinds: list[Schema] = node.get("oneOf", [])
    return kinds if any("type" in each for each in kinds) else []


def block_at(path: str, whole: Schema) -> Schema:
    """Return the schema of the block at a path of keys, `*` for each entry of names or of a list. Raises KeyError where there is none."""
    node = whole
    for key in filter(None, path.split(".")):
        node = _entry(node) if key == "*" else _followed(node, whole)["properties"][key]
    return _followed(node, whole)


def _entry(node: Schema) -> Schema:
    """Return the schema of each entry of a mapping of names, or of a list."""
    for each in node.get("anyOf", [node]):
        for entries in ("additionalProperties", "items"):
            if isinstance(each.get(entries), dict):
                found: Schema = each[entries]
                return found
    raise KeyError("*")


def table(path: str, whole: Schema) -> str:
    """Return the table of the keys of a block, or one after the other of the kinds of a source."""
    node = block_at(path, whole)
    if "oneOf" not in node:
        return HEAD + "".join(_row(key, value, node.get("required", ())) for key, value in node["properties"].items())
    parts = []
    for kind in (_followed(each, whole) for each in node["oneOf"]):
        source = kind["properties"]["source"]
        rows = [_row(key, value, kind["required"]) for key, value in kind["properties"].items() if key != "source"]
        parts.append(f"`source: {source['const']}`: {source['description']}.\n" + (f"\n{HEAD}{''.join(rows)}" if rows else ""))
    return "\n".join(parts)


def _row(key: str, value: Schema, required: Any) -> str:
    default = "required" if key in required else _default(value.get("default"))
    cells = (f"`{key}`", _type(value), default, _range(value), value.get("description", ""))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _default(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return "as below" if value else "`{}`"
    text = f"{value:.4g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False).replace('"', "")
    return f"`{text}`"


def _type(value: Schema) -> str:
    """Return in words what a key may hold."""
    kinds = value.get("anyOf", value.get("oneOf"))
    if kinds is not None:
        words = " or ".join(dict.fromkeys(_type(each) for each in kinds if each.get("type") != "null"))
    elif "$ref" in value:
        words = "block"
    elif "enum" in value:
        words = ", ".join(f"`{each}`" for each in value["enum"])
    elif "const" in value:
        words = f"`{value['const']}`"
    elif value["type"] == "array":
        words = f"list of {_plural(_type(value['items']))}"
    elif value["type"] == "object":
        words = f"name → {_type(value['additionalProperties'])}"
    else:
        words = TYPES[value["type"]]
    return words


def _plural(words: str) -> str:
    return words + "s" if words in ("whole number", "number", "text", "block") else words


def _range(value: Schema) -> str:
    """Return the bounds of a number, or how many entries a list or a mapping needs."""
    found = [f"{sign} {_number(value[bound])}" for bound, sign in SIGNS.items() if value.get(bound, LARGEST_COUNT) != LARGEST_COUNT]
    found += [f"at least {value[least]}" for least in ("minItems", "minProperties") if least in value]
    found += [inner for each in value.get("anyOf") or value.get("oneOf") or () if (inner := _range(each))]
    if "items" in value and (inner := _range(value["items"])):
        found.append(f"each {inner}")
    return ", ".join(found)


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def page(text: str, whole: Schema) -> str:
    """Return the page with every table between marks made again."""
    return methods.page(BLOCK.sub(lambda found: f"{found[1]}\n{table(found['path'], whole)}\n{found[3]}", text))


def schema_text(whole: Schema) -> str:
    """Return config/schema.json as it is stored."""
    return json.dumps(of_a_file(whole), ensure_ascii=False, indent=1) + "\n"


def main() -> int:
    """Write both files, or with --check tell whether they are current."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a file is not current")
    check = parser.parse_args().check
    whole = described()
    stale = False
    for path, text in ((SCHEMA, schema_text(whole)), (PAGE, page(PAGE.read_text(encoding="utf-8"), whole))):
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale = True
        if not check:
            path.write_text(text, encoding="utf-8")
        sys.stderr.write(f"{path.relative_to(ROOT)}: {'is not current; call make keys' if check else 'written'}\n")
    return int(check and stale)


if __name__ == "__main__":
    sys.exit(main())
