"""The archive of records: every record comes back byte for byte, equal records give equal bytes, broken archives are named."""

from __future__ import annotations

import json
import lzma
import os
import re
from pathlib import Path, PurePath

import pytest

from pat.errors import UserError
from pat.io.artefacts import write_json, write_text
from study.results.archive import ARCHIVE, pack, packed, unpack
from study.results.explain import explain
from study.results.kept import kept_as
from study.results.unpack import CELLS_LIST, unpack_reference
from tests.kit.cell_maker import cell, write_cell

RECORDS = {
    "cells/m/a/0.5/seed0/cell.json": {"ü": [1.5, None, True], "a": {"nested": "x\u2028y\x85z"}},
    "cells/m/a/0.5/seed0/merged/merge.json": {"hidden_size": {"before": 8, "after": 4}},
    "cells/m/a/0.5/rate.json": {"learning_rate": 0.001},
    "bases/m/pretraining.json": {"tokens": 2**60},
}
PLACES = {
    "cells/m/a/0.5/seed0/cell.json": "evaluation/m/a/0.5/seed0/cell.json",
    "cells/m/a/0.5/seed0/merged/merge.json": "checkpoints/m/a/0.5/seed0/merged/merge.json",
    "cells/m/a/0.5/rate.json": "checkpoints/m/a/0.5/rate.json",
    "bases/m/pretraining.json": "models/m/pretraining.json",
}
"""Where a run has them, below its results."""


def written(folder: Path) -> dict[str, Path]:
    for name, record in RECORDS.items():
        write_json(folder / PLACES[name], record)
    return {name: folder / PLACES[name] for name in RECORDS}


def test_records_come_back_byte_for_byte_where_the_run_had_them(tmp_path: Path) -> None:
    files = written(tmp_path / "run")
    pack(files, tmp_path / ARCHIVE)
    assert dict(packed(tmp_path / ARCHIVE)) == RECORDS
    assert sorted(unpack(tmp_path / ARCHIVE, tmp_path / "again")) == sorted(tmp_path / "again" / place for place in PLACES.values())
    for name, path in files.items():
        assert (tmp_path / "again" / PLACES[name]).read_bytes() == path.read_bytes()
        assert kept_as(PurePath(PLACES[name])) == name


def test_the_order_of_records_changes_nothing(tmp_path: Path) -> None:
    files = written(tmp_path / "run")
    pack(files, tmp_path / "one.xz")
    pack(dict(reversed(files.items())), tmp_path / "other.xz")
    assert (tmp_path / "one.xz").read_bytes() == (tmp_path / "other.xz").read_bytes()


def test_records_are_not_laid_beside_others_of_another_run(tmp_path: Path) -> None:
    """One that differs is told before any is written, and so is a list of cells; the same again is no matter."""
    own = tmp_path / "own"
    pack(written(tmp_path / "run"), tmp_path / ARCHIVE)
    write_json(own / PLACES["cells/m/a/0.5/seed0/merged/merge.json"], {"of": "another run"})
    (tmp_path / "listed").mkdir()
    (tmp_path / "listed" / CELLS_LIST).write_text("two of my own\n")
    for folder, name in ((own, "merge.json"), (tmp_path / "listed", CELLS_LIST)):
        with pytest.raises(UserError, match=f"{re.escape(name)}: is there already, with other content"):
            unpack_reference(tmp_path, folder, replace=False)
        assert [path.name for path in folder.rglob("*") if path.is_file()] == [name]
    for _ in range(2):
        unpack_reference(tmp_path, tmp_path / "new", replace=False)
    assert (tmp_path / "new" / CELLS_LIST).read_text() == f"{tmp_path}/new/evaluation/m/a/0.5/seed0/cell.json\n"


@pytest.mark.parametrize("place", ["models/m/pretraining.json", CELLS_LIST])
@pytest.mark.parametrize("replace", [False, True])
def test_what_is_in_a_record_s_way_is_told_before_any_is_written(place: str, replace: bool, tmp_path: Path) -> None:
    pack(written(tmp_path / "run"), tmp_path / ARCHIVE)
    folder, file = tmp_path / "folder", tmp_path / "file"
    (folder / place).mkdir(parents=True)
    write_text(file / "models", "mine")
    for out, name, said in (
        (folder, place, "is a folder, where a file is needed"),
        (file, "models", "is a file, where a folder is needed"),
    ):
        with pytest.raises(UserError, match=f"{re.escape(str(out / name))}: {said}"):
            unpack_reference(tmp_path, out, replace=replace)
        assert [path for path in out.rglob("*.json") if path.is_file()] == []


@pytest.mark.parametrize("replace", [False, True])
def test_a_file_with_a_record_s_content_stays_untouched(replace: bool, tmp_path: Path) -> None:
    """Snakemake goes by times: laid over a run, the records of its earlier part would have it scored again."""
    pack(written(tmp_path / "run"), tmp_path / ARCHIVE)
    same, linked, gone = [tmp_path / "run" / place for place in PLACES.values()][:3]
    os.utime(same, ns=(1, 1))
    linked.rename(tmp_path / "elsewhere.json")
    linked.symlink_to(tmp_path / "elsewhere.json")
    gone.unlink()
    unpack_reference(tmp_path, tmp_path / "run", replace=replace)
    assert same.stat().st_mtime_ns == 1 and linked.is_symlink() and gone.is_file()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no archive", "is not an archive of records"),
        (lzma.compress(b"\xff\xfe"), "is not an archive of records"),
        (lzma.compress(b"{"), "is not valid JSON"),
        (lzma.compress(b'{"name": "a"}'), "line 1: holds no `name` with its `record`"),
        (lzma.compress(json.dumps({"name": "../a", "record": {}}).encode()), "lies outside"),
        (lzma.compress(json.dumps({"name": "/a", "record": {}}).encode()), "lies outside"),
    ],
)
def test_a_broken_archive_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / ARCHIVE).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        unpack(tmp_path / ARCHIVE, tmp_path / "out")
    assert str(tmp_path / ARCHIVE) in str(caught.value)


def test_an_archive_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        list(packed(tmp_path / ARCHIVE))


def test_a_cell_in_an_archive_is_explained_as_its_file_is(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_cell(folder, cell())
    place = next(folder.rglob("cell.json"))
    pack({"cells/" + place.relative_to(folder).as_posix(): place}, tmp_path / "kept" / ARCHIVE)
    wanted = dict.fromkeys(("model", "method", "ratio_requested", "seed"))
    whole, kept = explain(folder, wanted, None), explain(tmp_path / "kept", wanted, None)
    assert [line for line in kept if ".json" not in line and ARCHIVE not in line] == [line for line in whole if ".json" not in line]
    assert any(line.startswith(f"cell: {tmp_path / 'kept' / ARCHIVE}, record cells/") for line in kept)
