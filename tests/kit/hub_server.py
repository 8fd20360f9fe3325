"""A hub on this machine: as much of its API as sending a model asks, over HTTP, with tokens, revisions and refusals.

What it serves was read off huggingface_hub's calls: repositories, the check of a card, uploads of large files (LFS) and commits.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

WRITER, READER = "hf_may_write", "hf_may_read"
BROKEN_OFF = 0
"""In place of a status: the connection ends without an answer."""


@dataclass
class Repository:
    """Files by revision, and who may see them."""

    private: bool = False
    revisions: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {".gitattributes": b"*.safetensors filter=lfs\n"}})
    commits: int = 0


@dataclass
class Hub:
    """What a hub holds, what it was asked, and where it refuses: part of a path → status, of as many requests as are wanted."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    refuses: dict[str, int] = field(default_factory=dict)
    endpoint: str = ""

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """Return a repository's files but for what it had when it was made."""
        return {path: found for path, found in self.repositories[name].revisions[revision].items() if path != ".gitattributes"}


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Serve a hub on a free port for as long as the block runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OfThisHub", (_Answers,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def sent_to(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Hub]:
    """Serve a hub that this process sends to, with a token that may write there. The client has read its variables when it was imported."""
    with hub_server() as served:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(folder / "no-token"))
        monkeypatch.setenv("HF_TOKEN", WRITER)
        yield served


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        """Say nothing on the terminal."""

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        body, path = self._body(), urlsplit(self.path).path
        self.hub.asked.append(f"{self.command} {path}")
        refused = next((status for part, status in self.hub.refuses.items() if part in path), None)
        if refused == BROKEN_OFF:
            self.close_connection = True
            return
        if refused is not None:
            self._answer({"error": f"refused with {refused}"}, refused)
        elif path.startswith("/large/"):  # a place that was given out before, as the hub's storage is
            self._store(path.rpartition("/")[2], body)
        elif (status := self._status_of_token()) is not None:
            self._answer({"error": "Invalid username or password." if status == 401 else "You don't have the rights"}, status)
        else:
            self._answer(*self._api(path.strip("/").split("/"), body))

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _status_of_token(self) -> int | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token == WRITER or (token == READER and self.command == "GET"):
            return None
        return 403 if token == READER else 401

    def _answer(self, found: object, status: int = 200) -> None:
        text = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _store(self, digest: str, body: bytes) -> None:
        whole = hashlib.sha256(body).hexdigest() == digest
        if whole:
            self.hub.large[digest] = body
        self._answer({}, 200 if whole else 400)

    def _api(self, parts: list[str], body: bytes) -> tuple[object, int]:
        match parts:
            case ["api", "repos", "create"]:
                return self._create(json.loads(body))
            case ["api", "validate-yaml"]:
                return self._card(json.loads(body)["content"])
            case [owner, name, "info", "lfs", "objects", "batch"] if name.endswith(".git"):
                return self._places(json.loads(body)), 200
            case ["api", "models", owner, name, *rest] if (found := self.hub.repositories.get(f"{owner}/{name}")) is not None:
                return self._of_repository(f"{owner}/{name}", found, rest, body)
        return {"error": "Repository not found"}, 404

    def _create(self, asked: dict[str, Any]) -> tuple[object, int]:
        name = f"{asked['organization'] or 'me'}/{asked['name']}"
        found = {"url": f"{self.hub.endpoint}/{name}", "name": name}
        if name in self.hub.repositories:
            return found | {"error": "You already created this model repo"}, 409
        self.hub.repositories[name] = Repository(private=asked.get("visibility") == "private")
        return found, 200

    def _card(self, content: str) -> tuple[object, int]:
        fields = yaml.safe_load(content.split("---\n")[1])
        wrong = [] if isinstance(fields.get("license", ""), str) else [{"message": '"license" must be a string'}]
        return {"errors": wrong, "warnings": []}, 400 if wrong else 200

    def _places(self, asked: dict[str, Any]) -> object:
        def place(each: dict[str, Any]) -> dict[str, Any]:
            return (
                each
                if each["oid"] in self.hub.large
                else each | {"actions": {"upload": {"href": f"{self.hub.endpoint}/large/{each['oid']}"}}}
            )

        return {"transfer": "basic", "objects": [place(each) for each in asked["objects"]]}

    def _of_repository(self, name: str, found: Repository, rest: list[str], body: bytes) -> tuple[object, int]:
        match [unquote(each) for each in rest]:
            case []:
                return {"id": name, "private": found.private, "sha": f"{found.commits:040d}", "siblings": []}, 200
            case ["branch", branch]:
                there = branch in found.revisions
                found.revisions.setdefault(branch, dict(found.revisions["main"]))
                return {}, 409 if there else 200
            case ["tree", revision, *_] if revision in found.revisions:
                files = found.revisions[revision]
                return [{"type": "file", "path": path, "size": len(text), "oid": "0" * 40} for path, text in files.items()], 200
            case ["preupload", revision] if revision in found.revisions:
                return {"files": [self._mode(each) for each in json.loads(body)["files"]]}, 200
            case ["commit", revision] if revision in found.revisions:
                return self._commit(name, found, revision, [json.loads(line) for line in body.splitlines()])
        return {"error": "Revision not found"}, 404

    def _mode(self, asked: dict[str, Any]) -> dict[str, Any]:
        large = asked["path"].endswith((".safetensors", ".bin"))
        return {"path": asked["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}

    def _commit(self, name: str, found: Repository, revision: str, lines: list[dict[str, Any]]) -> tuple[object, int]:
        files = dict(found.revisions[revision])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile" and value["oid"] in self.hub.large:
                files[value["path"]] = self.hub.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            elif line["key"] != "header":
                return {"error": f"{value['path']}: was not uploaded"}, 400
        found.revisions[revision] = files
        found.commits += 1
        oid = f"{found.commits:040d}"
        return {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.endpoint}/{name}/commit/{oid}"}, 200
