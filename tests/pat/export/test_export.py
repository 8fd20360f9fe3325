"""`pat export`: a folder with the file, its record and a manifest; mistakes are one sentence before anything is written."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

from pat.cli import app
from pat.errors import UserError
from pat.export.export import export
from pat.io.artefacts import check_folder, read_json
from pat.pruners.pruning import prune
from tests.kit.exported_models import SHAPE, write_base, write_narrow
from tests.kit.pruning_inputs import calibration
from tests.kit.training import trained


def test_the_verb_writes_file_record_and_manifest(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", LlamaConfig(**SHAPE))
    app(["export", "--model", str(base), "--to", "gguf", "--type", "Q8_0", "--out", str(tmp_path / "out")], standalone_mode=False)
    check_folder(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model-q8_0.gguf", "export.json", "manifest.json"}
    record = read_json(tmp_path / "out" / "export.json")
    assert (record["to"], record["type"], record["file"]) == ("gguf", "q8_0", "model-q8_0.gguf")
    assert record["bytes"] == (tmp_path / "out" / "model-q8_0.gguf").stat().st_size
    assert record["provenance"]["inputs"]["model"]["path"] == str(base)
    export(base, "gguf", tmp_path / "out", "f16")  # what it made it may replace
    assert (tmp_path / "out" / "model-f16.gguf").is_file() and not (tmp_path / "out" / "model-q8_0.gguf").exists()


def test_matrices_that_fit_no_block_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        export(write_narrow(tmp_path, "llama-tied", ratio=0.3, align=4), "gguf", tmp_path / "out", "q8_0")
    said = caplog.text + "".join(capsys.readouterr())
    assert "11 of 15 matrices stay in f16, as their rows fit no block of q8_0" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "onnx"}, "--to 'onnx': must be one of gguf, int8, int4, fp8"),
        ({"to": "int8", "kind": "q8_0"}, "--type q8_0: has no effect with --to int8"),
        ({"to": "fp8", "split": "gpt-2"}, "--split gpt-2: has no effect with --to fp8"),
        ({"to": "gguf", "kind": "q4_k_m"}, "llama-quantize"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path: Path, options: dict[str, str], message: str) -> None:
    base = write_base(tmp_path / "base", LlamaConfig(**SHAPE))
    with pytest.raises(UserError, match=message):
        export(base, out=tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_model_with_sizes_of_its_own_is_for_no_runtime(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", LlamaConfig(**SHAPE))
    prune(base, "slicegpt", 0.25, "auto", tmp_path / "sliced", calibration(tmp_path))
    with pytest.raises(UserError, match="its layers have sizes of their own"):
        export(tmp_path / "sliced", "gguf", tmp_path / "out")


def test_an_adapter_is_to_be_merged_first(tmp_path: Path) -> None:
    write_base(tmp_path / "base", LlamaConfig(**SHAPE))
    trained("llama", steps=1).save_pretrained(str(tmp_path / "adapter"))
    with pytest.raises(UserError, match="what `pat merge` makes of both"):
        export(tmp_path / "adapter", "gguf", tmp_path / "out")


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", LlamaConfig(**SHAPE))
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][0] = torch.nan
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"the tensor model\.norm\.weight holds NaN or infinity"):
        export(base, "gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()
