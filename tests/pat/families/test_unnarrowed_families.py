"""OPT and Pythia: norms that subtract the mean, heads that fill the width. Layers and neurons go, no channel does, and LoRA tunes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, OPTConfig

from pat import PatConfig, attach
from pat.bases.refit import refit_readers
from pat.bases.rotate import rotate
from pat.checkpoints import checkpoint
from pat.checkpoints.base_checks import check_base
from pat.checkpoints.budget import counted
from pat.checkpoints.merge import merge
from pat.data.calibration import Calibration
from pat.data.items import Item, write_items
from pat.errors import UserError
from pat.export.export import export
from pat.families.known import FAMILIES, Role, family_of, kv_heads, neurons
from pat.io.artefacts import read_json, write_json, write_jsonl
from pat.models.budget import parameters_at
from pat.models.sizes import place_of
from pat.pruners import PRUNERS
from pat.pruners.llm_pruner import measured_scores
from pat.pruners.pruning import prune
from pat.pruners.units import units_of
from pat.scoring.evaluation import evaluate
from pat.settings.budget import Budget
from pat.settings.jobs import EvaluationSettings, PruneSettings, TuneJob
from pat.training.tuning import tune
from tests.kit.pruning_inputs import calibration, word_tokenizer, write_base, write_text
from tests.kit.stock_models import reload
from tests.kit.tiny_models import UNNARROWED, WIDE_SHAPE, random_tokens, tiny_model
from tests.kit.tuning_requests import asked

EXACT = 1e-4
EXACT_IN_FP64 = 1e-9
ONE_EACH = ("opt", "pythia")
CUTTING = ("shortgpt", "layers-and-neurons", "llm-pruner-uniform", "wanda-sp")
REFUSED = tuple(name for name in PRUNERS if name not in CUTTING)


def logits(model: Any, tokens: Tensor, **arguments: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=tokens, **arguments).logits
    return found


def rows(folder: Path) -> Path:
    path = folder / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": f"w{place}", "completion": f" w{place + 3} w{place + 4}"}) + "\n" for place in range(5, 21))
    )
    return path


def job(**changes: Any) -> TuneJob:
    recipe = {"max_steps": 4, "learning_rate": 1e-2, "batch_size": 4, "device": "cpu", "lora": {"rank": 3, "alpha": 12.0, "dropout": 0.0}}
    return TuneJob.model_validate({"tuning": recipe | changes})


@pytest.mark.parametrize("name", UNNARROWED)
def test_every_tensor_has_a_role_that_fits_its_shape(name: str, tmp_path: Path) -> None:
    write_base(name, tmp_path)
    config, shapes = checkpoint.load_config(tmp_path), checkpoint.tensor_shapes(tmp_path)
    family = family_of(config)
    axes = {Role.EMBEDDING: 1, Role.POSITIONS: 1, Role.HEAD: 1, Role.WRITE: 0, Role.READ: 1, Role.NORM: 0, Role.FINAL_NORM: 0}
    for tensor, shape in shapes.items():
        role = family.role(tensor)
        if not (len(shape) == 1 and role is Role.READ):
            assert shape[axes[role]] == config.hidden_size, tensor
    found = {family.in_memory(tensor).rpartition(".")[0] for tensor in shapes}
    named = {*family.entrance, family.final_norm, *([] if config.tie_word_embeddings else [family.head])}
    named |= {family.in_layer(layer, module) for layer in range(3) for module in (*family.weighted_in_layer(0), *family.norms)}
    assert found == named, "the entry names what is there, and nothing else"
    check_base(tmp_path)
    checkpoint.check_opens(tmp_path)
    assert (kv_heads(config), neurons(config)) == (6, 80 if name in ONE_EACH else 72)


@pytest.mark.parametrize("name", UNNARROWED)
def test_it_is_counted_as_stock_software_counts_it(name: str, tmp_path: Path) -> None:
    whole = write_base(name, tmp_path).num_parameters()
    model, bytes_each = counted(tmp_path)
    assert model.parameters == whole == parameters_at(model, 48) and bytes_each == 4
    stored = checkpoint.parameter_counts(tmp_path, checkpoint.load_config(tmp_path))
    assert stored["unique"] == whole and stored["without_embeddings"] == whole - sum(
        it.numel() for key, it in tiny_model(name).named_parameters() if "embed" in key or "lm_head" in key
    )


@pytest.mark.parametrize("pruner", CUTTING)
@pytest.mark.parametrize("name", UNNARROWED)
def test_layers_and_neurons_go_and_what_stays_is_stock(name: str, pruner: str, tmp_path: Path) -> None:
    """The record's gap is between the model with what goes held at zero and the checkpoint without it; writes stay plain here."""
    before = write_base(name, tmp_path / "base").config
    own = PruneSettings(writers="plain")
    record = prune(tmp_path / "base", pruner, 0.25, "auto", tmp_path / "out", calibration(tmp_path, 6000), own=own)
    assert record["logit_gap"] <= EXACT and record["removed"] > 0.1
    model = reload(tmp_path / "out")
    after, fields = model.config, read_json(tmp_path / "out" / "config.json")
    assert (after.model_type, after.hidden_size, after.num_attention_heads) == (before.model_type, 48, 6)
    assert neurons(after) < neurons(before) or after.num_hidden_layers < 3
    assert not {"head_dim", "num_key_value_heads"} & fields.keys() and ("intermediate_size" in fields) == (before.model_type != "opt")
    tokens = random_tokens(1, 6)
    settings = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    cached, without = (model.generate(input_ids=tokens, use_cache=cache, **settings) for cache in (True, False))
    assert torch.equal(cached, without) and cached.shape == (1, 14)
    model.save_pretrained(tmp_path / "again")
    assert torch.equal(logits(reload(tmp_path / "again"), tokens), logits(model, tokens))


