"""Refitted writers: against least squares by another way in float64, twins that make up for each other, and every family end to end."""

from __future__ import annotations

import copy
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from pat.bases import writer_text
from pat.bases.writer_fit import MASSIVE_SHARE, RIDGE, Sums, change_of_write, weights_of
from pat.bases.writers import fitted_writes
from pat.data.calibration import Calibration
from pat.errors import UserError
from pat.families.known import family_of
from pat.io.artefacts import read_json, write_jsonl
from pat.models.layer_walk import LayerWalk
from pat.models.writer_streams import stream_bytes
from pat.pruners.channels import keep_most_important
from pat.pruners.job import PruneJob
from pat.pruners.pruning import prune
from pat.pruners.registry import PRUNERS
from pat.settings.jobs import PruneSettings
from tests.kit.pruning_inputs import WORDS, calibration, write_base
from tests.kit.stock_models import reload
from tests.kit.tensor_sizes import Largest
from tests.kit.tiny_models import CONFIGS, SHAPE, random_tokens, tiny_model

LAYERS, NEURONS = 3, 80
REFITTED = PruneSettings(writers="refitted")


def much_text(folder: Path) -> Calibration:
    """Return enough random words that a write's columns cannot learn them by heart."""
    rows = random_tokens(200, 100, seed=11) % WORDS
    write_jsonl(folder / "much.jsonl", ({"text": " ".join(f"w{word}" for word in row)} for row in rows.tolist()))
    return Calibration(folder / "much.jsonl", seed=0)


def text(rows: int = 16, length: int = 24) -> torch.Tensor:
    return random_tokens(rows, length, seed=3)


def without_neurons(model: Any, kept: slice) -> Any:
    """Return a copy whose feed-forward blocks have only the neurons kept."""
    pruned = copy.deepcopy(model)
    for layer in pruned.model.layers:
        for name in ("gate_proj", "up_proj", "down_proj"):
            old = getattr(layer.mlp, name)
            weight = old.weight.data[:, kept] if name == "down_proj" else old.weight.data[kept]
            new = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
            new.weight.data = weight.clone()
            setattr(layer.mlp, name, new)
    return pruned


def with_twins() -> Any:
    """Return a model whose second half of neurons computes what the first one does, and writes something else."""
    model: Any = tiny_model("llama").double()
    half = NEURONS // 2
    with torch.no_grad():
        for layer in model.model.layers:
            for name in ("gate_proj", "up_proj"):
                weight = getattr(layer.mlp, name).weight
                weight[half:] = weight[:half]
    return model


def test_the_change_is_that_of_ridge_regression() -> None:
    torch.manual_seed(0)
    x_NI, target_ND, there_ND, weight_N = torch.randn(200, 7), torch.randn(200, 5), torch.randn(200, 5), torch.rand(200)
    missing_ND = target_ND - there_ND
    sums = Sums.none(7, 5, torch.device("cpu"))
    for part in (slice(0, 90), slice(90, 200)):
        sums.add(x_NI[part], target_ND[part], there_ND[part], weight_N[part])
    rows = weight_N.sqrt()[:, None].double()
    strength = (RIDGE * (x_NI.double().square() * weight_N[:, None].double()).sum() / 7).sqrt()
    stacked = torch.cat([x_NI.double() * rows, strength * torch.eye(7, dtype=torch.float64)])
    wanted = torch.cat([missing_ND.double() * rows, torch.zeros(7, 5, dtype=torch.float64)])
    expected = torch.linalg.lstsq(stacked, wanted).solution.T
    change = change_of_write(sums)
    assert torch.allclose(change, expected, atol=1e-5)
    left = (missing_ND.double() - x_NI.double() @ change.T).square().sum(-1)
    assert sums.error(change) == pytest.approx(float((left * weight_N).sum() / (target_ND.square().sum(-1) * weight_N).sum()), rel=1e-5)
    assert sums.error(change) < sums.error()


def test_a_layer_that_is_given_nothing_stays_as_it_is() -> None:
    sums = Sums.none(3, 2, torch.device("cpu"))
    sums.add(torch.zeros(10, 3), torch.randn(10, 2), torch.randn(10, 2), torch.ones(10))
    assert torch.equal(change_of_write(sums), torch.zeros(2, 3, dtype=torch.float64))


