"""`study validate` looks at the disk: each mistake is told there, with its field and what to do; and what `--config` leaves as text is read."""

from __future__ import annotations

import json
import lzma
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pat.data.calibration import Calibration
from pat.errors import SettingError, UserError
from pat.io.yaml_files import parse_yaml
from pat.pruners.pruning import prune
from pat.training.search import split
from study.experiment.checks.disk import disk_problems
from study.experiment.file import load_experiment
from tests.kit.fuzz_workspace import EXPERIMENT, changed, write_workspace
from tests.kit.gguf_files import random_model, write_gguf
from tests.kit.project import ROOT


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_workspace(tmp_path_factory.mktemp("disk"))


def problems(workspace: Path, raw: dict[str, Any]) -> list[str]:
    return disk_problems(load_experiment({**raw, "root": str(workspace)}, "x.yaml"))


def test_an_experiment_whose_files_are_there_has_none(workspace: Path) -> None:
    assert problems(workspace, EXPERIMENT) == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("models.tiny.path", "missing", ("models.tiny.path: ", "no such folder")),
        ("models.tiny.path", "instruct.jsonl", ("models.tiny.path: ", "is a file")),
        ("data.instruct.path", "missing.jsonl", ("data.instruct.path: ", "no such file; put it there or correct the path")),
        ("data.tasks.own.path", "base", ("data.tasks.own.path: ", "is a folder")),
        ("data.text.held.path", "experiment.yaml", ("data.text.held.path: ", "must end in one of .json")),
        ("tuning.lora.rank", 33, ("methods.lora, models.tiny: ", "tuning.lora.rank=33", "hidden size, 32")),
        ("pat.hio_rank", 33, ("methods.pat, models.tiny: ", "pat.hio_rank=33")),
        ("pat.align", 64, ("methods.pat, models.tiny: ", "ratio 0.5 is not allowed")),
        ("evaluation.perplexity_context", 257, ("evaluation.perplexity_context: 257", "the context of models.tiny, 256")),
        ("evaluation.max_new_tokens", 256, ("evaluation.max_new_tokens: 256", "less than the context")),
    ],
)
def test_what_is_missing_wrong_or_too_large_is_told_with_its_field(path: str, value: Any, said: tuple[str, ...], workspace: Path) -> None:
    found = problems(workspace, changed(EXPERIMENT, path, value))[0]
    assert found.startswith(said[0]) and all(words in found for words in said)


def test_a_gguf_file_that_is_missing_is_told_with_where_its_path_starts(workspace: Path) -> None:
    [found] = problems(workspace, changed(EXPERIMENT, "models.tiny", {"gguf": "missing.gguf"}))
    assert found.startswith(f"models.tiny.gguf: {workspace / 'missing.gguf'}: no such file; put it there or correct the path, which starts")


def test_a_root_that_is_missing_is_one_line(workspace: Path) -> None:
    """And not one for each path that starts from it."""
    raw = {**EXPERIMENT, "root": str(workspace / "mistyped")}
    assert disk_problems(load_experiment(raw, "x.yaml")) == [
        f'root: "{workspace / "mistyped"}" is no folder here, and all relative paths of the file start from it'
    ]


def in_passes(**tuning: Any) -> dict[str, Any]:
    """The experiment with a tuning whose length is given in passes over its rows, and a row that is tuned in two parts."""
    recipe = {name: value for name, value in EXPERIMENT["tuning"].items() if name != "max_steps"}
    rows = {"lora": None, "pat": None, "channel-magnitude-ftpft": {"pat": {"milestone_fraction": 0.5}}}
    return {**EXPERIMENT, "methods": rows, "tuning": recipe | tuning}


