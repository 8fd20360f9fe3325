"""References: what the README shows is what is kept, and only finished, committed work is kept."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image, ImageChops

from pat.errors import UserError
from pat.io.artefacts import check_folder, read_json, write_json, write_text
from pat.io.provenance import source_hash
from study.experiment.extends import read_resolved
from study.experiment.table_settings import TableSettings
from study.report import committed, reference
from study.report.blocks import marks, readme_block, with_block
from study.report.kept_run import Finished
from study.report.reference import copy_in_few_colours, keep, update
from study.results.archive import ARCHIVE, packed
from study.results.base_records import read_bases
from study.results.cells import metrics_of, read_cells
from study.results.grid import Grid
from study.results.published import Printed
from study.results.unpack import CELLS_LIST, unpack_reference
from study.tables.accuracy import accuracy_table
from study.tables.bases import fits, ridges, rotations
from study.tables.layouts import csv_text
from study.tables.sizes import perplexities
from tests.kit.project import ROOT

REFERENCES = ROOT / "results" / "reference"
DOCUMENTS = ("README.md", "docs/experiments.md", "docs/small-bases.md")
"""Those that show kept references."""
ORIGIN = {
    "git_commit": "0123456789abcdef", "git_dirty": False, "versions": {"torch": "2.13.0", "transformers": "5.23.0"}, "python": "3.11.7",
    "device": "cpu",
}  # fmt: skip


def finished(folder: Path, **changes: object) -> Path:
    results = folder / "results" / "toy"
    write_json(
        results / "evaluation" / "m" / "pat" / "0.25" / "seed0" / "cell.json", {"provenance": {"tune": ORIGIN | changes, "prune": None}}
    )
    write_text(results / "tables" / "table1.md", "| a |\n| --- |\n| 1 |\n")
    write_text(results / "tables" / "cells.csv", "method,json\npat,results/toy/evaluation/m/pat/0.25/seed0/cell.json\n")
    write_json(results / "tables" / "manifest.json", {"files": {}})
    write_text(results / "tables" / ".seal", "")
    write_json(results / "checkpoints" / "m" / "pat" / "0.25" / "rate.json", {"learning_rate": 0.001})
    write_json(results / "models" / "m" / "pretraining.json", {"tokens": 1})
    write_json(results / "benchmark" / "inference" / "tiny.json", {"speedups": []})
    write_text(folder / "toy.yaml", "name: toy\n")
    write_text(folder / "README.md", "before\n<!-- toy:start -->\nold\n<!-- toy:end -->\nafter\n")
    return results


def test_the_readme_shows_what_is_kept(tmp_path: Path) -> None:
    results, out = finished(tmp_path), tmp_path / "results" / "reference" / "toy"
    update(Finished(results), out, [tmp_path / "README.md"], "a machine", tmp_path / "toy.yaml")
    shown = (tmp_path / "README.md").read_text()
    assert shown.startswith("before\n") and shown.endswith("after\n") and "old" not in shown
    assert "| 1 |" in shown and "a machine" in shown and "`0123456789`" in shown
    records = dict(packed(out / ARCHIVE))
    assert sorted(records) == ["bases/m/pretraining.json", "cells/m/pat/0.25/rate.json", "cells/m/pat/0.25/seed0/cell.json"]
    assert records["cells/m/pat/0.25/rate.json"] == {"learning_rate": 0.001} and (out / "benchmark/inference/tiny.json").is_file()
    assert [path.name for path in (out / "tables").iterdir()] == ["table1.md"]
    assert (out / "experiment.yaml").read_text() == "name: toy\n"
    assert with_block(shown, "toy", readme_block(out)) == shown


def test_a_run_of_several_machines_says_so_of_commits_versions_and_devices(tmp_path: Path) -> None:
    """They were those of the first cell, and the system's was that of whoever kept the reference."""
    results, out = finished(tmp_path, machine="x86_64", gpu="NVIDIA A", device="cuda:0"), tmp_path / "out" / "toy"
    other = ORIGIN | {"git_commit": "fedcba98765", "versions": {"torch": "2.11.0", "transformers": "5.23.0"}, "machine": "aarch64"}
    write_json(results / "evaluation" / "m" / "pat" / "0.25" / "seed1" / "cell.json", {"provenance": {"tune": other}})
    named = (results / "tables" / "cells.csv").read_text()
    write_text(results / "tables" / "cells.csv", named + "pat,results/toy/evaluation/m/pat/0.25/seed1/cell.json\n")
    keep(Finished(results), out, "two machines", tmp_path / "toy.yaml")
    origin = read_json(out / "origin.json")
    assert origin["git_commits"] == ["0123456789abcdef", "fedcba98765"] and origin["devices"] == ["NVIDIA A", "cpu"]
    assert origin["versions"] == {"torch": "2.11.0, 2.13.0", "transformers": "5.23.0"} and origin["platform"] == "aarch64, x86_64"
    assert "torch 2.11.0, 2.13.0, transformers 5.23.0, commit `0123456789`, `fedcba9876`" in readme_block(out)


