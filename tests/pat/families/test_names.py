"""Names of layers stand in pat/families alone, and the guide names the families that there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pat.families.known import FAMILIES
from tests.kit.project import ROOT

SOURCES = sorted(path for folder in ("pat", "workflow", "tools") for path in (ROOT / folder).rglob("*.py") if "families" not in path.parts)


def names_of_layers() -> Iterator[str]:
    """Yield every part of a module's name that is no plain word: q_proj, self_attn, input_layernorm, lm_head."""
    for family in FAMILIES.values():
        whole = [family.embedding, family.layers, family.final_norm, family.head, *family.weighted_in_layer(1), *family.norms]
        whole += [name for block in family.blocks for name in (*block.inside, *block.across, block.module, *block.expert_readers)]
        yield from (part for name in whole for part in name.split(".") if "_" in part or part.endswith("layernorm"))


PATTERN = re.compile(rf"(?<![A-Za-z0-9_])({'|'.join(sorted(set(names_of_layers())))})(?![A-Za-z0-9_])")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_module_names_a_layer_of_any_architecture(path: Path) -> None:
    assert PATTERN.findall(path.read_text(encoding="utf-8")) == []


def test_there_are_names_to_look_for() -> None:
    assert {"q_proj", "self_attn", "input_layernorm", "embed_tokens", "lm_head", "gate_up_proj", "shared_expert"} <= set(names_of_layers())


def test_the_guide_names_every_family() -> None:
    text = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    sentence = text[text.index("### Architectures") : text.index("What a family rules")]
    assert set(re.findall(r"`(\w+)`", sentence)) - {"model_type", "config"} == FAMILIES.keys()
