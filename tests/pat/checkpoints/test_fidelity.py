"""What merge, prune, rotate, refit and prepare write is held against the model that it stands for: nine planted mistakes, and none, in every dtype.

Each mistake is one of the change of tensors, as a bug in a fold would be, or of the config that goes with them. Mistakes, what writes and
dtypes meet in pairs: the comparison is one, whoever has written, and before rounding it is in fp32 whatever is stored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig

import pat.bases.readers
import pat.bases.rotation
import pat.bases.tied_rotation
import pat.bases.writers
import pat.checkpoints.merge
import pat.pruners.layers_and_neurons
import pat.pruners.llm_pruner
import pat.pruners.shortgpt
import pat.pruners.slicegpt
from pat.bases.prepare import prepare_base
from pat.bases.refit import refit_readers
from pat.bases.rotate import rotate
from pat.checkpoints import checkpoint
from pat.checkpoints.card import model_card
from pat.checkpoints.fidelity import LARGEST_FOLD_GAP, LARGEST_KL, MOST_ROUNDINGS, TIMES_NUDGED, gap_between, mean_kl
from pat.checkpoints.merge import merge, summary, write_changed
from pat.checkpoints.probe_text import PASSAGES, probe_for
from pat.checkpoints.random_rounding import nudged_at_random, rounded_at_random, steps_at
from pat.checkpoints.unrounded import Written
from pat.data.calibration import Calibration
from pat.errors import UserError
from pat.io import artefacts
from pat.pruners import PRUNERS
from pat.pruners.pruning import prune
from pat.settings.jobs import PruneSettings
from tests.kit.pairs import all_pairs, in_turn
from tests.kit.pruning_inputs import calibration, word_tokenizer, write_text
from tests.kit.tied_inputs import tied_model
from tests.kit.tiny_checkpoint import byte_tokenizer, write_tiny_checkpoint
from tests.kit.tiny_models import CONFIGS, SHAPE, tiny_model
from tests.kit.training import trained

NAME = "llama-with-everything"
"""Biases everywhere, grouped heads, an eps that shows, one matrix for embedding and head."""
DTYPES = {"fp32": (torch.float32,), "bf16": (torch.bfloat16,), "fp16": (torch.float16,), "mixed": (torch.bfloat16, torch.float32)}
WRITERS = (
    pat.checkpoints.merge,
    pat.bases.rotation,
    pat.bases.tied_rotation,
    pat.bases.readers,
    pat.bases.writers,
    pat.pruners.layers_and_neurons,
    pat.pruners.llm_pruner,
    pat.pruners.shortgpt,
    pat.pruners.slicegpt,
)
Fault = Callable[[str, Tensor, list[tuple[str, Tensor]]], list[tuple[str, Tensor]]]


@pytest.fixture(scope="module", autouse=True)
def another_model() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        biased: dict[str, Any] = {"attention_bias": True, "mlp_bias": True, "rms_norm_eps": 1e-2, "tie_word_embeddings": True}
        patch.setitem(CONFIGS, NAME, lambda: LlamaConfig(**SHAPE, num_key_value_heads=2, **biased))
        yield


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, another_model: None) -> Path:
    """A folder with the base in every dtype, an adapter and calibration text."""
    folder = tmp_path_factory.mktemp("inputs")
    trained(NAME).save_pretrained(str(folder / "adapter"))
    for name, dtypes in DTYPES.items():
        write(name, dtypes, folder / name)
    calibration(folder)
    return folder


def write(name: str, dtypes: tuple[torch.dtype, ...], base: Path) -> None:
    """Write the model in a dtype; of two the second is for embedding and norms."""
    model: Any = tiny_model(NAME).to(dtypes[0])  # type: ignore[arg-type]  # transformers' annotation wraps nn.Module.to wrongly
    for parameter_name, parameter in model.named_parameters():
        if "norm" in parameter_name or "embed" in parameter_name:
            parameter.data = parameter.data.to(dtypes[-1])
    model.save_pretrained(base)
    word_tokenizer().save_pretrained(base)


VERBS: dict[str, Callable[[Path, Path, Path], dict[str, Any]]] = {
    "merge": lambda folder, base, out: merge(base, folder / "adapter", out),
    "prune": lambda _folder, base, out: prune(base, "channel-magnitude", 0.25, 4, out),
    "rotate": lambda folder, base, out: rotate(base, "pca", calibration(folder), out, tie="break"),
    "refit": lambda folder, base, out: refit_readers(base, "magnitude", 0.25, 4, calibration(folder), out),
}


@pytest.fixture(autouse=True)
def _readers_and_writers_are_refitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where that helps nothing, as on random words: what is checked is how it is written."""
    monkeypatch.setattr("pat.bases.refit.helps", lambda _refitted, _plain: True)
    falling = count(1000, -1)  # of the whole model, the cut one, the refitted one
    monkeypatch.setattr("pat.bases.writers.perplexity", lambda _said: float(next(falling)))


