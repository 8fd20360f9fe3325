"""Sending files to a repository of the hub in one commit, and what its refusals mean for whoever called.

What is sent is push.py's. A commit is whole or not there: whatever goes wrong before it, the repository shows what it showed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError

from pat.errors import UserError
from pat.io.progress import say

OF_THE_NETWORK: type[Exception] = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
"""What the hub's client raises where nothing answers, and where the hub refuses: its library's own, of whichever version."""
OF_THE_CLIENT = (OF_THE_NETWORK, OSError, RuntimeError, ValueError)
"""And where an upload fails, or an answer is none that it knows."""
RESULTS_FOLDER = ".eval_results"
OF_AN_EARLIER_MODEL = re.compile(
    rf"model[^/]*\.safetensors|model[^/]*\.safetensors\.index\.json|pytorch_model[^/]*\.bin|{re.escape(RESULTS_FOLDER)}/[^/]+\.yaml"
)
"""What a repository must not keep beside another model's weights: weights, which loading could prefer, and results of them."""
GGUF = ".gguf"
OF_A_CHECKPOINT = re.compile(r".+\.(safetensors|bin)")
"""Weights that a GGUF file is not beside in a repository, whose card is theirs."""
MAIN = "main"
MEANINGS = {
    400: "the hub takes it for a mistake",
    401: "the hub does not know the token: `hf auth login` with a new one, or correct HF_TOKEN",
    403: "the token may not write there: use one with write access, or a name of your own",
    404: "there is no such repository for this token",
    409: "something else was written there at the same time: call the same command again",
    412: "something else was written there at the same time: call the same command again",
    413: "the hub takes no files of this size",
    429: "the hub asks to wait: call the same command again later",
}
Sent = Mapping[str, Path | bytes]
"""Name in the repository → the file, or what is written for it."""


def check_token(repository: str) -> None:
    """Raise UserError where there is no token to write with; whether it may write there the hub says."""
    if get_token() is None:
        raise UserError(f"{repository}: cannot be sent without a token that may write there: `hf auth login`, or set HF_TOKEN")


def send(repository: str, files: Sent, *, private: bool, revision: str = MAIN) -> None:
    """Send files in one commit, and remove an earlier model's weights and results. Raises UserError where the hub cannot or will not."""
    hub = HfApi()
    added = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(it) if isinstance(it, Path) else it) for name, it in files.items()]
    with _refusals(repository):
        place = hub.create_repo(repository, private=private or None, exist_ok=True)
        if private and not hub.model_info(repository).private:
            raise UserError(f"--private: {repository} is there already and public; make it private on its page, or leave the option out")
        if revision != MAIN:
            hub.create_branch(repository, branch=revision, exist_ok=True)
        there = hub.list_repo_files(repository, revision=revision)
        _check_gguf_among(there, files, repository)
        stale = _stale(there, files)
        removed = [CommitOperationDelete(path_in_repo=name) for name in stale]
        hub.create_commit(repository, [*added, *removed], revision=revision, commit_message="Model, card and results")
    for name in stale:
        say(f"{repository}: {name}, of an earlier model, is removed")
    say(f"{place}: {len(files)} files sent" + (f" to its revision {revision}" if revision != MAIN else ""))


def _check_gguf_among(there: Iterable[str], files: Sent, repository: str) -> None:
    """Raise UserError where the card of a GGUF file would take the place of that of a checkpoint in the same repository."""
    if any(name.endswith(GGUF) for name in files) and (weights := next(filter(OF_A_CHECKPOINT.fullmatch, there), None)):
        raise UserError(
            f"{repository}: holds {weights}, and its card is that model's: send a GGUF file to a repository of its own, such as "
            f"{repository}-GGUF"
        )


def _stale(there: Iterable[str], files: Sent) -> list[str]:
    return [name for name in sorted(there) if OF_AN_EARLIER_MODEL.fullmatch(name) and name not in files]


@contextmanager
def _refusals(repository: str) -> Iterator[None]:
    """Turn what the hub's client raises into a UserError that says what to do; nothing has been published then."""
    try:
        yield
    except OF_THE_CLIENT as error:
        raise UserError(f"{repository}: cannot be sent: {_meaning(_cause(error))}; no file there or here has changed") from error


def _cause(error: BaseException) -> BaseException:
    """Return what went wrong first, where the client only says which file it was uploading."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _meaning(error: BaseException) -> str:
    said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        meaning = (
            "the hub is in trouble: call the same command again later" if status >= 500 else MEANINGS.get(status, "the hub refuses it")
        )
        return f"{meaning} ({status}: {error.server_message or said})"
    if isinstance(error, OF_THE_NETWORK | OSError):
        return f"the hub cannot be reached, or broke off: look at the network, and call the same command again ({said})"
    return said
