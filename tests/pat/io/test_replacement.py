"""Replacing an output: at every moment the old or the new one is whole, whoever is killed where; what the living write is left alone."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pat.errors import UserError
from pat.io import exchange, locks, temporaries
from pat.io.artefacts import check_folder, new_folder, seal, write_json, write_text
from pat.io.marks import FOLDERS, KINDS, Folder, check_replaceable, samples_path
from pat.io.temporaries import Names, sweep
from tests.kit.children import HANGS_AFTER_S, NO_PROCESS, child

MERGED = FOLDERS["merge"]
DIES_AT = """
import os, signal, sys
from pathlib import Path
from pat.io import exchange
from pat.io.artefacts import new_folder
out, last, swaps = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "True"
if not swaps:
    exchange.swap = lambda one, other: False
steps = 0
def counted(function):
    def step(*arguments, **options):
        global steps
        steps += 1
        if steps == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return step
Path.rename, exchange.swap, exchange.remove = counted(Path.rename), counted(exchange.swap), counted(exchange.remove)
with new_folder(out) as folder:
    (folder / "state").write_text("new")
print(steps)
"""
"""Replaces a folder and kills itself before a step of the replacement; tells how many there are where it lives on."""


def replaced(out: Path, last: int, *, swaps: bool) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", DIES_AT, str(out), str(last), str(swaps)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("swaps", [True, False], ids=["one step", "two renames"])
def test_a_kill_before_any_step_leaves_the_old_or_the_new(swaps: bool, tmp_path: Path) -> None:
    """And a next start that fails, before or after it begins to write, loses neither."""
    whole = replaced(tmp_path / "whole", 0, swaps=swaps)
    assert whole.returncode == 0, whole.stderr
    steps = int(replaced(tmp_path / "whole", 0, swaps=swaps).stdout)
    assert steps >= 3
    for last in range(1, steps + 1):
        out = tmp_path / str(last) / "m"
        with new_folder(out) as folder:
            (folder / "state").write_text("old")
        assert replaced(out, last, swaps=swaps).returncode == -signal.SIGKILL
        if swaps:
            check_folder(out)
        with pytest.raises(RuntimeError), new_folder(out):
            raise RuntimeError
        check_folder(out)
        assert (out / "state").read_text() in ("old", "new")
        assert [path.name for path in out.parent.iterdir()] == ["m"], "nothing is left behind"


def test_linux_swaps_in_one_step(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state").write_text(name)
    assert exchange.swap(tmp_path / "one", tmp_path / "other")
    assert (tmp_path / "one" / "state").read_text() == "other"
    with pytest.raises(FileNotFoundError, match="nowhere"):
        exchange.swap(tmp_path / "one", tmp_path / "nowhere")


@pytest.mark.lengthy
def test_while_a_folder_is_replaced_it_is_never_missing(tmp_path: Path) -> None:
    out = tmp_path / "m"
    with new_folder(out) as folder:
        (folder / "state").write_text("0")
    missing, done = [], threading.Event()

    def watch() -> None:
        while not done.is_set():
            if not os.path.lexists(out / "state"):
                missing.append(time.monotonic())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for number in range(200):
            with new_folder(out) as folder:
                (folder / "state").write_text(str(number))
    finally:
        done.set()
        watcher.join()
    assert missing == []


def grow(out: Path, begun: multiprocessing.synchronize.Event, go_on: multiprocessing.synchronize.Event) -> None:
    with new_folder(out) as folder:
        (folder / "half").write_text("x")
        begun.set()
        assert go_on.wait(HANGS_AFTER_S)
        (folder / "whole").write_text("x")


@pytest.mark.parametrize("names", [("m", "m.1"), ("m.1", "m"), ("llama-3", "llama-3.1"), ("m", "m"), ("m[1]", "m1")])
def test_outputs_that_begin_alike_leave_each_other_alone(names: tuple[str, str], tmp_path: Path) -> None:
    """The one's start cleans up while the other is at work; also two jobs for one output, of which the last stays."""
    context = multiprocessing.get_context("fork")
    begun, go_on = context.Event(), context.Event()
    first = context.Process(target=grow, args=(tmp_path / names[0], begun, go_on))
    first.start()
    assert begun.wait(HANGS_AFTER_S)
    with new_folder(tmp_path / names[1]) as folder:
        (folder / "file").write_text("x")
    go_on.set()
    first.join()
    assert first.exitcode == 0
    check_folder(tmp_path / names[0])
    assert (tmp_path / names[0] / "whole").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(set(names))


def test_many_outputs_in_one_folder_at_once(tmp_path: Path) -> None:
    failures = []

    def make(name: str) -> None:
        try:
            for number in range(20):
                with new_folder(tmp_path / name) as folder:
                    (folder / "state").write_text(str(number))
                check_folder(tmp_path / name)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=make, args=(name,)) for name in ("m", "m.1", "m.1.1", "m.1.2", ".m", "m.")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(list(tmp_path.iterdir())) == len(threads)


