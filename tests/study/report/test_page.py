"""`study report`: one page that stands by itself, a section for every cell, a verdict that follows the numbers, and what differs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pat.errors import UserError
from pat.io.artefacts import write_json
from study.cli import main
from study.report.page.cells import cell_index
from study.report.page.charts import LABEL_LENGTH, LEFT, WIDTH, Entry, dots, shortened
from study.report.page.command import page
from study.report.page.differences import differences
from study.report.page.glance import glance
from study.report.page.run import opened, place
from study.report.page.tables import milestones, shown_tables
from study.report.page.verdict import remarks, verdict
from study.tables.layouts import HOLE
from study.tables.pairs import ONE_SEED
from study.tables.writing import write_tables
from tests.kit.cell_maker import answered, cell, write_cell
from tests.kit.children import HANGS_AFTER_S
from tests.kit.pages import Page, read_page
from tests.kit.project import ROOT

REFERENCE = ROOT / "results" / "reference" / "demo-mends"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NASTY = "</script><script>document.title='taken'</script><img src=http://a.test/x onerror=1>"


@pytest.fixture(scope="module")
def reference() -> str:
    with opened(REFERENCE) as run:
        return page(run, called=REFERENCE.as_posix())


def run_of(folder: Path, contents: list[dict[str, Any]]) -> Path:
    """Write an experiment's results as its workflow leaves them."""
    write_tables([write_cell(folder, content) for content in contents], folder / "tables")
    return folder


def document(texts: dict[str, list[float]]) -> dict[str, Any]:
    """Return perplexities of documents of ten tokens each, by the loss a token of every document."""
    return {
        name: {
            "token_perplexity": 2.718281828 ** (sum(losses) / len(losses)),
            "byte_perplexity": 2.0,
            "documents": {"losses": [10 * loss for loss in losses], "tokens": [10] * len(losses)},
        }
        for name, losses in texts.items()
    }


def told(folder: Path, contents: list[dict[str, Any]]) -> str:
    with opened(run_of(folder, contents)) as run:
        return " ".join(sentence for finding in verdict(run) for sentence in finding.sentences)


