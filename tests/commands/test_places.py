"""Every verb that writes, of pat and of the study, against places that are not its own: one message before the work, and nothing changes.

The lists of verbs are the command lines' own: a new one is tried as it comes, and fails where its places are not checked.
"""

from __future__ import annotations

import logging
import os
import typing
from pathlib import Path

import pytest

from pat.io.places import KEEPS, READS, WRITES
from study.figures import command as figures
from tests.kit.command_places import COMMANDS, VERBS, Command, of_the_study
from tests.kit.commands import outcome

each_verb = pytest.mark.parametrize("command", VERBS, ids=str)
each_command = pytest.mark.parametrize("command", COMMANDS, ids=str)
ALL_READ = sorted({name for command in COMMANDS for name, role in command.roles.items() if role is READS})


def state(folder: Path) -> dict[str, tuple[int, int, bytes | str]]:
    """Return what is below a folder: every path's mode and file number, and what it holds or leads to."""
    found: dict[str, tuple[int, int, bytes | str]] = {}
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        holds: bytes | str = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (facts.st_mode, facts.st_ino, holds)
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with something of the user's under the name of every option that is read, and a log of its own."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    for name in ALL_READ:
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious").write_text("mine")
    return tmp_path


def refused(command: Command, here: Path, capsys: pytest.CaptureFixture[str], *more: str, **places: Path | str) -> str:
    """Run a command, which has to refuse and change nothing; return what it said."""
    before = state(here)
    code, said = outcome([*command.arguments(here, **places), *more], capsys)
    assert code == 1, said
    assert "error: " in said and "Traceback" not in said
    assert state(here) == before, "something of the user's has changed"
    return said


def written(command: Command) -> list[str]:
    return [name for name, role in command.roles.items() if role is WRITES]


@each_command
def test_every_place_of_a_command_has_its_role(command: Command) -> None:
    """A parameter of paths without a role would escape the checks; those that write also take --force."""
    hints = typing.get_type_hints(command.function)
    unknown = [
        name for name, hint in hints.items() if "Path" in str(hint) and name not in command.roles and name not in ("readme", "return")
    ]
    assert unknown == []
    assert written(command) and "force" in command.parameters()


@each_verb
def test_every_verb_takes_a_log(command: Command) -> None:
    assert "log" in command.parameters()


