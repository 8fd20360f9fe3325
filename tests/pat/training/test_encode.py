"""`pat encode` and what reads its folder: the same adapters and rates, a record that names it, and jobs that go on with or without it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

import pat.data.encoding
from pat.checkpoints.checkpoint import load_config
from pat.data.encoded import TOKENS_NAME, read_encoded
from pat.data.instructions import Instructions
from pat.errors import UserError
from pat.io.artefacts import check_folder, seal, write_jsonl
from pat.io.tensors import read_tensors
from pat.machine.threads import PARALLEL, WORKERS, tokenizing_with
from pat.settings.jobs import TuneJob
from pat.training.encode import encode
from pat.training.search import search_rate
from pat.training.tuning import tune
from tests.kit.commands import outcome
from tests.kit.tiny_world import ROWS, write_world
from tests.kit.tuning_requests import asked
from tests.kit.tunings import RECIPE, adapter_bytes, job, run, run_until

pytestmark = pytest.mark.lengthy


def request(folder: Path, name: str, settings: TuneJob | None = None) -> Any:
    return asked(folder / "base", folder / "instruct.jsonl", "pat", 0.25, 7, settings or job(), folder / f"run-{name}", folder / name)


def never(*_: Any) -> Any:
    raise AssertionError("rows are encoded")


def test_a_tuning_is_the_same_and_encodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, data = write_world(tmp_path)
    encode(base, data, 256, tmp_path / "encoded")
    check_folder(tmp_path / "encoded")
    anew = run(tmp_path, "anew")
    monkeypatch.setattr(pat.data.encoding, "encoded_rows", never)
    found = tune(replace(request(tmp_path, "read"), encoded=tmp_path / "encoded"))
    assert adapter_bytes(tmp_path / "read") == adapter_bytes(tmp_path / "anew") != {}
    assert found["rows"] == anew["rows"] and found["history"][-1]["loss"] == anew["history"][-1]["loss"]
    assert found["provenance"]["config_hash"] == anew["provenance"]["config_hash"]
    named = found["provenance"]["inputs"]["encoded"]
    assert named["path"] == str(tmp_path / "encoded") and set(named["sha256"]) == {"tokens.safetensors"}


def test_a_killed_tuning_goes_on_with_rows_that_were_encoded_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, data = write_world(tmp_path)
    run(tmp_path, "straight")
    run_until(8, tmp_path, "killed", monkeypatch)
    encode(base, data, 256, tmp_path / "encoded")
    assert (tmp_path / "run-killed/checkpoint-8").is_dir()
    tune(replace(request(tmp_path, "killed"), encoded=tmp_path / "encoded"))
    assert adapter_bytes(tmp_path / "killed") == adapter_bytes(tmp_path / "straight")


def test_a_search_is_the_same_and_encodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, data = write_world(tmp_path)
    encode(base, data, 256, tmp_path / "encoded")
    recipe = {key: value for key, value in RECIPE.items() if key != "learning_rate"} | {"search": {"learning_rates": [1e-3, 3e-3]}}
    settings = TuneJob.model_validate(
        {"tuning": recipe | {"search": recipe["search"] | {"dev_rows": 16, "steps": 8}}, "pat": {"hio_rank": 3}}
    )
    anew = search_rate(request(tmp_path, "anew.json", settings))
    monkeypatch.setattr(pat.data.encoding, "encoded_rows", never)
    found = search_rate(replace(request(tmp_path, "read.json", settings), encoded=tmp_path / "encoded"))
    assert {**found, "provenance": None} == {**anew, "provenance": None}
    assert found["provenance"]["inputs"]["encoded"]["path"] == str(tmp_path / "encoded")


def test_the_verb_writes_what_the_others_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, _ = write_world(tmp_path)
    named = tmp_path / "named.jsonl"
    write_jsonl(named, ({"question": row["instruction"], "answer": row["output"]} for row in ROWS))
    columns = ["--column", "instruction=question", "--column", "output=answer"]
    words = ["encode", "--base", str(base), "--data", str(named), "--max-length", "100", *columns, "--threads", "2"]
    assert outcome([*words, "--out", str(tmp_path / "encoded")], capsys)[0] == 0
    record = json.loads((tmp_path / "encoded/encoding.json").read_text())
    assert (record["max_length"], record["rows"]["read"], record["provenance"]["inputs"]["data"]["path"]) == (100, len(ROWS), str(named))
    settings = json.dumps({"tuning": RECIPE | {"max_steps": 2, "max_length": 100}})
    tuning = ["tune", "--base", str(base), "--data", str(named), *columns, "--tuner", "lora", "--run-dir", str(tmp_path / "run")]
    tuning += ["--encoded", str(tmp_path / "encoded"), "--out", str(tmp_path / "adapter")]
    assert outcome([*tuning, "--settings", settings], capsys)[0] == 0
    status, said = outcome([*tuning, "--settings", settings.replace("100", "99"), "--force"], capsys)
    assert status == 1 and "encoding.json: max_length: --encoded" in said and "Traceback" not in said


@pytest.mark.parametrize("tuner", ["lora", "pat"])
def test_a_token_that_the_model_has_no_embedding_for_is_told_before_anything_is_loaded(
    tuner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, data = write_world(tmp_path)
    encode(base, data, 256, tmp_path / "encoded")
    vocabulary = load_config(base).vocab_size
    arrays = read_tensors(tmp_path / "encoded" / TOKENS_NAME)
    arrays["ids_T"][-1] = vocabulary
    save_file({name: array.clone() for name, array in arrays.items()}, tmp_path / "encoded" / TOKENS_NAME)
    seal(tmp_path / "encoded")
    monkeypatch.setattr("pat.training.tuning.build_model", never)
    meant = replace(request(tmp_path, "out"), tuner=tuner, ratio=0.25 if tuner == "pat" else 0.0, encoded=tmp_path / "encoded")
    with pytest.raises(UserError, match=rf"tokens\.safetensors: ids_T: row {len(ROWS)} .* holds {vocabulary}; must be from 0 to"):
        tune(meant)
    assert not meant.run_dir.exists()


def test_what_cannot_be_encoded_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    base, data = write_world(tmp_path)
    with pytest.raises(UserError, match=r"every prompt is longer than max_length=2 tokens"):
        encode(base, data, 2, tmp_path / "encoded")
    write_jsonl(data, [{"prompt": "a", "completion": " "}])
    with pytest.raises(UserError, match="holds no usable row"):
        encode(base, data, 256, tmp_path / "encoded")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "instruct.jsonl"]
    (tmp_path / "encoded").mkdir()
    (tmp_path / "encoded/mine.txt").write_text("mine")
    with pytest.raises(UserError, match="encoded: "):
        encode(base, data, 256, tmp_path / "encoded")


def test_threads_change_no_token_and_the_environment_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PARALLEL, "false")
    monkeypatch.delenv(WORKERS, raising=False)
    base, data = write_world(tmp_path)
    with tokenizing_with(2):
        assert (os.environ[PARALLEL], os.environ[WORKERS]) == ("true", "2")
    assert os.environ[PARALLEL] == "false" and WORKERS not in os.environ
    encode(base, data, 256, tmp_path / "encoded", threads=2)
    tokenizer = request(tmp_path, "x").tokenizer
    one, other = Instructions(data, tokenizer, 256), read_encoded(tmp_path / "encoded", data, tokenizer, len(tokenizer), 256)
    assert [one[place] for place in range(len(one))] == [other[place] for place in range(len(other))]
