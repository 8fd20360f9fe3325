"""No generation option that a base brings along changes an answer of the evaluation, at any batch size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from pat.data.items import write_items
from pat.io.artefacts import read_jsonl
from pat.io.marks import samples_path
from pat.scoring.batched_lm import BatchedLM
from pat.scoring.evaluation import evaluate
from pat.settings.jobs import EvaluationSettings
from tests.kit.tiny_checkpoint import byte_tokenizer, some_items, write_tiny_checkpoint

pytestmark = pytest.mark.lengthy

NEW_TOKENS = 7
TELLS_THE_END = {"bos_token_id", "eos_token_id", "pad_token_id"}
"""What the evaluation takes from the base: which tokens end a text."""
NOT_OPTIONS = {"_from_model_config", "transformers_version", "continuous_batching_config", "compile_config", "cache_config"}
"""What says nothing of the text: versions, and objects for serving."""
ALTERS: dict[str, Any] = {
    "repetition_penalty": 5.0,
    "num_beams": 4,
    "min_new_tokens": 6,
    "min_length": 10_000,
    "max_new_tokens": 2,
    "suppress_tokens": list(range(3, 200)),
    "begin_suppress_tokens": list(range(3, 200)),
    "forced_eos_token_id": 2,
    "bad_words_ids": [[token] for token in range(3, 200)],
    "no_repeat_ngram_size": 1,
    "sequence_bias": [[[40], 1e4]],
    "stop_strings": ["e"],
    "return_dict_in_generate": True,
    "num_return_sequences": 2,
    "prompt_lookup_num_tokens": 3,
    "constraints": [1],
    "force_words_ids": [[40]],
    "penalty_alpha": 0.6,
    "exponential_decay_length_penalty": [1, 1e6],
    "guidance_scale": 40.0,
    "encoder_repetition_penalty": 1e-3,
    "num_beam_groups": 2,
    "watermarking_config": {"bias": 1e3, "greenlist_ratio": 0.2},
    "use_mtp": True,
    "dola_layers": "high",
}
"""Options with values that change what plain `generate` returns, or that it cannot take at all."""
HARMLESS: dict[str, Any] = {
    "assistant_confidence_threshold": 0.9, "assistant_early_exit": None, "assistant_ensemble_weight": 0.5, "assistant_lookbehind": 3,
    "cache_implementation": "dynamic", "decoder_start_token_id": 7, "disable_compile": True, "diversity_penalty": 0.5, "do_sample": True,
    "early_stopping": True, "encoder_no_repeat_ngram_size": 1, "epsilon_cutoff": 0.5, "eta_cutoff": 0.5, "forced_bos_token_id": 7,
    "is_assistant": True, "length_penalty": 5.0, "low_memory": True, "max_cache_len": 4, "max_length": 3, "max_matching_ngram_size": 1,
    "max_time": 1e9, "min_p": 0.9, "num_assistant_tokens": 2, "num_assistant_tokens_schedule": "heuristic", "output_attentions": True,
    "output_hidden_states": True, "output_logits": True, "output_scores": True, "prefill_chunk_size": 4, "remove_invalid_values": True,
    "renormalize_logits": True, "speculation_type": None, "target_lookbehind": 2, "temperature": 9.0, "token_healing": False, "top_h": 0.1,
    "top_k": 2, "top_p": 0.1, "typical_p": 0.1, "use_cache": False,
}  # fmt: skip
"""Options that a greedy search would not mind, or that the call overrides, in one version of the library or another."""
PROMPTS = [f"Say {'a word or ' * (number % 4)}{number}:" for number in range(4)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> PreTrainedModel:
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(checkpoint)
    return loaded


def answers(model: PreTrainedModel, batch_size: int, until: list[str]) -> list[str]:
    """Return the generated texts: in batches of ours where nothing but the end token ends them, by lm-eval's own way else."""
    options = {"until": until, "do_sample": False, "max_gen_toks": NEW_TOKENS}
    asked = [Instance("generate_until", {}, (text, options), place) for place, text in enumerate(PROMPTS)]
    return BatchedLM(model, byte_tokenizer(), batch_size).generate_until(asked)


@pytest.fixture(scope="module")
def expected(model: PreTrainedModel) -> dict[tuple[str, ...], list[str]]:
    return {until: answers(model, 1, list(until)) for until in ((), ("\n\n",))}


def configured(field: str) -> GenerationConfig:
    config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    setattr(config, field, (ALTERS | HARMLESS)[field])
    return config


def test_every_option_of_the_installed_library_is_tried() -> None:
    known = set(vars(GenerationConfig())) - TELLS_THE_END - NOT_OPTIONS
    assert known == ALTERS.keys() | HARMLESS.keys()


@pytest.mark.parametrize("field", sorted({*ALTERS, *HARMLESS}))
def test_an_option_of_the_base_changes_no_answer(
    field: str, model: PreTrainedModel, expected: dict[tuple[str, ...], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "generation_config", config := configured(field))
    for batch_size, until in ((1, ()), (3, ()), (3, ("\n\n",))):
        assert answers(model, batch_size, list(until)) == expected[until]
    assert model.generation_config is config, "the caller's model keeps its own"


@pytest.mark.parametrize("field", ["repetition_penalty", "num_beams", "suppress_tokens", "forced_eos_token_id", "stop_strings"])
def test_the_options_tried_do_change_what_stock_generation_returns(
    field: str, model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stock() -> Any:
        generator: Any = model
        prompts = [byte_tokenizer()(text, return_tensors="pt")["input_ids"] for text in PROMPTS]
        with torch.no_grad():
            return [generator.generate(each, max_length=each.shape[1] + 7, do_sample=False, pad_token_id=0).tolist() for each in prompts]

    plain = stock()
    monkeypatch.setattr(model, "generation_config", configured(field))
    try:
        assert stock() != plain
    except ValueError as error:
        assert field == "stop_strings" and "tokenizer" in str(error)


@pytest.mark.parametrize("place", ["generation_config.json", "config.json"])
def test_a_checkpoint_that_brings_options_is_scored_as_without_them(place: str, tmp_path: Path, checkpoint: Path) -> None:
    settings = EvaluationSettings(device="cpu", batch_size=3, max_new_tokens=NEW_TOKENS)
    write_items(tmp_path / "toy.jsonl", some_items(6))

    def generated(folder: Path) -> list[Any]:
        out = tmp_path / "evaluation.json"
        evaluate(folder, [tmp_path / "toy.jsonl"], [], settings, 0, out)
        return [row["generated"] for row in read_jsonl(samples_path(out), ["generated"])]

    own = write_tiny_checkpoint(tmp_path / "model")
    if place == "config.json":
        (own / "generation_config.json").unlink()
    brought = {name: ALTERS[name] for name in ("repetition_penalty", "num_beams", "no_repeat_ngram_size", "suppress_tokens")}
    brought |= {"min_new_tokens": 6, "stop_strings": ["e"]} if place == "generation_config.json" else {}
    (own / place).write_text(json.dumps(json.loads((own / place).read_text()) | brought if (own / place).exists() else brought))
    assert generated(own) == generated(checkpoint)