def test_massive_tokens_have_their_share_of_the_weight_and_sizes_do_not_count() -> None:
    torch.manual_seed(1)
    target_BTD = torch.randn(4, 50, 8) * torch.rand(4, 50, 1).add(0.5)
    target_BTD[2, 17] *= 1000.0
    weight_BT = weights_of(target_BTD, target_BTD.norm(dim=-1).median())
    of_squares = weight_BT * target_BTD.square().sum(-1)
    massive = torch.zeros(4, 50, dtype=torch.bool)
    massive[:, 0] = massive[2, 17] = True
    assert float(of_squares[massive].sum() / of_squares.sum()) == pytest.approx(MASSIVE_SHARE, rel=1e-4)
    assert torch.allclose(of_squares[~massive], torch.ones(()), rtol=1e-5)


def test_the_walk_sees_what_the_model_computes() -> None:
    model: Any = tiny_model("llama")
    ids = text(4)
    with torch.no_grad():
        states = model.model(input_ids=ids, output_hidden_states=True).hidden_states
        walk = LayerWalk(model, ids, 2)
        for expected in states[:-1]:  # the last is behind the final norm
            assert torch.allclose(torch.cat(list(walk.stream)), expected, atol=1e-6)
            walk.advance()


def test_a_walk_stops_before_the_module_it_is_told_to() -> None:
    """With what that module gets in the model, and without what comes behind it."""
    model: Any = tiny_model("llama")
    ids, given, behind = text(4), list[torch.Tensor](), list[int]()
    first = model.model.layers[0]
    with torch.no_grad():
        hook = first.post_attention_layernorm.register_forward_pre_hook(lambda _norm, inputs: given.append(inputs[0]))
        model(input_ids=ids)
        hook.remove()
        walk = LayerWalk(model, ids, 2)
        first.mlp.register_forward_hook(lambda *_given: behind.append(1))
        found = [
            (stream_BTD, inputs["self_attn.o_proj"])
            for _, stream_BTD, inputs in walk.run(("self_attn.o_proj",), "post_attention_layernorm")
        ]
        written = [stream_BTD + first.self_attn.o_proj(input_BTI) for stream_BTD, (_, input_BTI) in zip(walk.stream, found, strict=True)]
    assert not behind
    assert torch.allclose(torch.cat([there for there, _ in found]), given[0], atol=1e-6)
    assert torch.allclose(torch.cat(written), given[0], atol=1e-6)


