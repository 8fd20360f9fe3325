"""What a model inherits from the one it was made of, as the hub's cards say it: its name there, licence, language. `lineage.json`.

It is noted when a base is imported, from the front matter of its card, and travels with checkpoints as origin.json does. The data sets of
the hub that a model was tuned on come in with the merge, from the tuning's record. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pat.errors import UserError
from pat.io.artefacts import read_record, write_json
from pat.io.storage import check_regular

LINEAGE_NAME = "lineage.json"
CARD_NAME = "README.md"
DATASETS = "datasets"
INHERITED = ("license", "license_name", "license_link", "language")
OWN_TAG = "pruning-aware-tuning"
"""Of cards that are written here; what they name as base is their own base's name."""
FRONT_MATTER = re.compile(r"\A---\r?\n(?P<yaml>.*?)\r?\n---\r?\n?(?P<body>.*)\Z", re.DOTALL)
CACHED = re.compile(r"^models--(?P<owner>.+?)--(?P<name>.+)$")
"""How the hub's cache calls the folder of a model."""
Lineage = dict[str, Any]


def front_matter(card: str) -> tuple[dict[str, Any], str]:
    """Return a card's fields and its text; no fields where it has none, or none that can be read."""
    found = FRONT_MATTER.match(card)
    if found is None:
        return {}, card
    try:
        fields = yaml.safe_load(found["yaml"])
    except yaml.YAMLError:
        fields = None
    return (fields if isinstance(fields, dict) else {}), found["body"]


def lineage_of(folder: Path) -> Lineage:
    """Return what a model made of this one inherits: its name, where it is on the hub, and what its card says of licence and language."""
    if (folder / LINEAGE_NAME).is_file():
        known = read_record(folder / LINEAGE_NAME)
        return {name: known[name] for name in ("base_model", *INHERITED, DATASETS) if known.get(name)}
    card = folder / CARD_NAME
    check_regular(card)
    fields, _ = front_matter(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else ({}, "")
    own = OWN_TAG in (fields.get("tags") or ())
    base = fields.get("base_model") if own else _name_in_cache(folder)
    kept = (*INHERITED, DATASETS) if own else INHERITED  # what others tuned their model on is for their card to say
    return ({"base_model": base} if base else {}) | {name: fields[name] for name in kept if fields.get(name)}


def tuned_on(lineage: Mapping[str, Any], datasets: Sequence[str]) -> Lineage:
    """Return what a model inherits once it has been tuned on these data sets of the hub."""
    known = lineage.get(DATASETS) or []
    joined = list(dict.fromkeys([*([known] if isinstance(known, str) else known), *datasets]))
    return {**lineage, **({DATASETS: joined} if joined else {})}


def check_datasets(names: Sequence[str]) -> None:
    """Raise UserError where the hub can have no data set of a name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, though not exported by name

    for name in names:
        try:
            validate_repo_id(name)
        except HFValidationError:
            raise UserError(f"--dataset {name!r}: must be the name of a data set on the hub, such as tatsu-lab/alpaca") from None


def write_lineage(folder: Path, lineage: Mapping[str, Any]) -> None:
    """Note in a folder what models made of it inherit; nothing where nothing is known."""
    if lineage:
        write_json(folder / LINEAGE_NAME, dict(lineage))


def _name_in_cache(folder: Path) -> str | None:
    """Return a model's name on the hub where it lies in the hub's cache; None elsewhere."""
    names = (CACHED.match(parent.name) for parent in folder.absolute().parents)
    return next((f"{found['owner']}/{found['name']}" for found in names if found is not None), None)
