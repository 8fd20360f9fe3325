"""On a pretrained model, a GGUF file of one's own or the one of the project's experiment: what is imported, rotated and pruned of it.

Against stock transformers, and against what the model was taught: it still knows it in another basis.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from pat.bases.rotate import rotate
from pat.checkpoints import checkpoint
from pat.checkpoints.fidelity import LARGEST_FOLD_GAP
from pat.checkpoints.gguf_import import import_gguf
from pat.checkpoints.origin import origin_of
from pat.checkpoints.probe_text import PASSAGES
from pat.data.calibration import Calibration
from pat.io.artefacts import write_jsonl
from pat.io.yaml_files import read_yaml
from pat.pruners.pruning import prune
from tests.kit.project import ROOT
from tests.kit.stock_models import reload

pytestmark = pytest.mark.model
VARIABLE = "PAT_REAL_MODEL"
EXPERIMENT = ROOT / "config" / "smollm2-local.yaml"
TEXT = (
    "Paris is the capital of France. It lies on the river Seine, in the north of the country, and has been one of the most important "
    "cities of Europe since the Middle Ages. Many people visit its museums every year."
)
FURTHER_TEXTS = (
    TEXT,
    "Water is made of hydrogen and oxygen. At the level of the sea it boils at one hundred degrees Celsius and freezes at zero. On a high "
    "mountain the pressure of the air is lower, so that it boils earlier, and potatoes have to be cooked for a longer time.",
    "A dictionary in Python maps keys to values. To count the words of a text, go through them one after the other, and add one to the "
    "value of each word. A word that is not there yet begins with zero. At the end, sort the words by how often they were found.",
    "Dear Mr Brown, thank you for your letter of the third of March. We are sorry to hear that the chair arrived with a broken leg. A new "
    "one will be sent to you this week, and there is nothing that you have to pay. Please keep the old one until our driver comes.",
    "The First World War began in the summer of 1914 and ended in November 1918. More than sixty million soldiers took part in it. When it "
    "was over, four empires had fallen, the map of Europe was drawn anew, and the United States had become a great power.",
)
"""What nothing is measured on before it."""


@pytest.fixture(scope="module")
def file() -> Path:
    if named := os.environ.get(VARIABLE):
        assert Path(named).is_file(), f"{VARIABLE}={named}: no such file; give a GGUF file, such as SmolLM2-135M-Instruct's"
        return Path(named)
    experiment = read_yaml(EXPERIMENT)
    (model,) = experiment["models"].values()
    there: Path = ROOT / experiment["root"] / model["gguf"]
    if not there.is_file():
        pytest.skip(f"no {there}, and {VARIABLE} names no GGUF file; set it to one, such as SmolLM2-135M-Instruct's")
    return there


@pytest.fixture(scope="module")
def base(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real") / "base"
    import_gguf(file, folder)
    return folder


def test_its_logits_are_those_that_transformers_has(file: Path, base: Path) -> None:
    tokens_BT = checkpoint.load_tokenizer(base)(TEXT, return_tensors="pt")["input_ids"]
    theirs = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16)
    with torch.no_grad():
        assert torch.equal(checkpoint.load_model(base)(tokens_BT).logits, theirs(tokens_BT).logits)


def test_it_keeps_tie_chat_template_and_record(base: Path) -> None:
    config, tokenizer = checkpoint.load_config(base), checkpoint.load_tokenizer(base)
    assert ("lm_head.weight" in checkpoint.tensor_shapes(base)) is not config.tie_word_embeddings
    assert tokenizer.chat_template
    assert tokenizer.decode(tokenizer(TEXT)["input_ids"], skip_special_tokens=True) == TEXT
    assert (origin_of(base) or {})["formats"]


def test_it_knows_english(base: Path) -> None:
    """A broken order of heads, a lost gain or a wrong tokenizer leaves a perplexity in the thousands."""
    assert perplexity(base, TEXT) < 20


def perplexity(folder: Path, *texts: str) -> float:
    """Return the perplexity of texts that stock transformers computes in fp32."""
    model, tokenizer = reload(folder).float(), checkpoint.load_tokenizer(folder)
    loss, count = 0.0, 0
    for text in texts:
        tokens_BT = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            loss += model(input_ids=tokens_BT, labels=tokens_BT).loss.item() * (tokens_BT.shape[1] - 1)
        count += tokens_BT.shape[1] - 1
    return math.exp(loss / count)


def untied(folder: Path) -> bool:
    return not checkpoint.load_config(folder).tie_word_embeddings


def test_rotated_with_its_tie_kept_it_says_what_it_did(base: Path, tmp_path: Path) -> None:
    """Some hundred tokens are enough: of the basis nothing depends on them, and of the scale only means over tokens."""
    if untied(base):
        pytest.skip("embedding and head of this model are two matrices")
    write_jsonl(tmp_path / "text.jsonl", ({"text": passage} for passage in PASSAGES))
    record = rotate(base, "pca", Calibration(tmp_path / "text.jsonl"), tmp_path / "rotated")
    rotated = reload(tmp_path / "rotated")
    assert record["tie"] == "kept" and record["parameters"]["after"] == record["parameters"]["before"]
    assert rotated.config.tie_word_embeddings and rotated.get_input_embeddings().weight is rotated.get_output_embeddings().weight
    assert perplexity(tmp_path / "rotated", *FURTHER_TEXTS) / perplexity(base, *FURTHER_TEXTS) <= 1.005
    before_VD, after_VD = (model.get_input_embeddings().weight.float() for model in (reload(base), rotated))
    assert torch.cosine_similarity(before_VD, after_VD).abs().mean() < 0.5, "it is in another basis"


def test_a_quarter_of_its_channels_goes_and_the_rest_computes_what_it_did_without_them(base: Path, tmp_path: Path) -> None:
    """Against the stock model whose embedding and writes leave the channels that go at zero; in fp32, where both are exact."""
    whole = reload(base).float()
    whole.save_pretrained(tmp_path / "wide")
    record = prune(tmp_path / "wide", "channel-magnitude", 0.25, "auto", tmp_path / "pruned")
    hidden, kept = whole.config.hidden_size, record["kept"]
    assert len(kept) == record["hidden_size"]["after"] == pytest.approx(0.75 * hidden, abs=32)
    tokens_BT = checkpoint.load_tokenizer(base)(TEXT, return_tensors="pt")["input_ids"]
    expected_BTV = logits_without(whole, [channel for channel in range(hidden) if channel not in set(kept)], tokens_BT)
    pruned = reload(tmp_path / "pruned")
    assert pruned.config.tie_word_embeddings is whole.config.tie_word_embeddings and pruned.config.hidden_size == len(kept)
    with torch.no_grad():
        found_BTV = pruned(tokens_BT).logits
    assert (found_BTV - expected_BTV).abs().max() <= LARGEST_FOLD_GAP * expected_BTV.abs().max()


@torch.no_grad()
def logits_without(model: Any, gone: list[int], tokens_BT: Tensor) -> Tensor:
    """Return what a model says whose embedding and writes, changed in place, put nothing into these channels."""
    model.get_input_embeddings().weight[:, gone] = 0.0
    for layer in model.model.layers:
        for write in (layer.self_attn.o_proj, layer.mlp.down_proj):
            write.weight[gone] = 0.0
    found: Tensor = model(tokens_BT).logits
    return found