@pytest.mark.parametrize("kept", [None, range(0, 48, 2)])
def test_no_more_of_a_long_text_is_on_the_device_than_of_a_short_one(kept: Any) -> None:
    """No tensor is larger than a batch's, and what the layers made of one batch is gone while they work on the next."""
    whole: Any = tiny_model("llama")
    pruned: Any = whole if kept is None else LlamaForCausalLM(LlamaConfig(**SHAPE | {"hidden_size": len(kept), "head_dim": 12}))
    made: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    def note(_layer: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        made.append(weakref.ref(output))
        alive.append(sum(one() is not None for one in made))

    def entries(rows: int) -> int:
        largest = Largest()
        with largest:
            list(fitted_writes(whole, copy.deepcopy(pruned), range(LAYERS), text(rows), 4, kept))
        return largest.entries

    for model in (whole, pruned):
        for layer in model.model.layers:
            layer.register_forward_hook(note)
    of_a_batch = 4 * 24 * NEURONS
    assert entries(32) == entries(128) <= of_a_batch < 32 * 24 * whole.config.hidden_size
    assert len(alive) > 8 * 32 and max(alive) <= LAYERS + 2  # the first batch goes through all of them at once


def test_twins_take_over_what_their_like_wrote() -> None:
    model = with_twins()
    pruned = without_neurons(model, slice(0, NEURONS // 2))
    tokens = random_tokens(3, 20, seed=9)
    with torch.no_grad():
        whole, plain = model(input_ids=tokens).logits, pruned(input_ids=tokens).logits
        fits = list(fitted_writes(model, pruned, range(len(model.model.layers)), text(), 4))
        refitted = pruned(input_ids=tokens).logits
    downs = [fit for fit in fits if fit.write.endswith("down_proj")]
    assert len(downs) == len(model.model.layers) and all(fit.error < 0.05 * fit.error_plain for fit in downs)
    assert (refitted - whole).square().mean() < 0.01 * (plain - whole).square().mean()
    for layer, original in zip(pruned.model.layers, model.model.layers, strict=True):  # only writes change
        assert torch.equal(layer.mlp.up_proj.weight, original.mlp.up_proj.weight[: NEURONS // 2])
        assert torch.equal(layer.self_attn.q_proj.weight, original.self_attn.q_proj.weight)


def test_nothing_changes_where_nothing_is_gone() -> None:
    model: Any = tiny_model("llama").double()
    same = copy.deepcopy(model)
    fits = list(fitted_writes(model, same, range(len(model.model.layers)), text(), 4))
    assert fits and not any(fit.helps for fit in fits)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))


@pytest.mark.lengthy
@pytest.mark.parametrize("name", [name for name in CONFIGS if not name.startswith("qwen2")])  # whose tokenizer class reads no words
def test_a_model_without_layers_is_nearer_to_the_whole_one(name: str, tmp_path: Path) -> None:
    write_base(name, tmp_path / "base")
    given = much_text(tmp_path)
    record = prune(tmp_path / "base", "shortgpt", 0.2, 8, tmp_path / "pruned", given, own=REFITTED)
    found = record["writers"]
    missed = [(it["refitted"], it["plain"]) for it in found["errors"].values()]
    assert missed and sum(refitted for refitted, _ in missed) < sum(plain for _, plain in missed)
    assert all(0 <= share < 1 for pair in missed for share in pair)  # nothing is scaled by how large the stream is
    assert read_json(tmp_path / "pruned" / "prune.json") == record and not (tmp_path / "pruned" / "cut").exists()
    plain = prune(tmp_path / "base", "shortgpt", 0.2, 8, tmp_path / "plain", given)
    assert "writers" not in plain and plain["parameters"] == record["parameters"]
    tensors, others = reload(tmp_path / "pruned").state_dict(), reload(tmp_path / "plain").state_dict()
    changed = {name for name in tensors if not torch.equal(tensors[name], others[name])}
    assert len(changed) == (found["changed"] if found["applied"] else 0)
    assert all(name.removesuffix(".weight") in found["errors"] for name in changed)


def test_writers_of_a_narrowed_stream_aim_at_the_channels_that_are_left(tmp_path: Path) -> None:
    """The first write by hand, from what hooks see in both models, and the others by what they miss."""
    whole: Any = write_base("llama", tmp_path / "base")
    record = prune(tmp_path / "base", "channel-fisher", 0.25, 8, tmp_path / "cut", calibration(tmp_path, tokens=600))
    narrow, kept, ids = reload(tmp_path / "cut"), record["kept"], text(96)
    assert len(kept) == narrow.config.hidden_size < whole.config.hidden_size
    with torch.no_grad():
        [first, *_] = fits = list(fitted_writes(whole, copy.deepcopy(narrow), range(LAYERS), ids, 4, kept))
        _, wanted_BTD = around_attention(whole, ids)
        x_BTI, there_BTD = around_attention(narrow, ids)
    fitted, held_out = slice(0, 84), slice(84, 96)
    target_BTD = wanted_BTD[..., kept] * (len(kept) / whole.config.hidden_size) ** 0.5
    weight_BT = torch.cat([weights_of(part, target_BTD.norm(dim=-1).median()) for part in target_BTD.split(4)])
    sums = Sums.none(x_BTI.shape[-1], len(kept), torch.device("cpu"))
    x_NI, target_ND, there_ND = (tensor[fitted].flatten(0, 1) for tensor in (x_BTI, target_BTD, there_BTD))
    sums.add(x_NI, target_ND, there_ND, weight_BT[fitted].flatten())
    change = change_of_write(sums)
    assert torch.allclose(first.change_DI.double(), change, atol=1e-4 * float(change.abs().max()))
    missing = target_BTD - there_BTD
    share = (missing.square().sum(-1) * weight_BT)[held_out].sum() / (target_BTD.square().sum(-1) * weight_BT)[held_out].sum()
    assert first.error_plain == pytest.approx(float(share), rel=1e-3)
    assert len(fits) == 2 * LAYERS and sum(fit.error for fit in fits) < sum(fit.error_plain for fit in fits)


@pytest.mark.parametrize("name", ["llama", "gemma", "qwen3", "llama-grouped-tied"])
def test_channels_that_nothing_is_written_to_leave_nothing_to_refit(name: str, tmp_path: Path) -> None:
    """Without them the model computes what it did, so that its stream already is what writes are fitted to, at whatever scale it is kept."""
    whole: Any = tiny_model(name)
    left_D = torch.arange(whole.config.hidden_size) % 2 == 0
    with torch.no_grad():
        for layer in whole.model.layers:
            for write in (layer.self_attn.o_proj, layer.mlp.down_proj):
                write.weight[~left_D] = 0.0
        whole.get_input_embeddings().weight[:, ~left_D] = 0.0
    write_base(name, tmp_path / "base", whole)
    (tmp_path / "cut").mkdir()
    record = keep_most_important(PruneJob(tmp_path / "base", 0.5, 8), tmp_path / "cut", left_D.float())
    assert record["kept"] == left_D.nonzero().flatten().tolist()
    fits = list(fitted_writes(whole, reload(tmp_path / "cut"), range(LAYERS), text(), 4, record["kept"]))
    assert len(fits) == 2 * LAYERS and all(fit.error_plain < 1e-9 for fit in fits)


def around_attention(model: Any, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the first layer's attention write is given, and the stream behind it."""
    seen: dict[str, torch.Tensor] = {}
    layer = model.model.layers[0]
    hooks = [
        layer.self_attn.o_proj.register_forward_pre_hook(lambda _module, inputs: seen.update(write=inputs[0])),
        layer.post_attention_layernorm.register_forward_pre_hook(lambda _module, inputs: seen.update(behind=inputs[0])),
    ]
    model(input_ids=ids)
    for hook in hooks:
        hook.remove()
    return seen["write"], seen["behind"]


@pytest.mark.parametrize(
    ("name", "pruner", "basis"),
    [
        ("llama", "channel-fisher", None),
        ("gemma", "minitron-width", None),
        ("qwen3", "slicegpt-1q", None),
        ("llama", "slicegpt-1q", "gradient"),
    ],
)
def test_a_narrowed_model_with_refitted_writers_is_a_stock_one(name: str, pruner: str, basis: Any, tmp_path: Path) -> None:
    write_base(name, tmp_path / "base")
    given = much_text(tmp_path)
    own = PruneSettings(writers="refitted", basis=basis)
    record = prune(tmp_path / "base", pruner, 0.25, 8, tmp_path / "pruned", given, own=own)
    assert reload(tmp_path / "pruned").config.hidden_size == len(record["kept"]) == record["hidden_size"]["after"]
    assert not [path for path in (tmp_path / "pruned").iterdir() if path.is_dir()]
    found = record["writers"]
    missed = [(it["refitted"], it["plain"]) for it in found["errors"].values()]
    assert sum(refitted for refitted, _ in missed) < sum(plain for _, plain in missed)
    assert found["applied"] is (found["text"]["refitted"] < found["text"]["plain"])


def test_a_record_that_does_not_tell_the_cut_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(job: PruneJob, folder: Path) -> dict[str, Any]:
        record = keep_most_important(job, folder, torch.arange(48.0))
        return {name: value for name, value in record.items() if name != "kept"}

    write_base("llama", tmp_path / "base")
    monkeypatch.setitem(PRUNERS, "channel-magnitude", replace(PRUNERS["channel-magnitude"], run=silent))
    with pytest.raises(
        UserError, match="the cut model has 3 layers and 32 channels, by its pruner's record 3 and 48: the record has to say"
    ):
        prune(tmp_path / "base", "channel-magnitude", 0.25, 8, tmp_path / "out", calibration(tmp_path, tokens=600), own=REFITTED)
    assert not (tmp_path / "out").exists()


def test_an_eighth_of_little_text_is_held_out_and_the_record_counts_the_rest(tmp_path: Path) -> None:
    write_base("llama", tmp_path / "base")  # whose rows of text have its context, 128 tokens
    given = replace(much_text(tmp_path), tokens=64 * 128)
    found = prune(tmp_path / "base", "channel-magnitude", 0.25, 8, tmp_path / "pruned", given, own=REFITTED)["writers"]
    assert found["tokens"] == 56 * 128 and found["text"]["tokens"] == 8 * 127


def test_layers_and_neurons_are_refitted_unless_told_otherwise(tmp_path: Path) -> None:
    write_base("llama", tmp_path / "base")
    given = calibration(tmp_path, tokens=4000)
    assert "writers" in prune(tmp_path / "base", "layers-and-neurons", 0.2, 8, tmp_path / "a", given)
    assert "writers" not in prune(
        tmp_path / "base", "layers-and-neurons", 0.2, 8, tmp_path / "b", given, own=PruneSettings(writers="plain")
    )


@pytest.mark.parametrize("pruner", ["shortgpt", "channel-magnitude"])
def test_too_little_text_is_told_before_the_cut(pruner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_yet(_job: PruneJob, _folder: Path) -> dict[str, Any]:
        raise AssertionError("a cut may take hours")

    write_base("llama", tmp_path / "base")
    monkeypatch.setitem(PRUNERS, pruner, replace(PRUNERS[pruner], run=not_yet))
    for text, said in (
        (calibration(tmp_path, tokens=150), r"150 tokens are too few to refit writers .* give 256 at least, or set prune\.writers: plain"),
        (None, r"--calibration: is required: .* to refit writers to"),
    ):
        with pytest.raises(UserError, match=said):
            prune(tmp_path / "base", pruner, 0.25, 8, tmp_path / "pruned", text, own=REFITTED)
    assert not (tmp_path / "pruned").exists()


@pytest.mark.parametrize("tokens", [None, 4096])
def test_streams_that_the_machine_cannot_hold_are_told_before_the_cut(
    tokens: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Exactly where the number of tokens is given; else it is what the cut leaves that decides, and the user is warned."""
    base, cuts, shortgpt = write_base("llama", tmp_path / "base").config, list[Path](), PRUNERS["shortgpt"]
    needed = stream_bytes(family_of(base), 4096, base.hidden_size, 4, left=0)
    assert needed == 2 * 4096 * 48 * 4  # behind the layer, and between its blocks

    def counted(job: PruneJob, folder: Path) -> dict[str, Any]:
        cuts.append(folder)
        return shortgpt(job, folder)

    monkeypatch.setitem(PRUNERS, "shortgpt", replace(shortgpt, run=counted))
    monkeypatch.setattr(writer_text, "host_bytes", lambda: needed - 1)
    caplog.set_level("INFO")
    own = PruneSettings(writers="refitted", writer_tokens=tokens)
    with pytest.raises(UserError, match=r"prune\.writer_tokens: the streams of [\d,]+ tokens, .* give fewer, [\d,]+ take half of it"):
        prune(tmp_path / "base", "shortgpt", 0.34, 8, tmp_path / "pruned", much_text(tmp_path), own=own)
    warned = "warning: where the cut leaves the widest layer as it is, prune.writer_tokens" in caplog.text
    assert (len(cuts), warned) == ((0, False) if tokens else (1, True))
    assert not (tmp_path / "pruned").exists()


def test_streams_that_the_text_is_too_short_for_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_base("llama", tmp_path / "base")
    monkeypatch.setattr(writer_text, "host_bytes", lambda: 3 * 1024 * 48 * 4)
    own = PruneSettings(writers="refitted", writer_tokens=10**9)
    record = prune(tmp_path / "base", "channel-magnitude", 0.25, 8, tmp_path / "pruned", calibration(tmp_path, tokens=1100), own=own)
    assert record["writers"]["tokens"] + record["writers"]["text"]["tokens"] <= 1024


def test_writers_have_their_own_number_of_tokens(tmp_path: Path) -> None:
    write_base("llama", tmp_path / "base")
    given = replace(much_text(tmp_path), tokens=256)

    def tokens(**own: Any) -> int:
        out = tmp_path / "pruned"
        found = prune(tmp_path / "base", "shortgpt", 0.34, 8, out, given, own=PruneSettings(writers="refitted", **own), force=True)[
            "writers"
        ]
        return int(found["tokens"] + found["text"]["tokens"])

    assert tokens() == 128 + 127
    assert tokens(writer_tokens=2048) == 14 * 128 + 2 * 127


def test_too_few_tokens_for_writers_are_named(tmp_path: Path) -> None:
    write_base("llama", tmp_path / "base")
    with pytest.raises(UserError, match=r"prune\.writer_tokens, or else --calibration-tokens: 255 tokens are too few .* give 256 at least"):
        own = PruneSettings(writers="refitted", writer_tokens=255)
        prune(tmp_path / "base", "shortgpt", 0.34, 8, tmp_path / "pruned", much_text(tmp_path), own=own)
