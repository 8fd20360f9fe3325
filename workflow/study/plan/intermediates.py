"""Frees the weights of intermediate models that no job needs any more: what was pruned only to be tuned.

Snakemake marks such a folder as gone by removing its manifest, a temp() output; the records in it stay, since cells and `study explain`
read them. With `--notemp` the manifest stays, and with it everything.
"""

from __future__ import annotations

from pathlib import Path

from pat.io.artefacts import MANIFEST

INTERMEDIATE = "checkpoints/*/*/*/*/pruned"
"""Below an experiment's results: model, row, ratio, seed. Bases that rows or ratios share are none: whoever adds one needs them."""
WEIGHTS = "*.safetensors"


def free(results: Path) -> int:
    """Remove the weights of every intermediate model whose manifest is gone; return the bytes that this frees."""
    freed = 0
    for folder in results.glob(INTERMEDIATE):
        if not (folder / MANIFEST).exists():
            for weights in folder.glob(WEIGHTS):
                freed += weights.stat().st_size
                weights.unlink()
    return freed
