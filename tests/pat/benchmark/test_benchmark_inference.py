"""`pat benchmark inference`: sizes follow the formula, ratios follow the times, what does not fit is said. No timing is judged."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from pat.benchmark import inference, so_far
from pat.benchmark.candidates import parameter_count, random_model, stock_config
from pat.benchmark.inference import benchmark_inference, summary, weight_bytes
from pat.benchmark.machine import OUT_OF_MEMORY
from pat.benchmark.settings import KNOWN_SHAPES, InferenceBenchmark, ModelShape, shape_of
from pat.benchmark.spread import speedup, spread
from pat.benchmark.widths import widths_of
from pat.errors import UserError
from pat.io.artefacts import read_json
from pat.settings.fields import GIB
from pat.settings.mistakes import load
from tests.kit.commands import outcome

pytestmark = pytest.mark.lengthy

SHAPE = ModelShape(vocab_size=97, hidden_size=64, layers=2, heads=4, kv_heads=2, intermediate_size=80)
QUICK = InferenceBenchmark(widths=(32,), batch_sizes=(2, 1), context=6, new_tokens=3, repeats=2, warmup=1, precision="fp32", device="cpu")


def by_hand(width: int, shape: ModelShape = SHAPE) -> int:
    """Return the parameters of a Llama without biases, from its formula; the heads keep their size at every width."""
    head = shape.hidden_size // shape.heads
    kv_heads = shape.kv_heads or shape.heads
    attention = 2 * width * head * (shape.heads + kv_heads)
    layer = attention + 3 * width * shape.intermediate_size + 2 * width
    return 2 * shape.vocab_size * width + shape.layers * layer + width


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("benchmark") / "inference.json"
    benchmark_inference(SHAPE, [], QUICK, 0, out)
    content: dict[str, Any] = json.loads(out.read_text())
    return content


@pytest.mark.lengthy
def test_sizes_follow_the_formula(record: dict[str, Any]) -> None:
    unpruned, narrower = record["models"]
    assert (unpruned["parameters"], narrower["parameters"]) == (by_hand(64), by_hand(32))
    assert by_hand(64) == 2 * by_hand(32)
    for model in (unpruned, narrower):
        buffers = model["weight_bytes"] - 4 * model["parameters"]
        assert 0 <= buffers <= 200  # the rotary frequencies, which no width changes
    assert (narrower["ratio_effective"], narrower["share_removed"]) == (0.5, 0.5)


def test_every_model_is_measured_at_every_batch_size(record: dict[str, Any]) -> None:
    found = [(it["against"], it["model"], it["batch_size"]) for it in record["measurements"]]
    assert found == [("width 32", name, size) for size in (1, 2) for name in ("unpruned", "width 32")]
    assert all(len(it["first_token_s"]["samples"]) == QUICK.repeats and it["peak_bytes"] > 0 for it in record["measurements"])


def test_speedups_are_the_ratios_of_the_times(record: dict[str, Any]) -> None:
    slow, fast = (it for it in record["measurements"] if it["batch_size"] == 2)
    ratios = [one / two for one, two in zip(slow["first_token_s"]["samples"], fast["first_token_s"]["samples"], strict=True)]
    speed = next(it for it in record["speedups"] if it["batch_size"] == 2)
    assert speed["first_token"]["samples"] == pytest.approx(ratios)


def test_the_record_says_what_was_measured(record: dict[str, Any]) -> None:
    assert (record["weights"], record["shape"]["hidden_size"], record["dtype"], record["attention"]) == ("random", 64, "fp32", "sdpa")
    assert record["machine"]["threads"] == 1 and record["machine"]["name"]
    assert record["provenance"]["versions"]["torch"] and record["provenance"]["settings"]["context"] == 6
    sizes, batches = summary(record)[:2], summary(record)[2:]
    assert sizes[1] == f"width 32: {by_hand(32):,} parameters, weights 0.00 GiB, 0.500 of the unpruned model's"
    assert [line.partition(":")[0] for line in batches] == ["width 32, batch 1", "width 32, batch 2"]


def test_what_does_not_fit_is_recorded_and_the_rest_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = inference.Generation.run

    def small_device(self: inference.Generation) -> tuple[float, float]:
        if self.model.config.hidden_size == 64 and self.prompt_BT.shape[0] == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self)

    monkeypatch.setattr(inference.Generation, "run", small_device)
    record = benchmark_inference(SHAPE, [], QUICK, 0, tmp_path / "inference.json")
    status = {(it["model"], it["batch_size"]): it["status"] for it in record["measurements"]}
    assert status == {("unpruned", 1): "measured", ("width 32", 1): "measured", ("unpruned", 2): OUT_OF_MEMORY, ("width 32", 2): "measured"}
    assert [it["batch_size"] for it in record["speedups"]] == [1]
    assert any("batch 2: no comparison, out of memory" in line for line in summary(record))


def test_other_errors_are_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: inference.Generation) -> tuple[float, float]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(inference.Generation, "run", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        benchmark_inference(SHAPE, [], QUICK, 0, tmp_path / "inference.json")


@pytest.mark.lengthy
def test_checkpoint_folders_are_measured_as_they_are(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        random_model(stock_config(SHAPE), "cpu", torch.float32, 0).save_pretrained(folder)
    settings = QUICK.model_copy(update={"widths": (), "batch_sizes": (1,)})
    record = benchmark_inference(None, folders, settings, 0, tmp_path / "inference.json")
    assert record["weights"] == "checkpoints"
    assert [it["name"] for it in record["models"]] == [str(folder) for folder in folders]


@pytest.mark.parametrize(
    ("compiled", "new_tokens", "cache"), [(False, 2, "dynamic"), (False, 0, "none"), (True, 2, "static"), (True, 0, "none")]
)
def test_the_last_generated_token_is_the_models_own_choice_in_every_round(compiled: bool, new_tokens: int, cache: str) -> None:
    model = random_model(stock_config(SHAPE), "cpu", torch.float32, 0)
    settings = QUICK.model_copy(update={"compile": compiled, "new_tokens": new_tokens})
    assert inference.cache_kind(settings) == cache
    with torch.compiler.set_stance("force_eager"):  # the cache is what differs here
        generation = inference.Generation(model, 2, settings, "cpu", 0)
        expected = model.generate(  # type: ignore[operator]
            generation.prompt_BT, max_new_tokens=1 + settings.new_tokens, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        for _round in range(2):
            generation.run()
            assert torch.equal(generation.latest_B1, expected[:, -1:])


@pytest.mark.lengthy
def test_an_interrupted_run_leaves_what_it_has_measured_and_a_whole_one_nothing_but_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, settings = tmp_path / "inference.json", QUICK.model_copy(update={"widths": (48, 32), "batch_sizes": (1,)})
    whole = inference.Comparison.add

    def interrupted(self: inference.Comparison, candidate: Any) -> None:
        if candidate.name == "width 32":
            raise KeyboardInterrupt
        whole(self, candidate)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(inference.Comparison, "add", interrupted)
        benchmark_inference(SHAPE, [], settings, 0, out)
    assert [path.name for path in tmp_path.iterdir()] == ["inference.so-far.json"]
    assert [it["model"] for it in read_json(so_far.so_far(out))["speedups"]] == ["width 48"]
    benchmark_inference(SHAPE, [], settings, 0, out)
    assert [path.name for path in tmp_path.iterdir()] == ["inference.json"]


@pytest.mark.lengthy
def test_the_first_token_can_be_timed_alone(tmp_path: Path) -> None:
    record = benchmark_inference(SHAPE, [], QUICK.model_copy(update={"new_tokens": 0}), 0, tmp_path / "inference.json")
    assert all(it["decode_tokens_per_s"] is None for it in record["measurements"])
    assert all(it["decode"] is None and it["first_token"]["median"] > 0 for it in record["speedups"])
    assert "decoding" not in "".join(summary(record))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llama-2-7b", 6_738_415_616),
        ("llama-2-13b", 13_015_864_320),
        ("yi-1.5-34b", 34_388_917_248),
        ("gemma-2b", 2_506_172_416),
        ("gemma-7b", 8_537_680_896),
    ],
)
def test_known_shapes_have_the_published_numbers_of_parameters(name: str, parameters: int) -> None:
    assert parameter_count(stock_config(KNOWN_SHAPES[name])) == parameters


def test_widths_are_those_of_the_method() -> None:
    settings = InferenceBenchmark(ratios=(0.2, 0.25, 0.3), widths=(3072, 2816))
    assert widths_of(KNOWN_SHAPES["llama-2-7b"], settings) == [3264, 3072, 2880, 2816]


def test_budgets_come_to_the_widest_model_within_them() -> None:
    """By the formula of a Llama; memory by the bytes of the benchmark's precision."""
    for parameters in (25_000, 0.6):
        allowed = parameters if parameters > 1 else parameters * by_hand(64)
        (width,) = widths_of(SHAPE, load(InferenceBenchmark, json.dumps({"ratios": [{"parameters": parameters}], "align": 1})))
        assert by_hand(width) <= allowed < by_hand(width + 4)
    in_memory = {"ratios": [{"memory_gib": 0.6 * by_hand(64) * 2 / GIB}], "align": 1, "precision": "bf16"}
    assert widths_of(SHAPE, load(InferenceBenchmark, json.dumps(in_memory))) == [width]
    both = {"ratios": [0.5, {"parameters": 0.6}], "align": 1}
    assert widths_of(SHAPE, load(InferenceBenchmark, json.dumps(both))) == sorted({32, width}, reverse=True)


