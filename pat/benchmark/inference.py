"""`pat benchmark inference`: time to first token, decoding rate and memory against batch size, unpruned and narrower in turn.

Two models are on the device at a time, the unpruned one and one narrower; both are warm before the first measured round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel, StaticCache

from pat.benchmark import machine, so_far
from pat.benchmark.candidates import Candidate, of_folders, of_shape
from pat.benchmark.settings import InferenceBenchmark, ModelShape
from pat.benchmark.spread import speedup, spread
from pat.benchmark.widths import tell_budgets
from pat.errors import UserError
from pat.families.known import head_size, kv_heads
from pat.io.marks import KINDS, check_replaceable
from pat.io.progress import Progress, say
from pat.io.provenance import provenance
from pat.machine.device import resolve_device
from pat.machine.out_of_memory import lacks_memory
from pat.machine.threads import threads_given_back
from pat.models.attention import rely_on_causal_kernel
from pat.models.compiled import compile_layers
from pat.settings.fields import BYTES, GIB

SCHEMA = 1
PASSES_BEFORE_CAPTURE = 3
Pass = Callable[[], None]


class Generation:
    """Greedy generation for one model and batch size: a prompt of random tokens, then one token at a time.

    Compiled, on a GPU each pass is one CUDA graph: so a small batch stops being bound by kernel launches. The cache is `cache_kind`'s.
    """

    def __init__(self, model: PreTrainedModel, batch_size: int, settings: InferenceBenchmark, device: str, seed: int) -> None:
        self.model: Any = model
        self.settings = settings
        self.device = device
        generator = torch.Generator().manual_seed(seed)
        shape = (batch_size, settings.context)
        self.prompt_BT = torch.randint(0, model.config.vocab_size, shape, generator=generator).to(device)
        self.latest_B1 = torch.zeros_like(self.prompt_BT[:, :1])
        self.forward: Callable[..., Any] = self.model
        self.cache: Any = None
        self._prefill: Pass = lambda: self._next(self.prompt_BT)
        self._decode: Pass = lambda: self._next(self.latest_B1)
        if cache_kind(settings) == "none" and settings.attention == "sdpa":
            rely_on_causal_kernel(model, settings.context)
        if settings.compile:
            self._compile(batch_size)

    @torch.no_grad()
    def run(self) -> tuple[float, float]:
        """Return the seconds to the first token, and those of the `new_tokens` after it."""
        self._begin()
        return machine.seconds(self._prefill, self.device), machine.seconds(self._decode_all, self.device)

    def _begin(self) -> None:
        if isinstance(self.cache, StaticCache):
            self.cache.reset()
        else:
            self.cache = None

    def _decode_all(self) -> None:
        for _ in range(self.settings.new_tokens):
            self._decode()

    def _next(self, tokens_BT: Tensor) -> None:
        keeps = self.settings.new_tokens > 0
        outputs = self.forward(input_ids=tokens_BT, past_key_values=self.cache, use_cache=keeps, logits_to_keep=1)
        self.cache = outputs.past_key_values
        self.latest_B1.copy_(outputs.logits[:, -1:].argmax(dim=-1))

    @torch.no_grad()
    def _compile(self, batch_size: int) -> None:
        config = self.model.config
        if cache_kind(self.settings) == "static":
            self.cache = StaticCache(config, max_cache_len=self.settings.context + self.settings.new_tokens)
            device = torch.device(self.device)
            self.cache.early_initialization(batch_size, kv_heads(config), head_size(config), self.model.dtype, device)
            self.forward = torch.compile(self.model, dynamic=False)
        else:
            compile_layers(self.model, dynamic=False)
        if self.device == "cuda":
            self._capture()

    def _capture(self) -> None:
        """Make each pass one CUDA graph; before that it has to have run on a stream other than the default one."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(PASSES_BEFORE_CAPTURE):
                self._begin()
                self._prefill()
                self._decode_all()
        torch.cuda.current_stream().wait_stream(side)
        self._prefill = _as_graph(self._prefill)
        if self.settings.new_tokens:
            self._decode = _as_graph(self._decode)


