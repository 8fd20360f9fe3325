"""What an experiment names on the disk: models and data that are missing, or of another kind than said.

Of models config files and headers alone are looked at, of data what contents.py reads of them, which takes seconds. What the pipeline
itself makes or fetches is not looked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pat.checkpoints.base_checks import check_checkpoint
from pat.data.files import JSON_FORMATS, bytes_of, kind_of, packing_of
from pat.errors import UserError
from pat.io.storage import check_regular
from pat.settings.fields import Settings
from pat.settings.mistakes import shown
from study.experiment.checks.chat import chat_problems
from study.experiment.checks.contents import check_contents
from study.experiment.checks.disk_sizes import check_there, family_and_size, scoring_problems
from study.experiment.checks.lengths import length_problems
from study.experiment.checks.models import problems_of
from study.experiment.schema import Experiment
from study.sources.kinds import TABLE_FORMATS, HubTask, JsonFile, Release, RowFile, TextFile, parts

FIRST_BYTES = 2**16
MAGIC = {".xz": b"\xfd7zXZ\x00", ".gz": b"\x1f\x8b", ".bz2": b"BZh", ".zst": b"\x28\xb5\x2f\xfd", ".parquet": b"PAR1"}


def disk_problems(experiment: Experiment) -> list[str]:
    """Return what is wrong between a checked experiment and the files that it names, one line per problem."""
    found = [*_data_problems(experiment), *_checkpoint_problems(experiment)]
    for name, source in experiment.models.items():
        try:
            known = family_and_size(experiment, source)
        except UserError as error:
            kind = "path" if source.path is not None else "gguf"
            found.append(f"models.{name}.{kind}: {error}")
            continue
        if known is not None:
            family, size = known
            found += [*problems_of(experiment, name, family, size), *(scoring_problems(experiment, name, size.context) if size else ())]
    if found and not Path(experiment.root).is_dir():
        return [f"root: {shown(experiment.root)} is no folder here, and all relative paths of the file start from it"]
    return list(dict.fromkeys(found or [*chat_problems(experiment), *length_problems(experiment)]))


def _checkpoint_problems(experiment: Experiment) -> Iterator[str]:
    """Yield rows whose checkpoint, made elsewhere, is no model that can be scored."""
    for row in experiment.methods:
        given = experiment.row(row).checkpoint
        try:
            if given is not None:
                check_checkpoint(Path(experiment.path(given.path)), tokenizer=True)
        except UserError as error:
            yield f"methods.{row}.checkpoint.path: {error}"


def _data_problems(experiment: Experiment) -> Iterator[str]:
    """Yield the sources of data whose file is missing, or not what its block says."""
    data = experiment.data
    sources: dict[str, Settings | None] = {
        "data.instruct": data.instruct,
        "data.pretrain": data.pretrain,
        **{f"data.tasks.{name}": source for name, source in data.tasks.items()},
        **{f"data.text.{name}": source for name, source in data.text.items()},
    }
    for place, source in sources.items():
        for part in parts(source) if source is not None else ():
            path = getattr(part, "path", None)
            if path is None:
                continue
            try:
                _check_data(Path(experiment.path(path)), part)
                as_text = place.startswith(("data.text", "data.pretrain"))
                check_contents(part.model_copy(update={"path": experiment.path(path)}), place.rpartition(".")[2], as_text=as_text)
            except UserError as error:
                yield f"{place}.path: {error}"


def _check_data(path: Path, source: object) -> None:
    """Raise UserError where a local source cannot be what its block says."""
    check_there(path)
    if isinstance(source, Release) and path.is_dir():
        if not any(path.glob("*.json")):
            raise UserError(f"{path}: holds no .json file")
        return
    if path.is_dir():
        if isinstance(source, RowFile):
            return  # contents.py reads it
        raise UserError(f"{path}: is a folder, where a file is needed")
    check_regular(path)
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: permission to read it is missing")
    if not path.stat().st_size:
        raise UserError(f"{path}: is empty")
    endings = {JsonFile: JSON_FORMATS, HubTask: (*TABLE_FORMATS, *JSON_FORMATS)}
    allowed = next((known for kind, known in endings.items() if isinstance(source, kind)), None)
    if allowed is not None and not path.name.endswith(allowed):
        raise UserError(f"{path}: must end in one of {', '.join(allowed)}")
    if isinstance(source, RowFile):
        kind_of(path)
    _check_beginning(path, is_text=isinstance(source, TextFile))


def _check_beginning(path: Path, *, is_text: bool) -> None:
    """Raise UserError where the first bytes of a file are not of the format that its ending says."""
    with path.open("rb") as stream:
        first = stream.read(FIRST_BYTES)
    magic = MAGIC.get(path.suffix)
    if magic is not None and not first.startswith(magic):
        raise UserError(f"{path}: is no {path.suffix} file")
    if ".parquet" in path.suffixes:
        return
    if packing_of(path):
        with bytes_of(path) as stream:
            first = stream.read(FIRST_BYTES)
    text = first.decode("utf-8", errors="replace")  # where it is none is for contents.py to say
    if "\0" in text:
        raise UserError(f"{path}: is no text: it holds NUL characters")
    start = text.removeprefix("\ufeff").lstrip()[:1]
    if ".jsonl" in path.name and start != "{" and not is_text:
        raise UserError(f"{path}: must hold one JSON object per line, begins with {text[:20]!r}")
    if ".json" in path.name and ".jsonl" not in path.name and start not in ("[", "{") and not is_text:
        raise UserError(f"{path}: must hold JSON, begins with {text[:20]!r}")