@pytest.mark.lengthy
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("verb", VERBS)
def test_what_is_right_is_accepted_and_its_figure_recorded(verb: str, dtype: str, inputs: Path, tmp_path: Path) -> None:
    record = VERBS[verb](inputs, inputs / dtype, tmp_path / "out")
    assert record["fold_gap"] <= LARGEST_FOLD_GAP / 40 and record["kl_on_text"] <= LARGEST_KL / 5
    names = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
    assert record["kl_dtype"] == "+".join(names[each] for each in DTYPES[dtype])
    assert (record["kl_on_text"] > 1e-10) == (dtype != "fp32")
    assert f"KL on text {record['kl_on_text']:.1e}" in summary(record)
    assert f"{record['kl_on_text']:.1e} nats per" in model_card(record, "tuned", None)


def replaced(ending: str, change: Callable[[Tensor], Tensor]) -> Fault:
    """Return a fault of the tensors that `ending` ends, once they are changed."""
    return lambda _name, _tensor, made: [(name, change(tensor).contiguous() if name.endswith(ending) else tensor) for name, tensor in made]


def unchanged(ending: str) -> Fault:
    """Return the fault that a tensor is passed on as it was."""
    return lambda name, tensor, made: [(name, tensor)] if name.endswith(ending) else made


FAULTS: dict[str, Fault] = {
    "a gain that is not rescaled": replaced("layers.1.input_layernorm.weight", lambda gain: gain * 0.75**0.5),
    "a bias that is not folded": replaced("layers.1.self_attn.o_proj.bias", lambda bias: bias * 0.5),
    "channels in another order": replaced("layers.1.mlp.up_proj.weight", lambda weight: weight.roll(1, dims=1)),
    "heads in another order": replaced("layers.2.self_attn.q_proj.weight", lambda weight: weight.roll(12, dims=0)),
    "a final gain that belongs to another tie": replaced("model.norm.weight", lambda gain: gain * 0.75**0.5),
    "one writer of another scale": replaced("layers.2.mlp.down_proj.weight", lambda weight: weight * 0.98),
}


