"""The table of folder benchmarks: read from the records, one line each, and what the document shows is what is committed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from pat.benchmark.settings import KNOWN_SHAPES
from pat.errors import UserError
from pat.io.artefacts import write_json, write_text
from pat.settings.fields import GIB, MIB
from study.report.benchmark_table import write
from tests.kit.project import ROOT

REFERENCES = sorted({path.parent.parent for path in (ROOT / "results" / "reference").glob("*/benchmark/*.json")})
RECORD: dict[str, Any] = {
    "kind": "prune", "pruner": "slicegpt", "wall_s": 61.4, "copy_bytes": 100, "peak_host_of_copy": 1.714, "peak_gpu_bytes": 3 * 2**29,
    "share_removed": 0.2517, "weights": "random", "shape": {"hidden_size": 4}, "machine": {"name": "a GPU", "cores": 4},
    "provenance": {"git_commit": "0123456789abcdef", "versions": {"torch": "2.13.0"}, "settings": {}},
}  # fmt: skip


def spread(median: float) -> dict[str, float]:
    return {"median": median, "low": median, "high": median + 1}


def lines_of(folder: Path, **records: Any) -> list[str]:
    """Return the lines of a document that shows these records' tables, each record under its file's name."""
    for name, record in records.items():
        write_json(folder / "mine/benchmark" / f"{name}.json", record)
    write_text(folder / "doc.md", "<!-- mine:start -->\n<!-- mine:end -->")
    write(folder / "mine", folder / "doc.md")
    return (folder / "doc.md").read_text().splitlines()


def test_a_record_becomes_a_line(tmp_path: Path) -> None:
    write_json(tmp_path / "mine/benchmark/tiny-slicegpt.json", RECORD)
    write_json(tmp_path / "mine/benchmark/tiny-merge.json", {**RECORD, "kind": "merge", "pruner": None, "peak_gpu_bytes": None})
    document = tmp_path / "doc.md"
    write_text(document, "before\n<!-- mine:start -->\nold\n<!-- mine:end -->\nafter\n")
    write(tmp_path / "mine", document)
    shown = document.read_text()
    assert "| prune: slicegpt | tiny | 25.2% | 61 | 1.71 | 1.5 |" in shown
    assert "| merge | tiny | 25.2% | 61 | 1.71 |  |" in shown
    assert shown.startswith("before\n") and shown.endswith("after\n") and "old" not in shown
    assert "a GPU, 4 CPU cores; torch 2.13.0; commit 0123456789" in shown


def test_tuning_and_inference_become_tables_of_their_own(tmp_path: Path) -> None:
    """A LoRA of 0.2 s eager and 0.1 s compiled; PAT 0.15 s compiled, 0.12 s over the schedule."""
    own = {name: RECORD[name] for name in ("shape", "weights", "machine", "provenance")}
    recipe = {"lora_rank": 64, "pat_lora_rank": 20, "pat": {"hio_rank": 200}, "batch_size": 16, "shortest": 128, "length": 256}
    tuned = {**own, "provenance": {**own["provenance"], "settings": recipe}}

    phases = [
        {"name": "lora", "compiled": False, "step_s": spread(0.2), "peak_bytes": 4 * GIB},
        {"name": "lora", "compiled": True, "step_s": spread(0.1), "peak_bytes": 2**31, "warmup_s": [17.4, 3.0]},
        {"name": "pat, before the milestone", "compiled": False, "status": "out of memory"},
        {"name": "pat, before the milestone", "compiled": True, "step_s": spread(0.15), "peak_bytes": 3 * GIB},
    ]
    schedule = {"compiled": True, "compacted": True, "step_s": 0.12, "peak_bytes": 2**31, "of_lora": {"eager": 0.6, "compiled": 1.2},
                "peak_of_lora": {"compiled": 1.0}}  # fmt: skip
    tuning = {**tuned, "kind": "tuning", "phases": phases, "schedules": [schedule]}
    sizes = {"unpruned": (4, 400), "width 3": (3, 300)}
    models = [
        {"name": name, "hidden_size": width, "parameters": size, "ratio_effective": 0.0, "share_removed": 0.0, "weight_bytes": size}
        for name, (width, size) in sizes.items()
    ]
    speedups = [{"model": "width 3", "batch_size": 32, "first_token": spread(1.25), "decode": spread(1.0)}]
    how = {"dtype": "bf16", "attention": "sdpa", "compiled": True, "context": 128}
    inference = {**own, **how, "kind": "inference", "models": models, "measurements": [], "speedups": speedups}
    lines = lines_of(tmp_path, **{"tiny-tuning": tuning, "tiny-inference": inference})
    assert "| tiny | eager | lora | 200.0 (200 to 1200) | 1.000 | 2.000 | – | 4.0 | 1.000 |" in lines
    assert "| tiny | compiled | lora | 100.0 (100 to 1100) | 1.000 | 1.000 | 17 | 2.0 | 1.000 |" in lines
    assert "| tiny | eager | pat, before the milestone | out of memory | – | – | – | – | – |" in lines
    assert "| tiny | compiled | pat, before the milestone | 150.0 (150 to 1150) | 1.500 | 1.500 | – | 3.0 | 1.500 |" in lines
    assert "| tiny | compiled | pat, whole schedule, compacted | 120.0 | 1.200 | 1.200 | – | 2.0 | 1.000 |" in lines
    assert "| tiny | width 3 | 0.750 | compiled | 128 | 32 | 1.25 (1.25 to 2.25) | 1.00 (1.00 to 2.00) |" in lines
    compared = "A step of tuning, LoRA-64 against PAT with HIO-200 and LoRA-20; batches of 16 rows, of 128 to 256 tokens, random weights."
    assert any(line.startswith(compared) for line in lines)


def test_evaluation_becomes_a_table_and_a_known_shape_has_its_name(tmp_path: Path) -> None:
    own = {**{name: RECORD[name] for name in ("weights", "machine", "provenance")}, "shape": KNOWN_SHAPES["gemma-2b"].model_dump()}
    ways = [
        {"name": "lm-eval hf", "scoring": "generated", "batch_size": 1, "items_per_s": spread(2.0), "peak_bytes": GIB},
        {"name": "pat", "scoring": "generated", "batch_size": 16, "items_per_s": spread(9.0), "peak_bytes": 2**31,
         "speedup": spread(4.5), "same_answers": 1.0, "same_texts": 0.995, "largest_log_likelihood_gap": None},
        {"name": "pat", "scoring": "log-likelihood", "batch_size": 64, "status": "out of memory"},
    ]  # fmt: skip
    lines = lines_of(tmp_path, mine={**own, "kind": "evaluation", "dtype": "fp32", "measurements": ways})
    assert "| gemma-2b | generated | lm-eval hf | 1 | fp32 | 2.0 | – | – | – | – | 1.0 |" in lines
    assert "| gemma-2b | generated | pat | 16 | fp32 | 9.0 | 4.50 (4.50 to 5.50) | 100.0% | 99.5% | – | 2.0 |" in lines
    assert "| gemma-2b | log-likelihood | pat | 64 | fp32 | out of memory | – | – | – | – | – |" in lines
    assert any(line.startswith("Evaluation, random weights. a GPU, 4 CPU cores;") for line in lines)


def test_a_model_that_is_no_shape_has_its_records_name_and_its_own_weights(tmp_path: Path) -> None:
    way = {"name": "lm-eval hf", "scoring": "generated", "batch_size": 1, "items_per_s": spread(2.0), "peak_bytes": GIB}
    record = RECORD | {"kind": "evaluation", "shape": None, "weights": "checkpoint", "dtype": "bf16", "measurements": [way]}
    lines = lines_of(tmp_path, **{"my-model-bf16": record})
    assert "| my-model | generated | lm-eval hf | 1 | bf16 | 2.0 | – | – | – | – | 1.0 |" in lines
    assert any(line.startswith("Evaluation. a GPU, 4 CPU cores;") for line in lines)


@pytest.mark.parametrize(("content", "message"), [({"kind": "repeats"}, "is not a record"), (None, "holds no records")])
def test_what_is_no_record_is_refused(tmp_path: Path, content: object, message: str) -> None:
    if content is not None:
        write_json(tmp_path / "mine/benchmark/x.json", content)
    write_text(tmp_path / "doc.md", "")
    with pytest.raises(UserError, match=message):
        write(tmp_path / "mine", tmp_path / "doc.md")


@pytest.mark.parametrize("name", ["performance.md", "runtimes.md"])
def test_the_documents_agree_with_the_committed_records(name: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    document = tmp_path / name
    write_text(document, text)
    shown = [folder for folder in REFERENCES if f"<!-- {folder.name}:start -->" in text]
    assert shown
    for folder in shown:
        write(folder, document)
    assert document.read_text(encoding="utf-8") == text


def test_exports_become_a_table_with_what_is_as_large_beside_them(tmp_path: Path) -> None:
    whole: dict[str, Any] = {"model": "whole", "hidden_size": 4}
    half: dict[str, Any] = {"model": "half", "hidden_size": 2, "format": "q8_0", "bytes": 3 * MIB, "left_in_f16": 7}
    points = [
        {**whole, "format": "f16", "bytes": 8 * MIB, "perplexity": {"news": 10.0, "mail": 5.0}},
        {**whole, "format": "q4_0", "bytes": 2 * MIB, "perplexity": {"news": 40.0, "mail": None}},
        {**whole, "format": "int4", "refused": "odd rows"},
        {**half, "perplexity": {"news": 20.5, "mail": None}},
    ]
    own = {name: RECORD[name] for name in ("machine", "provenance")}
    origins = {"whole": {"file": "a.gguf", "dtype": "bf16", "quantised": ["Q4_1"]}, "half": {"file": "b.gguf", "quantised": []}}
    record = {**own, "kind": "export", "measurements": points, "origins": origins}
    lines = [line.replace("\\", "") for line in lines_of(tmp_path, small=record)]
    assert "| Model | Format | MiB | Matrices left in f16 | mail | only quantised, as large | news | only quantised, as large |" in lines
    assert "| whole | f16 | 8.0 |  | 5.00 | – | 10.00 | – |" in lines
    only_quantised = 40 * (10 / 40) ** (math.log(3 / 2) / math.log(8 / 2))
    assert f"| half | q8_0 | 3.0 | 7 | – | – | 20.50 | {only_quantised:.2f} |" in lines
    assert not [line for line in lines if line.startswith("| whole | int4")]
    assert any("whole in int4: not measured: odd rows." in line for line in lines)
    assert [line.split(".")[0].strip() for line in lines if ": quantised." in line] == ["whole: quantised"]
