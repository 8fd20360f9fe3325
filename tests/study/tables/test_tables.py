"""Tables from hand-made cells: numbers worked by hand, the paper's beside ours, holes, bad files, and the same bytes in any order."""

from __future__ import annotations

import json
import shutil
import subprocess
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from pat.errors import UserError
from study.experiment.table_settings import TableSettings
from study.tables import writing as tables
from study.tables.layouts import Layout, latex, latex_text, markdown
from tests.kit.cell_maker import cell, write_cell
from tests.kit.experiments import changed, refusal
from tests.kit.written_tables import make, rows_of, tables_of

runner = CliRunner()
app = typer.Typer()
app.command()(tables.main)


def capitals(first: float, acc: float = 0.7) -> dict[str, dict[str, float]]:
    return {"capitals": {"first_capital": first, "acc": acc}}


def test_mean_and_interval_over_three_seeds(tmp_path: Path) -> None:
    out = tables_of(tmp_path, [cell(seed=seed, scores=capitals(value)) for seed, value in enumerate((0.6, 0.7, 0.8))])
    # mean 70, s = 10, t(0.975, 2) = 4.30265: ± 24.841
    assert rows_of((out / "table1.md").read_text())[-1] == ["25 %", "PAT", "PAT", "70.0 ± 24.8"]
    line = pd.read_csv(out / "table1.csv").iloc[0]
    assert line["tiny mean"] == pytest.approx(70.0)
    assert line["tiny ci95"] == pytest.approx(24.8414, abs=1e-4)
    assert (line["tiny interval_over"], line["tiny seeds"], line["tiny against_chance"]) == ("seeds", 3, "above")


def test_one_seed_takes_the_interval_over_items_and_says_so(tmp_path: Path) -> None:
    out = tables_of(tmp_path, [cell(scores=capitals(0.64))])
    text = (out / "table1.md").read_text()
    # √(0.64 × 0.36 / 100) × 1.95996 = 9.4 points
    assert rows_of(text)[-1][-1] == "64.0 ± 9.4"
    assert "interval over items" in text


def test_mean_is_the_plain_mean_of_tasks(tmp_path: Path) -> None:
    scores = {"a": {"acc": 0.5}, "b": {"acc": 0.9}}
    out = tables_of(tmp_path, [cell(scores=scores)])
    # √(0.25/100 + 0.09/100) / 2 = 0.029155; × 1.95996 = 5.71 points
    assert rows_of((out / "table1.md").read_text())[-1][-1] == "70.0 ± 5.7"
    assert "log-likelihood" in (out / "table1.md").read_text()


def test_no_task_can_have_the_name_of_another_column_of_its_table(tmp_path: Path) -> None:
    out = tables_of(tmp_path, [cell(scores={"a": {"acc": 0.5}, "b": {"acc": 0.9}})])
    columns = [column for column in pd.read_csv(out / "per_task_tiny.csv").columns if column.partition(" ")[0] not in ("a", "b")]
    assert {"ratio", "mode", "mean"} < set(columns)
    for column in columns:
        [told] = refusal(changed("data", "tasks", column, value={"source": "json", "path": "own.jsonl"}))
        assert told.startswith(f'data.tasks: the name "{column}" is not allowed: ')


def test_each_metric_has_its_own_table(tmp_path: Path) -> None:
    out = tables_of(tmp_path, [cell(scores=capitals(0.6, acc=0.8))])
    assert rows_of((out / "table1.md").read_text())[-1][-1].startswith("60.0")
    assert rows_of((out / "table1_acc.md").read_text())[-1][-1].startswith("80.0")


def test_the_papers_number_stands_beside_ours(tmp_path: Path) -> None:
    contents = [
        cell("lora", 0.0, model="llama2-7b", scores=capitals(0.60)),
        cell("pat", 0.25, model="llama2-7b", scores=capitals(0.62)),
        cell("channel-magnitude-pft", 0.25, model="llama2-7b", scores=capitals(0.5)),
        cell("pat", 0.25, model="tiny", scores=capitals(0.62)),
    ]
    out = tables_of(tmp_path, contents)
    header, _, _, lora, magnitude, pat = rows_of((out / "table1.md").read_text())
    assert header == ["Pruned", "Method", "Mode", "llama2-7b", "paper", "Δ", "tiny"]
    assert lora[4:6] == ["58.76", "+1.2"]
    assert magnitude[4:6] == ["–", "–"]
    assert pat[4:6] == ["60.02", "+2.0"]
    assert "paper" not in rows_of((out / "table1_acc.md").read_text())[0]