def leave(out: Path, token: str) -> Names:
    """Leave what a dead job leaves of an output."""
    names = Names(out, token)
    names.lock.write_text("process 1 on nowhere\n")
    names.new.mkdir()
    (names.new / "half").write_text("x")
    return names


def test_only_what_the_dead_left_of_this_very_output_goes(tmp_path: Path) -> None:
    out = tmp_path / "m"
    mine, others = leave(out, "0" * 16), leave(tmp_path / "m.1", "1" * 16)
    alive = leave(out, "2" * 16)
    lock = locks.acquire(alive.lock)
    assert lock is not None
    (tmp_path / ".m.notes.tmp").write_text("the user's")
    (tmp_path / f".m.{'3' * 16}.tmp").mkdir()
    sweep(out)
    assert not mine.new.exists() and not mine.lock.exists()
    assert others.new.exists() and alive.new.exists() and (tmp_path / ".m.notes.tmp").exists()
    lock.release(remove=False)
    sweep(out)
    assert not alive.new.exists()


def test_what_a_dead_job_of_an_earlier_version_left_goes_and_a_living_ones_stays(tmp_path: Path) -> None:
    living = tmp_path / f".m.{os.getpid()}.tmp"
    (tmp_path / f".m.{NO_PROCESS}.old.tmp").mkdir()
    (tmp_path / f".m.{NO_PROCESS}.old.tmp" / "state").write_text("old")
    living.mkdir()
    sweep(tmp_path / "m")
    assert living.exists() and (tmp_path / "m" / "state").read_text() == "old", "killed between two renames: the old one is back"


def test_without_locks_nothing_is_taken_for_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = leave(tmp_path / "m", "0" * 16)
    monkeypatch.setattr(locks, "_locked", lambda _: False)
    with new_folder(tmp_path / "m") as folder:
        (folder / "file").write_text("x")
    assert left.new.exists() and left.lock.exists()
    check_folder(tmp_path / "m")


def test_a_lock_ends_with_its_process_and_says_whose_it_is(tmp_path: Path) -> None:
    code = f"import sys, time; from pathlib import Path; from pat.io.locks import acquire; acquire(Path({str(tmp_path / 'lock')!r})); print('held', flush=True); time.sleep({HANGS_AFTER_S})"
    with child([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert locks.acquire(tmp_path / "lock") is None
        assert f"process {holder.pid} on " in locks.owner(tmp_path / "lock")
        holder.kill()
        holder.wait()
    assert locks.acquire(tmp_path / "lock") is not None


def test_nothing_empty_is_sealed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="holds no file"), new_folder(tmp_path / "m"):
        pass
    with pytest.raises(RuntimeError, match="holds no file"):
        seal(tmp_path / "gone")
    assert list(tmp_path.iterdir()) == []
    write_json(tmp_path / "m" / "manifest.json", {"files": {}})
    with pytest.raises(UserError, match="lists no file"):
        check_folder(tmp_path / "m")


def filled(out: Path, kind: Folder, **files: str) -> None:
    with new_folder(out, kind) as folder:
        for name, text in files.items():
            (folder / name.replace("_json", ".json")).write_text(text)


def test_a_folder_is_replaced_by_its_maker_alone_and_only_while_nothing_was_added(tmp_path: Path) -> None:
    out = tmp_path / "m"
    filled(out, MERGED, merge_json="{}", weights="1")
    filled(out, MERGED, merge_json="{}", weights="2")
    with pytest.raises(UserError, match="`pat prune` has not made"):
        filled(out, FOLDERS["prune"], prune_json="{}")
    for added in ("notes.txt", "deep/notes.txt", "empty/"):
        path = out / added
        (path if added.endswith("/") else path.parent).mkdir(exist_ok=True)
        if not added.endswith("/"):
            path.write_text("mine")
        with pytest.raises(UserError, match=added.strip("/")):
            filled(out, MERGED, merge_json="{}")
        exchange.remove(out / added.split("/")[0])
    with new_folder(out, FOLDERS["prune"], force=True) as folder:
        (folder / "prune.json").write_text("{}")
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "prune.json"]


@pytest.mark.parametrize("size", [1, 2**20 + 1], ids=["a card", "weights"])
def test_a_file_that_was_changed_since_is_somebody_s_own(size: int, tmp_path: Path) -> None:
    out = tmp_path / "m"
    filled(out, MERGED, merge_json="{}", file="a" * size)
    copied = shutil.copytree(out, tmp_path / "copied")
    for folder in (out, copied):
        filled(folder, MERGED, merge_json="{}", file="a" * size)
    for changed in ("b" * size, "b" * (size + 1)):
        (out / "file").write_text(changed)
        at_once_ns = (out / "manifest.json").stat().st_mtime_ns  # as by a clock that ticks once a second
        os.utime(out / "file", ns=(at_once_ns, at_once_ns))
        with pytest.raises(UserError, match=r"has not written so \(file\)"):
            filled(out, MERGED, merge_json="{}")
        assert (out / "file").read_text() == changed
    (out / "file").unlink()
    (out / "file").symlink_to(copied / "file")
    with pytest.raises(UserError, match=r"has not written so \(file\)"):
        filled(out, MERGED, merge_json="{}")


