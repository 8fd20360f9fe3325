"""A model sent over HTTP to a hub on this machine: what arrives, what an earlier model leaves, whose token, and every refusal in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from pat.checkpoints.push import Published, files_to_send, push
from pat.errors import UserError
from tests.kit.hub_server import BROKEN_OFF, READER, WRITER, Hub, Repository, hub_server, sent_to
from tests.kit.sendable import published, write_sendable

NAME = "me/narrow"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and its evaluation."""
    folder = tmp_path_factory.mktemp("hub")
    write_sendable(folder)
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub that this process sends to, with a token that may write there."""
    with sent_to(monkeypatch, tmp_path) as served:
        yield served


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refusal(work: Path, *, private: bool = False) -> str:
    """Send, be refused, and return what is said; the folder is as it was, and the sentence is one line."""
    before = contents(work / "pruned")
    with pytest.raises(UserError) as caught:
        push(work / "pruned", NAME, Published(), dry_run=False, private=private)
    assert contents(work / "pruned") == before and "\n" not in str(caught.value)
    return str(caught.value)


def test_the_command_sends_every_file_byte_for_byte(work: Path, tmp_path: Path) -> None:
    """As a user calls it, by the client's public variables alone."""
    with hub_server() as served:
        own = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        variables = {"HF_ENDPOINT": served.endpoint, "HF_TOKEN": WRITER, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home")}
        options = [
            "--private",
            "--evaluation",
            str(work / "evaluation.json"),
            "--benchmark",
            "toy=some/benchmark:toy_task",
            "--dataset",
            "my/rows",
        ]
        command = [sys.executable, "-m", "pat", "push", str(work / "pruned"), NAME, *options]
        sent = subprocess.run(command, env=own | variables, capture_output=True, text=True, check=False)
        assert sent.returncode == 0, sent.stderr
        arrived = served.files(NAME)
        assert served.repositories[NAME].private and served.repositories[NAME].commits == 1
    expected = files_to_send(work / "pruned", NAME, published(work))
    assert arrived == {name: it if isinstance(it, bytes) else it.read_bytes() for name, it in expected.items()}
    assert {"model.safetensors", "config.json", "LICENSE.md", "prune.json", "README.md", ".eval_results/toy.yaml"} <= set(arrived)
    assert f"{served.endpoint}/{NAME}: {len(arrived)} files sent" in sent.stderr
    for name, text in arrived.items():
        (tmp_path / "got" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "got" / name).write_bytes(text)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "got").config.hidden_size == 24


def test_another_model_leaves_nothing_of_the_earlier_one_that_loading_could_take(
    work: Path, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pat")
    earlier = {
        "model-00001-of-00002.safetensors": b"1", "model.safetensors.index.json": b"{}", ".eval_results/old.yaml": b"[]",
        "notes.md": b"kept", "gguf/model.gguf": b"kept", "adapter_model.safetensors": b"kept",
    }  # fmt: skip
    hub.repositories[NAME] = Repository(revisions={"main": {".gitattributes": b"", **earlier}})
    push(work / "pruned", NAME, published(work), dry_run=False)
    arrived = hub.files(NAME)
    assert set(arrived) & set(earlier) == {"notes.md", "gguf/model.gguf", "adapter_model.safetensors"}
    assert {"model.safetensors", ".eval_results/toy.yaml"} <= set(arrived)
    assert "model.safetensors.index.json, of an earlier model, is removed" in caplog.text
    push(work / "pruned", NAME, Published(), dry_run=False)
    assert ".eval_results/toy.yaml" not in hub.files(NAME), "results of a push that named none"


def test_a_revision_is_made_and_named_in_the_card(work: Path, hub: Hub) -> None:
    push(work / "pruned", NAME, Published(), dry_run=False)
    on_main = hub.files(NAME)
    push(work / "imported", NAME, Published(), dry_run=False, revision="whole")
    push(work / "imported", NAME, Published(), dry_run=False, revision="whole")
    assert hub.files(NAME) == on_main and hub.files(NAME, "whole")["model.safetensors"] != on_main["model.safetensors"]
    assert b'from_pretrained("me/narrow", revision="whole")' in hub.files(NAME, "whole")["README.md"]
    assert b'from_pretrained("me/narrow")' in on_main["README.md"]


def test_what_is_to_be_private_is_not_sent_to_where_all_can_read_it(work: Path, hub: Hub) -> None:
    hub.repositories[NAME] = Repository()
    assert refusal(work, private=True) == (
        "--private: me/narrow is there already and public; make it private on its page, or leave the option out"
    )
    assert hub.files(NAME) == {} and hub.large == {}


def test_without_a_token_nothing_is_asked_of_the_hub(work: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert refusal(work) == "me/narrow: cannot be sent without a token that may write there: `hf auth login`, or set HF_TOKEN"
    assert hub.asked == []


@pytest.mark.parametrize(
    ("token", "meaning"), [("hf_unknown", "the hub does not know the token"), (READER, "the token may not write there")]
)
def test_a_token_that_does_not_do_is_told_as_such(token: str, meaning: str, work: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    assert f"me/narrow: cannot be sent: {meaning}" in refusal(work)
    assert hub.repositories == {}


@pytest.mark.parametrize(
    ("part", "status", "meaning"),
    [
        ("/commit/", 401, "the hub does not know the token"),
        ("/commit/", 403, "the token may not write there"),
        ("/commit/", 409, "something else was written there at the same time: call the same command again"),
        ("/commit/", 500, "the hub is in trouble: call the same command again later (500: refused with 500)"),
        ("/commit/", BROKEN_OFF, "the hub cannot be reached, or broke off"),
        ("/repos/create", 500, "the hub is in trouble"),
        ("/preupload/", 404, "there is no such repository for this token"),
        ("/large/", 403, "the token may not write there"),
        ("/validate-yaml", 418, "the hub refuses it (418: refused with 418)"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence_and_leaves_all_as_it_was(part: str, status: int, meaning: str, work: Path, hub: Hub) -> None:
    hub.repositories[NAME] = Repository(revisions={"main": {"model.safetensors": b"earlier"}})
    hub.refuses[part] = status
    said = refusal(work)
    assert said.startswith(f"{NAME}: cannot be sent: ") and meaning in said
    assert hub.files(NAME) == {"model.safetensors": b"earlier"}
    hub.refuses.clear()
    push(work / "pruned", NAME, Published(), dry_run=False)
    assert hub.files(NAME)["model.safetensors"] == (work / "pruned" / "model.safetensors").read_bytes()


def test_a_card_that_the_hub_cannot_read_is_named_before_the_weights_go(work: Path, hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'Invalid metadata in README\.md\. - "license" must be a string'):
        push(work / "pruned", NAME, Published(license=3), dry_run=False)  # type: ignore[arg-type]
    assert hub.large == {}


def test_where_there_is_no_network_it_is_one_sentence(work: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "me/narrow: cannot be sent: the hub cannot be reached, or broke off: look at the network" in refusal(work)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refusal(work)
