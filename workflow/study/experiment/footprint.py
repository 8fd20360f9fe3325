"""What a job on a model needs of a machine: memory and time from the model's size, as upper estimates that a scheduler can set aside.

Counts parameters and tokens on paper; touches no weights and no torch. What a job gets is the experiment's to say where it says it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pat.benchmark.settings import ModelShape
from pat.data import calibration_size
from pat.errors import SettingError, UserError
from pat.families.known import FAMILIES, is_told_by_sizes
from pat.io.artefacts import read_json
from pat.models.on_paper import Align, PaperModel
from pat.models.width import target_width
from pat.models.writer_streams import default_tokens, pinned_bytes, stream_bytes
from pat.settings.fields import BYTES, FP32_BYTES, GIB, Precision
from pat.settings.jobs import EvaluationSettings, PretrainSettings, Recomputed, TuningSettings

PARAMETERS_FOR_A_GPU = 100_000_000
"""Models smaller than this are soon done on a CPU."""
LIBRARIES_MB = 3000
"""Python with torch, transformers and a CUDA context: 1 to 2 GB, and as much again to spare."""
COPIES = 1.5
"""Weights in memory while a checkpoint is read or written: one copy, and the shards at hand."""
OPTIMIZER_BYTES = 16
"""A trained parameter in fp32 with its gradient and AdamW's two moments."""
ACTIVATION_BYTES: dict[Precision, int] = {"fp32": 120, "bf16": 96}
"""A token and channel of a Llama layer with LoRA and dropout on every linear layer, measured; a GPT layer without LoRA has 34 in 16 bits
(Korthikanti et al., 2022, section 4.1)."""
BESIDE_FEED_FORWARD_BYTES: dict[Precision, int] = {"fp32": 56, "bf16": 46}
"""Of these what stays where feed-forward blocks are recomputed, measured: it does not depend on how many neurons they have."""
LOGIT_BYTES = 12
"""A token's logit in fp32, its log-probability and its gradient."""
FLOPS_GPU: dict[Precision, float] = {"bf16": 1e14, "fp32": 1e13}
"""Operations per second: a third of an A100's peak in bf16, half of it in fp32."""
FLOPS_THREAD = 1e10
"""Operations per second of a CPU's core, in either precision."""
SHORT_PROMPTS = 0.2
"""Share of a GPU's tuning speed that scoring reaches: it asks one short question after the other."""
ITEM_TOKENS = 6 * 256
"""Four or five choices and a generated answer, each behind its prompt."""
REFIT_PASSES = 5
"""Forward passes of a refit of writers: one of the whole model, less than three of the pruned one, and what judges them."""
FITS_AT_ONCE = 2
"""Fits of readers in memory at least: the best one, and the one that is made or judged."""
MAP_BYTES = 8
"""A number of a fit's maps, in fp64."""
MARGIN = 2.0
"""Machines differ, and a job that is cut off costs more than one that ends early."""
SHORTEST_MIN = 60
MINUTES_A_GIB = 2
"""Reading, checking and writing weights on a slow shared file system, with the check of the result."""


@dataclass(frozen=True)
class Likeness:
    """The sizes of a model whose family is not told by them, near enough for an estimate: its experts are one feed-forward block.

    `intermediate_size` is that of all experts, `active_size` that of those that a token goes through.
    """

    family: str
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int | None
    intermediate_size: int
    active_size: int
    head_size: int | None
    tie_embeddings: bool


Shape = ModelShape | PretrainSettings | Likeness


def parameters_of(shape: Shape) -> int:
    """Return a model's number of parameters, each counted once."""
    if isinstance(shape, Likeness) and FAMILIES[shape.family].has_experts:
        shape = replace(shape, family="llama")
    return PaperModel.of(shape).parameters


def active_parameters_of(shape: Shape) -> int:
    """Return how many parameters a token meets: all but the experts that it is not sent to."""
    return parameters_of(replace(shape, intermediate_size=shape.active_size) if isinstance(shape, Likeness) else shape)


def shape_in(folder: Path) -> ModelShape | None:
    """Return the shape of the model in a folder from its config.json; None where there is none, or none of a dense decoder."""
    try:
        return shape_of(read_json(folder / "config.json"))
    except (UserError, ValidationError, KeyError):
        return None


def shape_of(config: Mapping[str, Any]) -> ModelShape:
    """Return the shape that a model's config states. Raises KeyError or ValidationError where it states none of a dense decoder."""
    known = config.get("model_type") in FAMILIES
    if known and not is_told_by_sizes(FAMILIES[config["model_type"]]):
        raise KeyError("model_type")  # a shape says too little of such a model
    return ModelShape(
        family=config["model_type"] if known else "llama",
        intermediate_size=config["intermediate_size"],
        **_common_sizes(config, tied_by_default=known and FAMILIES[config["model_type"]].tied_by_default),
    )


