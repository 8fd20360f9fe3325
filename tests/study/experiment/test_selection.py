"""A part of the grid: which cells `only` names, what of it is refused, and what Snakemake makes of it on a command line."""

from __future__ import annotations

from typing import Any

import pytest

from study.experiment.command_line import as_typed
from study.experiment.file import load_experiment
from study.plan.jobs import Plan
from tests.kit.experiments import SMOKE, changed, refusal

BUDGET = {"parameters": 0.6}


def asked(only: dict[str, Any] | None) -> dict[str, Any]:
    """Return the smoke experiment at three levels with two seeds, and the part of it."""
    return changed("only", value=only) | {"seeds": [0, 1], "ratios": [0.25, 0.5, BUDGET]}


def places(only: dict[str, Any] | None) -> set[str]:
    return {cell.path.as_posix() for cell in load_experiment(asked(only), "x.yaml").chosen_cells()}


def test_a_cell_is_chosen_where_every_list_names_it() -> None:
    rows, seeds = ["lora", "base", "pat"], ["seed0", "seed1"]
    whole = places(None)
    assert places({}) == whole and len(whole) == len(load_experiment(asked(None), "x.yaml").cells())
    assert places({"rows": rows}) == {path for path in whole if path.split("/")[1] in rows}
    assert places({"seeds": [1]}) == {path for path in whole if path.endswith("/seed1")} != set()
    assert places({"rows": rows, "ratios": [0, 0.5]}) == {
        *(f"tiny/{place}/{seed}" for place in ("lora/0", "pat/0.5") for seed in seeds),
        "tiny/base/0/seed0",
    }


def test_a_budget_is_named_as_the_file_names_it() -> None:
    experiment = load_experiment(asked(None), "x.yaml")
    level = experiment.level("tiny", experiment.ratios[2])
    assert places({"rows": ["pat"], "ratios": [BUDGET], "seeds": [0]}) == {f"tiny/pat/{level:g}/seed0"} != {"tiny/pat/0.25/seed0"}


def test_parts_that_differ_in_one_list_share_no_cell_and_make_up_the_whole() -> None:
    grid: dict[str, list[Any]] = {"seeds": [0, 1], "ratios": [0, 0.25, 0.5, BUDGET], "rows": list(SMOKE["methods"])}
    for key, values in grid.items():
        parts = [places({key: [value]}) for value in values]
        assert set.union(*parts) == places(None) and sum(map(len, parts)) == len(places(None))


@pytest.mark.parametrize(
    ("only", "said"),
    [
        ({"rows": ["pta"]}, "only.rows: \"pta\" is not a row of methods; did you mean 'pat'?"),
        ({"models": ["tny"]}, "only.models: \"tny\" is not one of models; did you mean 'tiny'?"),
        ({"ratios": [0.3]}, "only.ratios: [0.3] is not allowed: must be among those that rows run with, [0.0, 0.25, 0.5, "),
        ({"seeds": [0, 7]}, "only.seeds: [7] is not allowed: must be among those that rows run with, [0, 1]"),
        ({"rows": ["lora"], "ratios": [0.25]}, "only: names no cell of the grid: "),
        ({"rows": []}, "only.rows: "),
        ({"rows": "lora"}, 'only.rows: "lora" is not allowed: must be a list'),
        ({"row": ["lora"]}, "only.row: unknown key; did you mean 'rows'?"),
    ],
)
def test_what_the_grid_does_not_have_is_refused(only: dict[str, Any], said: str) -> None:
    (line,) = refusal(asked(only))
    assert line.startswith(said)


def test_a_row_that_is_refused_itself_is_told_once() -> None:
    raw = asked({"rows": ["pat"]})
    raw["methods"]["pat"] = {"method": "pta"}
    assert len(refusal(raw)) == 1


def test_tables_and_figures_are_of_the_whole_whatever_a_part_asks_for() -> None:
    part, whole = (Plan(load_experiment(asked(only), "x.yaml")) for only in ({"rows": ["pat"]}, None))
    assert part.cells.results() == whole.cells.results() == whole.cells.chosen_results()
    assert {path.split("/")[4] for path in part.cells.chosen_results()} == {"pat"}
    assert {path.split("/")[4] for path in part.cells.merged_models()} == {"pat"}
    assert part.figures.files() == whole.figures.files()


def test_what_snakemake_leaves_as_text_is_a_number_and_what_stood_in_a_file_stays() -> None:
    written = {"name": "x", "seeds": ["3"], "methods": {"pat": {"label": "1"}}}
    given = {
        "name": "x",
        "seeds": ["3"],
        "ratios": ["0.25"],
        "only": {"rows": ["pat", "1:30"], "seeds": ["0"], "ratios": [{"parameters": "0.75"}]},
        "methods": {"pat": {"label": "1", "tuning": {"max_steps": "9", "compile": "true"}}, "dora": "null"},
    }
    assert as_typed(given, written) == {
        "name": "x",
        "seeds": ["3"],
        "ratios": [0.25],
        "only": {"rows": ["pat", "1:30"], "seeds": [0], "ratios": [{"parameters": 0.75}]},
        "methods": {"pat": {"label": "1", "tuning": {"max_steps": 9, "compile": True}}, "dora": None},
    }


@pytest.mark.parametrize(
    "text", ["PAT # two", "#1", "&a 5", "!!str 5", "5 # five", "2026-01-01", "2026-01-01T10:00:00Z", "1e5", "007", "a\nb"]
)
def test_a_text_that_is_no_number_as_a_whole_stays_letter_by_letter(text: str) -> None:
    assert as_typed({"label": text}, {}) == {"label": text}


@pytest.mark.parametrize(("given", "meant"), [("", None), ("~", None), ("no", False), ("-0.5", -0.5), ("'0.5'", "0.5"), ('"no"', "no")])
def test_a_text_with_quotes_of_its_own_is_one(given: str, meant: object) -> None:
    assert as_typed([given], None) == [meant]
