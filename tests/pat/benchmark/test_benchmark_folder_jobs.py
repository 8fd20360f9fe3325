"""`pat benchmark prune` and `pat benchmark merge`: the jobs are the real ones, on folders that are what they say. No timing is judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from pat import cli
from pat.benchmark import folder_jobs
from pat.benchmark.candidates import parameter_shapes
from pat.benchmark.folder_jobs import benchmark_merge, benchmark_prune, summary
from pat.benchmark.random_adapter import write_random_adapter
from pat.benchmark.random_checkpoint import word_tokenizer, write_random_checkpoint, write_random_text
from pat.benchmark.settings import MergeBenchmark, ModelShape, PruneBenchmark
from pat.checkpoints import checkpoint, stored
from pat.checkpoints.merge import fold_of
from pat.data.calibration import Calibration, blocks
from pat.errors import UserError
from pat.families.known import FAMILIES, family_named, is_told_by_sizes, norm_eps
from pat.io import artefacts
from pat.settings.budget import Budget
from pat.settings.config import PatConfig
from pat.settings.fields import GIB

SIZES: dict[str, Any] = {"vocab_size": 97, "hidden_size": 32, "layers": 2, "heads": 4, "intermediate_size": 48}
SHAPE = ModelShape(**SIZES)
PARAMETERS = 2 * 97 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 48 + 2 * 32) + 32
MERGE = MergeBenchmark(hio_rank=4, lora_rank=2, device="cpu")


@pytest.mark.parametrize("family", sorted(name for name, family in FAMILIES.items() if is_told_by_sizes(family)))
@pytest.mark.parametrize("tied", [False, True])
def test_a_random_checkpoint_opens_as_a_stock_model_of_its_shape(family: Any, tied: bool, tmp_path: Path) -> None:
    shape = ModelShape(**SIZES, family=family, tie_embeddings=tied)
    config = write_random_checkpoint(shape, tmp_path / "base", 0, "cpu")
    artefacts.check_folder(tmp_path / "base")
    model: Any = checkpoint.load_model(tmp_path / "base")
    assert model.dtype == torch.bfloat16
    assert {name: tuple(it.shape) for name, it in model.named_parameters()} == parameter_shapes(config)
    embedding = model.get_input_embeddings().weight.float()
    assert embedding.std().item() == pytest.approx(0.02, rel=0.1) and embedding.mean().abs() < 0.002
    known = family_named(family)
    norm = model.get_submodule(known.final_norm)
    stream = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    centred = stream - stream.mean(1, keepdim=True) if known.subtracts_mean else stream
    expected = centred / (centred.square().mean(1, keepdim=True) + norm_eps(config)).sqrt()
    assert torch.allclose(norm.float()(stream), expected, atol=1e-5)


def test_the_seed_decides_the_weights(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_random_checkpoint(SHAPE, tmp_path / name, seed, "cpu")
    first, same, other = (artefacts.sha256(tmp_path / name / "model.safetensors") for name in "abc")
    assert first == same != other


def test_random_text_is_as_many_known_tokens_as_asked(tmp_path: Path) -> None:
    text = write_random_text(tmp_path / "text.jsonl", 97, 1000, 0)
    found = blocks(Calibration(text, tokens=1000), word_tokenizer(97), 50, 1)
    assert found.ids_NT.shape == (20, 50) and bool(found.mask_NT.all())
    words = found.ids_NT[found.ids_NT > 2]  # beside BOS, which opens every second block, and the ends of texts
    assert len(words) > 980 and int(words.max()) == 96 and int((found.ids_NT == 1).sum()) == 10


def test_a_random_adapter_is_one_whose_mask_has_closed_and_whose_operators_do_something(tmp_path: Path) -> None:
    config = write_random_checkpoint(SHAPE, tmp_path / "base", 0, "cpu")
    own = PatConfig(pruning_ratio=0.25, hio_rank=4, lora_rank=2, total_steps=6)
    write_random_adapter(config, parameter_shapes(config), own, tmp_path / "adapter")
    fold, _ = fold_of(tmp_path / "adapter", config)
    assert int(fold.kept_D.sum()) == 24
    assert len(fold.lora) == 2 * 7 and len(fold.hsms) == 2 * 2 + 1
    assert all(bool(it.up_OR.any()) for it in fold.lora.values())
    probe = torch.eye(32)
    assert all(not torch.allclose(hsm.operator.fold(probe), probe) for hsm in fold.hsms.values())


def test_a_merge_is_recorded_with_its_sizes_and_what_it_took_of_one_copy(tmp_path: Path) -> None:
    record = benchmark_merge(SHAPE, MERGE, 0, tmp_path / "merge.json")
    assert json.loads((tmp_path / "merge.json").read_text()) == record
    assert (record["kind"], record["weights"], record["dtype"]) == ("merge", "random", "bfloat16")
    assert record["parameters"]["before"] == PARAMETERS and record["hidden_size"] == {"before": 32, "after": 24}
    assert record["share_removed"] == pytest.approx(1 - record["parameters"]["after"] / PARAMETERS)
    assert 2 * PARAMETERS <= record["copy_bytes"] <= 2 * PARAMETERS + 8192
    assert record["peak_host_of_copy"] == pytest.approx(record["peak_host_bytes"] / record["copy_bytes"])
    assert (record["peak_gpu_bytes"], record["peak_gpu_of_copy"]) == (None, None)
    assert record["wall_s"] > 0 and record["logit_gap"] < 0.1 * record["logit_size"]


@pytest.mark.lengthy
@pytest.mark.parametrize("pruner", ["llm-pruner-uniform", "slicegpt", "channel-magnitude"])
def test_a_pruner_is_recorded_with_the_share_that_it_removed(pruner: str, tmp_path: Path) -> None:
    settings = PruneBenchmark(calibration_tokens=512, device="cpu")
    record = benchmark_prune(SHAPE, pruner, 0.25, settings, 0, tmp_path / "prune.json")
    assert json.loads((tmp_path / "prune.json").read_text()) == record
    assert (record["kind"], record["pruner"], record["ratio"]) == ("prune", pruner, 0.25)
    assert 0.2 < record["share_removed"] < 0.3
    assert record["settings"]["calibration_tokens"] == 512
    assert pruner in summary(record)


def test_jobs_keep_within_a_budget_and_say_what_it_comes_to(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    budget = Budget(memory_gib=0.7 * PARAMETERS * 2 / GIB)
    with caplog.at_level("INFO", logger="pat"):
        merged = benchmark_merge(SHAPE, MERGE.model_copy(update={"ratio": budget, "align": 1}), 0, tmp_path / "merge.json")
        settings = PruneBenchmark(align=1, device="cpu")
        pruned = benchmark_prune(SHAPE, "channel-magnitude", budget, settings, 0, tmp_path / "prune.json")
    assert merged["parameters"] == pruned["parameters"]
    assert 0.6 * PARAMETERS < merged["parameters"]["after"] <= 0.7 * PARAMETERS
    assert f"benchmark merge: budget {budget}: width {merged['hidden_size']['after']} of 32" in caplog.text
    assert f"budget {budget}: ratio {pruned['ratio']:g}" in caplog.text


def test_memory_that_a_job_holds_only_for_a_while_is_in_its_peak_and_not_in_the_next_jobs() -> None:
    size = 200 * 2**20

    def job() -> dict[str, Any]:
        return {"sum": torch.ones(size // 4).sum().item()}

    found, cost = folder_jobs._measured(job, "cpu")
    assert found == {"sum": size / 4}
    assert cost.peak_host_bytes == pytest.approx(size, rel=0.2)  # the kernel counts pages roughly
    _, later = folder_jobs._measured(dict, "cpu")
    assert later.peak_host_bytes < size / 4


def test_a_job_that_does_not_fit_is_a_message() -> None:
    def job() -> dict[str, Any]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UserError, match="does not fit the memory of this machine: CUDA out of memory"):
        folder_jobs._measured(job, "cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prune", "--pruner", "magic", "--ratio", "0.25"], "--pruner 'magic': must be one of"),
        (["prune", "--pruner", "slicegpt", "--ratio", "1.5"], "--ratio 1.5: must lie between 0 and 1"),
        (["prune", "--pruner", "slicegpt", "--ratio", "0.25", "--settings", '{"tokens": 3}'], "tokens: unknown key"),
        (["merge", "--settings", '{"hio_rank": 33}'], "hio_rank: 33 is not allowed: must be at most"),
    ],
)
def test_a_mistake_is_a_message_and_no_record(arguments: list[str], message: str, tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    shape = json.dumps(SIZES)
    result = CliRunner().invoke(cli.app, ["benchmark", *arguments, "--shape", shape, "--out", str(out)])
    assert isinstance(result.exception, UserError) and message in str(result.exception)
    assert not out.exists()


def test_weights_lie_in_several_files_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "MIN_SHARD_BYTES", 4096)
    write_random_checkpoint(SHAPE, tmp_path / "base", 0, "cpu")
    sizes = [path.stat().st_size for path in stored.shard_files(tmp_path / "base")]
    assert len(sizes) > 4 and max(sizes) < 2 * PARAMETERS / 4
    assert checkpoint.parameter_counts(tmp_path / "base", checkpoint.load_config(tmp_path / "base"))["unique"] == PARAMETERS