def test_a_warm_up_longer_than_the_tuning_or_a_part_of_it_is_told_where_the_rows_are_known(workspace: Path) -> None:
    rows = len((workspace / "instruct.jsonl").read_text().splitlines())
    steps = -(-rows // EXPERIMENT["tuning"]["batch_size"])
    parts = [round(steps * 0.5), steps - round(steps * 0.5)]
    assert problems(workspace, in_passes(epochs=1, warmup_steps=min(parts))) == []
    row, run = "methods.channel-magnitude-ftpft, models.tiny: tuning.warmup_steps", f"the run of {rows} rows takes"
    between = problems(workspace, in_passes(epochs=1, warmup_steps=steps))
    assert between == [
        f"{row}: {steps} is not allowed: the part from 0 to 0.5 of {run} {parts[0]} steps",
        f"{row}: {steps} is not allowed: the part from 0.5 to 1 of {run} {parts[1]} steps",
    ]
    above = problems(workspace, in_passes(epochs=1, warmup_steps=steps + 1))
    told = f"models.tiny: tuning.warmup_steps: {steps + 1} is not allowed: {run} {steps} steps"
    assert [problem for problem in above if "the part" not in problem] == [f"methods.lora, {told}", f"methods.pat, {told}"]


def test_a_mask_without_the_steps_to_close_is_told_where_the_rows_are_known(workspace: Path) -> None:
    raw = in_passes(epochs=1, batch_size=10**6)
    assert [problem.partition(": ")[0] for problem in problems(workspace, raw)][:1] == ["methods.pat, models.tiny"]
    few = problems(workspace, changed(raw, "methods", {"pat": None}))
    assert len(few) == 1 and "tuning.epochs: the run of" in few[0] and "takes 1 steps" in few[0]


def test_rows_that_are_not_counted_are_not_guessed_at(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = in_passes(epochs=1, warmup_steps=10**5)
    assert problems(workspace, raw)
    monkeypatch.setattr("study.experiment.checks.contents.MOST_ROWS", 3)
    assert problems(workspace, raw) == []


def test_blank_rows_and_those_that_a_fraction_leaves_out_are_not_counted(workspace: Path, tmp_path: Path) -> None:
    lines = [{"instruction": "a", "output": "" if row % 4 == 0 else f"{row}"} for row in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for fraction, rows in ((1.0, 30), (0.5, 20)):
        source = {"source": "json", "path": str(tmp_path / "rows.jsonl"), "fraction": fraction}
        raw = changed(changed(in_passes(epochs=1, warmup_steps=1000), "methods", {"lora": None}), "data.instruct", source)
        [told] = problems(workspace, raw)
        assert f"the run of {rows} rows takes" in told


def searched(instruct: dict[str, Any], **search: Any) -> dict[str, Any]:
    """The experiment with a search in place of its learning rate, on these rows."""
    recipe = {name: value for name, value in EXPERIMENT["tuning"].items() if name != "learning_rate"}
    recipe["search"] = {"learning_rates": [1e-3, 1e-2], **search}
    return {**EXPERIMENT, "data": {**EXPERIMENT["data"], "instruct": instruct}, "tuning": recipe}


def test_a_search_that_leaves_nothing_to_learn_from_is_told_where_it_would_be_refused(workspace: Path, tmp_path: Path) -> None:
    rows = [{"instruction": f"say {number}", "input": "", "output": f"{number}"} for number in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    source = {"source": "json", "path": str(tmp_path / "rows.jsonl")}
    told = "tuning.search.dev_rows: {} is not allowed: must be less than {}, the rows of the instruction set, of which some must be left"
    for dev_rows in (6, 7):
        with pytest.raises(UserError, match="too few"):
            split(rows, dev_rows, 0, tmp_path / "rows.jsonl")
        [found] = problems(workspace, searched(source, dev_rows=dev_rows))
        assert found.startswith(told.format(dev_rows, 6))
    split(rows, 5, 0, tmp_path / "rows.jsonl")
    assert problems(workspace, searched(source, dev_rows=5)) == []
    [found] = problems(workspace, searched(source))
    assert found.startswith(told.format(256, 6)), "the default"
    of_world = searched({"source": "world"}, dev_rows=64)
    assert problems(workspace, changed(of_world, "data.world", {"instruct_rows": 65})) == []
    [found] = problems(workspace, changed(of_world, "data.world", {"instruct_rows": 64}))
    assert found.startswith(told.format(64, 64))
    untuned = changed(of_world, "methods", {"base": None})
    assert problems(workspace, changed(untuned, "data.world", {"instruct_rows": 64})) == []


@pytest.mark.parametrize("pruner", ["wanda-sp", "llm-pruner", "llm-pruner-uniform", "slicegpt", "shortgpt"])
def test_a_ratio_that_a_pruner_cannot_reach_is_told_in_the_words_in_which_it_would_refuse_it(pruner: str, workspace: Path) -> None:
    raw = EXPERIMENT | {"ratios": [0.9], "methods": {f"{pruner}-pft": None}}
    with pytest.raises(SettingError) as refused:
        prune(workspace / "base", pruner, 0.9, "auto", workspace / "pruned", Calibration(workspace / "text.jsonl"))
    assert problems(workspace, raw) == [f"methods.{pruner}-pft, models.tiny: {refused.value}"]


def test_ratios_that_come_to_one_width_are_told_of_a_model_that_is_there(workspace: Path) -> None:
    (found,) = problems(workspace, EXPERIMENT | {"ratios": [0.5, 0.51]})
    assert found == "methods.pat, models.tiny: the ratios 0.5 and 0.51 both give width 16 of 32: must differ; keep one, or lower pat.align"


def test_the_sizes_of_a_gguf_file_are_looked_at(workspace: Path) -> None:
    """64 channels in four heads, 128 tokens of context."""
    write_gguf(workspace / "small.gguf", random_model("qwen3-tied"))
    raw = changed(EXPERIMENT, "models.tiny", {"gguf": "small.gguf"})
    assert problems(workspace, raw) == []
    off: dict[str, Any] = {"ratios": [0.9], "methods": {"llm-pruner-pft": {"lora": {"rank": 65}}}, "evaluation": {"max_new_tokens": 128}}
    found = "\n".join(problems(workspace, raw | off))
    assert "tuning.lora.rank=65: must be at most the model's hidden size, 64" in found and "ratio 0.9: " in found
    assert "evaluation.max_new_tokens: 128" in found and "the context of models.tiny, 128" in found


BASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "an adapter": (lambda folder: (folder / "adapter_config.json").write_text("{}"), "it is an adapter"),
    "GGUF": (lambda folder: (folder / "x.gguf").write_bytes(b"GGUF"), ".gguf"),
    "pickles": (lambda folder: (folder / "pytorch_model.bin").write_bytes(b""), "pickles, which are never loaded"),
    "GPT-2": (lambda folder: (folder / "config.json").write_text('{"model_type": "gpt2"}'), "architecture 'gpt2' is not known"),
    "no tokenizer": (lambda folder: shutil.move(folder / "tokenizer.json", folder / "x"), "has no tokenizer"),
}


@pytest.mark.parametrize("kind", BASES)
def test_a_folder_that_is_no_base_is_told_with_what_it_is(kind: str, workspace: Path, tmp_path: Path) -> None:
    write_workspace(tmp_path)
    spoil, said = BASES[kind]
    if kind in ("an adapter", "GGUF"):
        (tmp_path / "base" / "config.json").unlink()
    if kind == "pickles":
        (tmp_path / "base" / "model.safetensors").unlink()
    spoil(tmp_path / "base")
    if kind == "no tokenizer":
        (tmp_path / "base" / "tokenizer_config.json").unlink()
    (found,) = problems(tmp_path, EXPERIMENT)
    assert found.startswith("models.tiny.path: ") and said in found


def test_compressed_data_is_opened_at_its_beginning(workspace: Path) -> None:
    block = changed(EXPERIMENT, "data.instruct.path", "rows.jsonl.xz")
    (workspace / "rows.jsonl.xz").write_bytes(lzma.compress((workspace / "instruct.jsonl").read_bytes() * 200))
    assert problems(workspace, block) == []
    (workspace / "rows.jsonl.xz").write_bytes(lzma.compress(b"[1]"))
    assert "must hold one JSON object per line" in problems(workspace, block)[0]


def test_models_and_data_that_the_pipeline_makes_are_not_looked_for() -> None:
    raw = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
    assert disk_problems(load_experiment({**raw, "root": "/nowhere"}, "x.yaml")) == []


def test_what_config_on_the_command_line_leaves_as_text_is_read() -> None:
    experiment = load_experiment({**EXPERIMENT, "seeds": "[0, 1]", "methods": "{lora: null}"}, "--config")
    assert experiment.seeds == (0, 1) and list(experiment.methods) == ["lora"]
    with pytest.raises(UserError, match="--config: seeds: is not valid YAML"):
        load_experiment({**EXPERIMENT, "seeds": "[0, 1"}, "--config")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1:30", "1:30 would be read as 90, a number to the base 60"),
        ("a: 010", "010 would be read as 8, a number to the base 8"),
        ("a: {b: 1, b: 2}", "the key 'b' stands twice"),
        ("a: &a [*a]", "an alias leads back to what holds it"),
        ('a: "\\ud800"', "half of a surrogate pair"),
    ],
)
def test_yaml_that_is_read_otherwise_than_it_was_meant_is_refused(text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_yaml(text, "x.yaml")
    assert said in str(caught.value)


def test_yaml_that_means_what_it_says_is_read() -> None:
    text = 'a: [1, 0, -3, 0.5, 1e-3, 1.0e-3, 0x1f, true, off, "1:30", "010", x]\nb: &b {c: 1}\nd: *b\n'
    read = {"a": [1, 0, -3, 0.5, "1e-3", 1e-3, 31, True, False, "1:30", "010", "x"], "b": {"c": 1}, "d": {"c": 1}}
    assert parse_yaml(text, "x.yaml") == read == json.loads(json.dumps(read))
