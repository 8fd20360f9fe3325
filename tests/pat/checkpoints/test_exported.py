"""An export on the hub: a card as those of quantised models are, the export's files alone, and no other model's place taken."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from huggingface_hub import ModelCard
from transformers import LlamaConfig, Qwen2Config

from pat.checkpoints.checkpoint import import_model
from pat.checkpoints.push import Published, files_to_send, push
from pat.errors import UserError
from pat.export.export import export
from pat.io.artefacts import read_json, write_json
from pat.pruners.pruning import prune
from tests.kit.commands import run
from tests.kit.exported_models import SHAPE, write_base
from tests.kit.hub_server import Hub, Repository, sent_to
from tests.kit.sendable import CARD

NAME, ORIGINAL, SOURCE = "me/narrow-quantised", "someone/tiny", "me/narrow"
WEIGHTS = {"gguf": "model-q4_0.gguf", "int8": "model.safetensors"}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with exports of a base and of what is pruned of it: gguf-imported, gguf-pruned, int8-pruned."""
    folder = tmp_path_factory.mktemp("exported")
    base = write_base(folder / "models--someone--tiny" / "snapshots" / "abc", LlamaConfig(**SHAPE))
    (base / "README.md").write_text(CARD, encoding="utf-8")
    (base / "LICENSE.md").write_text("terms", encoding="utf-8")
    import_model(base, folder / "imported")
    prune(folder / "imported", "channel-magnitude", 0.3, 4, folder / "pruned")
    for name in ("imported", "pruned"):
        export(folder / name, "gguf", folder / f"gguf-{name}", "q4_0")
    export(folder / "pruned", "int8", folder / "int8-pruned")
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub that this process sends to, with a token that may write there."""
    with sent_to(monkeypatch, tmp_path) as served:
        yield served


def card_of(folder: Path, published: Published, revision: str = "main") -> Any:
    written = files_to_send(folder, NAME, published, revision)["README.md"]
    assert isinstance(written, bytes)
    return cast(Any, ModelCard(written.decode()))


@pytest.mark.parametrize(("to", "library", "tags"), [("gguf", "gguf", {"gguf", "llama.cpp"}), ("int8", "transformers", {"vllm", "int8"})])
def test_the_card_says_of_which_model_it_is_a_quantised_one(to: str, library: str, tags: set[str], work: Path) -> None:
    card = card_of(work / f"{to}-pruned", Published(base_model=SOURCE))
    found = card.data.to_dict()
    expected = {"base_model": SOURCE, "base_model_relation": "quantized", "library_name": library, "pipeline_tag": "text-generation"}
    assert {name: found[name] for name in expected} == expected
    assert tags | {"structured-pruning"} <= set(found["tags"])
    assert (found["license"], found["license_name"], found["language"]) == ("other", "tiny", ["en", "de"])
    assert f"It is made of [{SOURCE}]" in card.text


def test_the_card_names_type_size_what_stayed_in_f16_and_what_was_removed(work: Path) -> None:
    record = read_json(work / "gguf-pruned" / "export.json")
    text = card_of(work / "gguf-pruned", Published()).text
    size = (work / "gguf-pruned" / WEIGHTS["gguf"]).stat().st_size / 2**20
    assert f"of type `q4_0` for llama.cpp and what is built on it, {size:.1f} MiB" in text
    assert len(record["left_in_f16"]) > 0
    assert f"{len(record['left_in_f16'])} of its {record['matrices']} matrices are in f16" in text
    removed = read_json(work / "pruned" / "prune.json")["removed"]
    assert f"{removed:.2%} of the unpruned model's parameters are removed" in text and removed > 0.1
    assert "are removed" not in card_of(work / "gguf-imported", Published()).text


def test_an_export_of_what_was_changed_is_no_mere_rounding_of_the_first_base(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    relations = {name: card_of(work / f"gguf-{name}", Published()).data.to_dict() for name in ("imported", "pruned")}
    assert {name: found["base_model"] for name, found in relations.items()} == dict.fromkeys(relations, ORIGINAL)
    assert {name: found["base_model_relation"] for name, found in relations.items()} == {"imported": "quantized", "pruned": "finetune"}
    for name, told in (("imported", False), ("pruned", True)):
        with pytest.raises(SystemExit) as ended:
            run(["push", str(work / f"gguf-{name}"), NAME, "--dry-run"])
        said = capsys.readouterr().out
        assert not ended.value.code and "--evaluation" not in said
        assert ("--base-model names the model that was exported" in said) == told


@pytest.mark.parametrize("to", ["gguf", "int8"])
def test_a_dry_run_lists_the_exports_files_with_their_sizes(to: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["push", str(work / f"{to}-pruned"), NAME, "--dry-run", "--base-model", SOURCE])
    assert not ended.value.code
    listed = {name: int(size.replace(",", "")) for size, name in map(str.split, capsys.readouterr().out.splitlines()[:-2])}
    there = {path.name: path.stat().st_size for path in (work / f"{to}-pruned").iterdir() if path.name != "manifest.json"}
    assert {name: size for name, size in listed.items() if name != "README.md"} == there
    assert {WEIGHTS[to], "export.json", "lineage.json", "LICENSE.md"} <= set(there)


def test_its_runtime_opens_it_by_the_lines_of_the_card(work: Path) -> None:
    text = card_of(work / "gguf-pruned", Published()).text
    assert f"hf download {NAME} model-q4_0.gguf --local-dir .\nllama-cli -m model-q4_0.gguf " in text and "from_pretrained" not in text
    assert f"hf download {NAME} model-q4_0.gguf --revision v1 --local-dir .\n" in card_of(work / "gguf-pruned", Published(), "v1").text
    assert f"\nvllm serve {NAME} --revision v1\n" in card_of(work / "int8-pruned", Published(), "v1").text


def test_transformers_opens_compressed_weights_by_them(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = card_of(work / "int8-pruned", Published()).text.split("```python\n")[1].split("```")[0]
    exec(code.replace(NAME, str(work / "int8-pruned")), {})
    assert capsys.readouterr().out.startswith("The capital of France is")


def test_heads_that_vllms_own_class_would_miscount_are_left_to_transformers(tmp_path: Path) -> None:
    write_base(tmp_path / "base", Qwen2Config(**SHAPE))
    prune(tmp_path / "base", "channel-magnitude", 0.25, 32, tmp_path / "narrow")
    for name, its in (("base", ""), ("narrow", " --model-impl transformers")):
        export(tmp_path / name, "int8", tmp_path / f"int8-{name}")
        assert f"\nvllm serve {NAME}{its}\n" in card_of(tmp_path / f"int8-{name}", Published()).text


@pytest.mark.parametrize("to", ["gguf", "int8"])
def test_it_is_sent_byte_for_byte(to: str, work: Path, hub: Hub) -> None:
    push(work / f"{to}-pruned", NAME, Published(base_model=SOURCE), dry_run=False)
    arrived = hub.files(NAME)
    for path in (work / f"{to}-pruned").iterdir():
        assert path.name == "manifest.json" or arrived[path.name] == path.read_bytes()
    assert cast(Any, ModelCard(arrived["README.md"].decode())).data.to_dict()["base_model_relation"] == "quantized"


def test_a_gguf_file_takes_no_other_models_card_and_lies_beside_files_of_other_types(work: Path, hub: Hub) -> None:
    for weights in ("model.safetensors", "pytorch_model.bin"):
        hub.repositories[NAME] = Repository(revisions={"main": {weights: b"1", "README.md": b"its card"}})
        with pytest.raises(UserError, match=f"{NAME}: holds {weights}, and its card is that model's: .* such as {NAME}-GGUF"):
            push(work / "gguf-pruned", NAME, Published(), dry_run=False)
        assert hub.files(NAME) == {weights: b"1", "README.md": b"its card"}
    hub.repositories[NAME] = Repository(revisions={"main": {"model-q8_0.gguf": b"1"}})
    push(work / "gguf-pruned", NAME, Published(), dry_run=False)
    assert {"model-q8_0.gguf", "model-q4_0.gguf"} <= set(hub.files(NAME))


def test_what_is_wrong_with_an_export_is_told(work: Path, tmp_path: Path) -> None:
    for case in ("lacks", "gone", "other"):
        shutil.copytree(work / "gguf-pruned", tmp_path / case)
        (tmp_path / case / "manifest.json").unlink()
    write_json(tmp_path / "lacks" / "export.json", {"to": "gguf", "bytes": 1})
    (tmp_path / "gone" / WEIGHTS["gguf"]).unlink()
    (tmp_path / "other" / WEIGHTS["gguf"]).write_bytes(b"<html>")
    shutil.copytree(work / "int8-pruned", tmp_path / "changed")
    (tmp_path / "changed" / "config.json").write_text("{}")
    for folder, published, said in (
        (tmp_path / "lacks", Published(), r"export\.json: is no record of `pat export`: it lacks file, type, matrices, left_in_f16"),
        (tmp_path / "gone", Published(), r"model-q4_0\.gguf: is no GGUF file, though export\.json names it"),
        (tmp_path / "other", Published(), r"model-q4_0\.gguf: is no GGUF file, though export\.json names it"),
        (tmp_path / "changed", Published(), r"config\.json"),
        (work / "int8-pruned", Published(base_model=NAME), "an export is sent to a repository of its own"),
        (work / "int8-pruned", Published(base_model=NAME.upper()), "an export is sent to a repository of its own"),
        (work / "int8-pruned", Published(tmp_path / "e.json"), r"--evaluation .*e\.json: is of the model before it was exported"),
    ):
        with pytest.raises(UserError, match=said):
            push(folder, NAME, published, dry_run=True)