def test_bytes_of_a_model_count_tied_weights_once() -> None:
    tied = random_model(stock_config(SHAPE.model_copy(update={"tie_embeddings": True})), "cpu", torch.float32, 0)
    untied = random_model(stock_config(SHAPE), "cpu", torch.float32, 0)
    assert weight_bytes(untied) - weight_bytes(tied) == 4 * SHAPE.vocab_size * SHAPE.hidden_size


def test_spread_and_speedup_by_hand() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "low": 1.0, "high": 3.0, "samples": [3.0, 1.0, 2.0]}
    assert speedup([4.0, 9.0], [2.0, 3.0])["samples"] == [2.0, 3.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('{"bach_sizes": [1]}', "settings: bach_sizes: unknown key; did you mean 'batch_sizes'?"),
        ('{"widths": [30]}', "widths: 30 is not allowed: must be a multiple of 4 heads below 64"),
        ("{}", "give at least one of ratios and widths"),
        ('{"ratios": [{"parameters": 1e9}]}', "budget parameters 1e+09: the model has"),
        ('{"ratios": [{"parameters": 5}]}', "settings: ratios: budget of 5 parameters: at the smallest width"),
        ('{"ratios": [{"parameters": -2}]}', "settings: ratios.0.parameters: -2 is not allowed: must be greater than 0"),
    ],
)
def test_a_mistake_in_the_settings_is_one_message(settings: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        benchmark_inference(SHAPE, [], load(InferenceBenchmark, settings), 0, tmp_path / "x.json")


def test_shape_is_a_name_or_a_file_or_text(tmp_path: Path) -> None:
    text = SHAPE.model_dump_json(exclude_none=True)
    (tmp_path / "shape.json").write_text(text)
    assert shape_of(text) == shape_of(str(tmp_path / "shape.json")) == SHAPE
    with pytest.raises(UserError, match=r"--shape 'lama-2-7b': .* did you mean 'llama-2-7b'"):
        shape_of("lama-2-7b")


def test_the_verb_wants_exactly_one_kind_of_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["benchmark", "inference", "--out", str(tmp_path / "x.json")]
    assert outcome(arguments, capsys) == (1, "error: give exactly one of --shape and --model")