def cache_kind(settings: InferenceBenchmark) -> Literal["none", "dynamic", "static"]:
    """Return what keeps keys and values: the stock cache; compiled, a static one; nothing where no token follows that would read it.

    Without a cache all layers are the same to the compiler, which then makes one instead of all, and attention needs no mask: it may take
    the kernel that is causal by itself.
    """
    if settings.new_tokens == 0:
        return "none"
    return "static" if settings.compile else "dynamic"


def _as_graph(run: Pass) -> Pass:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    replay: Pass = graph.replay
    return replay


class Measurement:
    """One model at one batch size: its rounds, its peak memory, or that it does not fit."""

    def __init__(
        self, name: str, against: str, model: PreTrainedModel | None, batch_size: int, settings: InferenceBenchmark, seed: int, device: str
    ) -> None:
        self.name, self.against, self.batch_size = name, against, batch_size
        self.model, self.settings, self.seed, self.device = model, settings, seed, device
        self.first_token_s: list[float] = []
        self.decode_s: list[float] = []
        self.peak_bytes: int | None = None
        self.fits = model is not None
        self._generation: Generation | None = None

    def warm_up(self) -> None:
        """Run unmeasured rounds; the peak is taken here, where nothing else runs, and without what other models hold."""
        others = machine.held_bytes(self.device) - weight_bytes(self.model) if self.device == "cuda" and self.model else 0
        machine.reset_peak(self.device)
        for _ in range(self.settings.warmup):
            self._attempt()
        self.peak_bytes = machine.peak_bytes(self.device) - others

    def measure(self) -> None:
        """Add one round."""
        if (times := self._attempt()) is not None:
            self.first_token_s.append(times[0])
            self.decode_s.append(times[1])

    def _attempt(self) -> tuple[float, float] | None:
        if not self.fits or self.model is None:
            return None
        try:
            if self._generation is None:
                self._generation = Generation(self.model, self.batch_size, self.settings, self.device, self.seed)
            return self._generation.run()
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
            self.fits = False
        self.close()  # outside the handler: the error holds the tensors alive
        return None

    def close(self) -> None:
        """Free what the rounds held."""
        self._generation = None
        machine.release(self.device)

    def record(self) -> dict[str, object]:
        """Return the JSON's entry; times in seconds, rates over the whole batch."""
        entry: dict[str, object] = {"model": self.name, "against": self.against, "batch_size": self.batch_size}
        if not self.fits:
            return entry | {"status": machine.OUT_OF_MEMORY}
        tokens = self.batch_size * self.settings.new_tokens
        return entry | {
            "status": "measured",
            "first_token_s": spread(self.first_token_s),
            "decode_tokens_per_s": spread([tokens / time_s for time_s in self.decode_s]) if tokens else None,
            "peak_bytes": self.peak_bytes,
        }


def weight_bytes(model: PreTrainedModel) -> int:
    """Return the bytes of a loaded model's parameters and buffers, tied ones once."""
    tensors = {tensor.data_ptr(): tensor.nbytes for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensors.values())


class Comparison:
    """All that one run finds: the models' sizes, every measurement, and the speed-ups over the unpruned model."""

    def __init__(self, unpruned: Candidate, settings: InferenceBenchmark, seed: int, device: str) -> None:
        self.settings, self.seed, self.device = settings, seed, device
        self.unpruned = unpruned
        self.models: list[dict[str, Any]] = []
        self.measurements: list[dict[str, Any]] = []
        self.speedups: list[dict[str, Any]] = []
        self._base = self._loaded(unpruned)

    def add(self, candidate: Candidate) -> None:
        """Measure a narrower model in turn with the unpruned one, at every batch size."""
        model = self._loaded(candidate)
        for batch_size in sorted(self.settings.batch_sizes):
            self._compare(candidate, model, batch_size)

    def _loaded(self, candidate: Candidate) -> PreTrainedModel | None:
        """Return the model and note its size in memory; None where it does not fit."""
        model: PreTrainedModel | None = None
        try:
            model = candidate.load(self.device)
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
        machine.release(self.device)
        held = {"status": machine.OUT_OF_MEMORY} if model is None else {"status": "measured", "weight_bytes": weight_bytes(model)}
        self.models.append(candidate.record(self.unpruned) | held)
        return model

    def _compare(self, candidate: Candidate, model: PreTrainedModel | None, batch_size: int) -> None:
        if self.settings.compile:
            torch.compiler.reset()
        pair = [
            Measurement(name, candidate.name, own, batch_size, self.settings, self.seed, self.device)
            for name, own in ((self.unpruned.name, self._base), (candidate.name, model))
        ]
        for it in pair:
            it.warm_up()
        for _ in range(self.settings.repeats):
            for it in pair:
                it.measure()
        for it in pair:
            it.close()
        self.measurements += [it.record() for it in pair]
        if all(it.fits for it in pair):
            slow, fast = pair
            self.speedups.append(
                {
                    "model": candidate.name,
                    "batch_size": batch_size,
                    "first_token": speedup(slow.first_token_s, fast.first_token_s),
                    "decode": speedup(slow.decode_s, fast.decode_s) if self.settings.new_tokens else None,
                }
            )