def fresh(name: str, kept: Tensor) -> Any:
    """Return the stock model without all neurons but the kept ones, put together by hand, in fp64."""
    whole: Any = tiny_model(name)
    family = family_of(whole.config)
    smaller: Any = AutoModelForCausalLM.from_config(
        type(whole.config).from_dict(whole.config.to_dict() | {family.neurons: int(kept.sum())})
    )
    up, down = (name for block in family.blocks if block.kind == "neurons" for name in (*block.reader_names, block.write))
    state = whole.state_dict()
    for key in state:
        if f".{up}." in key:
            state[key] = state[key][kept]
        elif key.endswith(f".{down}.weight"):
            state[key] = state[key][:, kept]
    smaller.load_state_dict(state)
    return smaller.eval().double()


@pytest.mark.parametrize("name", UNNARROWED)
def test_in_fp64_a_model_without_silent_neurons_computes_the_same_to_its_last_digits(name: str) -> None:
    """What the cut is: a neuron goes with its row, its bias and its column, and the write's bias stays."""
    whole: Any = tiny_model(name).double()
    family, kept = family_of(whole.config), torch.arange(neurons(whole.config)) % 3 != 0
    down = next(block.write for block in family.blocks if block.kind == "neurons")
    with torch.no_grad():
        for layer in whole.get_submodule(family.layers):
            layer.get_submodule(down).weight[:, ~kept] = 0
    assert (logits(whole, random_tokens()) - logits(fresh(name, kept), random_tokens())).abs().max() <= EXACT_IN_FP64


def test_a_heads_rows_lie_together_where_three_projections_are_one() -> None:
    """Without the rows of one head's values, as the entry has them, the write is given nothing in that head's columns alone."""
    model: Any = tiny_model("pythia-tied-no-biases")
    name = "gpt_neox.layers.0.attention.query_key_value"
    place = place_of(FAMILIES["gpt_neox"], f"{name}.weight")
    assert place is not None and (place.kind, place.lengths(144, 1)) == ("groups", [144])
    given: list[Tensor] = []
    model.get_submodule("gpt_neox.layers.0.attention.dense").register_forward_pre_hook(lambda _module, inputs: given.append(inputs[0]))
    with torch.no_grad():
        model.get_submodule(name).weight.view(6, 3, 8, 48)[2, 2] = 0
        model(input_ids=random_tokens())
    by_head = given[0].unflatten(-1, (6, 8)).abs().amax((0, 1, 3))
    assert by_head[2] == 0 and (by_head[torch.arange(6) != 2] > 0).all()


