"""The fields of config.json that say how positions turn: written as transformers 5 reads them, and as 4.x and runtimes built on it do.

transformers 5 writes `rope_parameters` alone. Whoever does not know that name takes the default theta and no scaling, without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pat.artefacts import read_record, write_json

CONFIG_NAME = "config.json"


def write_both_ways(folder: Path) -> None:
    """Add `rope_theta` and `rope_scaling` to a folder's config.json where it has `rope_parameters` alone; transformers 5 reads the same."""
    record = read_record(folder / CONFIG_NAME)
    parameters = record.get("rope_parameters")
    if not isinstance(parameters, Mapping) or "rope_theta" not in parameters or "rope_theta" in record or "rope_scaling" in record:
        return
    scaling = {name: value for name, value in parameters.items() if name != "rope_theta"}
    plain = scaling.get("rope_type", "default") == "default"
    write_json(folder / CONFIG_NAME, record | {"rope_theta": parameters["rope_theta"], "rope_scaling": None if plain else scaling})