def test_the_page_of_a_reference_is_well_formed_and_loads_nothing(reference: str) -> None:
    read = read_page(reference)
    assert read.faults == [] and read.loaded == []
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", reference) and "fetch(" not in reference and "import(" not in reference
    inside = [each["href"] for each in read.of("a")]
    assert all(link.startswith("#") for link in inside)
    assert {link[1:] for link in inside} <= {each.get("id") for _, each in read.elements}


def test_every_cell_has_its_section_with_all_that_made_it(reference: str) -> None:
    read = read_page(reference)
    sections = {each["id"] for each in read.of("details") if each.get("class") == "cell"}
    with opened(REFERENCE) as run:
        assert sections == {f"cell/{place(each)}" for each in run.cells} and len(sections) == 33
        commands = {made["command"] for each in run.cells for made in each.provenance.values() if made and made.get("command")}
        tuned = [each for each in run.cells if run.history(each)]
    shown = {text for tag, text in read.texts if tag == "pre"}
    assert commands == shown - {"not recorded"}
    courses = reference.count('<polyline class="course"')
    assert courses >= 2 * len(tuned) > 0
    assert sum(text.startswith("step ") for tag, text in read.texts if tag == "title") > courses, "points say their numbers"


def test_cells_whose_names_run_into_each_other_have_sections_of_their_own(tmp_path: Path) -> None:
    results = run_of(tmp_path, [cell("pat", model="a-b") | {"method": "c"}, cell("pat", model="a") | {"method": "b-c"}])
    with opened(results) as run:
        assert len({id for row in cell_index(run).rows for seeds in row.seeds for _, id in seeds}) == 2


def test_a_perplexity_beyond_all_measure_is_told_by_its_size(tmp_path: Path) -> None:
    """Three hundred digits in a line were no number to read."""
    huge = {"perplexity": {"heldout": {"token_perplexity": 3.25e300, "byte_perplexity": 1e200}}}
    results = run_of(tmp_path, [cell("pat") | huge, cell("channel-fisher-pft"), cell("lora", 0.0)])
    with opened(results) as run:
        text = page(run)
    assert "3.2e+300" in text and not re.search(r"\d{30}", text)
    for name in ("perplexity.md", "perplexity_comparisons.md", "perplexity.tex"):
        assert not re.search(r"\d{30}", (results / "tables" / name).read_text()), name


def test_runs_are_compared_over_the_seeds_that_both_have(tmp_path: Path) -> None:
    """The third seed of the other run, which diverged, is no difference between the two."""
    scores = {seed: document({"held": [loss]}) for seed, loss in enumerate((1.0, 2.0, 9.0))}
    mine = run_of(tmp_path / "mine", [cell("pat", seed=seed, perplexity=scores[seed]) for seed in (0, 1)])
    other = run_of(tmp_path / "other", [cell("pat", seed=seed, perplexity=scores[seed]) for seed in (0, 1, 2)])
    alone = run_of(tmp_path / "alone", [cell("pat", seed=2, perplexity=scores[2])])
    with opened(mine) as run, opened(other) as its, opened(alone) as third:
        numbers = [table for table in differences(run, its) if table.caption.startswith("Numbers")]
        (apart,) = (table for table in differences(run, third) if table.caption.startswith("Numbers"))
    assert numbers == []
    assert [row[3:6] for row in apart.rows if row[3] == "perplexity of held"] == [["perplexity of held", "5.05", "8103.08"]]


def test_a_figure_s_title_says_that_its_model_is_quantised(tmp_path: Path) -> None:
    origin = {"file": "a.gguf", "dtype": "bf16", "quantised": ["Q4_1", "Q8_0"]}
    contents = [cell(method, ratio, model=model) for model in ("small", "plain") for method, ratio in (("lora", 0.0), ("pat", 0.25))]
    results = run_of(tmp_path, [it | ({"origin": origin} if it["model"] == "small" else {}) for it in contents])
    with opened(results) as run:
        titles = [text for tag, text in read_page(page(run)).texts if tag == "figcaption"]
    assert {title.partition(" removed: ")[0] for title in titles} == {"small (quantised: Q4_1 and Q8_0), 25 %", "plain, 25 %"}


def test_one_cell_is_one(tmp_path: Path) -> None:
    with opened(run_of(tmp_path, [cell("pat")])) as run:
        assert ": 1 cell</p>" in page(run, called="mine")


def test_a_long_name_keeps_the_mode_at_its_end() -> None:
    long = "A pruner whose name goes on and on until it has no room"
    one, other = shortened(f"{long} P→FT"), shortened(f"{long} FT→P→FT")
    assert len(one) == len(other) == LABEL_LENGTH and one.endswith(" P→FT") and other.endswith("FT→P→FT")
    assert one.startswith("A pruner") and shortened("PAT") == "PAT"


def test_what_a_single_seed_is_worth_is_said_beside_rows_of_several(tmp_path: Path) -> None:
    results = run_of(tmp_path, [cell("pat", seed=0), cell("pat", seed=1), cell("channel-fisher-pft")])
    with opened(results) as run:
        said = remarks(run)
    assert "up to 2 seeds" in said[1] and said[2] == ONE_SEED
    results = run_of(tmp_path / "two", [cell("pat", seed=seed) for seed in (0, 1)])
    with opened(results) as run:
        assert ONE_SEED not in remarks(run)


def test_a_tuning_in_two_parts_is_drawn_and_counted_as_one(tmp_path: Path) -> None:
    """The second part's steps count on from the first's, and the cut between them is marked."""
    parts: dict[str, Any] = {
        "tuning_before": {"steps": 4, "wall_s": 60.0, "peak_memory_gib": 2.0},
        "tuning": {"steps": 8, "wall_s": 90.0, "peak_memory_gib": 1.0},
    }
    results = run_of(tmp_path, [cell("lora", 0.0), cell("shortgpt-ftpft", 0.25, **parts)])
    for ratio, steps in (("before", (2, 4)), ("0.25", (2, 8))):
        record = results / "checkpoints" / "tiny" / "shortgpt-ftpft" / ratio / "seed0" / "adapter" / "tuning.json"
        write_json(record, {"history": [{"step": step, "instruct_loss": 1.0 + step} for step in steps]})
    with opened(results) as run:
        (two,) = (each for each in run.cells if each.tuning_before)
        assert [(entry["step"], entry["instruct_loss"]) for entry in run.history(two)] == [(2, 3.0), (4, 5.0), (6, 3.0), (12, 9.0)]
        said = page(run, called="x")
    assert "4 steps in 1.0 minutes, pruned, 8 steps in 1.5 minutes" in said and "2.00 GiB" in said and "the cut at step 4" in said
    health = (results / "tables" / "health.html").read_text()
    assert "ShortGPT FT→P→FT, before the cut" in health and "ShortGPT FT→P→FT, after it" in health and "LoRA, " not in health


def test_every_number_of_the_tables_is_on_the_page(reference: str) -> None:
    read = read_page(reference)
    entries = {text for tag, text in read.texts if tag == "td"}
    for name in ("table1", "perplexity", "comparisons", "sizes", "ablation_choices"):
        for line in (REFERENCE / "tables" / f"{name}.md").read_text().splitlines():
            if line.startswith("| ") and "---" not in line and "Method" not in line:
                assert {each.strip().replace("\\", "") for each in line.strip("|").split("|")} - {"", "tiny"} <= entries, (
                    name
                )  # a column that names one model alone is left out


def test_the_verdict_names_the_best_row_by_how_much_and_what_is_not_shown(tmp_path: Path) -> None:
    losses = {
        "lora": [1.0] * 4,
        "pat": [2.0, 2.1, 2.0, 2.1],
        "channel-magnitude-pft": [3.0, 3.1, 3.0, 3.2],
        "channel-fisher-pft": [2.1, 2.0, 2.1, 2.0],
    }
    rows = [(name, 0.0 if name == "lora" else 0.5) for name in losses]
    said = told(tmp_path, [cell(name, ratio) | {"tasks": {}, "perplexity": document({"wiki": losses[name]})} for name, ratio in rows])
    assert "PAT has the lowest perplexity: 7.77 on wiki." in said or "Channel Fisher P→FT has the lowest perplexity: 7.77 on wiki." in said
    assert "better on every text than Channel magnitude P→FT." in said
    assert re.search(r"Not shown to be better than (PAT|Channel Fisher P→FT)\.", said)
    assert "Against LoRA, which removes nothing, it is 2.86 times as high." in said


def test_a_scoring_in_which_nothing_beats_guessing_names_no_winner(tmp_path: Path) -> None:
    rows = [("lora", 0.0, 0.5), ("pat", 0.5, 0.27), ("channel-magnitude-pft", 0.5, 0.2)]
    said = told(tmp_path, [cell(name, ratio, scores={"sums": {"acc": value}}) | {"perplexity": {}} for name, ratio, value in rows])
    assert said.startswith("No row is shown to be better than guessing") and "Shown to be better" not in said


def test_paired_answers_decide_what_is_shown(tmp_path: Path) -> None:
    rows = [("pat", "1" * 90 + "0" * 10), ("channel-magnitude-pft", "1" * 60 + "0" * 40), ("channel-fisher-pft", "1" * 88 + "0" * 12)]
    contents = [cell(name, 0.5, tasks=answered({"capitals": {"acc": right}})) | {"perplexity": {}} for name, right in rows]
    said = told(tmp_path, contents)
    assert "PAT has the highest mean accuracy: 90.0" in said and "2.0 points lower" in said
    assert "Shown to be better than Channel magnitude P→FT." in said and "Not shown to be better than Channel Fisher P→FT." in said


def test_what_differs_between_two_runs_is_told(tmp_path: Path) -> None:
    def made(rate: float, torch: str) -> dict[str, Any]:
        step = {
            "settings": {"tuning": {"learning_rate": rate}, "base": {"model": "0" * 64}},
            "versions": {"torch": torch},
            "command": "pat tune",
        }
        return {"provenance": {"tune": step}}

    one = run_of(tmp_path / "one", [cell("pat", 0.5) | made(0.001, "2.6"), cell("lora", 0.0)])
    two = run_of(tmp_path / "two", [cell("pat", 0.5, scores={"capitals": {"first_capital": 0.5, "acc": 0.7}}) | made(0.002, "2.7")])
    with opened(one) as run, opened(two) as other:
        read = read_page(page(run, other, called="one", against="two"))
    entries = [text for tag, text in read.texts if tag == "td"]
    start = entries.index("tuning.learning_rate")
    assert entries[start - 1 : start + 4] == ["tune", "tuning.learning_rate", "0.001", "0.002", "1"]
    assert entries[entries.index("torch") + 1 :][:2] == ["2.6", "2.7"]
    assert "+10.0" in entries
    start = entries.index("this run")
    assert entries[start - 4 : start] == ["tiny", "LoRA", "0 %", "0"]
    assert read.faults == []


def test_runs_are_compared_over_the_tasks_and_texts_that_are_the_same_in_both(tmp_path: Path) -> None:
    def made(folder: str, others: dict[str, Any], tokens: list[int], perplexity: float = 10.0, right: int = 7) -> Path:
        documents = {"losses": [2.0] * len(tokens), "tokens": tokens}
        text = {"token_perplexity": perplexity, "byte_perplexity": 1.75, "documents": documents}
        both = answered({"shared": {"acc": "1" * right + "0" * (10 - right)}}) | others
        return run_of(tmp_path / folder, [cell("pat", 0.5) | {"tasks": both, "perplexity": {"heldout": text}}])

    one = made("one", answered({"easy": {"acc": "1" * 10}}), [30, 40], 12.5, 8)
    two = made("two", answered({"easy": {"acc": "0" * 10}}, items_hash="fedcba9876543210"), [30, 41])
    three = made("three", {}, [30, 40])
    for other, perplexity, accuracy in ((two, ", of other documents or tokens", HOLE), (three, "", "+25.0 %")):
        with opened(one) as run, opened(other) as against:
            rows = [row[3:] for row in differences(run, against)[0].rows]
        assert rows[0][0] == f"perplexity of heldout{perplexity}" and rows[0][-1].endswith(accuracy)
        assert rows[1][0].endswith(", over shared alone") and rows[1][1:3] == ["80.0", "70.0"]


def test_numbers_that_both_runs_have_alike_are_counted_and_not_listed(tmp_path: Path) -> None:
    def made(folder: str, accuracy: float) -> Path:
        return run_of(
            tmp_path / folder, [cell("pat", 0.5, scores={"capitals": {"first_capital": 0.5, "acc": accuracy}}), cell("lora", 0.0)]
        )

    with opened(made("one", 0.7)) as run, opened(made("two", 0.6)) as other:
        numbers = differences(run, other)[0]
        assert differences(run, run) == []
    assert [row[-3:] for row in numbers.rows] == [["70.0", "60.0", "+10.0"]]
    assert re.search(r"(\d+) of (\d+) numbers are the same as printed, and left out", numbers.caption)


def test_the_first_table_names_the_best_row_of_each_measure_beside_the_best_of_pat(tmp_path: Path) -> None:
    rows = [("lora", 0.0, 0.9, 2.0), ("pat", 0.5, 0.6, 8.0), ("pat-dora", 0.5, 0.5, 6.0), ("channel-magnitude-pft", 0.5, 0.7, 5.0)]
    contents = [
        cell(name, ratio, tasks=answered({"sums": {"acc": "1" * round(100 * right) + "0" * round(100 - 100 * right)}}))
        | {"perplexity": {"wiki": {"token_perplexity": value, "byte_perplexity": 2.0}}}
        for name, ratio, right, value in rows
    ]
    with opened(run_of(tmp_path, contents)) as run:
        found = glance(run)
        title = next(each.title for each in shown_tables(run) if each.name == "table1")
    pruned = "Channel magnitude P→FT"
    assert found.rows[0] == ["50 %", "perplexity of wiki, lower is better", f"5.00 · {pruned}", "6.00 · PAT (DoRA)", "2.00 · LoRA"]
    assert found.rows[1][2:] == [f"70.0 · {pruned}", "60.0 · PAT", "90.0 · LoRA"]
    assert title.startswith("Mean accuracy, by log-likelihood")


def test_titles_name_models_whose_names_have_a_dot_or_are_the_experiment_s(tmp_path: Path) -> None:
    """The caption's first words, up to a full stop."""
    models = ("llama-3.1-8b", "llama-3.2-1b", "demo")
    with opened(run_of(tmp_path, [cell("pat", 0.5, model=model) for model in models])) as run:
        titles = {each.name: each.title for each in shown_tables(run)}
    said = ("Llama-3.1-8b", "Llama-3.2-1b", "Demo")
    assert [titles[f"per_task_{model}"].partition(", by ")[0] for model in models] == [
        f"{name}: accuracy of each task in percent" for name in said
    ]


def test_a_scoring_that_tells_rows_apart_is_shown_before_the_headlines(tmp_path: Path) -> None:
    answers = {"acc": "1" * 90 + "0" * 10, "first_capital": "0" * 100}
    contents = [cell(name, ratio, tasks=answered({"sums": answers})) for name, ratio in (("lora", 0.0), ("pat", 0.5))]
    with opened(run_of(tmp_path, contents)) as run:
        tables = shown_tables(run)
        titles = [finding.title for finding in verdict(run)]
    assert [each.name for each in tables if each.open and "table" in each.name] == ["table1_acc"]
    assert [title.endswith("log-likelihood, acc") for title in titles if "accuracy" in title] == [True, False]


def test_what_was_not_run_and_what_was_not_tested_is_said(tmp_path: Path) -> None:
    rows = [("lora", 0.0, 2.0), ("pat", 0.5, 3.0), ("pat", 0.25, 2.5), ("channel-magnitude-pft", 0.5, 4.0)]
    contents = [
        cell(name, ratio) | {"tasks": {}, "perplexity": {"wiki": {"token_perplexity": value, "byte_perplexity": 2.0}}}
        for name, ratio, value in rows
    ]
    with opened(run_of(tmp_path, contents)) as run:
        index = cell_index(run)
        said = [sentence for finding in verdict(run) for sentence in finding.sentences]
    seeds = {row.name: [[seed for seed, _ in at] for at in row.seeds] for row in index.rows}
    assert index.ratios == ["0 %", "25 %", "50 %"]
    assert seeds == {"LoRA": [[0], [], []], "PAT": [[], [0], [0]], "Channel magnitude P→FT": [[], [], [0]]}
    sentence = "Not tested on wiki, where one seed tells nothing without the losses of several documents or windows, cut alike: Channel magnitude P→FT."
    assert sentence in said and not any(each.startswith("Not shown to be better") for each in said)


def test_a_comparisons_word_stands_beside_the_method_and_the_health_lists_those_that_pruned(tmp_path: Path) -> None:
    health = {"milestone_step": 4, "kept_at_milestone": 16, "loss_before_milestone": 1.0, "loss_after_milestone": 4.0}
    tuned = {"tuning": {"steps": 8, "train_loss": 2.0, "health": {}}}
    tasks = answered({"sums": {"acc": "1" * 6 + "0" * 4}})
    pruned = {"tuning": {"steps": 8, "train_loss": 2.0, "health": health}}
    rows = [cell("pat", 0.5, tasks=tasks) | pruned, cell("lora", 0.0, tasks=tasks) | tuned]
    with opened(run_of(tmp_path, rows)) as run:
        comparisons = next(each.layout for each in shown_tables(run) if each.name == "comparisons")
        found = milestones(run)
    assert comparisons.header[2:4] == ["Mode", "Δ is"]
    assert found is not None
    layout, [words] = found
    assert (
        len(layout.rows) == 1
        and "SHOCK" in layout.rows[0][words]
        and "Left out, as there is no milestone to look at: 1 of 2 tunings" in layout.notes[0]
    )


def test_round_values_mark_a_logarithmic_axis() -> None:
    chart = dots("t", "u", [Entry(str(value), value, None, False, True, "") for value in (3.0, 40.0, 900.0)], {}, edge=3600.0)
    assert [said for _, said in chart.ticks] == ["5", "10", "20", "50", "100", "200", "500"]
    assert [dot.number for dot in chart.dots] == ["3.0", "40.0", "900.0"]


def test_an_interval_that_reaches_to_nothing_does_not_stretch_a_logarithmic_axis() -> None:
    rows = [Entry("one", 40.0, None, False, True, ""), Entry("other", 120.0, 115.0, False, True, "")]
    one, other = dots("t", "u", rows, {}, edge=160.0).dots
    assert other.low is not None and other.low <= one.x < other.x
    assert other.x - one.x > 0.4 * (WIDTH - LEFT), "the rows stand apart"


def test_what_a_run_holds_is_text_and_never_markup(tmp_path: Path) -> None:
    step = {"command": NASTY, "versions": {NASTY: NASTY}, "settings": {}}
    contents = cell("pat", 0.5) | {"label": NASTY, "experiment": NASTY, "provenance": {"evaluate": step}}
    with opened(run_of(tmp_path, [contents])) as run:
        text = page(run, called=NASTY)
    read = read_page(text)
    assert read.faults == [] and read.loaded == [] and len(read.of("script")) == 1 and read.of("img") == []
    assert NASTY in {words for tag, words in read.texts if tag == "pre"}
    for name in ("sizes", "provenance"):
        table: Page = read_page((tmp_path / "tables" / f"{name}.html").read_text())
        assert len(table.of("script")) == 1 and table.of("img") == []


def test_the_command_writes_a_page_and_replaces_only_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = run_of(tmp_path / "run", [cell("pat", 0.5)])
    out = tmp_path / "report.html"
    arguments = ["report", "--results", str(results), "--out", str(out)]
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
    assert "1 cell\n" in capsys.readouterr().out
    out.write_text("my own")
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1 and out.read_text() == "my own"
    assert "is no page of ours" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no tables"), opened(tmp_path):
        pass
    with pytest.raises(UserError, match="nowhere: no such folder"), opened(tmp_path / "nowhere"):
        pass


@pytest.mark.lengthy
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_browser_opens_it_sorts_a_table_and_shows_a_cell(reference: str, tmp_path: Path) -> None:
    """The page's own scripts run; what they did is read from the document afterwards."""
    if subprocess.run([str(CHROMIUM), "--version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("the Chromium that is installed does not start")  # as a package that only points to another one
    probe = """<script>
      const heading = document.querySelector('#tables table th:nth-child(4) button'), column = () => Array.from(
        document.querySelectorAll('#tables table')[0].tBodies[0].rows, (row) => parseFloat(row.cells[3].textContent));
      const found = [];
      for (const turn of [1, 2]) { heading.click(); found.push(column().filter((value) => !isNaN(value))); }
      const cell = document.querySelector('details.cell');
      location.hash = cell.id;
      setTimeout(() => { document.body.innerHTML = '<pre id=probe>' + JSON.stringify({found, open: cell.open, sort: heading.parentElement
        .getAttribute('aria-sort'), wide: document.documentElement.scrollWidth <= innerWidth}) + '</pre>'; }, 200);
    </script></body>"""
    place_of = tmp_path / "report.html"
    place_of.write_text(reference.replace("</body>", probe))
    browser = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [*browser, "--virtual-time-budget=4000", "--window-size=1200,900", "--dump-dom", place_of.as_uri()]
    dumped = subprocess.run(command, capture_output=True, text=True, timeout=HANGS_AFTER_S, check=True).stdout
    result = json.loads(re.search(r'<pre id="probe">(.*?)</pre>', dumped)[1])  # type: ignore[index]
    up, down = result["found"]
    assert up == sorted(up) and down == sorted(down, reverse=True) and len(up) > 5 and up != down
    assert result["open"] and result["sort"] == "descending" and result["wide"]