def plant(
    monkeypatch: pytest.MonkeyPatch, fault: Fault | None = None, writers: Sequence[ModuleType] = WRITERS, **config_fields: Any
) -> None:
    """Let every writer, or some, make this mistake."""

    def faulty(source: Path, folder: Path, change: Any, config: Any, label: str, in_one_piece: Any = frozenset()) -> Written:
        def changed(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
            made = list(change(name, tensor.float()))
            wrong = fault(name, tensor.float(), made) if fault else made
            return [(new_name, it.to(tensor.dtype)) for new_name, it in wrong]  # rounded once, as what is right

        for field, value in config_fields.items():
            setattr(config, field, value)
        return write_changed(source, folder, changed, config, label, in_one_piece)

    for writer in writers:
        monkeypatch.setattr(writer, "write_changed", faulty)


@pytest.mark.lengthy
@pytest.mark.parametrize(("fault", "verb", "dtype"), all_pairs(FAULTS, VERBS, DTYPES))
def test_a_mistake_in_the_change_is_refused(
    fault: str, verb: str, dtype: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, FAULTS[fault])
    with pytest.raises(RuntimeError, match=r"before rounding, logits differ.*the checkpoint is wrong"):
        VERBS[verb](inputs, inputs / dtype, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.lengthy
@pytest.mark.parametrize(("verb", "dtype"), in_turn(VERBS, DTYPES))
def test_a_wrong_eps_is_refused(verb: str, dtype: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, rms_norm_eps=1e-2 * 0.75)
    with pytest.raises(RuntimeError, match="the checkpoint is wrong"):
        VERBS[verb](inputs, inputs / dtype, tmp_path / "out")


@pytest.mark.lengthy
@pytest.mark.parametrize(("verb", "dtype"), in_turn(VERBS, DTYPES))
def test_a_transposed_weight_is_refused(verb: str, dtype: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def transposing(source: Path, folder: Path, change: Any, *rest: Any, **named: Any) -> Written:
        def changed(name: str, tensor: Tensor) -> Any:
            return change(name, tensor.T.contiguous() if name.endswith("layers.0.self_attn.o_proj.weight") else tensor)

        return write_changed(source, folder, changed, *rest, **named)

    for writer in WRITERS:
        monkeypatch.setattr(writer, "write_changed", transposing)
    with pytest.raises(RuntimeError, match="the checkpoint is wrong"):
        VERBS[verb](inputs, inputs / dtype, tmp_path / "out")


@pytest.mark.lengthy
@pytest.mark.parametrize(("verb", "dtype"), in_turn(VERBS, DTYPES))
def test_a_tensor_that_is_lost_is_refused(verb: str, dtype: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, lambda name, _tensor, made: [] if name.endswith("layers.1.mlp.gate_proj.bias") else made)
    with pytest.raises((RuntimeError, UserError), match=r"gate_proj\.bias"):
        VERBS[verb](inputs, inputs / dtype, tmp_path / "out")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fault", ["an operator that is not folded", "a LoRA of another scale", "a LoRA that is dropped"])
def test_a_mistake_of_the_merge_is_refused(fault: str, dtype: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = pat.checkpoints.merge.fold_of

    def wrong(adapter: Path, config: Any) -> Any:
        fold, pat_config = right(adapter, config)
        update = fold.lora["model.layers.1.mlp.up_proj"]
        if fault == "an operator that is not folded":
            hsm = fold.hsms["model.layers.1.mlp.down_proj"]
            folded = type(hsm.operator).fold
            monkeypatch.setattr(type(hsm.operator), "fold", lambda self, weight: weight if self is hsm.operator else folded(self, weight))
        elif fault == "a LoRA of another scale":
            object.__setattr__(update, "scaling", update.scaling * 1.1)
        else:
            del fold.lora["model.layers.1.mlp.up_proj"]
        return fold, pat_config

    monkeypatch.setattr(pat.checkpoints.merge, "fold_of", wrong)
    with pytest.raises((RuntimeError, UserError), match=r"the checkpoint is wrong|up_proj"):
        merge(inputs / dtype, inputs / "adapter", tmp_path / "out")


@pytest.mark.lengthy
@pytest.mark.parametrize(("verb", "dtype"), in_turn(VERBS, DTYPES))
def test_a_mistake_after_the_rounding_is_refused(
    verb: str, dtype: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fold is right, the file is not: only what was written can show it."""
    shards = checkpoint.write_shards

    def damaged(folder: Path, named: Any, source_bytes: int) -> None:
        spoilt = ((name, tensor.roll(1, dims=0) if name.endswith("layers.0.mlp.up_proj.weight") else tensor) for name, tensor in named)
        shards(folder, spoilt, source_bytes)

    monkeypatch.setattr(checkpoint, "write_shards", damaged)
    with pytest.raises(RuntimeError, match="not the rounding of what it should be"):
        VERBS[verb](inputs, inputs / dtype, tmp_path / "out")


@dataclass(frozen=True)
class Stage:
    """One of the checkpoints that a verb writes on its way: the verb, given base, text and output, and the module that writes it."""

    run: Callable[[Path, Calibration, Path], dict[str, Any]]
    writer: ModuleType


def sliced(base: Path, text: Calibration, out: Path) -> dict[str, Any]:
    return prune(base, "slicegpt-1q", 0.5, 4, out, text)


def without_layers_and_neurons(base: Path, text: Calibration, out: Path) -> dict[str, Any]:
    return prune(base, "layers-and-neurons", 0.4, 4, out, text, own=PruneSettings(writers="plain"))


def refitted(base: Path, text: Calibration, out: Path) -> dict[str, Any]:
    return prune(base, "layers-and-neurons", 0.4, 4, out, text)


def prepared(base: Path, text: Calibration, out: Path) -> dict[str, Any]:
    return prepare_base(base, 0.25, text, out, 4)


STAGES = {
    "rotate": Stage(lambda base, text, out: rotate(base, "pca", text, out), pat.bases.tied_rotation),
    "slicegpt-1q, the rotation": Stage(sliced, pat.bases.tied_rotation),
    "slicegpt-1q, the cut": Stage(sliced, pat.checkpoints.merge),
    "layers-and-neurons": Stage(without_layers_and_neurons, pat.pruners.layers_and_neurons),
    "refitted writers": Stage(refitted, pat.bases.writers),
    "prepare, the rotation": Stage(prepared, pat.bases.tied_rotation),
    "prepare, the readers": Stage(prepared, pat.bases.readers),
}
"""Where a verb writes several, with a mistake in the last one alone what comes before it is right."""
LAST_STAGES = tuple({stage.run: name for name, stage in STAGES.items()}.values())


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory, another_model: None) -> Path:
    """A folder with a base in fp32 and bf16 whose embedding and head can stay one matrix, and calibration text."""
    folder = tmp_path_factory.mktemp("tied")
    for name in ("fp32", "bf16"):
        model: Any = tied_model(NAME)
        model.to(DTYPES[name][0]).save_pretrained(folder / name)
        word_tokenizer().save_pretrained(folder / name)
    write_text(folder / "text.jsonl", rows=400)
    return folder


def text_of(folder: Path) -> Calibration:
    return Calibration(folder / "text.jsonl", tokens=4000)


@pytest.mark.lengthy
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", LAST_STAGES)
def test_a_verb_of_stages_that_are_right_is_accepted(stage: str, dtype: str, tied: Path, tmp_path: Path) -> None:
    record = STAGES[stage].run(tied / dtype, text_of(tied), tmp_path / "out")
    assert checkpoint.load_config(tmp_path / "out").tie_word_embeddings and record.get("tie", "kept") == "kept"
    for found in (record, record.get("writers", record)):
        assert found["fold_gap"] <= LARGEST_FOLD_GAP / 40 and found["kl_on_text"] <= LARGEST_KL / 5
    assert record.get("applied", True) and record.get("writers", {"changed": 1})["changed"] > 0, "there was something to write"


@pytest.mark.lengthy
@pytest.mark.parametrize(
    ("stage", "fault", "dtype"), all_pairs(STAGES, ["a bias that is not folded", "one writer of another scale"], ["fp32", "bf16"])
)
def test_a_mistake_in_one_stage_is_refused(
    stage: str, fault: str, dtype: str, tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, FAULTS[fault], [STAGES[stage].writer])
    with pytest.raises(RuntimeError, match=r"before rounding, logits differ.*the checkpoint is wrong"):
        STAGES[stage].run(tied / dtype, text_of(tied), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.lengthy
@pytest.mark.parametrize("stage", STAGES)
def test_a_mistake_after_the_rounding_of_one_stage_is_refused(
    stage: str, tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = checkpoint.write_shards

    def damaged(folder: Path, named: Any, source_bytes: int) -> None:
        spoilt = ((name, tensor.roll(1, dims=0) if name.endswith("layers.0.mlp.up_proj.weight") else tensor) for name, tensor in named)
        shards(folder, spoilt, source_bytes)

    def damaging(*arguments: Any, **named: Any) -> Written:
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "write_shards", damaged)
            return write_changed(*arguments, **named)

    monkeypatch.setattr(STAGES[stage].writer, "write_changed", damaging)
    with pytest.raises(RuntimeError, match="not the rounding of what it should be"):
        STAGES[stage].run(tied / "bf16", text_of(tied), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_model_that_rounding_upsets_is_accepted_with_a_warning(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The predictions of a model that was cut and not yet tuned may hang on the last bit; no tensor of it is wrong."""
    monkeypatch.setattr("pat.checkpoints.fidelity.LARGEST_KL", 1e-9)
    merge(inputs / "bf16", inputs / "adapter", tmp_path / "out")
    record = artefacts.read_json(tmp_path / "out" / "merge.json")
    assert "rounding to bfloat16 changes predictions on text by" in caplog.text
    assert record["kl_on_text"] <= record["kl_of_rounding"] <= 100 * record["kl_on_text"]
    caplog.clear()
    merge(inputs / "fp32", inputs / "adapter", tmp_path / "wide")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_more_roundings_are_drawn_where_three_do_not_account_for_the_difference(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A right model at half the width was refused once: its rounding made 4.2 times the largest of three."""
    divergences = iter([5.3e-3, 1.27e-3, 1.1e-3, 0.9e-3, 1.2e-3, 1.4e-3])
    monkeypatch.setattr("pat.checkpoints.fidelity.mean_kl", lambda *_: next(divergences))
    record = merge(inputs / "bf16", inputs / "adapter", tmp_path / "out")
    assert (record["kl_of_rounding"], record["kl_roundings"]) == (1.4e-3, 5)
    assert next(divergences, None) is None, "and no more than it takes"


def test_a_difference_that_no_rounding_accounts_for_is_refused(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    divergences = iter([1.3e-2, *[1.2e-3] * MOST_ROUNDINGS])
    monkeypatch.setattr("pat.checkpoints.fidelity.mean_kl", lambda *_: next(divergences))
    with pytest.raises(RuntimeError, match=r"0\.013 nats per token \(at most 0\.0048 is rounding\)"):
        merge(inputs / "bf16", inputs / "adapter", tmp_path / "out")
    assert next(divergences, None) is None


@pytest.mark.lengthy
@pytest.mark.parametrize(("verb", "dtype"), in_turn(VERBS, ["bf16", "fp16", "mixed"]))
def test_a_model_that_rounding_upsets_is_refused_where_more_than_rounding_is_wrong(
    verb: str, dtype: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much the right rounding of its weights may change it, a mistake changes it more."""
    monkeypatch.setattr("pat.checkpoints.fidelity.LARGEST_KL", 1e-9)
    monkeypatch.setattr("pat.checkpoints.unrounded._check_rounded", lambda *_: None)
    shards = checkpoint.write_shards

    def damaged(folder: Path, named: Any, source_bytes: int) -> None:
        spoilt = ((name, tensor * 1.2 if name.endswith("layers.1.mlp.down_proj.weight") else tensor) for name, tensor in named)
        shards(folder, spoilt, source_bytes)

    monkeypatch.setattr(checkpoint, "write_shards", damaged)
    with pytest.raises(RuntimeError, match=r"predictions on text differ .* nats per token \(at most .* is rounding\)"):
        VERBS[verb](inputs, inputs / dtype, tmp_path / "out")


@pytest.mark.parametrize(("verb", "dtype"), in_turn(VERBS, ["fp32", "bf16"]))
def test_a_model_that_sums_upset_is_held_against_its_last_digits(
    verb: str, dtype: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums in another order may change the logits of an upset model by more than of any other; a mistake still changes them more."""
    monkeypatch.setattr("pat.checkpoints.fidelity.LARGEST_FOLD_GAP", 0.0)
    record = VERBS[verb](inputs, inputs / dtype, tmp_path / "out")
    assert record["fold_gap"] <= TIMES_NUDGED / 2 * record["fold_gap_of_rounding"] <= 1e-5
    plant(monkeypatch, FAULTS["one writer of another scale"])
    with pytest.raises(RuntimeError, match=r"before rounding, logits differ.*the checkpoint is wrong"):
        VERBS[verb](inputs, inputs / dtype, tmp_path / "wrong")


@pytest.mark.parametrize(("verb", "factor"), in_turn(VERBS, [1 + 2.0**-7, 1 - 2.0**-7]))
def test_a_rounding_to_the_second_nearest_is_refused(
    verb: str, factor: float, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = checkpoint.write_shards

    def damaged(folder: Path, named: Any, source_bytes: int) -> None:
        shards(folder, ((name, tensor * factor if "up_proj.weight" in name else tensor) for name, tensor in named), source_bytes)

    monkeypatch.setattr(checkpoint, "write_shards", damaged)
    with pytest.raises(RuntimeError, match="not the rounding of what it should be"):
        VERBS[verb](inputs, inputs / "bf16", tmp_path / "out")


def test_a_rounding_at_random_goes_to_neighbours_and_stays_on_average() -> None:
    beside_powers = torch.tensor([2.0**power * (1 + side * 1e-4) for power in (-9, 0, 5) for side in (-1, 1)])  # steps differ on both sides
    values = torch.cat([torch.randn(50) * 10.0**power for power in (-6, -3, 0, 3)] + [beside_powers, -beside_powers])
    for stored, dtype in (("BF16", torch.bfloat16), ("F16", torch.float16)):
        draw = torch.Generator().manual_seed(0)
        rounded = torch.stack([rounded_at_random(values, stored, draw) for _ in range(2000)])
        assert torch.equal(rounded, rounded.to(dtype).float())
        steps = steps_at(values, stored)
        assert bool(((rounded - values).abs() <= steps).all())
        assert bool(((rounded.double().mean(0) - values).abs() <= 0.1 * steps).all())
        held = values.to(dtype).float()
        assert torch.equal(rounded_at_random(held, stored, draw), held)
        assert bool(
            (steps_at(held, stored) == (torch.nextafter(held.to(dtype), torch.tensor(torch.inf, dtype=dtype)).float() - held))
            .float()
            .mean()
            > 0.9
        )
    assert torch.equal(rounded_at_random(values, "F32", draw), values)
    nudged = torch.stack([nudged_at_random(values, "F32", draw) for _ in range(200)])
    below, above = (torch.nextafter(values, torch.tensor(side)) for side in (-torch.inf, torch.inf))
    assert bool(((nudged >= below) & (nudged <= above + steps_at(values, "F32"))).all()) and bool((nudged != values).any(0).all())


def test_what_does_not_fit_the_dtype_is_the_user_s_to_know(inputs: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    model: Any = tiny_model(NAME).half()
    model.model.layers[0].mlp.down_proj.weight.data[:] = 6e4  # one direction of 48 equal channels is seven times as large
    model.save_pretrained(base)
    word_tokenizer().save_pretrained(base)
    with pytest.raises(UserError, match=r"down_proj\.weight is not finite in float16; its weights are damaged, or need bf16 or fp32"):
        rotate(base, "pca", calibration(inputs), tmp_path / "out", tie="break")


@pytest.mark.lengthy
@pytest.mark.parametrize(
    "pruner", ["channel-fisher", "minitron-width", "llm-pruner", "llm-pruner-uniform", "wanda-sp", "shortgpt", "slicegpt", "slicegpt-1q"]
)
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_every_pruner_in_half_precision(pruner: str, dtype: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = PRUNERS[pruner].effective(PruneSettings(tie="break"))
    record = prune(inputs / dtype, pruner, 0.4, 4, tmp_path / "out", calibration(inputs), own=own)
    assert record["fold_gap"] <= LARGEST_FOLD_GAP / 40 and record["kl_on_text"] <= LARGEST_KL / 5
    plant(monkeypatch, FAULTS["one writer of another scale"] if pruner != "shortgpt" else replaced("q_proj.weight", lambda weight: -weight))
    with pytest.raises(RuntimeError, match="the checkpoint is wrong"):
        prune(inputs / dtype, pruner, 0.4, 4, tmp_path / "wrong", calibration(inputs), own=own)


@pytest.mark.lengthy
@pytest.mark.parametrize("name", ["gemma", "gemma-untied", "qwen3-tied", "mistral"])
def test_families_in_half_precision(name: str, tmp_path: Path) -> None:
    model: Any = tiny_model(name).to(torch.bfloat16)  # type: ignore[arg-type]
    model.save_pretrained(tmp_path / "base")
    trained(name).save_pretrained(str(tmp_path / "adapter"))
    record = merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    assert record["fold_gap"] <= LARGEST_FOLD_GAP / 40 and record["kl_probe"] == "vocabulary"


def test_vocabulary_in_pieces_is_the_vocabulary(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rotate(inputs / "bf16", "pca", calibration(inputs), tmp_path / "whole", tie="break")
    monkeypatch.setattr("pat.checkpoints.unrounded.ROWS_AT_ONCE", 10)
    pieces = rotate(inputs / "bf16", "pca", calibration(inputs), tmp_path / "pieces", tie="break")
    assert pieces["fold_gap"] == pytest.approx(whole["fold_gap"], abs=1e-6)
    assert prune(inputs / "bf16", "slicegpt", 0.25, 4, tmp_path / "sliced", calibration(inputs))["fold_gap"] <= LARGEST_FOLD_GAP / 40


def test_the_probe_is_text_where_the_vocabulary_knows_it(tmp_path: Path) -> None:
    probe = probe_for(write_tiny_checkpoint(tmp_path / "bytes"))
    assert probe.kind == "text" and probe.ids_BT.shape == (len(PASSAGES), 48)
    assert byte_tokenizer().decode(probe.ids_BT[0]) == PASSAGES[0][:48]
    write("fp32", DTYPES["fp32"], tmp_path / "words")
    other = probe_for(tmp_path / "words")
    assert other.kind == "vocabulary" and int(other.ids_BT.min()) > 2 and len(other.ids_BT.unique()) > 50
    short = probe_for(write_tiny_checkpoint(tmp_path / "short", context=5))
    assert short.ids_BT.shape == (len(PASSAGES), 5)


def test_kl_is_zero_for_equals_and_nothing_finite_for_nan() -> None:
    logits_BTV = torch.randn(2, 3, 11)
    assert mean_kl(logits_BTV, logits_BTV + 5) <= 1e-12
    assert mean_kl(logits_BTV, logits_BTV * 2) > 0.01
    assert not mean_kl(logits_BTV, torch.full_like(logits_BTV, torch.nan)) <= LARGEST_KL


def test_a_record_is_only_written_where_it_holds(inputs: Path, tmp_path: Path) -> None:
    record = merge(inputs / "bf16", inputs / "adapter", tmp_path / "out")
    assert artefacts.read_json(tmp_path / "out" / "merge.json")["kl_on_text"] == record["kl_on_text"]
    written = Written(inputs / "bf16", tmp_path / "out", lambda name, tensor: [(name, tensor)])
    with pytest.raises(RuntimeError):
        gap_between(lambda dtype: checkpoint.load_model(inputs / "bf16", dtype), written)