@pytest.mark.parametrize("pruner", ["llm-pruner-uniform", "wanda-sp"])
@pytest.mark.parametrize("name", ONE_EACH)
def test_all_heads_stay_and_neurons_make_up_for_them(name: str, pruner: str, tmp_path: Path) -> None:
    write_base(name, tmp_path / "base")
    whole = counted(tmp_path / "base")[0].parameters
    record = prune(tmp_path / "base", pruner, Budget(parameters=0.8), 1, tmp_path / "out", calibration(tmp_path, 6000))
    assert record["units"]["groups"] == {"before": 6, "after": 6} and 0.78 * whole < record["parameters"]["after"]["unique"] <= 0.8 * whole


@pytest.mark.parametrize("pruner", ["layers-and-neurons", "llm-pruner-uniform"])
@pytest.mark.parametrize("name", UNNARROWED)
def test_writes_are_refitted_beside_their_biases(name: str, pruner: str, tmp_path: Path) -> None:
    """Of parallel blocks the last one's alone: what the others write, nothing of the layer sees before its end."""
    write_base(name, tmp_path / "base")
    own, text = PruneSettings(writers="refitted"), Calibration(write_text(tmp_path / "text.jsonl", rows=150), 6000)  # several rows at once
    record = prune(tmp_path / "base", pruner, 0.3, "auto", tmp_path / "out", text, own=own)
    family, layers = family_of(UNNARROWED[name]()), reload(tmp_path / "out").config.num_hidden_layers
    writes = family.blocks[-1:] if family.parallel else family.blocks
    assert set(record["writers"]["errors"]) == {family.in_layer(layer, block.write) for layer in range(layers) for block in writes}
    helped = [error for error in record["writers"]["errors"].values() if error["refitted"] < error["plain"]]
    assert helped and record["writers"]["logit_gap"] <= EXACT
    model, base = reload(tmp_path / "out"), reload(tmp_path / "base")
    if pruner == "llm-pruner-uniform":
        bias = f"{family.in_layer(0, family.blocks[-1].write)}.bias"
        assert all(torch.equal(model.state_dict()[key], base.state_dict()[key]) for key in base.state_dict() if key == bias)


@pytest.mark.parametrize("tuner", ["lora", "dora"])
@pytest.mark.parametrize("name", UNNARROWED)
def test_it_is_tuned_merged_and_pruned_and_tuned_again(name: str, tuner: str, tmp_path: Path) -> None:
    """Pruned, then tuned: the merge of LoRA on the cut model is the model with its adapter, to rounding, and stock."""
    write_base(name, tmp_path / "base")
    prune(tmp_path / "base", "layers-and-neurons", 0.3, "auto", tmp_path / "cut", calibration(tmp_path, 6000))
    record = tune(asked(tmp_path / "cut", rows(tmp_path), tuner, 0.0, 0, job(), tmp_path / "run", tmp_path / "adapter"))
    assert record["width"] == 48 and record["steps"] == 4
    merged = merge(tmp_path / "cut", tmp_path / "adapter", tmp_path / "merged")
    assert merged["logit_gap"] <= EXACT and merged["removed"] > 0.1
    changed, cut, tokens = reload(tmp_path / "merged"), reload(tmp_path / "cut"), random_tokens()
    assert (logits(changed, tokens) - logits(cut, tokens)).abs().max() > 1e-3
    assert read_json(tmp_path / "merged" / "config.json").keys() == read_json(tmp_path / "cut" / "config.json").keys()


@pytest.mark.parametrize("name", UNNARROWED)
def test_stock_peft_tunes_what_is_left_and_it_is_saved_and_opened_again(name: str, tmp_path: Path) -> None:
    write_base(name, tmp_path / "base")
    prune(tmp_path / "base", "layers-and-neurons", 0.3, "auto", tmp_path / "cut", calibration(tmp_path, 6000))
    stock = reload(tmp_path / "cut")
    family, tokens, layers = family_of(stock.config), random_tokens(), stock.config.num_hidden_layers
    adapted: Any = get_peft_model(stock, LoraConfig(r=4, target_modules=list(family.linears), init_lora_weights=False))
    adapted(input_ids=tokens, labels=tokens).loss.backward()
    gradients = {key: parameter.grad for key, parameter in adapted.named_parameters() if "lora_" in key}
    assert len(gradients) == 2 * layers * len(family.linears) and all(gradient.abs().max() > 0 for gradient in gradients.values())
    tuned = logits(adapted.eval(), tokens)
    adapted.merge_and_unload().save_pretrained(tmp_path / "again")
    assert torch.allclose(logits(reload(tmp_path / "again"), tokens), tuned, atol=1e-5)


