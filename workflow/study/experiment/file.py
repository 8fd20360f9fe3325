"""Reads an experiment's file: what it extends, what its methods bring, and everything that is wrong with it at once."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pat.errors import UserError
from pat.io import plugins
from pat.io.yaml_files import parse_yaml, read_yaml
from pat.settings.mistakes import located, problems, shown
from study.experiment.checks import problems_between
from study.experiment.extends import resolved
from study.experiment.methods import METHODS, method_name
from study.experiment.schema import Experiment, plugin_from

OF_TEXT = {"name", "root"}
"""The keys whose value is text whatever stands in it."""
EMPTIED: dict[str, object] = {"methods": None, "models": {"path": "refused"}}
"""What stays of an entry that is refused, so that what else is said of it can be checked."""
STAND_INS: dict[str, object] = {"name": "unnamed", "seeds": [0], "tuning": {}, "evaluation": {}}
"""For what is required: what the rest of the file is checked with where they are missing or refused. Nothing else is told by them."""


def with_presets(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a raw experiment in which each row's `pat` holds its method's own mask settings, under what the row says itself."""
    written = raw.get("methods")
    rows = dict(written) if isinstance(written, Mapping) else {}
    for row, settings in rows.items():
        own = {} if settings is None else settings
        method = METHODS.get(str(method_name(row, own))) if isinstance(own, Mapping) else None
        masked = own.get("pat") or {} if method is not None and method.pat else None
        if method is not None and isinstance(masked, Mapping):
            rows[row] = {**own, "pat": {**method.pat, **masked}}
    return {**raw, **({"methods": rows} if rows else {})}


def _as_written(config: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """Return parsed contents in which what `--config key=value` leaves as text, such as "[0, 1]", is the list or mapping that it says."""
    if not isinstance(config, Mapping):
        return config
    composed = {
        key: value
        for key, value in config.items()
        if key in Experiment.model_fields.keys() - OF_TEXT and isinstance(value, str) and value.strip()[:1] in ("[", "{")
    }
    return {**config, **{key: parse_yaml(value, f"{source}: {key}") for key, value in composed.items()}}


def load_plugins(raw: Mapping[str, Any], source: str) -> None:
    """Import the plugins that a raw experiment names. Raises UserError where one cannot be imported."""
    named, root = raw.get("plugins"), raw.get("root", ".")
    if isinstance(named, list | tuple) and isinstance(root, str) and all(isinstance(name, str) for name in named):
        try:
            plugins.load(plugin_from(root, name) for name in named)
        except UserError as error:
            raise UserError(f"{source}: plugins: {error}") from error


def load_experiment(config: Mapping[str, Any] | Path, source: str, file: Path | None = None) -> Experiment:
    """Return the checked experiment from a file, or from its parsed contents; `source` names it in messages.

    The path of `extends` starts from the folder of `file`, which is only needed beside parsed contents. Raises UserError that lists
    every problem of the file at once, one per line.
    """
    raw = read_yaml(config) if isinstance(config, Path) else _as_written(config, source)
    if isinstance(raw, Mapping):
        raw = resolved(raw, config if isinstance(config, Path) else file or Path(source))
        load_plugins(raw, source)
        raw = with_presets(raw)
    if not isinstance(raw, Mapping):
        raise UserError(f"{source}: must hold a mapping of keys, holds {shown(raw)}")
    experiment, refused = as_far_as_taken(raw)
    between = problems_between(experiment) if experiment is not None else []
    found = [*refused, *(problem for problem in between if not any(map(partial(_concerns, problem), refused)))]
    if found or experiment is None:
        raise UserError("\n".join(f"{source}: {problem}" for problem in found))
    return experiment


def as_far_as_taken(raw: Mapping[str, Any]) -> tuple[Experiment | None, list[str]]:
    """Return the experiment without what the schema refuses of its file, None where too little is left, and what it refuses."""
    refused: list[str] = []
    contents: Any = dict(raw)
    while True:
        try:
            return Experiment.model_validate(contents), refused
        except ValidationError as error:
            refused = refused or problems(Experiment, error)
            places = {_standing(contents, located(Experiment, detail["loc"])) for detail in error.errors()}
            if places == {()} and STAND_INS.keys() <= contents.keys():
                return None, refused
            contents = STAND_INS | _without(contents, places)


def _standing(contents: Any, place: Sequence[str]) -> tuple[object, ...]:
    """Return the keys to what stands at a place of the file, or where nothing does, to what should hold it."""
    keys: list[object] = []
    for step in place:
        known = contents.keys() if isinstance(contents, Mapping) else range(len(contents)) if isinstance(contents, list) else ()
        key = next((each for each in known if str(each) == step), None)
        if key is None:
            break
        keys.append(key)
        contents = contents[key]
    return tuple(keys)


def _without(contents: Any, places: Container[tuple[object, ...]], here: tuple[object, ...] = ()) -> Any:
    """Return the file's contents without what stands at these places; a row and a model stay, as ones that say nothing."""
    if isinstance(contents, Mapping):
        kept = {key: _without(value, places, (*here, key)) for key, value in contents.items() if (*here, key) not in places}
        cut = [key for key, value in contents.items() if (*here, key) in places and value not in EMPTIED.values()]
        return kept | ({key: EMPTIED[str(here[0])] for key in cut} if here in (("methods",), ("models",)) else {})
    if isinstance(contents, list):
        return [_without(value, places, (*here, index)) for index, value in enumerate(contents) if (*here, index) not in places]
    return contents


def _concerns(problem: str, refused: str) -> bool:
    """Return whether a problem may only follow from what was refused: it is told of the same place, or of one that holds the other.

    A row's seeds and ratios are held against the experiment's, and an ablation table is made of the rows' factors.
    """
    one, other = (re.split(r"[:,] ", line, maxsplit=1)[0].split(".") for line in (problem, refused))
    shared = min(len(one), len(other))
    of_the_rows = one[0] == "tables" and "factors" in other
    return one[:shared] == other[:shared] or (one[0] == "methods" and one[-1] == other[0]) or of_the_rows
