"""Pretraining: any text survives the tokenizer, N steps equal N/2 + resume + N/2 to the byte, and the result is a stock model."""

from __future__ import annotations

import json
import math
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback

from pat.data.corpus import PackedTexts, train_tokenizer
from pat.data.prompts import alpaca_prompt, first_capital_prompt, fixed_phrases
from pat.errors import UserError
from pat.io.artefacts import check_folder, read_json, sha256, write_json
from pat.settings.jobs import PretrainSettings
from pat.training import pretraining
from pat.training.pretraining import blocks_seen, pretrain
from tests.kit.stock_models import reload

pytestmark = pytest.mark.lengthy

TEXTS = [f"the number {number} is followed by {number + 1}. café" for number in range(300)]
SETTINGS = PretrainSettings(
    vocab_size=320,
    hidden_size=16,
    layers=2,
    heads=4,
    kv_heads=2,
    intermediate_size=32,
    context_length=16,
    steps=12,
    batch_size=4,
    learning_rate=1e-2,
    warmup_steps=2,
    checkpoint_steps=6,
    heldout_fraction=0.1,
    whole_prompts=True,
    device="cpu",
)


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the library catches it."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def straight(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight")
    pretrain(corpus, SETTINGS, folder / "run", folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, 320, whole_prompts=True)


@given(text=st.text(max_size=40).filter(lambda text: "<" not in text))
def test_any_text_survives_the_round_trip(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    for whole in (text, alpaca_prompt(text, "an input") + f" {text}", first_capital_prompt(text, ["a", "b", "c"])):
        ids = tokenizer(whole)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True) == whole


def test_fixed_phrases_are_one_token_each_where_asked_for(tokenizer: PreTrainedTokenizerFast) -> None:
    assert all(len(tokenizer(phrase, add_special_tokens=False)["input_ids"]) == 1 for phrase in fixed_phrases())
    assert len(tokenizer(first_capital_prompt("", ["a", "b"]))["input_ids"]) < 20
    plain = train_tokenizer(TEXTS, 320, whole_prompts=False)
    assert all(len(plain(phrase, add_special_tokens=False)["input_ids"]) > 1 for phrase in fixed_phrases())
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}) == 3


def test_blocks_hold_the_texts_in_order_between_marks(tokenizer: PreTrainedTokenizerFast) -> None:
    blocks = PackedTexts(TEXTS, tokenizer, 8, "corpus")
    stream = torch.cat([blocks[place] for place in range(len(blocks))]).tolist()
    pieces = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in TEXTS]
    expected = [token for piece in pieces for token in piece]
    assert stream == expected[: len(stream)]
    assert len(expected) - len(stream) < 8


def test_result_is_a_stock_checkpoint_with_its_tokenizer(straight: Path) -> None:
    check_folder(straight)
    model, tokenizer = reload(straight), AutoTokenizer.from_pretrained(straight)
    assert type(model) is LlamaForCausalLM
    assert model.config.vocab_size == len(tokenizer) == SETTINGS.vocab_size
    assert model.config.num_key_value_heads == SETTINGS.kv_heads
    assert tokenizer.decode(tokenizer(TEXTS[0])["input_ids"], skip_special_tokens=True) == TEXTS[0]
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 60))
def test_the_last_batch_of_a_pass_may_be_smaller(blocks: int, batch_size: int, steps: int) -> None:
    one_pass = [len(batch) for batch in DataLoader(list(range(blocks)), batch_size=batch_size)]  # type: ignore[arg-type]
    settings = SETTINGS.model_copy(update={"batch_size": batch_size, "steps": steps})
    assert blocks_seen(settings, blocks) == sum(islice(cycle(one_pass), steps))


def test_record_says_what_was_learned_and_measured(straight: Path) -> None:
    record = read_json(straight / "pretraining.json")
    model = AutoModelForCausalLM.from_pretrained(straight)
    embeddings = 2 * SETTINGS.vocab_size * SETTINGS.hidden_size
    assert record["parameters"] == {"unique": model.num_parameters(), "without_embeddings": model.num_parameters() - embeddings}
    assert record["tokens"]["seen"] == SETTINGS.steps * SETTINGS.batch_size * SETTINGS.context_length
    assert [entry["step"] for entry in record["history"]] == [SETTINGS.steps]
    assert 0 < record["heldout_loss"] < math.log(SETTINGS.vocab_size)
    assert record["provenance"]["settings"]["steps"] == SETTINGS.steps


@pytest.mark.parametrize("killed_after", [3, 9])
def test_killed_and_called_again_gives_the_same_bytes(
    corpus: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    class Killer(pretraining.ShowProgress):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == killed_after:
                raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(pretraining, "ShowProgress", Killer)
        with pytest.raises(Killed):
            pretrain(corpus, SETTINGS, tmp_path / "run", tmp_path / "model")
    assert not (tmp_path / "model").exists()
    first_steps = _steps_run(monkeypatch)
    pretrain(corpus, SETTINGS, tmp_path / "run", tmp_path / "model")
    assert first_steps == [(killed_after // SETTINGS.checkpoint_steps) * SETTINGS.checkpoint_steps]
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()
    assert not (tmp_path / "run").exists()


def _steps_run(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that will hold the step which the next training run starts from."""
    seen: list[int] = []

    class Watcher(pretraining.ShowProgress, TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append(state.global_step)

    monkeypatch.setattr(pretraining, "ShowProgress", Watcher)
    return seen


def test_checkpoint_that_was_being_written_when_the_kill_came_is_passed_over(corpus: Path, straight: Path, tmp_path: Path) -> None:
    torn = tmp_path / "run" / "checkpoint-6"
    torn.mkdir(parents=True)
    write_json(tmp_path / "run" / "job.json", {"settings": SETTINGS.model_dump(mode="json"), "corpus": sha256(corpus)})
    (torn / "model.safetensors").write_bytes(b"half of it")
    pretrain(corpus, SETTINGS, tmp_path / "run", tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"vocab_size": 200}, "pretrain.vocab_size: 200"), ({"context_length": 4096, "heldout_fraction": 0.5}, "4096")],
)
def test_what_cannot_work_is_refused(corpus: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        pretrain(corpus, SETTINGS.model_copy(update=changes), tmp_path / "run", tmp_path / "model")


def test_a_held_out_part_that_fills_no_context_is_told_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    monkeypatch.setattr("transformers.Trainer.train", lambda *_, **__: pytest.fail("trained before it was told"))
    settings = SETTINGS.model_copy(update={"context_length": 64, "heldout_fraction": 0.004})
    with pytest.raises(UserError, match=r"\(held out\): \d+ tokens do not fill one context"):
        pretrain(corpus, settings, tmp_path / "run", tmp_path / "out")
