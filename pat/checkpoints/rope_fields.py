"""The fields of config.json that transformers 5 has renamed: written as it reads them, and as 4.x and runtimes built on it do.

transformers 5 writes `rope_parameters` alone, which say how positions turn: whoever does not know that name takes the default theta and no
scaling, without a word. `dtype` was `torch_dtype` up to 4.55; whoever looks for that alone takes bf16 weights for fp32 ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pat.families.known import FAMILIES, Family
from pat.io.artefacts import read_record, write_json

CONFIG_NAME = "config.json"


def write_both_ways(folder: Path) -> None:
    """Add the older names to a folder's config.json where it has the newer ones alone; transformers 5 reads the same."""
    record = read_record(folder / CONFIG_NAME)
    added = _positions(record) | ({"torch_dtype": record["dtype"]} if "dtype" in record and "torch_dtype" not in record else {})
    if added:
        write_json(folder / CONFIG_NAME, record | added)


def _positions(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return `rope_theta` and `rope_scaling` of a config that has `rope_parameters` alone; nothing of any other."""
    parameters = record.get("rope_parameters")
    if not isinstance(parameters, Mapping) or "rope_theta" not in parameters or "rope_theta" in record or "rope_scaling" in record:
        return {}
    scaling = {name: value for name, value in parameters.items() if name != "rope_theta"}
    plain = scaling.get("rope_type", "default") == "default"
    named = FAMILIES.get(record.get("model_type", ""), Family).older_positions  # of a family that is not known, the usual names
    older = {old: parameters[new] for new, old in named if new in parameters}
    return older | {"rope_scaling": None if plain else scaling}