def _common_sizes(config: Mapping[str, Any], *, tied_by_default: bool) -> dict[str, Any]:
    """Return the sizes that all families' configs call alike, by a shape's names. Raises KeyError where one is missing."""
    tied = config.get("tie_word_embeddings")
    return {
        "vocab_size": config["vocab_size"],
        "hidden_size": config["hidden_size"],
        "layers": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "kv_heads": config.get("num_key_value_heads"),
        "head_size": config.get("head_dim"),
        "tie_embeddings": tied_by_default if tied is None else tied,
    }


def likeness_in(folder: Path) -> Likeness | None:
    """Return about what the model in a folder holds, whose family is not told by sizes alone; None where it cannot be told."""
    try:
        return _likeness_of(read_json(folder / "config.json"))
    except (UserError, KeyError, TypeError):
        return None


def _likeness_of(config: Mapping[str, Any]) -> Likeness:
    family = FAMILIES[config["model_type"]]
    if family.has_experts:
        shared, of_one = config.get("shared_expert_intermediate_size") or 0, config["moe_intermediate_size"]
        experts = config["num_experts"] if "num_experts" in config else config["num_local_experts"]  # transformers 5 writes the latter
        whole, active = (shared + count * of_one for count in (experts, config["num_experts_per_tok"]))
    else:
        whole = active = config[family.neurons]
    sizes = _common_sizes(config, tied_by_default=family.tied_by_default)
    return Likeness(family=family.model_type, intermediate_size=whole, active_size=active, **sizes)


def gpus(parameters: int, device: str) -> int:
    """Return how many GPUs a job asks for: one, or none for small models and on a CPU. More are the experiment's to ask for."""
    return int(device != "cpu" and parameters >= PARAMETERS_FOR_A_GPU)


def measured_in(parameters: int) -> Precision:
    """Return the precision in which a checkpoint is measured: fp32 where that is affordable."""
    return "fp32" if parameters * BYTES["bf16"] <= FP32_BYTES else "bf16"


def loading_mb(parameters: int, precision: Precision | None = None) -> int:
    """Return the memory of a job that holds a model: libraries + 1.5 copies, by default in the precision that it is measured in."""
    return LIBRARIES_MB + _mb(COPIES * parameters * BYTES[precision or measured_in(parameters)])


def tuning_mb(shape: Shape, recipe: TuningSettings, *, on_gpu: bool, processes: int = 1) -> int:
    """Return the memory of a tuning: libraries + 1.5 copies, and on a CPU the activations and LoRA's optimizer too, for each process.

    Distillation holds a second model. A sharded base is there once for all processes.
    """
    models = 1 if recipe.distillation is None else 2
    copies = 1 if recipe.shard else processes
    weights = processes * LIBRARIES_MB + copies * models * (loading_mb(parameters_of(shape), recipe.precision) - LIBRARIES_MB)
    if on_gpu:
        return weights
    rows = recipe.known_micro_batch_size or math.ceil(recipe.batch_size / processes)
    activations = activation_bytes(shape, rows * recipe.max_length, recipe.precision, recomputed=recipe.gradient_checkpointing)
    return weights + processes * _mb(activations + OPTIMIZER_BYTES * lora_parameters(shape, recipe.lora.rank))


def refitting_mb(shape: Shape, tokens: int | None, *, on_gpu: bool) -> int:
    """Return the memory that a refit of writers to so many tokens, or as many as it takes by itself, needs beside one model.

    It is that of the text's streams, and on a CPU a second model's.
    """
    paper, number_bytes = PaperModel.of(shape), BYTES[measured_in(parameters_of(shape))]
    streams = stream_bytes(paper.family, tokens or default_tokens(paper.widest_write), paper.hidden_size, number_bytes, paper.hidden_size)
    if on_gpu:
        return _mb(pinned_bytes(streams, paper.hidden_size, number_bytes))
    return _mb(streams + COPIES * paper.parameters * number_bytes)


def reader_refitting_mb(shape: Shape, ratio: float, align: Align, ridges: int, *, tied: bool) -> int:
    """Return the memory that a refit of readers for a cut at a ratio, with so many ridges tried, needs beside one model: text and maps.

    Fits to the unpruned stream are there for all ridges at once, beside that stream; later ones are made one by one, beside both streams.
    They lie in the machine's memory, whatever the device. `tied` says whether embedding and head are one matrix, which has no map.
    """
    number_bytes = BYTES[measured_in(parameters_of(shape))]
    stream = calibration_size.default_tokens(shape.hidden_size) * shape.hidden_size * number_bytes
    sites = len(FAMILIES[shape.family].sites(shape.layers)) - tied
    maps = MAP_BYTES * sites * shape.hidden_size * _width_left(shape, ratio, align)
    return _mb(max(ridges * maps + stream, FITS_AT_ONCE * maps + 2 * stream))


def _width_left(shape: Shape, ratio: float, align: Align) -> int:
    """Return how many channels a ratio leaves; all where it comes to no width, which the job that cuts tells."""
    try:
        return target_width(shape.hidden_size, shape.heads, ratio, align)
    except SettingError:
        return shape.hidden_size


def pretraining_mb(settings: PretrainSettings, *, on_gpu: bool) -> int:
    """Return the memory of a pretraining, all of whose parameters are trained."""
    if on_gpu:
        return loading_mb(parameters_of(settings), "fp32")
    activations = activation_bytes(settings, settings.batch_size * settings.context_length, settings.precision, recomputed=False)
    return LIBRARIES_MB + _mb(activations + OPTIMIZER_BYTES * parameters_of(settings))


