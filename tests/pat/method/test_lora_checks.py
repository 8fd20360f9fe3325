"""Settings of LoRA that cannot be are refused by name, and so are those that are not the run's own, before anything is folded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from pat import PatConfig, PatModel
from pat.checkpoints.merge import merge
from pat.errors import UserError
from pat.families.known import family_of
from pat.method.lora_checks import ALLOWED, lora_problems
from pat.method.model import lora_config
from tests.kit.tiny_models import tiny_model
from tests.kit.training import trained

NAN = float("nan")
NO_VALUES: dict[str, list[Any]] = {
    "r": [0, -1, "x", NAN, 2.5, True, None, 2**40],
    "lora_alpha": [NAN, float("inf"), "x", 0, -1, None, True],
    "lora_dropout": [2, -1, NAN, "x", None],
    "use_dora": ["x", 1, None],
    "use_rslora": ["x", 1],
    "target_modules": [[], "", 3, None, [3], [""]],
    "rank_pattern": ["x", [], {"q_proj": "x"}, {"q_proj": 0}],
    "exclude_modules": [3, [3]],
    "layers_to_transform": ["x", ["x"], -1],
    "alpha_pattern": ["x", {"q_proj": NAN}],
}
FOREIGN: dict[str, list[Any]] = {
    "r": [4], "lora_alpha": [7.0], "lora_dropout": [0.4], "use_rslora": [True], "rank_pattern": [{"q_proj": 8}], "alpha_pattern": [{"q_proj": 8.0}],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with an adapter of a PAT run and one of LoRA alone."""
    made = tmp_path_factory.mktemp("lora")
    tiny_model("llama").save_pretrained(made / "base")
    trained("llama").save_pretrained(str(made / "pat"))
    stock = tiny_model("llama")
    get_peft_model(stock, lora_config(family_of(stock.config), 3, 6.0, 0.0, use_dora=False)).save_pretrained(str(made / "lora"))
    return made


def changed(folder: Path, kind: str, out: Path, **settings: Any) -> Path:
    """Return a copy of an adapter with other settings of LoRA."""
    shutil.copytree(folder / kind, out)
    path = out / "adapter_config.json"
    record = json.loads(path.read_text())
    record.get("lora", record).update(settings)
    path.write_text(json.dumps(record))
    return out


@pytest.mark.parametrize("kind", ["pat", "lora"])
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in NO_VALUES.items() for value in values], ids=str)
def test_a_setting_that_cannot_be_is_told_by_name(kind: str, name: str, value: Any, folder: Path, tmp_path: Path) -> None:
    adapter = changed(folder, kind, tmp_path / "adapter", **{name: value})
    with pytest.raises(UserError, match=rf"adapter_config\.json: {name}: .*must be {ALLOWED[name][1]}"):
        merge(folder / "base", adapter, tmp_path / "out")
    if kind == "pat":
        with pytest.raises(UserError, match=name):
            PatModel.from_pretrained(tiny_model("llama"), adapter)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in FOREIGN.items() for value in values], ids=str)
def test_lora_that_is_not_the_run_s_is_refused(name: str, value: Any, folder: Path, tmp_path: Path) -> None:
    adapter = changed(folder, "pat", tmp_path / "adapter", **{name: value})
    message = rf"adapter_config\.json: {name}: .* is not what the run was given, .*, by pat_config\.json beside it"
    with pytest.raises(UserError, match=rf"{message}|of rank \d by its config"):
        merge(folder / "base", adapter, tmp_path / "out")
    with pytest.raises(UserError, match=message):
        PatModel.from_pretrained(tiny_model("llama"), adapter)


@pytest.mark.parametrize("kind", ["pat", "lora"])
@pytest.mark.parametrize("targets", ["nothing", ["nothing"], ["q_proj.x", "o"]], ids=str)
def test_targets_that_the_base_has_not_are_told_before_the_fold(kind: str, targets: Any, folder: Path, tmp_path: Path) -> None:
    adapter = changed(folder, kind, tmp_path / "adapter", target_modules=targets)
    with pytest.raises(UserError, match=r"target_modules: .*: names no module of the base"):
        merge(folder / "base", adapter, tmp_path / "out")