def test_what_an_earlier_form_of_the_experiment_has_left_is_not_kept(tmp_path: Path) -> None:
    """Rates and bases of rows and models that are gone, figures that are no longer asked for: they would pass for those of its cells."""
    results, out = finished(tmp_path), tmp_path / "out" / "toy"
    write_json(results / "checkpoints" / "m" / "gone" / "0.25" / "rate.json", {"learning_rate": 0.1})
    write_json(results / "models" / "gone" / "pretraining.json", {"tokens": 2})
    for name in ("perplexity", "accuracy"):
        (results / "figures").mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(results / "figures" / f"{name}.png")
    write_text(tmp_path / "toy.yaml", "name: toy\nfigures: [perplexity]\n")
    keep(Finished(results), out, "a machine", tmp_path / "toy.yaml")
    assert [path.name for path in (out / "figures").iterdir()] == ["perplexity.png"]
    assert not [name for name, _ in packed(out / ARCHIVE) if "gone" in name]


def test_a_reference_keeps_what_lies_before_the_cut_once_for_all_ratios(tmp_path: Path) -> None:
    results, out = finished(tmp_path), tmp_path / "out" / "toy"
    row, cells = Path("m", "shortgpt-ftpft"), "method,json\n"
    for ratio in ("0.25", "0.5"):
        write_json(results / "evaluation" / row / ratio / "seed0" / "cell.json", {"provenance": {"tune": ORIGIN}})
        cells += f"shortgpt-ftpft,results/toy/evaluation/{row}/{ratio}/seed0/cell.json\n"
    for name in ("adapter/tuning.json", "merged/merge.json"):
        write_json(results / "checkpoints" / row / "before" / "seed0" / name, {"name": name})
    write_text(results / "tables" / "cells.csv", cells)
    keep(Finished(results), out, "a machine", tmp_path / "toy.yaml")
    unpack_reference(out, tmp_path / "again")
    assert read_json(tmp_path / "again" / "checkpoints" / row / "before" / "seed0" / "merged" / "merge.json") == {
        "name": "merged/merge.json"
    }
    kept = [name for name, _ in packed(out / ARCHIVE) if "/before/" in name]
    assert sorted(kept) == [f"cells/{row}/before/seed0/{name}" for name in ("adapter/tuning.json", "merged/merge.json")]


def test_a_table_to_show_that_there_is_not_is_named_and_nothing_kept(tmp_path: Path) -> None:
    results, out = finished(tmp_path), tmp_path / "results" / "reference" / "toy"
    with pytest.raises(UserError, match=r"^--show: tabel1\.md: no such table; the tables are table1\.md$"):
        update(Finished(results), out, [tmp_path / "README.md"], "a machine", tmp_path / "toy.yaml", ["tabel1.md", "perplexity.md"])
    assert not out.exists() and "old" in (tmp_path / "README.md").read_text()


def test_the_readme_shows_the_tables_that_are_named(tmp_path: Path) -> None:
    results, out = finished(tmp_path), tmp_path / "out" / "toy"
    write_text(results / "tables" / "perplexity.md", "| perplexity |")
    update(Finished(results), out, [tmp_path / "README.md"], "a machine", tmp_path / "toy.yaml", ["perplexity.md", "table3.md"])
    shown = (tmp_path / "README.md").read_text()
    assert "| perplexity |" in shown and "| 1 |" not in shown and '.yaml SHOW="perplexity.md table3.md"`' in shown
    assert with_block(shown, "toy", readme_block(out)) == shown