@pytest.mark.parametrize("pruner", REFUSED)
@pytest.mark.parametrize("name", ONE_EACH)
def test_what_would_narrow_it_is_refused_with_the_reason_before_any_work(name: str, pruner: str, tmp_path: Path) -> None:
    write_base(name, tmp_path / "base")
    reason = PRUNERS[pruner].reason_not_to(FAMILIES[{"opt": "opt", "pythia": "gpt_neox"}[name]])
    assert reason is not None and (
        "no heads of another size" in reason
        or "subtract the mean" in reason
        or "fill the hidden size" in reason
        or "side by side" in reason
    )
    with pytest.raises(UserError) as refused:
        prune(tmp_path / "base", pruner, Budget(parameters=0.8), "auto", tmp_path / "out", calibration(tmp_path))
    assert reason in str(refused.value) and "\n" not in str(refused.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ONE_EACH)
def test_the_mask_another_basis_and_readers_are_refused_too(name: str, tmp_path: Path) -> None:
    write_base(name, tmp_path / "base")
    reason = "stock class has no heads of another size than hidden size / heads"
    with pytest.raises(
        UserError, match=f"cannot be pruned while it is tuned: .*{reason}.*; layers and feed-forward neurons can"
    ) as refused:
        attach(tiny_model(name), PatConfig(pruning_ratio=0.25))
    assert ("--as phi" in str(refused.value)) == (name == "pythia")
    for tuner in ("pat", "pat-dora"):
        with pytest.raises(
            UserError, match=f"--tuner {tuner} with --base .*: cannot prune while it tunes: .*{reason}.*; lora and dora tune it"
        ):
            tune(asked(tmp_path / "base", rows(tmp_path), tuner, 0.25, 0, job(), tmp_path / "run", tmp_path / "out"))
    with pytest.raises(UserError, match=r"cannot be put into another basis: .*norms subtract the mean of all channels"):
        rotate(tmp_path / "base", "pca", calibration(tmp_path), tmp_path / "out")
    with pytest.raises(UserError, match=f"its readers have no channels to do without: .*{reason}"):
        refit_readers(tmp_path / "base", "magnitude", 0.25, 1, calibration(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "run" / "checkpoint-4").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"do_layer_norm_before": False},
            "do_layer_norm_before: False: norms behind the sum, as OPT-350M has them, are not known; it must be True",
        ),
        ({"layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine: False: norms without a gain"),
        (
            {"_remove_final_layer_norm": True},
            "_remove_final_layer_norm: True: a head without a norm before it is not known; it must be False",
        ),
        ({"layerdrop": 0.5}, "layerdrop: 0.5: a tuning would leave out layers at random; it must be 0.0"),
        ({"word_embed_proj_dim": 32}, "tensor 'model.decoder.project_"),
    ],
)
def test_kinds_of_it_that_are_not_known_are_told(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    config = OPTConfig(**WIDE_SHAPE | changes, ffn_dim=80)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=said):
        prune(tmp_path, "shortgpt", 0.3, "auto", tmp_path.parent / "out", calibration(tmp_path))


@pytest.mark.parametrize("name", ONE_EACH)
def test_half_precision_is_checked_before_it_is_rounded(name: str, tmp_path: Path) -> None:
    """In bf16 each tensor is made again in fp32, by the names that the model has for what its files call otherwise."""
    write_base(name, tmp_path / "base", tiny_model(name).bfloat16())
    record = prune(tmp_path / "base", "layers-and-neurons", 0.3, "auto", tmp_path / "cut", calibration(tmp_path, 6000))
    assert record["kl_dtype"] == "bfloat16" and 0 <= record["fold_gap"] < 1e-4
    tune(asked(tmp_path / "cut", rows(tmp_path), "lora", 0.0, 0, job(), tmp_path / "run", tmp_path / "adapter"))
    merged = merge(tmp_path / "cut", tmp_path / "adapter", tmp_path / "merged")
    assert merged["kl_dtype"] == "bfloat16" and 0 <= merged["fold_gap"] < 1e-4
    assert reload(tmp_path / "merged").dtype == torch.bfloat16


