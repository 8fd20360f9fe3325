"""Comparisons of rows from hand-made cells: what is paired with what, plain words, and the refusal of items that do not match."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pat.errors import UserError
from study.results.cells import read_cells
from study.tables import writing as tables
from study.tables.pairs import pairs_of
from tests.kit.cell_maker import answered, cell, write_cell

GOOD, POOR = "1" * 90 + "0" * 10, "1" * 40 + "0" * 60


def row(method: str, ratio: float, right: str, seed: int = 0, **overrides: Any) -> dict[str, Any]:
    return cell(method, ratio, seed, tasks=answered({"sums": {"acc": right}}), **overrides)


def compared(folder: Path, contents: Iterable[dict[str, Any]], name: str = "comparisons") -> tuple[pd.DataFrame, str]:
    tables.write_tables([write_cell(folder / "cells", content) for content in contents], folder / "tables")
    return pd.read_csv(folder / "tables" / f"{name}.csv"), (folder / "tables" / f"{name}.md").read_text()


def test_equal_methods_differ_by_nothing_and_the_table_says_so(tmp_path: Path) -> None:
    frame, text = compared(tmp_path, [row("pat", 0.25, GOOD), row("llm-pruner-pft", 0.25, GOOD)])
    (line,) = frame.to_dict("records")
    assert (line["method"], line["reference"], line["difference"], line["p"]) == ("llm-pruner-pft", "pat", 0.0, 1.0)
    assert (line["items_low"], line["items_high"], line["verdict"]) == (0.0, 0.0, "no difference shown")
    assert "| no difference shown |" in text


def test_a_clear_difference_has_its_word_interval_and_test(tmp_path: Path) -> None:
    frame, text = compared(tmp_path, [row("pat", 0.25, GOOD), row("llm-pruner-pft", 0.25, POOR)])
    (line,) = frame.to_dict("records")
    assert line["difference"] == pytest.approx(-50.0)
    assert line["items_low"] < -50 < line["items_high"] < 0
    assert (line["items_better"], line["items_worse"], line["verdict"]) == (0, 50, "worse")
    assert line["p"] == pytest.approx(2 / 2**50)
    assert r"| 0 : 50 | \<0.001 | \<0.001 | worse |" in text


def test_a_test_that_points_the_other_way_takes_the_word_away(tmp_path: Path) -> None:
    """Of 1,000 items of one task 40 are better and 100 worse, of 50 of another 30 better: the mean of the tasks rises, most items are worse."""
    large, small = "0" * 40 + "1" * 100 + "1" * 860, "0" * 50
    better = {"large": {"acc": "1" * 40 + "0" * 100 + "1" * 860}, "small": {"acc": "1" * 30 + "0" * 20}}
    contents = [
        cell("pat", 0.25, tasks=answered({"large": {"acc": large}, "small": {"acc": small}})),
        cell("llm-pruner-pft", 0.25, tasks=answered(better)),
    ]
    frame, _ = compared(tmp_path, contents)
    (line,) = frame.to_dict("records")
    assert line["difference"] == pytest.approx(100 * (0.6 - 0.06) / 2) and line["items_low"] > 0
    assert (line["items_better"], line["items_worse"]) == (70, 100) and line["p_holm"] < 0.05
    assert line["verdict"] == "no difference shown"


def test_seeds_that_disagree_take_the_word_away(tmp_path: Path) -> None:
    contents = [row("pat", 0.25, GOOD, seed) for seed in range(3)]
    contents += [row("llm-pruner-pft", 0.25, right, seed) for seed, right in enumerate((POOR, GOOD, "1" * 100))]
    frame, _ = compared(tmp_path, contents)
    (line,) = frame.to_dict("records")
    assert line["p_holm"] < 0.05 and line["seeds_low"] < 0 < line["seeds_high"]
    assert line["verdict"] == "no difference shown"


def test_a_row_of_fewer_seeds_is_compared_over_those_that_the_reference_has_too(tmp_path: Path) -> None:
    contents = [row("pat", 0.25, right, seed) for seed, right in enumerate((POOR, GOOD, GOOD))]
    frame, text = compared(tmp_path, [*contents, row("llm-pruner-pft", 0.25, GOOD, seed=0)])
    (line,) = frame.to_dict("records")
    assert (line["mean"], line["reference_mean"], line["seeds"]) == (90.0, 40.0, 1)
    assert pd.isna(line["seeds_low"])
    assert "| – | 1 | 50 : 0 |" in text and "Of one seed, a word compares two models" in text


def test_an_item_counts_once_over_all_seeds(tmp_path: Path) -> None:
    """Four items over three seeds: better on two seeds and worse on one; the same; worse on all; right and wrong by turns."""
    pat, other = (("0010", "0010", "1010"), ("1000", "1001", "0000"))
    contents = [row("pat", 0.25, right, seed) for seed, right in enumerate(pat)]
    contents += [row("llm-pruner-pft", 0.25, right, seed) for seed, right in enumerate(other)]
    (line,) = compared(tmp_path, contents)[0].to_dict("records")
    assert (line["items_better"], line["items_worse"], line["p"]) == (2, 1, 1.0)
    assert line["difference"] == pytest.approx(100 * (1 / 3 + 0 - 1 + 1 / 3) / 4, rel=1e-5)


def test_each_row_is_compared_with_the_reference_at_its_ratio_and_unpruned_rows_with_it_at_every_ratio(tmp_path: Path) -> None:
    contents = [row("lora", 0.0, GOOD), *(row(name, ratio, POOR) for name in ("pat", "llm-pruner-pft") for ratio in (0.25, 0.5))]
    cells = read_cells([write_cell(tmp_path, content) for content in contents])

    def named(reference: str | None) -> set[tuple[str, float, str, float]]:
        return {(it.row.method, it.row.ratio, it.reference.method, it.reference.ratio) for it in pairs_of(cells, reference)}

    both = {(name, at, "pat", ratio) for ratio in (0.25, 0.5) for name, at in (("lora", 0.0), ("llm-pruner-pft", ratio))}
    assert named(None) == both
    assert ("pat", 0.5, "llm-pruner-pft", 0.5) in named("llm-pruner-pft")


def test_without_pat_the_first_row_that_prunes_is_the_reference(tmp_path: Path) -> None:
    contents = [row("lora", 0.0, GOOD), row("llm-pruner-pft", 0.25, GOOD), row("shortgpt-pft", 0.25, GOOD)]
    frame, _ = compared(tmp_path, contents)
    assert set(frame["reference"]) == {"llm-pruner-pft"}


def test_holm_counts_every_pair_of_the_table(tmp_path: Path) -> None:
    contents = [row("pat", 0.25, GOOD), row("lora", 0.0, "1" * 96 + "0" * 4), row("llm-pruner-pft", 0.25, POOR)]
    frame, text = compared(tmp_path, contents)
    by_method = {line["method"]: line for line in frame.to_dict("records")}
    # 6 items that LoRA alone got right: p = 2 / 2^6, the larger of two; not multiplied, but no smaller than the other
    assert by_method["lora"]["p"] == pytest.approx(1 / 32) == by_method["lora"]["p_holm"]
    assert by_method["llm-pruner-pft"]["p_holm"] == pytest.approx(2 * by_method["llm-pruner-pft"]["p"])
    assert "the 2 comparisons of this table" in text


def test_cells_of_other_items_are_refused_by_name(tmp_path: Path) -> None:
    other = cell("llm-pruner-pft", 0.25, tasks=answered({"sums": {"acc": GOOD}}, items_hash="other"))
    paths = [write_cell(tmp_path, row("pat", 0.25, GOOD)), write_cell(tmp_path, other)]
    with pytest.raises(UserError, match="differ in the hash of the items of sums") as caught:
        tables.write_tables(paths, tmp_path / "tables")
    assert all(str(path) in str(caught.value) for path in paths)


@pytest.mark.parametrize(
    ("right", "fault"), [(GOOD[1:], "tells 99 items right or wrong; must be 100"), (POOR, "has 40 of 100 items right")]
)
def test_outcomes_that_are_not_those_of_the_score_are_refused(tmp_path: Path, right: str, fault: str) -> None:
    content = row("pat", 0.25, GOOD)
    content["tasks"]["sums"]["scores"]["acc"]["right"] = right
    with pytest.raises(UserError, match=fault):
        tables.write_tables([write_cell(tmp_path, content)], tmp_path / "tables")


def test_cells_that_do_not_say_which_items_are_right_have_no_comparison_of_accuracies(tmp_path: Path) -> None:
    names = tables.write_tables([write_cell(tmp_path, cell(name)) for name in ("pat", "llm-pruner-pft")], tmp_path / "tables")
    assert "comparisons" not in names and "perplexity_comparisons" in names


def perplexities(method: str, values: Iterable[float]) -> list[dict[str, Any]]:
    texts = [{"heldout": {"token_perplexity": value, "byte_perplexity": 1.5}} for value in values]
    return [row(method, 0.25, GOOD, seed, perplexity=text) for seed, text in enumerate(texts)]


def test_perplexities_are_compared_as_ratios_paired_over_seeds(tmp_path: Path) -> None:
    contents = [*perplexities("pat", (10.0, 20.0, 40.0)), *perplexities("llm-pruner-pft", (11.0, 22.2, 43.8))]
    contents += perplexities("shortgpt-pft", (12.0, 18.0, 41.0))
    frame, text = compared(tmp_path, contents, "perplexity_comparisons")
    by_method = {line["method"]: line for line in frame.to_dict("records")}
    assert by_method["llm-pruner-pft"]["ratio_of_perplexities"] == pytest.approx((1.1 * 1.11 * 1.095) ** (1 / 3), rel=1e-5)
    assert by_method["llm-pruner-pft"]["verdict"] == "worse"
    assert by_method["shortgpt-pft"]["verdict"] == "no difference shown"
    assert "below 1 is better" in text


def test_perplexities_of_one_seed_are_not_tested(tmp_path: Path) -> None:
    frame, text = compared(tmp_path, [*perplexities("pat", (10.0,)), *perplexities("llm-pruner-pft", (20.0,))], "perplexity_comparisons")
    assert list(frame["verdict"]) == ["not tested"]
    assert "| – | – | 1 | – | – | not tested |" in text


def told(method: str, losses: list[float], tokens: list[int]) -> dict[str, Any]:
    value = {"token_perplexity": math.exp(sum(losses) / sum(tokens)), "byte_perplexity": 1.5}
    return row(method, 0.25, GOOD, perplexity={"heldout": value | {"documents": {"losses": losses, "tokens": tokens}}})


def test_perplexities_of_one_seed_are_tested_over_documents_where_these_are_known(tmp_path: Path) -> None:
    tokens = [10, 20, 30, 40]
    contents = [told("pat", [20.0, 40.0, 60.0, 80.0], tokens), told("llm-pruner-pft", [21.0, 42.1, 62.9, 84.2], tokens)]
    contents.append(told("shortgpt-pft", [15.0, 45.0, 58.0, 83.0], tokens))
    frame, text = compared(tmp_path, contents, "perplexity_comparisons")
    assert "compares two models, not two methods" in text
    by_method = {line["method"]: line for line in frame.to_dict("records")}
    line = by_method["llm-pruner-pft"]
    assert line["ratio_of_perplexities"] == pytest.approx(math.exp(10.2 / 100), rel=1e-5)
    assert line["text_low"] < line["ratio_of_perplexities"] < line["text_high"]
    assert (line["verdict"], by_method["shortgpt-pft"]["verdict"]) == ("worse", "no difference shown")


def in_windows(method: str, losses: list[float], tokens: list[int]) -> dict[str, Any]:
    """Return a row on a text that is one document, with the losses of its windows."""
    content = told(method, [sum(losses)], [sum(tokens)])
    content["perplexity"]["heldout"]["windows"] = {"losses": losses, "tokens": tokens}
    return content


def test_a_text_that_is_one_document_is_tested_over_its_windows(tmp_path: Path) -> None:
    tokens = [10] * 50
    theirs = [20.0 + place % 3 for place in range(50)]
    better = [loss - 1 - place % 2 for place, loss in enumerate(theirs)]
    frame, text = compared(
        tmp_path, [in_windows("pat", theirs, tokens), in_windows("llm-pruner-pft", better, tokens)], "perplexity_comparisons"
    )
    line = frame.to_dict("records")[0]
    assert line["ratio_of_perplexities"] == pytest.approx(math.exp(-0.15), rel=1e-5)
    assert line["text_low"] < math.exp(-0.15) < line["text_high"] < 1
    assert line["verdict"] == "better" and "neighbours taken for related" in text


def test_windows_of_another_cut_are_not_compared(tmp_path: Path) -> None:
    contents = [in_windows("pat", [20.0, 45.0, 19.0], [10, 20, 10]), in_windows("llm-pruner-pft", [20.0, 20.0, 20.0, 20.0], [10] * 4)]
    frame, _ = compared(tmp_path, contents, "perplexity_comparisons")
    assert list(frame["verdict"]) == ["not tested"]


def test_one_seed_has_the_interval_over_the_text_in_the_table_of_perplexities(tmp_path: Path) -> None:
    losses, tokens, sizes = [20.0, 42.0, 58.0, 81.0, 0.0], [10, 20, 30, 40, 0], [30, 70, 90, 110, 4]
    content = told("pat", losses, tokens)
    content["perplexity"]["heldout"]["documents"]["bytes"] = sizes
    content["perplexity"]["heldout"]["byte_perplexity"] = math.exp(201 / 304)
    frame, text = compared(tmp_path, [content], "perplexity")
    line, of_four, of_five = frame.to_dict("records")[0], 3.182446, 2.776445  # Student's quantiles for four and five documents
    error = math.sqrt(sum((loss - 2.01 * count) ** 2 for loss, count in zip(losses, tokens, strict=True)) * 4 / 3) / 100
    assert line["tiny heldout token ci95"] == pytest.approx(of_four * error * math.exp(2.01), rel=1e-4)
    error = math.sqrt(sum((loss - 201 / 304 * count) ** 2 for loss, count in zip(losses, sizes, strict=True)) * 5 / 4) / 304
    assert line["tiny heldout byte ci95"] == pytest.approx(of_five * error * math.exp(201 / 304), rel=1e-4)
    assert "One seed: ± is the 95 % interval over the text" in text


def test_a_perplexity_without_an_interval_is_told(tmp_path: Path) -> None:
    """Of an earlier version, without the losses of its pieces, or of a text with too few of them."""
    frame, text = compared(
        tmp_path, [in_windows("pat", [20.0, 41.0, 19.0] * 16, [10, 20, 10] * 16), *perplexities("lora", (2.0,))], "perplexity"
    )
    assert frame["tiny heldout token ci95"].isna().all() and "One seed: no interval" in text
    frame, text = compared(tmp_path, [told("pat", [20.0, 42.0], [10, 20]), *perplexities("llm-pruner-pft", (8.0,))], "perplexity")
    assert frame["tiny heldout token ci95"].isna().any() and "Without ±: " in text


def test_other_documents_are_refused(tmp_path: Path) -> None:
    contents = [told("pat", [20.0, 40.0], [10, 20]), told("llm-pruner-pft", [20.0], [10])]
    with pytest.raises(UserError, match="differ in the numbers of documents and tokens of heldout on tiny"):
        compared(tmp_path, contents)


def test_comparisons_are_the_same_in_any_order_of_cells(tmp_path: Path) -> None:
    contents = [row(name, 0.25, right, seed) for name, right in (("pat", GOOD), ("llm-pruner-pft", POOR)) for seed in range(2)]
    paths = [write_cell(tmp_path / "cells", content) for content in contents]
    for order, name in ((paths, "one"), (paths[::-1], "two")):
        tables.write_tables(order, tmp_path / name)
    for path in sorted((tmp_path / "one").iterdir()):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