@threads_given_back
def benchmark_inference(
    shape: ModelShape | None, folders: Sequence[Path], settings: InferenceBenchmark, seed: int, out: Path, *, force: bool = False
) -> dict[str, Any]:
    """Measure a shape with random weights, or checkpoint folders, write the record to `out` and return it.

    Times are in seconds, memory in bytes. Raises UserError unless exactly one of shape and folders is given, or where a width, a
    device or a folder cannot be, or where `out` holds something else, unless with `force`.
    """
    check_replaceable(out, KINDS["benchmark inference"], force=force)
    if (shape is None) == (not folders):
        raise UserError("give exactly one of --shape and --model")
    device = resolve_device(settings.device)
    torch.set_num_threads(settings.threads)
    unpruned, *narrower = of_shape(shape, settings, seed) if shape is not None else of_folders(folders, settings)
    if shape is not None:
        tell_budgets("benchmark inference", shape, settings.ratios, settings.align, BYTES[settings.precision])
    measured = {"shape": shape.model_dump() if shape else None, "folders": [str(folder) for folder in folders]}
    clocks_before = machine.clocks(device)
    comparison = Comparison(unpruned, settings, seed, device)
    progress = Progress("benchmark inference", len(narrower))
    for done, candidate in enumerate(narrower, start=1):
        comparison.add(candidate)
        record = _record(comparison, measured, clocks_before)
        so_far.keep(record, out)
        progress.update(done)
    progress.finish()
    so_far.finish(out)
    for line in summary(record):
        say(line)
    return record


def _record(comparison: Comparison, measured: dict[str, Any], clocks_before: dict[str, float] | None) -> dict[str, Any]:
    """Return the record of what has been compared up to now."""
    settings, device = comparison.settings, comparison.device
    return {
        "schema": SCHEMA,
        "kind": "inference",
        "weights": "random" if measured["shape"] else "checkpoints",
        **measured,
        "models": comparison.models,
        "measurements": comparison.measurements,
        "speedups": comparison.speedups,
        "context": settings.context,
        "new_tokens": settings.new_tokens,
        "dtype": settings.precision,
        "attention": settings.attention,
        "compiled": settings.compile,
        "cache": cache_kind(settings),
        **machine.measured_on(device, clocks_before),
        "provenance": provenance(measured | settings.model_dump(mode="json"), comparison.seed, device),
    }


def summary(record: dict[str, Any]) -> list[str]:
    """Return a line per model with its size, and one per batch size: how much faster than the unpruned one, or that one did not fit."""
    whole = record["models"][0].get("weight_bytes")
    lines = [
        f"{model['name']}: {model['parameters']:,} parameters, weights {model['weight_bytes'] / GIB:.2f} GiB"
        + (f", {model['weight_bytes'] / whole:.3f} of the unpruned model's" if whole else "")
        for model in record["models"]
        if "weight_bytes" in model
    ]
    found = {(it["model"], it["batch_size"]): it for it in record["speedups"]}
    for entry in record["measurements"]:
        if entry["model"] != entry["against"]:
            continue
        name = f"{entry['model']}, batch {entry['batch_size']}"
        speed = found.get((entry["model"], entry["batch_size"]))
        if speed is None:
            lines.append(f"{name}: no comparison, {machine.OUT_OF_MEMORY}")
            continue
        line = f"{name}: first token {1e3 * entry['first_token_s']['median']:.1f} ms, {speed['first_token']['median']:.2f} x"
        lines.append(line + (f"; decoding {speed['decode']['median']:.2f} x" if speed["decode"] else ""))
    return lines