def tensors(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    """Return a change of an adapter's tensors of LoRA."""

    def changes(adapter: Path) -> None:
        path = adapter / "adapter_model.safetensors"
        found = load_file(path)
        change(found)
        save_file(found, path, metadata={"format": "pt"})

    return changes


Q = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "another rank": (
        tensors(lambda all: all.update({Q: all[Q].new_ones(5, 48)})),
        r"lora_A and lora_B are of shapes .*, of rank 3 by its config",
    ),
    "another width": (
        tensors(lambda all: all.update({Q: all[Q].new_ones(3, 47)})),
        r"q_proj is updated as \[48, 47\], but the base's is \[48, 48\]",
    ),
    "no matrix": (tensors(lambda all: all.update({Q: all[Q].new_ones(3)})), "lora_A and lora_B are of shapes"),
    "integers": (tensors(lambda all: all.update({Q: all[Q].int()})), "is stored as int32, where floating-point numbers are needed"),
    "NaN": (tensors(lambda all: all[Q].fill_(NAN)), "holds NaN or infinity"),
    "fewer targets": (
        lambda adapter: settings(adapter, target_modules=["k_proj"]),
        r"holds updates of .*, which its config names not as trained",
    ),
    "fewer layers": (lambda adapter: settings(adapter, layers_to_transform=[0]), r"holds updates of .*layers\.1"),
    "another rank in a pattern": (lambda adapter: settings(adapter, rank_pattern={"q_proj": 2}), "of rank 2 by its config"),
    "a broken record": (
        lambda adapter: (adapter / "tuning.json").write_text('{"provenance": 3}'),
        r"tuning\.json: provenance: must be an object",
    ),
    "a broken input": (
        lambda adapter: (adapter / "tuning.json").write_text('{"provenance": {"inputs": {"base": 3}}}'),
        "base: must be an object",
    ),
}


def settings(adapter: Path, **changed_settings: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed_settings))


@pytest.mark.parametrize("name", BROKEN)
def test_an_adapter_that_peft_or_the_fold_would_stumble_over_is_told_before(name: str, folder: Path, tmp_path: Path) -> None:
    adapter = changed(folder, "lora", tmp_path / "adapter")
    change, message = BROKEN[name]
    change(adapter)
    with pytest.raises(UserError, match=message):
        merge(folder / "base", adapter, tmp_path / "out")


def test_a_mask_that_is_no_number_is_told(folder: Path, tmp_path: Path) -> None:
    adapter = changed(folder, "pat", tmp_path / "adapter")
    path = adapter / "hsm.safetensors"
    state = load_file(path)
    state["mask.proxy"][0] = NAN
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"hsm\.safetensors: the tensor mask\.proxy holds NaN or infinity"):
        merge(folder / "base", adapter, tmp_path / "out")


STATES: dict[str, tuple[dict[str, Tensor], str]] = {
    "no step": ({"mask.step_count": torch.tensor(-4)}, "mask.step_count is -4"),
    "a step beyond all": ({"mask.step_count": torch.tensor(2**40)}, "mask.step_count is 1099511627776"),
    "a step that is no number": ({"mask.step_count": torch.tensor(NAN)}, r"wrong kind of number in \['mask.step_count'\]"),
    "nothing stays": ({"mask.kept": torch.zeros(48, dtype=torch.bool)}, "its mask keeps 0 of 48 channels, .* it is to keep 36"),
    "all stays": ({"mask.kept": torch.ones(48, dtype=torch.bool)}, "its mask keeps 48 of 48 channels, .* it is to keep 36"),
}


@pytest.mark.parametrize("name", STATES)
def test_the_state_of_a_mask_that_cannot_be_is_told(name: str, folder: Path, tmp_path: Path) -> None:
    adapter = changed(folder, "pat", tmp_path / "adapter")
    path, (state, message) = adapter / "hsm.safetensors", STATES[name]
    save_file(load_file(path) | state, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=message):
        merge(folder / "base", adapter, tmp_path / "out")


@pytest.mark.parametrize("field", [{"pruning_ratio": 0.5}, {"width": 12}])
def test_another_width_than_the_run_s_is_told(field: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    adapter = changed(folder, "pat", tmp_path / "adapter")
    path = adapter / "pat_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | field))
    with pytest.raises(UserError, match=r"its mask keeps 36 of 48 channels, by pat_config\.json and the base it is to keep"):
        merge(folder / "base", adapter, tmp_path / "out")


@pytest.mark.parametrize(
    "field",
    [{"seed": -1}, {"seed": 2**32}, {"seed": 0.5}, {"lora_alpha": NAN}, {"lora_alpha": 0.0}, {"lora_dropout": 1.0}, {"lora_dropout": -0.1},
     {"total_steps": 0}, {"total_steps": -3}, {"width": 0}, {"lora_rank": 0}],
    ids=str,
)  # fmt: skip
def test_numbers_that_no_run_has_are_refused_in_python_too(field: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"PatConfig.{next(iter(field))}"):
        PatConfig(pruning_ratio=0.25, **field)


def test_what_is_not_there_has_peft_s_defaults() -> None:
    assert not list(lora_problems({}))
    assert not list(lora_problems({"r": 8, "lora_alpha": 16, "lora_dropout": 0, "target_modules": "all-linear", "rank_pattern": None}))
