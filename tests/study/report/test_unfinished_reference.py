"""An unfinished experiment kept by its records: the same files again from what a reference holds, and no earlier part lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from pat.io.artefacts import check_folder, read_json, seal, write_text
from study import cli
from study.commands.places import REFERENCE
from study.experiment.table_settings import TableSettings
from study.figures.heading import heading
from study.figures.perplexity import write_perplexity
from study.report.blocks import readme_block
from study.report.kept_run import Unfinished
from study.report.page.run import opened
from study.report.reference import copy_in_few_colours
from study.results.archive import ARCHIVE, packed
from study.results.grid import headline_grid
from study.results.kept import place_of
from study.results.unpack import unpack_reference
from study.tables.writing import write_tables
from tests.kit.part_of_a_grid import CELLS, FILE, OF_CELLS, PART, RAW, M, keep_cells, write_part

NAME = PART.name
SHOWN = "perplexity.md table1_acc_norm.md"
HEAD = "s\th:m:s\tcpu_time\n"


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_part(tmp_path_factory.mktemp("part") / "results" / NAME)


@pytest.fixture
def own(part: Path, tmp_path: Path) -> Path:
    """A folder with a copy of the part's records, the cells of two rows alone, the experiment without figures, and a document for them."""
    write_text(tmp_path / "experiment.yaml", yaml.safe_dump(RAW | {"figures": []}))
    results = tmp_path / "results" / NAME
    shutil.copytree(part, results)
    keep_cells(results, "base/0/seed0", "slicegpt-ftp/0.25/seed0")
    write_text(tmp_path / "log.md", f"before\n<!-- {NAME}:start -->\nold\n<!-- {NAME}:end -->\nafter\n")
    return results


