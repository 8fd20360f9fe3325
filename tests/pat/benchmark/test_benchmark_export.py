"""Bytes and perplexity of models in runtimes' formats: each is what the file holds, and equal bytes are compared as said."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from pat.benchmark.equal_bytes import at_equal_bytes
from pat.benchmark.exported import benchmark_export, names_of
from pat.benchmark.settings import ExportBenchmark
from pat.checkpoints import checkpoint
from pat.checkpoints.origin import ORIGIN_NAME
from pat.errors import UserError
from pat.export.export import export
from pat.io.artefacts import MANIFEST, read_json, write_json
from pat.scoring.perplexity import perplexity
from study.figures import exports as figure
from study.figures.exports import write_exports
from tests.kit.exported_models import write_narrow

TEXTS = ["Which number comes after 12? It is 13.", "Think. ### Response: 4"]
SETTINGS: dict[str, Any] = {"formats": ["f16", "q8_0", "q4_0"], "context": 32, "device": "cpu"}
Measured = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = tmp_path_factory.mktemp("exports")
    write_narrow(folder, "llama-tied", dtype=torch.bfloat16)
    (folder / "held.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    settings = ExportBenchmark.model_validate(SETTINGS)
    return folder, benchmark_export([folder / "base", folder / "narrow"], [folder / "held.jsonl"], settings, 0, folder / "export.json")


def test_every_model_is_measured_in_every_format(measured: Measured) -> None:
    folder, record = measured
    assert read_json(folder / "export.json") == record
    assert [(it["model"], it["format"]) for it in record["measurements"]] == [
        (model, form) for model in ("base", "narrow") for form in ("stored", "f16", "q8_0", "q4_0")
    ]
    stored = record["measurements"][0]
    model, tokenizer = checkpoint.load_model(folder / "base", torch.float32), checkpoint.load_tokenizer(folder / "base")
    assert stored["perplexity"]["held"] == pytest.approx(perplexity(model, tokenizer, TEXTS, 32, 2, "x")["token_perplexity"], rel=1e-5)
    assert stored["bytes"] == (folder / "base" / "model.safetensors").stat().st_size


def test_a_formats_bytes_are_its_files_and_its_weights_are_rounded(measured: Measured, tmp_path: Path) -> None:
    folder, record = measured
    by_format = {it["format"]: it for it in record["measurements"] if it["model"] == "base"}
    made = export(folder / "base", "gguf", tmp_path / "again", "q4_0")
    assert by_format["q4_0"]["bytes"] == made["bytes"] < by_format["q8_0"]["bytes"] < by_format["f16"]["bytes"]
    stored = by_format["stored"]["perplexity"]["held"]
    drift = {form: abs(math.log(it["perplexity"]["held"] / stored)) for form, it in by_format.items()}
    assert drift["f16"] < 1e-3 < drift["q4_0"]


def test_at_equal_bytes_by_hand() -> None:
    def point(model: str, form: str, size: int, value: float) -> dict[str, Any]:
        return {"model": model, "format": form, "bytes": size, "perplexity": {"text": value}}

    points = [point("whole", "f16", 400, 10.0), point("whole", "q4_0", 100, 40.0), point("whole", "int4", 150, 70.0)]
    points += [point("cut", "q8_0", 200, 30.0), point("cut", "q4_0", 50, 99.0), {"model": "cut", "format": "int4", "refused": "its rows"}]
    found = at_equal_bytes(points)
    assert [(it["format"], it["perplexity"]) for it in found] == [("q8_0", 30.0), ("q4_0", 99.0)]
    assert found[0]["only_quantised"] == pytest.approx(20.0)  # half way in the logarithm of bytes, the root of 10 · 40; int4 is beaten
    assert found[1]["only_quantised"] is None


def test_in_more_bytes_than_the_best_format_has_that_one_is_what_only_quantised_gives() -> None:
    """The whole model is as good in 8 bits as stored: beside a cut one of a size between them it has its 8 bits, not nothing."""
    sizes = {"q4_0": (100, 40.0), "q8_0": (200, 10.0), "stored": (400, 10.0)}
    points = [{"model": "whole", "format": form, "bytes": size, "perplexity": {"text": value}} for form, (size, value) in sizes.items()]
    points += [{"model": "cut", "format": "stored", "bytes": size, "perplexity": {"text": 30.0}} for size in (99, 200, 300, 999)]
    assert [it["only_quantised"] for it in at_equal_bytes(points)] == [None, *[pytest.approx(10.0)] * 3]


def test_a_perplexity_too_large_for_a_number_is_said_and_compares_with_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_narrow(tmp_path, "llama")
    hot = AutoModelForCausalLM.from_pretrained(tmp_path / "narrow")
    with torch.no_grad():
        hot.lm_head.weight.mul_(3e4)
    hot.save_pretrained(tmp_path / "narrow")
    (tmp_path / "narrow" / MANIFEST).unlink()
    (tmp_path / "held.jsonl").write_text(json.dumps({"text": TEXTS[0]}) + "\n")
    settings, texts, out = (
        ExportBenchmark.model_validate(SETTINGS | {"formats": ["f32"]}),
        [tmp_path / "held.jsonl"],
        tmp_path / "export.json",
    )
    with caplog.at_level("INFO"):
        record = benchmark_export([tmp_path / "base", tmp_path / "narrow"], texts, settings, 0, out)
    assert "narrow, f32: " in caplog.text and "perplexity held too large" in caplog.text
    assert record["at_equal_bytes"] == [] and record["measurements"][-1]["perplexity"] == {"held": None}
    assert write_exports([out], tmp_path / "figures") == 2


def test_what_a_format_refuses_is_a_line_and_no_end(tmp_path: Path, measured: Measured) -> None:
    pytest.importorskip("compressed_tensors")
    odd = write_narrow(tmp_path, "llama-tied", ratio=0.3, align=4)
    settings = ExportBenchmark.model_validate(SETTINGS | {"formats": ["int4", "int8"], "documents": 1})
    record = benchmark_export([odd], [measured[0] / "held.jsonl"], settings, 0, tmp_path / "export.json")
    _, int4, int8 = record["measurements"]
    assert "no multiple of 32" in int4["refused"] and "bytes" not in int4
    assert int8["bytes"] < record["measurements"][0]["bytes"]


def test_documents_are_counted_whole_however_many_windows_they_fill(tmp_path: Path, measured: Measured) -> None:
    settings = ExportBenchmark.model_validate(SETTINGS | {"formats": ["f16"], "documents": 1, "context": 8})
    record = benchmark_export([measured[0] / "base"], [measured[0] / "held.jsonl"], settings, 0, tmp_path / "export.json")
    model, tokenizer = checkpoint.load_model(measured[0] / "base", torch.float32), checkpoint.load_tokenizer(measured[0] / "base")
    first = perplexity(model, tokenizer, TEXTS[:1], 8, 2, "x")
    assert first["tokens"] > 8
    assert record["measurements"][0]["perplexity"]["held"] == pytest.approx(first["token_perplexity"], rel=1e-5)


def test_the_figure_has_a_point_per_format(measured: Measured, tmp_path: Path) -> None:
    assert write_exports([measured[0] / "export.json"], tmp_path) == 8
    assert (tmp_path / "exports.png").is_file()
    assert len((tmp_path / "exports.csv").read_text().splitlines()) == 9
    (tmp_path / "other.json").write_text('{"kind": "merge"}')
    with pytest.raises(UserError, match="is not a record of `pat benchmark export`"):
        write_exports([tmp_path / "other.json"], tmp_path)


def test_the_record_says_what_a_model_was_read_from_and_the_figure_that_it_is_quantised(
    measured: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a runtime's format costs a model whose weights are a format's already is another question."""
    write_narrow(tmp_path, "llama-tied")
    (tmp_path / "base" / MANIFEST).unlink(missing_ok=True)
    origin = {"file": "a.gguf", "dtype": "bf16", "quantised": ["Q4_1", "Q8_0"]}
    write_json(tmp_path / "base" / ORIGIN_NAME, origin)
    settings = ExportBenchmark.model_validate(SETTINGS | {"formats": ["f32"], "documents": 1})
    models, texts = [tmp_path / "base", tmp_path / "narrow"], [measured[0] / "held.jsonl"]
    record = benchmark_export(models, texts, settings, 0, tmp_path / "export.json")
    assert record["origins"] == {"base": origin} and "origins" not in measured[1]
    drawings: list[Any] = []
    monkeypatch.setattr(figure, "save", lambda drawing, *_: drawings.append(drawing))
    for folder in (tmp_path, measured[0]):
        write_exports([folder / "export.json"], tmp_path / "figures")
    assert [drawing.get_suptitle() for drawing in drawings] == ["base is quantised (Q4_1 and Q8_0)", ""]


def test_models_are_called_as_their_folders_are_and_by_those_above_where_that_tells_them_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An experiment's models are all called merged; a folder may be named by a dot."""
    lora, pat = tmp_path / "lora/0/seed0/merged", tmp_path / "pat/0.5/seed0/merged"
    for folder in (lora, pat):
        folder.mkdir(parents=True)
    assert names_of([lora, pat]) == {"lora/0": lora, "pat/0.5": pat}
    above = tmp_path / "lora" / "merged"
    assert list(names_of([lora, above])) == ["lora/0/seed0", "lora"] and list(names_of([lora, pat.parent])) == ["merged", "seed0"]
    monkeypatch.chdir(lora)
    assert names_of([Path(), Path("../../..")]) == {"merged": Path(), "lora": Path("../../..")}
    with pytest.raises(UserError, match="lora/0/seed0/merged: is given twice"):
        benchmark_export([lora, Path()], [tmp_path / "t"], ExportBenchmark(), 0, tmp_path / "o.json")
