"""Models that are pruned only to be tuned go when nothing needs them: their weights, not their records, and nothing that may be needed."""

from __future__ import annotations

from pathlib import Path

import yaml

from pat.io.artefacts import MANIFEST
from study.plan.intermediates import free
from tests.kit.project import planned
from tests.kit.smoke_run import CONFIG, RESULTS

CELL = Path("checkpoints/tiny/channel-magnitude-pft/0.5/seed0")


def made(folder: Path, *, manifest: bool) -> Path:
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "prune.json", *([MANIFEST] if manifest else [])):
        (folder / name).write_text("{}")
    return folder


def test_only_weights_of_pruned_models_without_a_manifest_are_removed(tmp_path: Path) -> None:
    gone, kept = made(tmp_path / CELL / "pruned", manifest=False), made(tmp_path / CELL.parent / "seed1" / "pruned", manifest=True)
    merged = made(tmp_path / CELL / "merged", manifest=False)
    assert free(tmp_path) == 2
    assert sorted(path.name for path in gone.iterdir()) == ["prune.json"]
    assert len(list(kept.iterdir())) == 3
    assert len(list(merged.iterdir())) == 2
    assert free(tmp_path) == 0


def test_a_finished_run_holds_no_pruned_weights_and_has_nothing_to_do(finished: Path) -> None:
    pruned = finished / RESULTS / CELL / "pruned"
    assert (pruned / "prune.json").is_file()
    assert not (pruned / MANIFEST).exists()
    assert not list(pruned.glob("*.safetensors"))
    assert list((finished / RESULTS / CELL / "merged").glob("*.safetensors"))
    assert planned(finished, yaml.safe_load((finished / CONFIG).read_text())) == set()