def test_a_variant_row_does_not_borrow_the_papers_number(tmp_path: Path) -> None:
    variant = cell("pat", 0.25, model="llama2-7b") | {"method": "pat-frozen", "label": "PAT, frozen mask"}
    out = tables_of(tmp_path, [variant])
    assert "paper" not in rows_of((out / "table1.md").read_text())[0]


def test_rows_stand_in_the_papers_order(tmp_path: Path) -> None:
    pruned = [cell(name, ratio) for ratio in (0.5, 0.25) for name in ("pat", "channel-magnitude-ftp", "channel-magnitude-pft")]
    out = tables_of(tmp_path, [*pruned, cell("dora", 0.0), cell("lora", 0.0)])
    found = [(row[0], row[1], row[2]) for row in rows_of((out / "table1.md").read_text())[3:]]
    modes = [("Channel magnitude", "P→FT"), ("Channel magnitude", "FT→P"), ("PAT", "PAT")]
    assert found == [("0 %", "LoRA", ""), ("0 %", "DoRA", ""), *((ratio, *mode) for ratio in ("25 %", "50 %") for mode in modes)]


def test_numbers_in_the_names_of_rows_are_in_order_of_size(tmp_path: Path) -> None:
    names = ["lora", "lora-05", "lora-8", "lora-16", "lora-16-b2", "lora-16-b10", "lora-128"]
    out = tables_of(tmp_path, [cell("lora", 0.0) | {"method": name, "label": name.upper()} for name in sorted(names, reverse=True)])
    assert [row[1] for row in rows_of((out / "table1.md").read_text())[3:]] == [name.upper() for name in names]


def test_holes_in_the_grid_are_dashes(tmp_path: Path) -> None:
    contents = [cell("pat", 0.25, seed=0), cell("pat", 0.25, seed=1), cell("pat", 0.5, seed=0), cell("lora", 0.0, model="other")]
    out = tables_of(tmp_path, contents)
    text = (out / "table1.md").read_text()
    by_row = {row[0]: row[3:] for row in rows_of(text)[3:]}
    assert by_row["0 %"][1] == "–"
    assert by_row["25 %"][0] == "–"
    assert "Seeds: 2, except 1 of LoRA at 0 % on other; PAT at 50 % on tiny." in text


def test_rows_of_fewer_seeds_are_named_with_their_number_below_every_table(tmp_path: Path) -> None:
    contents = [cell("lora", 0.0, seed=seed) for seed in range(3)] + [cell("pat", ratio) for ratio in (0.25, 0.5)]
    contents += [cell("slicegpt-pft", 0.5, seed=seed) for seed in (0, 2)]
    out = tables_of(tmp_path, contents)
    note = "Seeds: 3, except 1 of PAT at 25 % and 50 %, and 2 of SliceGPT P→FT at 50 %."
    for name in ("table1", "per_task_tiny", "perplexity", "sizes"):
        assert note in (out / f"{name}.md").read_text(), name


def test_where_no_row_has_all_seeds_yet_the_most_that_one_has_are_counted(tmp_path: Path) -> None:
    contents = [cell("lora", 0.0, seed=0), cell("lora", 0.0, seed=1), cell("pat", 0.5, seed=0), cell("slicegpt-pft", 0.5, seed=2)]
    out = tables_of(tmp_path, contents)
    assert "Seeds: 2, except 1 of SliceGPT P→FT at 50 %; PAT at 50 %." in (out / "table1.md").read_text()


def test_a_cell_without_all_tasks_has_no_mean(tmp_path: Path) -> None:
    whole, part = {"a": {"acc": 0.5}, "b": {"acc": 0.9}}, {"a": {"acc": 0.5}}
    out = tables_of(tmp_path, [cell("pat", 0.25, scores=whole), cell("pat", 0.5, scores=part)])
    assert rows_of((out / "table1.md").read_text())[-1][-1] == "–"
    assert rows_of((out / "per_task_tiny.md").read_text())[-1][3:6] == ["50.0 ± 9.8", "–", "–"]