def keep(results: Path, folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[object, str]:
    """Keep a run as a folder's reference from the command line; return the exit status and all that was said."""
    command = ["reference", "--results", str(results), "--out", str(folder / "kept" / NAME), "--machine", "a machine"]
    command += ["--experiment", str(folder / "experiment.yaml"), "--readme", str(folder / "log.md"), "--show", SHOWN]
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, *options])
    said = capsys.readouterr()
    return ended.value.code, said.out + said.err


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_reference_has_the_tables_of_its_cells_and_what_it_holds_makes_it_again(
    part: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_text(tmp_path / "log.md", f"<!-- {NAME}:start -->\n<!-- {NAME}:end -->\n")
    shutil.copy(FILE, tmp_path)
    kept, again = tmp_path / "kept" / NAME, tmp_path / "again" / NAME
    assert keep(part, tmp_path, capsys, "--unfinished") == (
        0,
        f"{kept}: {len(CELLS)} of {OF_CELLS} cells kept, shown in {tmp_path / 'log.md'}\n",
    )
    write_tables(sorted(part.rglob("cell.json")), tmp_path / "tables", TableSettings.model_validate(RAW["tables"]), of_cells=OF_CELLS)
    of_cells = {name: table for name, table in files(tmp_path / "tables").items() if Path(name).suffix in (".md", ".csv")}
    of_cells.pop("cells.csv")
    assert files(kept / "tables") == of_cells and len(of_cells) > 20
    assert {path.stem for path in (kept / "figures").iterdir()} == {"accuracy", "gate", "memory", "methods", "perplexity", "trainable"}
    check_folder(kept)

    before = files(kept)
    unpack_reference(kept, again)
    assert keep(again, tmp_path, capsys, "--unfinished")[0] == 0 and files(kept) == before


def test_tables_and_block_say_of_how_many_cells_they_are(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert keep(own, tmp_path, capsys, "--unfinished")[0] == 0
    kept, log = tmp_path / "kept" / NAME, (tmp_path / "log.md").read_text()
    assert read_json(kept / "origin.json")["of_cells"] == OF_CELLS
    for table in (kept / "tables").glob("*.md"):
        assert table.read_text().startswith(f"UNFINISHED, 2 of {OF_CELLS} cells. "), table
    assert log == f"before\n<!-- {NAME}:start -->\n{readme_block(kept)}\n<!-- {NAME}:end -->\nafter\n"
    assert (
        f"2 of {OF_CELLS} cells, a machine" in log
        and "To finish it: `make reference" in log
        and log.count(f"UNFINISHED, 2 of {OF_CELLS} cells") == 2
    )
    with opened(kept) as run:
        assert run.unfinished and run.counted == f"UNFINISHED, 2 of {OF_CELLS} cells"


def test_a_cell_s_tuning_is_kept_where_its_row_has_no_cell(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SliceGPT has pruned what LoRA had tuned; of LoRA itself no cell is there."""
    keep(own, tmp_path, capsys, "--unfinished")
    names = {name for name, _ in packed(tmp_path / "kept" / NAME / ARCHIVE)}
    assert {f"cells/{M}/lora/0/{name}" for name in ("rate.json", "seed0/adapter/tuning.json", "seed0/merged/merge.json")} <= names
    assert not [name for name in names if "seed1" in name or "/pat/" in name]
    again = tmp_path / "again" / NAME
    unpack_reference(tmp_path / "kept" / NAME, again)
    assert {path.relative_to(again).as_posix() for path in again.rglob("*.json")} == {place_of(name).as_posix() for name in names}
    before = (tmp_path / "kept" / NAME / ARCHIVE).read_bytes()
    assert keep(again, tmp_path, capsys, "--unfinished")[0] == 0 and (tmp_path / "kept" / NAME / ARCHIVE).read_bytes() == before


def test_what_made_a_cell_s_base_is_kept_for_its_seed_and_ratio_alone(
    own: Path, part: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = Path("evaluation") / M / "pat-g/0.25/seed0"
    shutil.copytree(part / cell, own / cell, dirs_exist_ok=True)
    assert keep(own, tmp_path, capsys, "--unfinished")[0] == 0
    names = {name for name, _ in packed(tmp_path / "kept" / NAME / ARCHIVE) if name.startswith(("rotated/", "refitted/"))}
    assert names == {f"rotated/{M}/gradient/seed0/rotation.json", f"refitted/{M}/gradient/leading/align-auto/0.25/seed0/readers.json"}


def test_a_later_part_takes_the_place_of_an_earlier_one_and_loses_none_of_it(
    own: Path, part: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept" / NAME
    keep(own, tmp_path, capsys, "--unfinished")
    alone = tmp_path / "alone" / NAME
    shutil.copytree(part / "evaluation" / M / "lora/0/seed1", alone / "evaluation" / M / "lora/0/seed1")
    shutil.copytree(part / "checkpoints" / M / "lora", alone / "checkpoints" / M / "lora")
    before, log = files(kept), (tmp_path / "log.md").read_text()

    code, said = keep(alone, tmp_path, capsys, "--unfinished")
    assert code == 1 and f"{kept}: has 2 cells that {alone} does not have, such as {M}/base/0/seed0" in said
    assert f"study unpack {kept} --out {alone}" in said and "--force" in said
    assert files(kept) == before and (tmp_path / "log.md").read_text() == log

    unpack_reference(kept, alone, replace=False)
    assert keep(alone, tmp_path, capsys, "--unfinished") == (0, f"{kept}: 3 of {OF_CELLS} cells kept, shown in {tmp_path / 'log.md'}\n")
    log = (tmp_path / "log.md").read_text()
    assert f"UNFINISHED, 3 of {OF_CELLS} cells" in log and f"2 of {OF_CELLS} cells" not in log

    assert keep(own, tmp_path, capsys, "--unfinished")[0] == 1
    assert keep(own, tmp_path, capsys, "--unfinished", "--force")[0] == 0 and files(kept) == before


def measured(results: Path, step: str, wall_s: float) -> None:
    write_text(results / "benchmarks" / f"{step}.tsv", f"{HEAD}{wall_s}\t0:00:00\t{wall_s}\n")


def test_times_are_of_the_jobs_behind_the_cells_or_of_none(own: Path) -> None:
    jobs = {f"evaluate/{M}/base/0/seed0": 1, f"tune/{M}/lora/0/seed0": 4, f"search/{M}/lora/0": 8, f"prune/{M}/slicegpt-ftp/0.25/seed0": 16}
    others = {f"tune/{M}/lora/0/seed1": 100, f"evaluate/{M}/pat/0.5/seed0": 100, f"prune/{M}/slicegpt-ftp/0.5/seed0": 100}
    for step, wall_s in (jobs | others).items():
        measured(own, step, wall_s)
    run = Unfinished(own, FILE)
    assert run.jobs() == [], "of one cell's scoring nothing is known, so the rest is not the whole"
    measured(own, f"evaluate/{M}/slicegpt-ftp/0.25/seed0", 2)
    measured(own, "data/instruct", 32)
    assert sorted(job.wall_s for job in run.jobs()) == [1, 2, 4, 8, 16, 32]


def test_jobs_whose_times_were_left_behind_are_told(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SliceGPT has pruned what LoRA had tuned, at a rate that was searched: four jobs beside the scoring of two cells."""
    for number, step in enumerate((f"evaluate/{M}/base/0/seed0", f"evaluate/{M}/slicegpt-ftp/0.25/seed0", f"tune/{M}/lora/0/seed0")):
        measured(own, step, 60 + number)
    keep(own, tmp_path, capsys, "--unfinished")
    kept = tmp_path / "kept" / NAME
    missing = "Jobs whose times were left behind are not counted: 1 of merge, 1 of prune, 1 of search."
    assert read_json(kept / "origin.json")["unmeasured"] == {"merge": 1, "search": 1, "prune": 1}
    assert missing in (tmp_path / "log.md").read_text() and missing in (kept / "tables" / "times.md").read_text()

    for step in (f"merge/{M}/lora/0/seed0", f"search/{M}/lora/0", f"prune/{M}/slicegpt-ftp/0.25/seed0"):
        measured(own, step, 70)
    assert Unfinished(own, FILE).unmeasured() == {}
    keep(own, tmp_path, capsys, "--unfinished")
    assert "unmeasured" not in read_json(kept / "origin.json") and "left behind" not in (tmp_path / "log.md").read_text()


def test_times_that_a_reference_has_are_not_lost(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (f"evaluate/{M}/base/0/seed0", f"evaluate/{M}/slicegpt-ftp/0.25/seed0"):
        measured(own, step, 60)
    keep(own, tmp_path, capsys, "--unfinished")
    kept, again = tmp_path / "kept" / NAME, tmp_path / "again" / NAME
    before = files(kept)
    unpack_reference(kept, again)
    code, said = keep(again, tmp_path, capsys, "--unfinished")
    assert (
        code == 1
        and f"{kept}: says how long its jobs took, and {again}/benchmarks does not for all cells" in said
        and files(kept) == before
    )
    assert keep(again, tmp_path, capsys, "--unfinished", "--force")[0] == 0 and not (kept / "tables" / "times.csv").exists()


def test_a_figure_says_of_how_many_cells_it_is(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_text(tmp_path / "experiment.yaml", yaml.safe_dump(RAW | {"figures": ["perplexity"]}))
    cells = sorted(own.rglob("cell.json"))
    kept = tmp_path / "kept" / NAME / "figures"
    keep(own, tmp_path, capsys, "--unfinished")
    assert [path.name for path in kept.iterdir()] == ["perplexity.png"], "the only one that the experiment asks for"
    for folder, of_cells in (("part", OF_CELLS), ("whole", len(cells))):
        write_perplexity(cells, tmp_path / folder, of_cells=of_cells)
        copy_in_few_colours(tmp_path / folder / "perplexity.png", tmp_path / folder / "few.png")
    part, whole = ((tmp_path / folder / "few.png").read_bytes() for folder in ("part", "whole"))
    assert (kept / "perplexity.png").read_bytes() == part != whole
    grid = headline_grid(cells)
    assert heading(grid, ["items"], of_cells=OF_CELLS) == f"UNFINISHED, 2 of {OF_CELLS} cells\n{heading(grid, ['items'], of_cells=2)}"


@pytest.mark.parametrize("name", ["figures/accuracy.png", "benchmark/tuning/tiny.json"])
def test_what_a_finished_reference_has_beside_its_cells_is_not_lost(
    name: str, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept" / NAME
    keep(own, tmp_path, capsys, "--unfinished")
    write_text(kept / name, "of the whole")
    seal(kept, REFERENCE)
    before = files(kept)
    code, said = keep(own, tmp_path, capsys, "--unfinished")
    assert code == 1 and f"{kept}: has {name}, which would not be kept" in said and files(kept) == before
    assert keep(own, tmp_path, capsys, "--unfinished", "--force")[0] == 0 and not (kept / name).exists()


def test_a_benchmark_that_lies_in_the_results_is_kept_again(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_text(own / "benchmark" / "tuning" / "tiny.json", "{}")
    for _ in range(2):
        assert keep(own, tmp_path, capsys, "--unfinished")[0] == 0
    assert (tmp_path / "kept" / NAME / "benchmark" / "tuning" / "tiny.json").is_file()


def test_a_mistake_is_told_before_anything_is_written(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = keep(own, tmp_path, capsys)
    assert (
        code == 1 and said == f"error: {own}: holds no tables/cells.csv; run the experiment first, or keep what is there by --unfinished\n"
    )
    write_text(tmp_path / "log.md", "no marks")
    code, said = keep(own, tmp_path, capsys, "--unfinished")
    assert code == 1 and said.startswith(f"error: {tmp_path / 'log.md'}: lacks the lines <!-- {NAME}:start -->")
    assert not (tmp_path / "kept").exists()