@each_verb
def test_a_foreign_folder_or_file_stays(command: Command, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = here / "theirs"
    if command.makes_folder:
        theirs.mkdir()
        (theirs / "thesis.txt").write_text("mine")
        (theirs / "manifest.json").write_text('{"files": {"thesis.txt": {}}, "name": "a web page"}')
    else:
        theirs.write_text('{"instruction": "mine", "output": "mine"}\n')
    assert "give --force" in refused(command, here, capsys, out=theirs)
    (here / "link").symlink_to(theirs)
    assert "link" in refused(command, here, capsys, out=here / "link")
    (here / "dangling").symlink_to("nowhere")
    assert "link" in refused(command, here, capsys, out=here / "dangling")


@each_verb
def test_not_even_force_replaces_what_is_in_an_input_s_folder(command: Command, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, role in command.roles.items():
        if role is not READS or "Path" not in str(command.parameters()[name].annotation):
            continue
        inner = here / name / "weights"
        inner.mkdir(parents=True)
        (inner / "thesis.txt").write_text("mine")
        out = inner if command.makes_folder else inner / "thesis.txt"
        assert "--force does not replace that" in refused(command, here, capsys, "--force", out=out)


@each_verb
def test_a_plugin_is_an_input(command: Command, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "mine.py").write_text("raise SystemExit('has run')")
    plugin = ("--plugin", str(here / "mine.py"))
    assert "is the same place as" in refused(command, here, capsys, *plugin, "--force", out=here / "mine.py")
    assert "is the same place as" in refused(command, here, capsys, *plugin, "--log", str(here / "mine.py"))


@each_verb
def test_where_nothing_can_be_written_is_told_before_the_work(command: Command, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in written(command):
        assert "nothing can be written to /proc/self" in refused(command, here, capsys, **{name: "/proc/self/out"})


@each_verb
def test_the_other_kind_of_place_stays(command: Command, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file where a folder is to be, and the other way round; an empty file is no folder either."""
    (here / "file").write_text("mine")
    (here / "folder").mkdir()
    assert "is a fil" in refused(command, here, capsys, out=here / "file") or not command.makes_folder
    if not command.makes_folder:
        assert "is a folder" in refused(command, here, capsys, out=here / "folder")


@each_command
def test_pipes_and_devices_are_no_outputs(command: Command, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(here / "pipe")
    for name in written(command):
        assert "is a pipe" in refused(command, here, capsys, **{name: here / "pipe"})
        assert "is a device" in refused(command, here, capsys, **{name: "/dev/null"})
        assert "is a device" in refused(command, here, capsys, "--force", **{name: "/dev/zero"})


@each_command
def test_pipes_and_devices_are_no_inputs(command: Command, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(here / "pipe")
    for name, role in command.roles.items():
        if role is READS:
            assert "is a pipe" in refused(command, here, capsys, **{name: here / "pipe"})


@each_command
def test_no_output_is_an_input_or_holds_one(command: Command, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not with --force either, nor under another name of the same place."""
    (here / "alias").symlink_to(here, target_is_directory=True)
    for target in written(command):
        for name, role in command.roles.items():
            if role is not READS or "Path" not in str(command.parameters()[name].annotation):
                continue
            for place in (here / name, here / "alias" / name, here / ".." / here.name / name):
                said = refused(command, here, capsys, "--force", **{target: place})
                assert "same place" in said and str(place) in said
    if command.makes_folder:
        inside = next((name for name in command.roles if command.roles[name] is READS), None)
        if inside is not None:
            (here / "holder").mkdir()
            (here / inside).rename(here / "holder" / inside)
            assert "lies inside" in refused(command, here, capsys, "--force", out=here / "holder", **{inside: here / "holder" / inside})


@each_verb
def test_a_hard_link_to_an_input_is_that_input(command: Command, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, role in command.roles.items():
        if role is READS and "Path" in str(command.parameters()[name].annotation) and not command.makes_folder:
            (here / "rows.jsonl").write_text("mine")
            (here / "other name").hardlink_to(here / "rows.jsonl")
            said = refused(command, here, capsys, "--force", out=here / "other name", **{name: here / "rows.jsonl"})
            assert "same place" in said
            (here / "other name").unlink()


@each_verb
def test_the_folder_one_works_in_and_those_above_it_are_no_outputs(
    command: Command, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "deep").mkdir()
    monkeypatch.chdir(here / "deep")
    for out in (".", "", "..", "/", str(here), str(Path.home())):
        said = refused(command, here, capsys, *(["--force"] if command.makes_folder else []), out=out)
        assert "name a place of its own" in said or "is a folder" in said or "holds" in said


@each_verb
def test_a_log_never_takes_the_place_of_data(command: Command, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "data.jsonl").write_text('{"text": "mine"}\n')
    (here / "link").symlink_to("data.jsonl")
    os.mkfifo(here / "pipe")
    (here / "folder").mkdir()
    for log, words in (("data.jsonl", "no log of pat"), ("link", "no log of pat"), ("pipe", "is a pipe"), ("folder", "is a folder")):
        assert words in refused(command, here, capsys, "--log", str(here / log), "--force")
    assert "same place" in refused(command, here, capsys, "--log", str(here / "new out"))
    if command.makes_folder:
        assert "lies inside" in refused(command, here, capsys, "--log", str(here / "new out" / "log"))
    for name, role in command.roles.items():
        if role is READS and "Path" in str(command.parameters()[name].annotation):
            assert "same place" in refused(command, here, capsys, "--log", str(here / name))


@pytest.mark.parametrize("command", [it for it in VERBS if KEEPS in it.roles.values()], ids=str)
def test_a_run_folder_is_a_jobs_or_empty(
    command: Command, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "work").mkdir()
    (here / "work" / "thesis.txt").write_text("mine")
    assert "thesis.txt" in refused(command, here, capsys, "--force", run_dir=here / "work")
    (here / "file").write_text("mine")
    assert "is a file" in refused(command, here, capsys, "--force", run_dir=here / "file")
    (here / "half").mkdir()
    (here / "half" / "dev.jsonl").write_text("mine")
    assert "no job.json" in refused(command, here, capsys, "--force", run_dir=here / "half")
    read = next(name for name in command.roles if command.roles[name] is READS)
    assert "same place" in refused(command, here, capsys, "--force", run_dir=here / read)
    assert "same place" in refused(command, here, capsys, "--force", run_dir=here / "new out")
    assert "lies inside" in refused(command, here, capsys, "--force", out=here / "new run_dir" / "model")
    assert "lies inside" in refused(command, here, capsys, "--force", "--log", str(here / "new run_dir" / "log"))
    assert "lies inside" in refused(command, here, capsys, "--force", run_dir=here, out=here / "x")
    if command.makes_folder:
        assert "lies inside" in refused(command, here, capsys, "--force", run_dir=here / "new out" / "run")
    (here / "deep").mkdir()
    monkeypatch.chdir(here / "deep")
    for place in (".", "", "..", "/"):
        assert refused(command, here, capsys, "--force", run_dir=place)


@each_verb
def test_what_is_written_beside_an_output_is_looked_at_too(command: Command, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind = command.kind
    for beside, _ in getattr(kind, "beside", ()):
        out = here / "figures.json"
        beside(out).write_text('{"question": "mine"}\n')
        assert beside(out).name in refused(command, here, capsys, out=out)
        inputs = [name for name, role in command.roles.items() if role is READS and "Path" in str(command.parameters()[name].annotation)]
        for name in inputs:
            assert "same place" in refused(command, here, capsys, "--force", out=out, **{name: beside(out)})


@each_command
def test_names_that_are_no_text_are_refused(command: Command, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in written(command):
        assert "UTF-8" in refused(command, here, capsys, **{name: f"{here}/caf\udce9"})


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_names_that_a_shell_would_have_read_otherwise_or_that_are_too_long_are_refused(
    command: Command, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in written(command):
        assert "write it out" in refused(command, here, capsys, **{name: "~/out"})
        assert "give it a shorter name" in refused(command, here, capsys, **{name: here / ("o" * 240)})


@pytest.mark.parametrize("command", list(of_the_study()), ids=str)
def test_the_own_kind_of_file_of_a_verb_of_the_study_is_known(command: Command, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Figures, tables, cells, references, repeats: what lies there under their names and is none of them stays."""
    if command.function is figures.main:
        name = command.words[-1]
        (here / "pictures").mkdir()
        for ending in ("png", "pdf", "csv"):
            (here / "pictures" / f"{name}.{ending}").write_text("mine")
            assert "no figure of ours" in refused(command, here, capsys, out=here / "pictures")
            (here / "pictures" / f"{name}.{ending}").unlink()
    elif str(command) in ("tables", "reference"):
        (here / "folder").mkdir()
        (here / "folder" / "cells.csv").write_text("mine")
        assert "give --force" in refused(command, here, capsys, out=here / "folder")
    elif str(command) in ("collect", "repeats"):
        (here / "file.json").write_text('{"schema": 1, "mine": 1}')
        assert "give --force" in refused(command, here, capsys, out=here / "file.json")
