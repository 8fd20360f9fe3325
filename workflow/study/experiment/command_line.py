"""What `--config key=value` gives: of a list or a mapping Snakemake keeps every value as text, a number too."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import yaml

from pat.errors import UserError
from pat.io.yaml_files import parse_yaml

QUOTES = ("'", '"')


def as_typed(config: Any, written: Any) -> Any:
    """Return parsed contents in which the texts that did not stand in a file are the numbers, yes or no, or nothing, that they say.

    `written` is what the files hold, where a text is meant as one.
    """
    if isinstance(config, Mapping):
        known = written if isinstance(written, Mapping) else {}
        return {key: as_typed(value, known.get(key)) for key, value in config.items()}
    if config == written:
        return config
    if isinstance(config, list):
        return [as_typed(value, None) for value in config]
    return _value_of(config) if isinstance(config, str) else config


def _value_of(text: str) -> Any:
    """Return what a text says as a whole: what holds a comment, or is a date, is a text, and so is what has quotes of its own."""
    try:
        value, node = parse_yaml(text, "--config"), yaml.compose(text, yaml.SafeLoader)
    except UserError:  # the schema refuses it, naming the field
        return text
    whole = node.value == text or node.style in QUOTES if isinstance(node, yaml.ScalarNode) else not text
    return value if whole and not isinstance(value, date) else text
