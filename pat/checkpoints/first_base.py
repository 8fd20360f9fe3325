"""Of which base a checkpoint is in the end: the sizes of the one that the user gave, passed on through every step's record.

A rotation may take a tied embedding apart, so what a step started from can be larger than what a user would compare with. No torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pat.errors import UserError
from pat.io.artefacts import read_record

STEP_RECORDS = ("rotation.json", "readers.json", "prune.json", "merge.json")
"""What the steps leave beside the weights; a folder has the one of the step that made it."""


def first_base(folder: Path) -> dict[str, Any] | None:
    """Return `hidden_size` and `parameters` of the base that a step's output was made from first; None where no step made the folder.

    Raises UserError on a record that does not say it.
    """
    for name in STEP_RECORDS:
        if (folder / name).is_file():
            record = read_record(folder / name)
            try:
                base = record.get("base") or {
                    "hidden_size": record["hidden_size"]["before"], "parameters": record["parameters"]["before"],
                }  # fmt: skip
                counts = [int(base["parameters"][name]) for name in ("unique", "without_embeddings")]
                return {**base, "hidden_size": int(base["hidden_size"]), "parameters": {**base["parameters"], "unique": counts[0]}}
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(f"{folder / name}: does not say which sizes its base has ({type(error).__name__}: {error})") from None
    return None