def activation_bytes(shape: Shape, tokens: int, precision: Precision, *, recomputed: Recomputed) -> int:
    """Return what a forward pass keeps for its backward: of each layer all, or what is not recomputed, and the logits.

    What is recomputed comes back a layer at a time: of a recomputed layer its input is kept alone.
    """
    whole = ACTIVATION_BYTES[precision]
    if recomputed == "feed-forward":
        layers = BESIDE_FEED_FORWARD_BYTES[precision] * (shape.layers - 1) + whole
    else:
        layers = BYTES[precision] * shape.layers + whole if recomputed else whole * shape.layers
    return tokens * (layers * shape.hidden_size + LOGIT_BYTES * shape.vocab_size)


def lora_parameters(shape: Shape, rank: int) -> int:
    """Return the parameters of LoRA on every linear layer: r·(inputs + outputs) each."""
    inner, outer = _head_widths(shape)
    attention = 2 * (shape.hidden_size + inner) + 2 * (shape.hidden_size + outer)
    return rank * shape.layers * (attention + 3 * (shape.hidden_size + shape.intermediate_size))


def feed_forward_share(shape: Shape) -> float:
    """Return which share of a layer's weights, and so of its arithmetic, is that of gate, up and down."""
    inner, outer = _head_widths(shape)
    attention = 2 * inner + 2 * outer
    return 3 * shape.intermediate_size / (attention + 3 * shape.intermediate_size)


def _head_widths(shape: Shape) -> tuple[int, int]:
    """Return the widths of all query heads and of all key-value heads."""
    size = getattr(shape, "head_size", None) or shape.hidden_size // shape.heads
    return shape.heads * size, (shape.kv_heads or shape.heads) * size


def tuning_minutes(shape: Shape, recipe: TuningSettings, rows: int, *, on_gpu: bool, processes: int) -> int:
    """Return the time of a tuning on `rows` instructions: 4 floating-point operations a token and parameter that it meets.

    They are two forward and two for the gradients of activations, since the base is frozen; recomputing them and a teacher take two more
    each, recomputing feed-forward blocks alone their share of two. Rows count as long as `max_length` allows.
    """
    again = feed_forward_share(shape) if recipe.recomputes_feed_forward else float(recipe.recomputes_layers)
    passes = 4 + 2 * again + 2 * (recipe.distillation is not None)
    work = passes * active_parameters_of(shape) * recipe.steps_for(rows) * recipe.batch_size * recipe.max_length
    return _minutes(parameters_of(shape), work / processes, recipe.precision, recipe.threads, on_gpu=on_gpu)


def pretraining_minutes(settings: PretrainSettings, *, on_gpu: bool) -> int:
    """Return the time of a pretraining: 6 operations a parameter and token."""
    parameters = parameters_of(settings)
    work = 6 * parameters * settings.steps * settings.batch_size * settings.context_length
    return _minutes(parameters, work, settings.precision, settings.threads, on_gpu=on_gpu)


def scoring_minutes(shape: Shape, settings: EvaluationSettings, items: int, *, on_gpu: bool) -> int:
    """Return the time of an evaluation on `items`: 2 operations a parameter and token, for some six prompts of 256 tokens an item."""
    work = 2 * active_parameters_of(shape) * items * ITEM_TOKENS / SHORT_PROMPTS
    return _minutes(parameters_of(shape), work, settings.precision, settings.threads, on_gpu=on_gpu)


def refitting_minutes(shape: Shape, tokens: int | None, threads: int, *, on_gpu: bool) -> int:
    """Return the time of a pruning with a refit of writers: some five forward passes over its text, and sums in fp32 for each write."""
    paper = PaperModel.of(shape)
    parameters, counted = paper.parameters, tokens or default_tokens(paper.widest_write)
    sums = 2 * counted * sum(inputs * (inputs + outputs) for outputs, inputs in paper.writes())
    forward = 2 * REFIT_PASSES * parameters * counted
    if not on_gpu:
        return _minutes(parameters, forward + sums, "fp32", threads, on_gpu=False)
    return _minutes(parameters, forward, measured_in(parameters), threads, on_gpu=True) + _work_minutes(sums, FLOPS_GPU["fp32"])


def handling_minutes(parameters: int) -> int:
    """Return the time of a job that reads a model and writes one: an hour, and two minutes a GiB of 16-bit weights."""
    return SHORTEST_MIN + math.ceil(MINUTES_A_GIB * parameters * BYTES["bf16"] / GIB)


def _minutes(parameters: int, work: float, precision: Precision, threads: int, *, on_gpu: bool) -> int:
    return handling_minutes(parameters) + _work_minutes(work, FLOPS_GPU[precision] if on_gpu else FLOPS_THREAD * threads)


def _work_minutes(work: float, speed: float) -> int:
    return math.ceil(MARGIN * work / speed / 60)


def _mb(count: float) -> int:
    return math.ceil(count / 1e6)