def test_accuracies_at_chance_are_marked_and_a_whole_model_of_them_is_named(tmp_path: Path) -> None:
    contents = [cell("lora", 0.0, scores=capitals(0.26)), cell("pat", 0.25, scores=capitals(0.05)),
                cell("lora", 0.0, model="able", scores=capitals(0.9))]  # fmt: skip
    text = (tables_of(tmp_path, contents) / "table1.md").read_text()
    rows = rows_of(text)
    assert rows[3][3:] == ["90.0 ± 5.9", "26.0 ± 8.6†"]
    assert rows[4][3:] == ["–", "5.0 ± 4.3‡"]
    assert "No row of tiny is better than guessing" in text
    assert "No row of able" not in text


def test_per_task_table_has_items_chance_mean_and_perplexity(tmp_path: Path) -> None:
    out = tables_of(tmp_path, [cell(scores={"a": {"acc": 0.5}, "b": {"acc": 0.9}})])
    header, _, items, chance, row = rows_of((out / "per_task_tiny.md").read_text())
    assert header == ["Pruned", "Method", "Mode", "a", "b", "mean", "heldout (perplexity)"]
    assert items[3:] == ["100", "100", "", ""]
    assert chance[3:] == ["25.0", "25.0", "25.0", ""]
    assert row[3:] == ["50.0 ± 9.8", "90.0 ± 5.9", "70.0 ± 5.7", "12.50"]


def test_sizes_show_what_was_asked_for_and_what_was_removed(tmp_path: Path) -> None:
    content = cell(ratio=0.25) | {"ratio_requested": 0.3, "ratio_effective": 0.25}
    out = tables_of(tmp_path, [content])
    row = rows_of((out / "sizes.md").read_text())[-1]
    assert row == ["tiny", "PAT", "PAT", "30 %", "25.0 %", "72", "750", "600", "25.0 %", "120", "2.0e-05"]


def test_a_range_is_explained_where_there_is_one(tmp_path: Path) -> None:
    note = "A range: the seeds differ."
    same = tables_of(tmp_path / "same", [cell(seed=0, label="a – b"), cell(seed=1, label="a – b")])
    fewer = {"before": {"unique": 1000, "without_embeddings": 800}, "after": {"unique": 700, "without_embeddings": 600}}
    differ = tables_of(tmp_path / "differ", [cell(seed=0), cell(seed=1, parameters=fewer)])
    assert note not in (same / "sizes.md").read_text()
    assert note in (differ / "sizes.md").read_text() and "25.0 % – 30.0 %" in (differ / "sizes.md").read_text()


def test_every_number_leads_back_to_its_file_config_and_commit(tmp_path: Path) -> None:
    out = tables_of(tmp_path, [cell(scores={"a": {"acc": 0.5}, "b": {"acc": 0.9}})])
    lines = pd.read_csv(out / "cells.csv")
    assert list(lines["kind"]) == ["accuracy", "accuracy", "perplexity", "perplexity", "size"]
    assert set(lines["git_commit"]) == {"c0ffee"}
    for _, line in lines.iterrows():
        content = json.loads(Path(line["json"]).read_text())
        if line["kind"] == "accuracy":
            assert content["tasks"][line["name"]]["scores"][line["metric"]]["value"] == line["value"]
        elif line["kind"] == "perplexity":
            assert content["perplexity"][line["name"]][line["metric"]] == line["value"]
        else:
            assert content["parameters"]["after"]["unique"] == line["value"]


def test_text_only_and_accuracy_only_experiments(tmp_path: Path) -> None:
    out = tables_of(tmp_path / "text", [cell() | {"tasks": {}}])
    assert {path.stem for path in out.iterdir()} == {"cells", "sizes", "perplexity", "provenance", "health", "manifest"}
    out = tables_of(tmp_path / "accuracy", [cell() | {"perplexity": {}}])
    assert "perplexity" not in {path.stem for path in out.iterdir()}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    names = [("lora", 0.0), ("channel-magnitude-pft", 0.25), ("pat", 0.25)]
    contents = [cell(name, ratio, seed, model, capitals(0.5 + 0.037 * seed)) for name, ratio in names for seed in range(3)
                for model in ("tiny", "llama2-7b")]  # fmt: skip
    return make(tmp_path_factory.mktemp("many"), contents)


