"""A ratio that removes far less than it says is told: before a run where the shape is known, and in every table afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pat.benchmark.settings import ModelShape
from study.experiment.file import load_experiment
from study.experiment.schema import Experiment
from study.experiment.shortfall import is_off, share_removed, shortfalls
from tests.kit.cell_maker import cell
from tests.kit.commands import outcome
from tests.kit.gguf_files import random_model, write_gguf
from tests.kit.project import ROOT
from tests.kit.written_tables import rows_of, tables_of

SMOLLM2 = ModelShape(vocab_size=49152, hidden_size=576, layers=30, heads=9, kv_heads=3, intermediate_size=1536, tie_embeddings=True)


def test_smollm2_by_hand() -> None:
    """A width of 432 leaves three quarters of every matrix; a head of its own has 49,152 × 432 more."""
    before = 49152 * 576 + 30 * (576 * (2 * 576 + 2 * 192 + 3 * 1536) + 2 * 576) + 576
    after = 49152 * 432 + 30 * (432 * (2 * 576 + 2 * 192 + 3 * 1536) + 2 * 432) + 432
    assert share_removed(SMOLLM2, 0.25, "auto", broken=False) == pytest.approx(1 - after / before) == 0.25
    assert share_removed(SMOLLM2, 0.25, "auto", broken=True) == pytest.approx(1 - (after + 49152 * 432) / before)
    assert share_removed(SMOLLM2, 0.25, "auto", broken=True) == pytest.approx(0.092, abs=5e-4)


def experiment(tie_embeddings: bool, **rows: Any) -> Experiment:
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    raw["models"]["tiny"]["pretrain"]["tie_embeddings"] = tie_embeddings
    raw["models"]["tiny"]["pretrain"]["vocab_size"] = 4000
    raw["methods"] = {"pat": None, "pat-g": {"pat": {"hio_rank": 0}}, **rows}
    return load_experiment(raw | {"ratios": [0.5], "tables": {}}, "x.yaml")


def test_only_a_broken_tie_of_a_tied_model_is_told() -> None:
    broken: dict[str, Any] = {
        "apart": {"method": "pat-g", "label": "a", "pat": {"tie": "break"}},
        "slicegpt-1q-pft": {"prune": {"tie": "break"}},
    }
    told = list(shortfalls(experiment(True, **broken)))
    assert [sentence.partition(",")[0] for sentence in told] == ["methods.apart", "methods.slicegpt-1q-pft"]
    assert all("models.tiny: ratio 0.5 removes" in sentence and "tie: break" in sentence for sentence in told)
    assert not list(shortfalls(experiment(False, **broken)))


BROKEN: dict[str, Any] = {"pat-g": {"pat": {"tie": "break"}}, "slicegpt-1q-pft": {"prune": {"tie": "break"}}}


def of_source(**source: Any) -> list[str]:
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    return list(shortfalls(load_experiment(raw | {"models": {"far": source}, "methods": BROKEN, "ratios": [0.5], "tables": {}}, "x.yaml")))


def test_the_sizes_of_a_gguf_file_and_of_a_model_in_the_hubs_cache_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model("llama-tied")
    file = write_gguf(tmp_path / "model.gguf", model)
    snapshot = tmp_path / "models--some--model"
    model.save_pretrained(snapshot / "snapshots" / "abc")
    (snapshot / "refs").mkdir()
    (snapshot / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    told = of_source(gguf=str(file))
    assert len(told) == 2 and all("tie: break" in sentence for sentence in told)
    assert of_source(path=str(snapshot / "snapshots" / "abc")) == of_source(hub={"id": "some/model"}) == told
    file.write_bytes(b"GGUF")
    assert of_source(gguf=str(file)) == of_source(gguf=str(tmp_path / "none.gguf")) == [], "the check of the model tells what is wrong"


def test_validate_warns_and_is_content(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    raw["models"]["tiny"]["pretrain"] |= {"tie_embeddings": True, "vocab_size": 4000}
    raw["methods"]["pat-g"] = {"pat": {**(raw["methods"].get("pat-g") or {}).get("pat", {}), "tie": "break"}}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(raw))
    code, said = outcome(["validate", str(tmp_path / "x.yaml")], capsys)
    assert code == 0 and "warning: methods.pat-g, models.tiny: ratio 0.5 removes" in said


@pytest.mark.parametrize(("removed", "off"), [(0.25, False), (0.2, False), (0.199, True), (0.0, True), (0.3, False), (0.301, True)])
def test_a_fifth_is_the_limit(removed: float, off: bool) -> None:
    assert is_off(0.25, removed) is off


def test_nothing_asked_for_is_never_off() -> None:
    assert not is_off(0.0, 0.0) and not is_off(0.0, -0.01)


def test_tables_show_what_was_really_removed_where_it_is_far_off(tmp_path: Path) -> None:
    counts = {"before": {"unique": 1000, "without_embeddings": 800}, "after": {"unique": 908, "without_embeddings": 600}}
    more = {"before": counts["before"], "after": {"unique": 600, "without_embeddings": 400}}
    out = tables_of(tmp_path, [cell(method="pat-g", parameters=counts), cell(method="pat"), cell(method="pat-dora", parameters=more)])
    for name in ("table1", "per_task_tiny", "perplexity"):
        text = (out / f"{name}.md").read_text()
        firsts = {row[1]: row[0] for row in rows_of(text)}
        assert (firsts["PAT-G"], firsts["PAT"], firsts["PAT (DoRA)"]) == ("25 % (really 9.2 %)", "25 %", "25 % (really 40.0 %)")
        assert "more than a fifth off" in text
    shares = {row[1]: row[3:5] for row in rows_of((out / "sizes.md").read_text())}
    assert shares["PAT-G"] == ["25 %", "9.2 %"] and shares["PAT"] == ["25 %", "25.0 %"]


def test_a_models_own_table_shows_what_was_removed_of_it_not_of_another(tmp_path: Path) -> None:
    little = {"before": {"unique": 1000, "without_embeddings": 800}, "after": {"unique": 950, "without_embeddings": 760}}
    out = tables_of(tmp_path, [cell(method="pat", model="big"), cell(method="pat", model="tiny", parameters=little)])
    shown = {model: {row[1]: row[0] for row in rows_of((out / f"per_task_{model}.md").read_text())}["PAT"] for model in ("big", "tiny")}
    assert shown == {"big": "25 %", "tiny": "25 % (really 5.0 %)"}


@pytest.mark.parametrize(("after", "shown"), [(750, "25 %"), (748, "25 %"), (747, "25 % (really 25.3 %)"), (753, "25 % (really 24.7 %)")])
def test_within_a_hundredth_of_what_was_asked_for_the_share_is_that(after: int, shown: str, tmp_path: Path) -> None:
    counts = {"before": {"unique": 1000, "without_embeddings": 800}, "after": {"unique": after, "without_embeddings": 600}}
    text = (tables_of(tmp_path, [cell(method="pat", parameters=counts)]) / "table1.md").read_text()
    assert {row[1]: row[0] for row in rows_of(text)}["PAT"] == shown
    assert ("more than a hundredth off" in text) is ("really" in shown) and "do not compare" not in text


@pytest.mark.parametrize(("kl", "told"), [(9e-4, False), (1.1e-3, True), (None, False)])
def test_a_divergence_above_that_of_models_of_use_is_explained(kl: float | None, told: bool, tmp_path: Path) -> None:
    out = tables_of(tmp_path, [cell(method="pat") | {"kl_on_text": kl}, cell(method="lora", ratio=0.0) | {"kl_on_text": 1e-5}])
    assert ("roundings of the weights that fall at random" in (out / "sizes.md").read_text()) is told


def test_tables_say_nothing_where_the_share_is_as_asked(tmp_path: Path) -> None:
    out = tables_of(tmp_path, [cell(method="pat"), cell(method="lora", ratio=0.0)])
    assert all("really" not in path.read_text() for path in out.glob("*.md"))