MARKS = "<!-- toy:start -->\n<!-- toy:end -->\n"


def test_a_document_keeps_the_ends_of_its_lines_and_a_link_leads_where_it_did(tmp_path: Path) -> None:
    results, real, link = finished(tmp_path), tmp_path / "real.md", tmp_path / "link.md"
    real.write_bytes(f"before\n{MARKS}after\n".replace("\n", "\r\n").encode())
    link.symlink_to("real.md")
    update(Finished(results), tmp_path / "out" / "toy", [link], "a machine", tmp_path / "toy.yaml")
    written = real.read_bytes()
    assert link.is_symlink() and b"| 1 |" in written
    assert written.startswith(b"before\r\n<!--") and written.count(b"\n") == written.count(b"\r\n") and b"\r\r" not in written


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (f"{MARKS}mine\n{MARKS}".encode(), "more than once"),
        (b"<!-- toy:start -->\nmine\n" + MARKS.encode(), "more than once"),
        (b"<!-- toy:end -->\n<!-- toy:start -->\n", "lacks the lines"),
    ],
)
def test_a_document_without_one_place_for_the_tables_is_told_and_nothing_written(content: bytes, told: str, tmp_path: Path) -> None:
    results, document = finished(tmp_path), tmp_path / "log.md"
    document.write_bytes(content)
    with pytest.raises(UserError, match=rf"log\.md: .*{told}"):
        update(Finished(results), tmp_path / "out" / "toy", [document], "a machine", tmp_path / "toy.yaml")
    assert document.read_bytes() == content and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("docs/experiments.md", "shown in docs/experiments.md"),
        ("notes.md", "no document has the lines <!-- toy:start --> and <!-- toy:end -->"),
    ],
)
def test_the_document_that_has_a_place_for_the_tables_is_found_and_without_one_the_run_is_kept_all_the_same(
    document: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By default README.md was asked for its place, behind the hours of a run whose tables a log shows."""
    finished(tmp_path)
    write_text(tmp_path / "README.md", "no place here, `<!-- toy:start -->` is only spoken of\n")
    (tmp_path / "docs" / "folder.md").mkdir(parents=True)
    (tmp_path / "docs" / "other.md").write_bytes(b"\xff\xfe")
    write_text(tmp_path / document, MARKS)
    monkeypatch.chdir(tmp_path)
    reference.main(Path("results/toy"), Path("results/reference/toy"), "a machine", Path("toy.yaml"))
    assert capsys.readouterr().out == f"results/reference/toy: 1 cells kept, {said}\n"
    assert ("| 1 |" in (tmp_path / document).read_text()) == (document == "docs/experiments.md")
    assert "only spoken of" in (tmp_path / "README.md").read_text()


def test_a_reference_keeps_how_long_its_jobs_took(tmp_path: Path) -> None:
    results, out = finished(tmp_path), tmp_path / "results" / "reference" / "toy"
    head = "s\th:m:s\tcpu_time\n"
    write_text(results / "benchmarks" / "tune" / "m" / "pat" / "0.25" / "seed0.tsv", f"{head}7.50\t0:00:07\t12.25\n")
    update(Finished(results), out, [tmp_path / "README.md"], "a machine", tmp_path / "toy.yaml")
    assert read_json(out / "origin.json")["times"] == {"jobs": 1, "span_s": 7.5, "busy_s": 7.5, "wall_s": 7.5, "processor_s": 12.2}
    assert "The job took 7.5 s, 7.5 s one after another, at least 12.2 s of processor time." in (tmp_path / "README.md").read_text()
    assert "How long the jobs of toy took, on a machine" in (out / "tables" / "times.md").read_text()
    assert (out / "tables" / "times.csv").read_text().splitlines()[1].startswith("tune,1,7.5,7.5,7.5,12.25,")
    check_folder(out)


@pytest.mark.parametrize(
    ("changes", "message"), [({"git_dirty": True}, "uncommitted changes"), ({"git_commit": None, "git_dirty": None}, "run from a clone")]
)
def test_code_that_no_commit_names_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        keep(Finished(finished(tmp_path, **changes)), tmp_path / "out", "a machine", tmp_path / "toy.yaml")


def test_the_hash_of_the_sources_shows_that_they_are_the_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "repository" / "pat"
    package.mkdir(parents=True)
    (package / "core.py").write_text("x = 1\n")
    for arguments in (["init", "-q"], ["add", "pat"], ["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "ours"]):
        subprocess.run(["git", "-C", str(package.parent), *arguments], check=True)
    monkeypatch.setattr(committed, "SOURCES", package)
    changed_elsewhere = {"git_commit": "HEAD", "git_dirty": True, "source_hash": source_hash(package)}
    assert committed.is_as_committed(changed_elsewhere)
    assert not committed.is_as_committed(changed_elsewhere | {"source_hash": "0123456789abcdef"})
    assert not committed.is_as_committed(changed_elsewhere | {"git_commit": "c0ffee"})
    committed._hash_at.cache_clear()


def test_unfinished_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.yaml: no such file"):
        keep(Finished(finished(tmp_path)), tmp_path / "out", "a machine", tmp_path / "missing.yaml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="run the experiment first"):
        keep(Finished(tmp_path / "empty"), tmp_path / "out", "a machine", tmp_path / "toy.yaml")
    with pytest.raises(UserError, match="nowhere: no such folder; name results/<experiment>"):
        keep(Finished(tmp_path / "nowhere"), tmp_path / "out", "a machine", tmp_path / "toy.yaml")
    with pytest.raises(UserError, match="lacks the lines"):
        with_block("no marks", "toy", "block")


@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.parametrize("reference", sorted(REFERENCES.glob("*/origin.json")), ids=lambda path: path.parent.name)
def test_what_the_documents_show_agrees_with_the_references(reference: Path, document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    if marks(reference.parent.name)[0] in text:
        assert with_block(text, reference.parent.name, readme_block(reference.parent), document) == text


@pytest.mark.parametrize("folder", sorted(path.parent for path in REFERENCES.glob("*/manifest.json")), ids=lambda path: path.name)
def test_a_committed_reference_is_what_was_kept(folder: Path) -> None:
    check_folder(folder)


def test_every_reference_of_an_experiment_is_shown() -> None:
    shown = "".join((ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS)
    missing = [path.parent.name for path in REFERENCES.glob("*/origin.json") if marks(path.parent.name)[0] not in shown]
    assert not missing


@pytest.mark.lengthy
@pytest.mark.parametrize("reference", sorted(path.parent for path in REFERENCES.glob(f"*/{ARCHIVE}")), ids=lambda path: path.name)
def test_the_tables_can_be_made_again_from_the_records(reference: Path, tmp_path: Path) -> None:
    unpack_reference(reference, tmp_path / "records")
    cells = read_cells([Path(line) for line in (tmp_path / "records" / CELLS_LIST).read_text().splitlines()])
    settings = TableSettings.model_validate(read_resolved(reference / "experiment.yaml").get("tables", {}))
    first, (moved, fitted) = Grid(cells, metrics_of(cells)[0]), read_bases(cells)  # not all tables: comparisons take half a minute
    made = {
        settings.accuracy: accuracy_table(first, Printed(settings.accuracy)),
        "perplexity": perplexities(first),
        "rotations": rotations(moved, "an experiment"),
        "fits": fits(fitted, "an experiment"),
        "ridges": ridges(fitted, "an experiment"),
    }
    assert {name for name, table in made.items() if table is not None} == {
        name for name in made if (reference / f"tables/{name}.csv").exists()
    }
    for name, table in made.items():
        if table is not None:
            assert csv_text(table[1], digits=6) == (reference / "tables" / f"{name}.csv").read_text(encoding="utf-8")


def test_a_kept_figure_looks_the_same_and_is_smaller(tmp_path: Path) -> None:
    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 2, 4], color="tab:blue")
    axes.set_title("a title")
    figure.savefig(tmp_path / "drawn.png", dpi=150)
    copy_in_few_colours(tmp_path / "drawn.png", tmp_path / "kept.png")
    with Image.open(tmp_path / "drawn.png") as drawn, Image.open(tmp_path / "kept.png") as kept:
        differences = np.asarray(ImageChops.difference(drawn.convert("RGB"), kept.convert("RGB")))
    assert differences.max() <= 32 and differences.mean() < 0.5
    assert (tmp_path / "kept.png").stat().st_size < 0.6 * (tmp_path / "drawn.png").stat().st_size
