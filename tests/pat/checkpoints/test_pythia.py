"""A Pythia written as a Phi says the same, opens in stock software, and can lose channels as any other family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoTokenizer

from pat.checkpoints.fidelity import LARGEST_KL
from pat.checkpoints.merge import merge
from pat.checkpoints.pythia import import_as_phi
from pat.errors import UserError
from pat.io.artefacts import read_json, write_json
from pat.pruners.pruning import prune
from pat.settings.jobs import TuneJob
from pat.training.tuning import tune
from tests.kit.commands import run
from tests.kit.pruning_inputs import calibration, word_tokenizer, write_base
from tests.kit.stock_models import reload
from tests.kit.tiny_models import logits, random_tokens, tiny_model
from tests.kit.tuning_requests import asked
from tests.pat.families.test_unnarrowed_families import rows

PYTHIAS = ("pythia", "pythia-tied-no-biases")
EXACT = 1e-4
ACCENTED = "e\u0301"


@pytest.mark.parametrize("name", PYTHIAS)
def test_in_fp64_it_computes_the_same(name: str, tmp_path: Path) -> None:
    pythia, tokens = tiny_model(name).double(), random_tokens()
    write_base(name, tmp_path / "pythia", pythia)
    import_as_phi(tmp_path / "pythia", tmp_path / "phi")
    phi: Any = reload(tmp_path / "phi")
    assert phi.dtype == torch.float64
    assert (logits(phi, tokens) - logits(pythia, tokens)).abs().max() <= 1e-11


@pytest.mark.parametrize("name", PYTHIAS)
def test_what_is_written_is_a_stock_phi_that_says_the_same(name: str, tmp_path: Path) -> None:
    write_base(name, tmp_path / "pythia")
    record = import_as_phi(tmp_path / "pythia", tmp_path / "phi")
    assert record["fold_gap"] <= 1e-6 and record["kl_on_text"] <= 1e-9
    pythia: Any = reload(tmp_path / "pythia")
    phi: Any = reload(tmp_path / "phi")
    tokens = random_tokens(1, 6)
    assert type(phi).__name__ == "PhiForCausalLM" and phi.config.tie_word_embeddings == pythia.config.tie_word_embeddings
    assert torch.allclose(logits(phi, tokens), logits(pythia, tokens), atol=EXACT)
    settings: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    expected = pythia.generate(input_ids=tokens, **settings)
    for cache in (True, False):
        assert torch.equal(phi.generate(input_ids=tokens, use_cache=cache, **settings), expected)
    assert {"conversion.json", "import.json", "manifest.json"} <= {path.name for path in (tmp_path / "phi").iterdir()}
    assert read_json(tmp_path / "phi" / "config.json")["partial_rotary_factor"] == pythia.config.rope_parameters["partial_rotary_factor"]


def test_in_half_precision_it_stays_within_rounding(tmp_path: Path) -> None:
    write_base("pythia", tmp_path / "pythia", tiny_model("pythia").half())
    assert import_as_phi(tmp_path / "pythia", tmp_path / "phi")["kl_on_text"] <= 1e-4
    assert reload(tmp_path / "phi").dtype == torch.float16


@torch.no_grad()
def with_larger_gains(factor: float, reader: float, dtype: torch.dtype) -> Any:
    model: Any = tiny_model("pythia")
    for layer in model.gpt_neox.layers:
        layer.input_layernorm.weight.mul_(factor)
        layer.attention.query_key_value.weight.mul_(reader)
    return model.to(dtype)


def unfolded(weight_OD: Tensor, bias_O: Tensor, _gain_D: Tensor, _shift_D: Tensor) -> tuple[Tensor, Tensor]:
    """What a reader is without what its norm multiplies by and adds."""
    return weight_OD, bias_O.to(weight_OD)


def test_what_rounding_alone_changes_is_told_and_no_mistake(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_base("pythia", tmp_path / "pythia", with_larger_gains(12.0, 2.0, torch.bfloat16))
    assert import_as_phi(tmp_path / "pythia", tmp_path / "phi")["kl_on_text"] > LARGEST_KL
    assert "the model is sensitive, fp32 would keep it" in caplog.text
    assert import_as_phi(tmp_path / "pythia", tmp_path / "wide", "fp32")["kl_on_text"] <= 1e-6
    phi = reload(tmp_path / "wide")
    assert (phi.dtype, phi.config.dtype) == (torch.float32, torch.float32)
    monkeypatch.setattr("pat.checkpoints.pythia.folded", unfolded)
    with pytest.raises(RuntimeError, match="the checkpoint is wrong"):
        import_as_phi(tmp_path / "pythia", tmp_path / "other")


def test_a_product_that_half_precision_does_not_hold_is_told(tmp_path: Path) -> None:
    write_base("pythia", tmp_path / "pythia", with_larger_gains(3e4, 30.0, torch.float16))
    with pytest.raises(UserError, match=r"q_proj\.weight is not finite in float16; its weights are damaged, or need bf16 or fp32"):
        import_as_phi(tmp_path / "pythia", tmp_path / "phi")


def test_a_narrower_dtype_rounds_once(tmp_path: Path) -> None:
    """The product of the stored fp32 weights and gains, formed in fp64, is what bf16 holds the rounding of."""
    pythia: Any = with_larger_gains(1.3, 1.7, torch.float32)
    write_base("pythia", tmp_path / "pythia", pythia)
    import_as_phi(tmp_path / "pythia", tmp_path / "phi", "bf16")
    layer = pythia.gpt_neox.layers[1]
    expected = (layer.mlp.dense_h_to_4h.weight.double() * layer.post_attention_layernorm.weight.double()).float().bfloat16()
    with safe_open(tmp_path / "phi" / "model.safetensors", "pt") as stored:
        assert torch.equal(stored.get_tensor("model.layers.1.mlp.fc1.weight"), expected)
        assert {stored.get_tensor(name).dtype for name in stored.keys()} == {torch.bfloat16}  # noqa: SIM118 - not a mapping


@pytest.mark.parametrize("name", PYTHIAS)
def test_a_vocabulary_of_several_pieces_has_one_bias(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pat.checkpoints.unrounded.ROWS_AT_ONCE", 7)
    write_base(name, tmp_path / "pythia", tiny_model(name).bfloat16())
    assert import_as_phi(tmp_path / "pythia", tmp_path / "phi")["fold_gap"] <= 1e-6


def test_its_tokenizer_stays_what_it_was_where_the_models_type_chose_its_class(tmp_path: Path) -> None:
    """A GPT-NeoX tokenizer composes accents, the one that transformers takes for a Phi does not."""
    write_base("pythia", tmp_path / "pythia")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator([f"{ACCENTED} x", "\u00e9 \u00e9"], trainers.BpeTrainer(vocab_size=60, special_tokens=["<e>"]))
    tokenizer.save(str(tmp_path / "pythia" / "tokenizer.json"))
    write_json(tmp_path / "pythia" / "tokenizer_config.json", {"eos_token": "<e>", "unk_token": "<e>"})
    expected = AutoTokenizer.from_pretrained(tmp_path / "pythia")
    assert type(expected).__name__ == "GPTNeoXTokenizer"
    import_as_phi(tmp_path / "pythia", tmp_path / "phi")
    found = AutoTokenizer.from_pretrained(tmp_path / "phi")
    assert found(ACCENTED).input_ids == expected(ACCENTED).input_ids


def test_a_mistake_in_it_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_base("pythia", tmp_path / "pythia")
    monkeypatch.setattr("pat.checkpoints.pythia.folded", unfolded)
    with pytest.raises(RuntimeError, match="the checkpoint is wrong"):
        import_as_phi(tmp_path / "pythia", tmp_path / "phi")
    assert not (tmp_path / "phi").exists()


def test_channels_go_by_pat_and_by_a_pruner(tmp_path: Path) -> None:
    write_base("pythia", tmp_path / "pythia")
    word_tokenizer().save_pretrained(tmp_path / "pythia")
    phi = tmp_path / "phi"
    with pytest.raises(SystemExit) as ended:
        run(["import-model", "--path", str(tmp_path / "pythia"), "--as", "phi", "--out", str(phi)])
    assert not ended.value.code
    recipe = {"max_steps": 8, "learning_rate": 1e-2, "batch_size": 4, "device": "cpu", "lora": {"rank": 3, "alpha": 12.0, "dropout": 0.0}}
    job = TuneJob.model_validate({"tuning": recipe, "pat": {"hio_rank": 3}})
    tune(asked(phi, rows(tmp_path), "pat", 0.25, 0, job, tmp_path / "run", tmp_path / "adapter"))
    record = merge(phi, tmp_path / "adapter", tmp_path / "merged")
    assert record["hidden_size"] == {"before": 48, "after": 36} and record["logit_gap"] <= EXACT
    cut = prune(phi, "channel-fisher", 0.25, "auto", tmp_path / "cut", calibration(tmp_path, 4000))
    assert cut["logit_gap"] <= EXACT
    for folder in ("merged", "cut"):
        config = reload(tmp_path / folder).config
        assert (config.model_type, config.hidden_size, config.head_dim) == ("phi", 36, 8)


@pytest.mark.parametrize(
    ("name", "said"), [("llama", "its architecture is llama; --as phi takes a Pythia"), ("opt", "its architecture is opt; --as phi")]
)
def test_another_model_is_refused(name: str, said: str, tmp_path: Path) -> None:
    write_base(name, tmp_path / "base")
    with pytest.raises(UserError, match=said):
        import_as_phi(tmp_path / "base", tmp_path / "phi")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--as", "phi", "--dtype", "int8"), "--dtype 'int8': must be one of bf16, fp16, fp32"),
        (("--dtype", "fp32"), "--dtype fp32: goes with --gguf, or --as: other models keep the dtype of their checkpoint"),
    ],
)
def test_a_dtype_that_is_none_or_has_no_effect_is_told(
    given: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_base("pythia", tmp_path / "pythia")
    with pytest.raises(SystemExit):
        run(["import-model", "--path", str(tmp_path / "pythia"), *given, "--out", str(tmp_path / "out")])
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_as_means_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given in (("--path", str(tmp_path), "--as", "llama"), ("--hub", "a/b", "--as", "phi")):
        with pytest.raises(SystemExit):
            run(["import-model", *given, "--out", str(tmp_path / "out")])
        assert "must be phi, and goes with --path, the folder of a Pythia" in capsys.readouterr().err