def test_a_folder_whose_manifest_the_workflow_removed_is_known_by_its_record(tmp_path: Path) -> None:
    out = tmp_path / "m"
    record = '{"provenance": {}}'
    filled(out, MERGED, merge_json=record, config_json="{}")
    (out / "manifest.json").unlink()
    filled(out, MERGED, merge_json=record, config_json="{}")
    (out / "manifest.json").unlink()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"thesis\.txt"):
        filled(out, MERGED, merge_json=record)
    (out / "thesis.txt").unlink()
    (out / "merge.json").unlink()
    with pytest.raises(UserError, match="`pat merge` has not made"):
        filled(out, MERGED, merge_json=record)


@pytest.mark.parametrize(("verb", "record"), [("tune", "tuning.json"), ("merge", "merge.json"), ("import-model", "config.json")])
def test_folders_of_versions_without_marks_are_known(verb: str, record: str, tmp_path: Path) -> None:
    """Their manifests name no maker; what they list tells."""
    out = tmp_path / "m"
    with new_folder(out) as folder:
        (folder / record).write_text("{}")
    with pytest.raises(UserError, match="has not made"), new_folder(out, FOLDERS["rotate"]):
        pass
    with new_folder(out, FOLDERS[verb]) as folder:
        (folder / record).write_text("{}")


def test_folders_of_a_maker_by_its_former_name_are_its_own_and_no_other_s(tmp_path: Path) -> None:
    out, former = tmp_path / "m", Folder("study.py", "cells.csv", ())
    filled(out, former, cells_csv="")
    refused = "`study tables` has not made"
    for stranger in (Folder("study tables", "cells.csv", ()), Folder("study tables", "cells.csv", (), formerly=("tables.py",))):
        with pytest.raises(UserError, match=refused):
            filled(out, stranger, cells_csv="")
    filled(out, Folder("study tables", "cells.csv", (), formerly=("study.py",)), cells_csv="")
    with pytest.raises(UserError, match=r"`study\.py` has not made"):
        filled(out, former, cells_csv="")


def test_what_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "m"
    with pytest.raises(UserError, match="has not made"), new_folder(out, MERGED) as folder:
        (folder / "merge.json").write_text("{}")
        out.mkdir()
        (out / "thesis.txt").write_text("mine")
    assert (out / "thesis.txt").read_text() == "mine"


def test_a_device_or_a_pipe_is_never_replaced_by_text(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(UserError, match="is a "):
            write_text(place, "x")


def test_other_content_is_replaced_only_where_that_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.touch()
    for _ in range(2):
        write_text(path, "a", replace=False)
    with pytest.raises(UserError, match="other content"):
        write_text(path, "b", replace=False)
    write_text(path, "b")
    assert path.read_text() == "b"


def test_temporaries_of_a_name_are_told_from_those_of_every_other() -> None:
    token = "0123456789abcdef"
    for name in ("m", "m.1", f"m.{token}", f".m.{token}.tmp", "m.old", "[m]", "m*"):
        names = Names(Path("/folder", name), token)
        for other in ("m", "m.1", f"m.{token}", f".m.{token}.tmp", "m.old", "[m]", "m*"):
            found = [each.name for each in (names.new, names.aside, names.lock)]
            assert temporaries.tokens_in(found, other) == ({token} if other == name else set())


def test_files_in_folders_of_the_users_are_nobodys_own(tmp_path: Path) -> None:
    """Their names are like ours but for the folder in front."""
    folder = tmp_path / "merged"
    with new_folder(folder, MERGED) as inside:
        write_json(inside / str(MERGED.record), {"provenance": {}})
    (folder / "manifest.json").unlink()
    check_replaceable(folder, MERGED)
    (folder / "my-backup").mkdir()
    (folder / "my-backup" / "other-model.safetensors").write_bytes(b"weights")
    with pytest.raises(UserError, match="my-backup"):
        check_replaceable(folder, MERGED)


def test_answers_of_evaluations_whose_names_have_a_dot_lie_apart() -> None:
    assert samples_path(Path("out/evaluation.json")) == Path("out/evaluation_samples.jsonl")
    assert samples_path(Path("llama-3.1")) == Path("llama-3.1_samples.jsonl") != samples_path(Path("llama-3.2"))


def test_a_merges_record_is_not_one_of_sizes(tmp_path: Path) -> None:
    """It has the same fields, and its folder's manifest would no longer hold."""
    record = {"ratio_requested": 0.25, "hidden_size": {}, "parameters": {}, "provenance": {}}
    for name, gap in (("merge", 3e-5), ("sizes", None)):
        write_json(tmp_path / f"{name}.json", record | {"logit_gap": gap})
    check_replaceable(tmp_path / "sizes.json", KINDS["sizes"])
    with pytest.raises(UserError, match="is there already and is not what this command writes"):
        check_replaceable(tmp_path / "merge.json", KINDS["sizes"])