def contents_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_same_cells_same_bytes_in_any_order(many: list[Path], tmp_path: Path, data: st.DataObject) -> None:
    tables.write_tables(many, tmp_path / "tables")
    expected = contents_of(tmp_path / "tables")
    tables.write_tables(data.draw(st.permutations(many)), tmp_path / "tables")
    assert contents_of(tmp_path / "tables") == expected


def test_a_table_that_is_no_longer_made_does_not_linger(tmp_path: Path) -> None:
    out = tables_of(tmp_path, [cell(model="gone")])
    assert (out / "per_task_gone.md").exists()
    tables.write_tables([write_cell(tmp_path, cell(model="new"))], out)
    assert not (out / "per_task_gone.md").exists()


BROKEN = {
    "schema": (cell() | {"schema": 2}, "schema is 2"),
    "field": ({name: value for name, value in cell().items() if name != "parameters"}, "parameters: Field required"),
    "range": (cell(scores=capitals(0.5)) | {"ratio_effective": 1.5}, "ratio_effective"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_cell_is_named_with_its_fault(tmp_path: Path, name: str) -> None:
    content, fault = BROKEN[name]
    path = write_cell(tmp_path, content)
    with pytest.raises(UserError, match=fault) as caught:
        tables.write_tables([path], tmp_path / "tables")
    assert str(path) in str(caught.value)
    assert not (tmp_path / "tables").exists()


def test_cells_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="experiment"):
        tables.write_tables(make(tmp_path / "a", [cell(), cell(seed=1) | {"experiment": "other"}]), tmp_path / "tables")
    harder = cell(seed=1)
    harder["tasks"]["capitals"]["chance"] = 0.5
    with pytest.raises(UserError, match="chance of capitals"):
        tables.write_tables(make(tmp_path / "b", [cell(), harder]), tmp_path / "tables")
    with pytest.raises(UserError, match=r"both are tiny, pat, ratio 0\.25, seed 0"):
        tables.write_tables([*make(tmp_path / "c", [cell()]), *make(tmp_path / "d", [cell()])], tmp_path / "tables")


def test_the_command_line_takes_cells_one_by_one_or_from_a_list(tmp_path: Path) -> None:
    paths = make(tmp_path, [cell(seed=0), cell(seed=1)])
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in paths))
    one = runner.invoke(app, ["--cells", str(paths[0]), str(paths[1]), "--out", str(tmp_path / "one")])
    other = runner.invoke(app, ["--cells-from", str(tmp_path / "list.txt"), "--out", str(tmp_path / "other")])
    assert (one.exit_code, other.exit_code) == (0, 0)
    assert contents_of(tmp_path / "one") == contents_of(tmp_path / "other")


def test_the_command_line_reports_a_missing_and_a_broken_file_in_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "cell.json"
    broken.write_text("{")
    for path, fault in ((tmp_path / "none.json", "no such file"), (broken, "not valid JSON")):
        result = runner.invoke(app, ["--cells", str(path), "--out", str(tmp_path / "tables")])
        assert result.exit_code == 1
        assert str(path) in result.stderr and fault in result.stderr
        assert "Traceback" not in result.stderr
    assert runner.invoke(app, ["--out", str(tmp_path / "tables")]).exit_code == 1


AWKWARD = r"50 % of a_b & c#d $x$ {y} ~ ^ \z → ± − – † < >"


def test_latex_prints_what_it_would_read_as_commands() -> None:
    assert latex_text("50 %_&#$") == r"50 \%\_\&\#\$"
    assert latex_text("P→FT ± 1") == r"P$\rightarrow$FT $\pm$ 1"
    assert latex_text("\\") == r"\textbackslash{}"


def test_markdown_keeps_pipes_out_of_the_grid() -> None:
    text = markdown(Layout("c", ["a|b", "n"], [["x|y", "1"]], text_columns=1))
    assert r"a\|b" in text and r"x\|y" in text


