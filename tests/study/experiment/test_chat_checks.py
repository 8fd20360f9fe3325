"""Conversations to tune on need a model with a chat template: told by `study validate`, before a base is made for hours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from study.experiment.checks.chat import chat_problems
from study.experiment.checks.disk import disk_problems
from study.experiment.file import load_experiment
from tests.kit.chat_templates import chat_tokenizer
from tests.kit.fuzz_workspace import EXPERIMENT, PRETRAIN, write_workspace

CHAT = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_workspace(tmp_path_factory.mktemp("chat"))
    (folder / "chat.json").write_text(json.dumps(CHAT), encoding="utf-8")
    return folder


def experiment(workspace: Path, models: dict[str, Any], path: str = "chat.json") -> Any:
    data = EXPERIMENT["data"] | {"instruct": {"source": "file", "path": path}}
    return load_experiment(EXPERIMENT | {"root": str(workspace), "data": data, "models": models}, "x.yaml")


def test_a_tokenizer_without_a_template_is_told_and_one_with_it_is_none(workspace: Path) -> None:
    found = disk_problems(experiment(workspace, {"tiny": {"path": "base"}}))
    assert len(found) == 1 and found[0].startswith("models.tiny: has a tokenizer without a chat template, and data.instruct holds messages")
    assert disk_problems(experiment(workspace, {"tiny": {"path": "base"}}, "instruct.jsonl")) == []
    for written, kept in (("tokenizer_config.json", "in its config"), ("chat_template.jinja", "beside it")):
        config = workspace / "base" / "tokenizer_config.json"
        before = config.read_text()
        if written == config.name:
            config.write_text(json.dumps(json.loads(before) | {"chat_template": chat_tokenizer().chat_template}))
        else:
            (workspace / "base" / written).write_text(str(chat_tokenizer().chat_template))
        assert list(chat_problems(experiment(workspace, {"tiny": {"path": "base"}}))) == [], kept
        config.write_text(before)


def test_a_base_that_is_pretrained_here_has_none(workspace: Path) -> None:
    data = EXPERIMENT["data"] | {"instruct": {"source": "file", "path": "chat.json"}, "pretrain": {"source": "json", "path": "text.jsonl"}}
    raw = EXPERIMENT | {"root": str(workspace), "data": data, "models": {"own": {"pretrain": PRETRAIN | {"hidden_size": 32}}}}
    [said] = chat_problems(load_experiment(raw, "x.yaml"))
    assert said.startswith("models.own: is pretrained here, with a tokenizer that has no chat template")