def test_pythia_as_the_hub_has_it_opens_with_what_its_files_hold_beside_the_weights(tmp_path: Path) -> None:
    """Masks and frequencies, which transformers computes itself, and the numbers of positions under their older names."""
    write_base("pythia", tmp_path / "base")
    stored = load_file(tmp_path / "base" / "model.safetensors")
    for layer in range(3):
        place = f"gpt_neox.layers.{layer}.attention"
        mask = torch.ones(1, 1, 128, 128).tril().bool()
        stored |= {f"{place}.bias": mask, f"{place}.masked_bias": torch.tensor(-1e9), f"{place}.rotary_emb.inv_freq": torch.ones(1)}
    save_file(stored, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    fields = read_json(tmp_path / "base" / "config.json")
    fields.pop("rope_parameters")
    write_json(tmp_path / "base" / "config.json", fields | {"rotary_pct": 0.5, "rotary_emb_base": 500})
    record = prune(tmp_path / "base", "shortgpt", 0.3, "auto", tmp_path / "out", calibration(tmp_path))
    assert record["logit_gap"] <= EXACT
    written, names = read_json(tmp_path / "out" / "config.json"), load_file(tmp_path / "out" / "model.safetensors").keys()
    assert (written["rotary_pct"], written["rotary_emb_base"], written["rope_scaling"]) == (0.5, 500, None)
    assert written["rope_parameters"]["partial_rotary_factor"] == 0.5 and "embed_out.weight" in names
    assert not any("masked_bias" in key or key.endswith(("attention.bias", "inv_freq")) for key in names)


def test_importance_is_measured_without_dropout(tmp_path: Path) -> None:
    """OPT's layers drop by themselves where they are in training mode, which recomputing their activations needs."""
    write_base("opt-untied-no-biases", tmp_path / "base")
    config = checkpoint.load_config(tmp_path / "base")
    units = units_of(tmp_path / "base", family_of(config), config)
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        found.append(measured_scores(tmp_path / "base", calibration(tmp_path), units, range(3))["neurons"])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


@pytest.mark.parametrize("name", ONE_EACH)
def test_it_is_evaluated_one_by_one_and_in_batches_alike(name: str, tmp_path: Path) -> None:
    """Answers of a question packed into one row, with places of their own, are as likely as each by itself."""
    write_base(name, tmp_path / "base")
    items = [
        Item(f"toy-{place}", f"w{place} w{place + 1}", (f"w{place + 2} w9", f"w{place + 3}", "w8"), place % 3, "toy", "")
        for place in range(10, 16)
    ]
    write_items(tmp_path / "toy.jsonl", items)
    write_jsonl(tmp_path / "held.jsonl", [{"text": " ".join(f"w{place}" for place in range(3, 60))}])
    records = []
    for size in (1, 4):
        settings = EvaluationSettings(batch_size=size, perplexity_context=16, device="cpu")
        evaluate(tmp_path / "base", [tmp_path / "toy.jsonl"], [tmp_path / "held.jsonl"], settings, 0, tmp_path / f"{size}.json")
        records.append(read_json(tmp_path / f"{size}.json"))
    one, several = records
    assert one["tasks"] == several["tasks"]
    assert one["perplexity"]["held"]["token_perplexity"] == pytest.approx(several["perplexity"]["held"]["token_perplexity"], rel=1e-5)


@pytest.mark.parametrize("name", ONE_EACH)
def test_it_is_exported_in_int8_and_not_to_llama_cpp(name: str, tmp_path: Path) -> None:
    whole = write_base(name, tmp_path / "base")
    record = export(tmp_path / "base", "int8", tmp_path / "int8")
    assert record["compressed"] == 3 * len(family_of(whole.config).linears)
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "int8")
    gap = (logits(opened, random_tokens()) - logits(whole, random_tokens())).abs().max()
    assert 0 < gap < 0.2 * logits(whole, random_tokens()).abs().max()
    with pytest.raises(UserError, match="models are not written; those that are"):
        export(tmp_path / "base", "gguf", tmp_path / "gguf")