def test_markdown_reads_nothing_into_a_name() -> None:
    """Neither an entity nor a formula nor a stroke."""
    text = markdown(Layout("c", ["n"], [["&amp; $x$ ~gone~ _y_ <b>"]], text_columns=1))
    assert r"| \&amp; \$x\$ \~gone\~ \_y\_ \<b\> |" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_the_fragments_compile(tmp_path: Path, many: list[Path]) -> None:
    tables.write_tables(many, tmp_path / "tables")
    awkward = latex(Layout(AWKWARD, [AWKWARD, "n"], [[AWKWARD, "1"], ["b", "2"]], text_columns=1, notes=[AWKWARD]))
    wide = latex(Layout("wide", ["m", *"abcdefghi"], [["x", *["1.0 ± 2.0†"] * 9]], text_columns=1))
    fragments = "\n".join([awkward, wide, *(path.read_text() for path in sorted((tmp_path / "tables").glob("*.tex")))])
    document = tmp_path / "document.tex"
    document.write_text("\\documentclass{article}\n\\begin{document}\n" + fragments + "\\end{document}\n", encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", document.name]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert result.returncode == 0, result.stdout[-2000:]


def test_a_wide_fragment_sets_its_intervals_low() -> None:
    text = latex(Layout("wide", ["m", *"abcdefghi"], [["x", *["1.0 ± 2.0†"] * 9]], text_columns=1))
    assert text.count(r"1.0$_{\pm 2.0}$$^{\dagger}$") == 9


def test_every_line_of_a_fragment_has_as_many_entries_as_columns() -> None:
    text = latex(Layout("c & c", ["a & b", "n"], [["x & y", "1"], ["z", "2"]], text_columns=1))
    lines = [line for line in text.splitlines() if line.endswith(r" \\")]
    assert [line.replace(r"\&", "").count("&") for line in lines] == [1, 1, 1]
    assert text.count("{") == text.count("}")


def test_csv_reads_back(tmp_path: Path, many: list[Path]) -> None:
    tables.write_tables(many, tmp_path / "tables")
    for path in (tmp_path / "tables").glob("*.csv"):
        frame = pd.read_csv(StringIO(path.read_text()))
        assert len(frame) > 0 and frame.columns.is_unique


def test_answers_cut_before_they_named_a_choice_are_told_below_the_tables_of_generated_answers_alone(tmp_path: Path) -> None:
    contents = [cell(), cell("slicegpt-pft")]
    for content, wordless in zip(contents, (3, 12), strict=True):
        content["tasks"]["capitals"]["cut_answers"] = {"all": 40, "without_choice": wordless}
    out = tables_of(tmp_path, contents)
    for name in ("table1.md", "per_task_tiny.md"):
        assert "at most 12.0 % of a cell's (tiny, SliceGPT P→FT, 25 %)" in (out / name).read_text()
    assert "max_new_tokens" not in (out / "table1_acc.md").read_text()


def test_a_perplexity_that_was_too_large_for_a_number_is_told_with_its_cell(tmp_path: Path) -> None:
    """An evaluation writes none then, which no table can average."""
    path = write_cell(tmp_path, cell(perplexity={"held": {"token_perplexity": None, "byte_perplexity": None}}))
    with pytest.raises(
        UserError, match=r"cell\.json: its perplexity of held is too large for a number, .* leave this row, ratio or seed out"
    ):
        tables.write_tables([path], tmp_path / "tables")


def test_an_ablation_of_models_tuned_on_the_tasks_has_no_zero_shot_number_of_the_paper(tmp_path: Path) -> None:
    [path] = make(tmp_path / "cells", [cell("lora", ratio=0.0, model="llama2-7b")])
    shown = {}
    for accuracy in ("table1", "table3"):
        settings = TableSettings.model_validate({"accuracy": accuracy, "ablations": {"parts": ("trainable mask",)}})
        tables.write_tables([path], tmp_path / accuracy, settings)
        shown[accuracy] = pd.read_csv(tmp_path / accuracy / "ablation_parts.csv").to_dict("records")[0].get("llama2-7b paper")
    assert shown["table1"] == 58.76 and pd.isna(shown["table3"])


def test_tables_of_some_of_an_experiment_s_cells_say_so_and_those_of_all_do_not(tmp_path: Path) -> None:
    paths = make(tmp_path / "cells", [cell(), cell("lora", ratio=0.0)])
    written = {count: tmp_path / f"of {count}" for count in (2, 7)}
    for count, out in written.items():
        tables.write_tables(paths, out, TableSettings(ablations={"parts": ("mask",)}), of_cells=count)
    for path in [path for ending in ("md", "tex", "html") for path in sorted(written[7].glob(f"*.{ending}"))]:
        assert "UNFINISHED, 2 of 7 cells. " in path.read_text(), path
        assert "UNFINISHED" not in (written[2] / path.name).read_text()
    assert all((written[2] / path.name).read_bytes() == path.read_bytes() for path in written[7].glob("*.csv"))
