"""An adapter folder says what it is: whatever opens LoRA fails on it, ours opens it, and those of earlier versions too."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict, load_peft_weights
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pat import PatCallback, PatConfig, PatModel, PatTrainer, attach
from pat.errors import UserError
from pat.families.known import family_of
from pat.method.lora import read_adapter
from pat.method.model import lora_config
from tests.kit.tiny_models import random_tokens, tiny_model
from tests.kit.training import trained
from tests.kit.training_rows import RandomRows, arguments


@pytest.fixture(scope="module")
def model() -> PatModel:
    return trained("llama-grouped")


@pytest.fixture(scope="module")
def folder(model: PatModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that knows where its base lies, as one does that was loaded from a folder."""
    made = tmp_path_factory.mktemp("adapter")
    tiny_model("llama-grouped").save_pretrained(made / "base")
    model.save_pretrained(str(made / "adapter"))
    config = json.loads((made / "adapter" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = config["lora"]["base_model_name_or_path"] = str(made / "base")
    (made / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    return made / "adapter"


def with_lora() -> Any:
    """Return a stock model with a LoRA adapter of the same ranks."""
    stock = tiny_model("llama-grouped")
    return get_peft_model(stock, lora_config(family_of(stock.config), 3, 6.0, 0.0, use_dora=False))


STRANGERS: dict[str, Callable[[Path], Any]] = {
    "PeftModel": lambda folder: PeftModel.from_pretrained(tiny_model("llama-grouped"), str(folder)),
    "AutoPeft": lambda folder: AutoPeftModelForCausalLM.from_pretrained(str(folder)),
    "PeftConfig": lambda folder: PeftConfig.from_pretrained(str(folder)),
    "load_adapter": lambda folder: with_lora().load_adapter(str(folder), "second"),
    "load_adapter in place": lambda folder: with_lora().load_adapter(str(folder), "default"),
    "transformers": lambda folder: tiny_model("llama-grouped").load_adapter(str(folder)),
    "AutoModel": lambda folder: AutoModelForCausalLM.from_pretrained(str(folder), local_files_only=True),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_whatever_opens_lora_fails(name: str, folder: Path) -> None:
    with pytest.raises((KeyError, ValueError, RuntimeError, OSError)):
        STRANGERS[name](folder)


def test_runtimes_that_read_the_files_find_no_lora(folder: Path) -> None:
    """They take rank, scaling and targets of the config, and factors (R, I) and (O, R) of the weights."""
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["peft_type"] == "PAT" and "pat.PatModel.from_pretrained" in config["opens_with"]
    # vLLM's PEFTHelper requires the first three, SGLang two of them, llama.cpp's convert_lora_to_gguf.py the scaling.
    assert not {"r", "lora_alpha", "target_modules", "task_type"} & set(config)
    assert config["lora"]["target_modules"] == sorted(config["lora"]["target_modules"])
    factors = load_peft_weights(str(folder), "cpu")
    marks = {name for name, tensor in factors.items() if tensor.dim() == 0}
    assert marks == {"this_is_no_lora_adapter"}  # Ollama refuses a file with a tensor without axes; factors it would turn round by itself
    for name in factors.keys() - marks:
        assert factors[name].shape[0 if "lora_A" in name else 1] != 3, name
    assert "no LoRA adapter" in (folder / "README.md").read_text()


def test_ours_opens_those_without_the_tensor_that_others_refuse(model: PatModel, folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / "copied")
    tensors = load_file(copied / "adapter_model.safetensors")
    del tensors["this_is_no_lora_adapter"]
    save_file(tensors, copied / "adapter_model.safetensors", metadata={"format": "pt"})
    opened, tokens = PatModel.from_pretrained(tiny_model("llama-grouped"), copied), random_tokens()
    with torch.no_grad():
        assert torch.equal(model(input_ids=tokens).logits, opened(input_ids=tokens).logits)


@pytest.mark.parametrize("choices", [{}, {"use_dora": True}, {"hio_rank": 0, "mask": "magnitude"}])
def test_ours_opens_it(choices: dict[str, Any], tmp_path: Path) -> None:
    model, tokens = trained("llama-grouped", **choices), random_tokens()
    model.save_pretrained(tmp_path)
    opened = PatModel.from_pretrained(tiny_model("llama-grouped"), tmp_path)
    with torch.no_grad():
        assert torch.equal(model(input_ids=tokens).logits, opened(input_ids=tokens).logits)
    assert not any(parameter.requires_grad for parameter in opened.parameters())


def as_an_earlier_version_left_it(model: PatModel, folder: Path) -> None:
    """Write LoRA as PEFT does, with the operators and the mask beside it."""
    model.sparsifier.save(folder)
    model.active_peft_config.save_pretrained(str(folder))
    state = {name: tensor.contiguous() for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()}
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def test_ours_opens_those_of_earlier_versions(model: PatModel, folder: Path, tmp_path: Path) -> None:
    as_an_earlier_version_left_it(model, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "LORA"
    tokens = random_tokens()
    opened = PatModel.from_pretrained(tiny_model("llama-grouped"), tmp_path, is_trainable=True)
    with torch.no_grad():
        assert torch.equal(model(input_ids=tokens).logits, opened.eval()(input_ids=tokens).logits)
    old, new = read_adapter(tmp_path), read_adapter(folder)
    assert old.keys() == new.keys()
    for module, update in old.items():
        assert torch.equal(update.up_OR, new[module].up_OR) and torch.equal(update.down_RI, new[module].down_RI)
        assert update.scaling == new[module].scaling == 2.0
    opened.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "adapter_model.safetensors").read_bytes() == (folder / "adapter_model.safetensors").read_bytes()


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step >= self.step


@pytest.mark.lengthy
@pytest.mark.parametrize("kind", [Trainer, PatTrainer])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_trainer_resumes(kind: type[Trainer], earlier: bool, tmp_path: Path) -> None:
    """From its own checkpoint, and from one that an earlier version wrote, to the same weights as without a break."""

    def run(folder: Path, *callbacks: TrainerCallback, resume: bool = False) -> PatModel:
        model = attach(tiny_model("llama"), PatConfig(pruning_ratio=0.25, hio_rank=4, lora_rank=3, lora_dropout=0.0))
        given = arguments(folder, save_strategy="steps", save_steps=4)
        trainer = kind(model=model, args=given, train_dataset=RandomRows(), callbacks=[PatCallback(), *callbacks])
        trainer.train(resume_from_checkpoint=resume)
        return model

    straight = run(tmp_path / "straight")
    stopped = run(tmp_path / "halves", StopAt(8))
    if earlier:
        as_an_earlier_version_left_it(stopped, tmp_path / "halves" / "checkpoint-8")
    resumed = run(tmp_path / "halves", resume=True)
    assert resumed.sparsifier.mask.step == 12
    theirs = dict(straight.named_parameters())
    for name, parameter in resumed.named_parameters():
        assert torch.equal(parameter, theirs[name]), name


def test_the_best_checkpoint_is_loaded_at_the_end(tmp_path: Path) -> None:
    model = attach(tiny_model("llama"), PatConfig(pruning_ratio=0.25, hio_rank=4, lora_rank=3))
    given = arguments(
        tmp_path, save_strategy="steps", save_steps=6, eval_strategy="steps", eval_steps=6, load_best_model_at_end=True, learning_rate=1e-2
    )  # fmt: skip
    trainer = PatTrainer(model=model, args=given, train_dataset=RandomRows(), eval_dataset=RandomRows(8))
    trainer.train()
    best = trainer.state.best_model_checkpoint
    assert best is not None
    saved = load_file(Path(best) / "hsm.safetensors")
    for name, tensor in model.sparsifier.named_state().items():
        assert torch.equal(tensor, saved[name]), name


def drop_a_factor(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors.pop(min(tensors))
    save_file(tensors, folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "pat_config.json").unlink(), "has no pat_config.json"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "adapter_model.safetensors: no such file"),
        (lambda folder: (folder / "adapter_config.json").write_text('{"peft_type": "PAT"}'), "no settings of LoRA"),
        (lambda folder: (folder / "adapter_config.json").write_text('{"peft_type": "IA3"}'), "no settings of LoRA"),
        (lambda folder: (folder / "adapter_config.json").write_text('{"peft_type": "PAT", "lora": [1]}'), "no settings of LoRA"),
        (drop_a_factor, "does not fit this model: missing"),
    ],
)
def test_what_is_broken_is_one_sentence(spoil: Callable[[Path], object], message: str, folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "broken")
    spoil(broken)
    with pytest.raises(UserError, match=message):
        PatModel.from_pretrained(tiny_model("llama-grouped"), broken)


def test_another_rank_or_scaling_is_refused(folder: Path) -> None:
    for choices, message in (({"lora_rank": 4}, "wrong shape"), ({"lora_rank": 3, "lora_alpha": 4.0}, "lora_alpha=6.0 does not fit")):
        other = attach(tiny_model("llama-grouped"), PatConfig(pruning_ratio=0.25, hio_rank=5, **choices))
        with pytest.raises(UserError, match=message):
            other.load_adapter(folder, "default")


def test_a_plain_lora_folder_is_read_as_before(tmp_path: Path) -> None:
    lora = with_lora()
    lora.save_pretrained(str(tmp_path))
    assert isinstance(PeftConfig.from_pretrained(str(tmp_path)), LoraConfig)
    assert len(read_adapter(tmp_path)) == 3 * 7
