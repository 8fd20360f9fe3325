"""What was done to bases before any tuning, in the tables `rotations` and `fits`: worked by hand, of the records that the cells name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pat.errors import UserError
from pat.io.artefacts import write_json
from study.results.base_records import records_of_bases
from study.tables.writing import write_tables
from tests.kit.cell_maker import cell, write_cell
from tests.kit.written_tables import rows_of

HASH, OTHER = "0123456789abcdef", "fedcba9876543210"
RIDGES = (1e-6, 1e-3)
ERRORS: dict[str, Any] = {
    "model.layers.0.input_layernorm": {"plain": 0.2, "least-squares": 0.1},
    "model.layers.1.input_layernorm": {"plain": 0.2, "least-squares": 0.1, "massive": {"plain": 0.04, "least-squares": 1e-3, "tokens": 9}},
    "model.layers.2.input_layernorm": {"plain": 0.2, "least-squares": 0.1, "massive": {"plain": 0.03, "least-squares": 2e-3, "tokens": 9}},
}


def in_basis(seed: int = 0, ratio: float = 0.25, **overrides: Any) -> dict[str, Any]:
    """Return a cell of a row whose base was rotated and refitted."""
    made = cell("pat-g", ratio, seed, **overrides)
    made["provenance"] |= {"rotation": {"config_hash": HASH}, "readers": {"config_hash": HASH}}
    return made


def text(base: float, plain: float, refitted: float) -> dict[str, float]:
    return {"base": base, "plain": plain, "least-squares": refitted, "tokens": 6141}


def write_readers(
    folder: Path,
    place: str,
    judged: tuple[float, float, float],
    chosen: tuple[str, float] | None,
    config_hash: str = HASH,
    second: str | None = None,
    **more: Any,
) -> None:
    """Write the record of a refit: perplexities of the whole base, of the cut with plain readers and with those written, and the choice.

    `second` is what the second text is called.
    """
    inputs = {"second_text": {"path": f"results/demo/data/text/{second}.jsonl"}} if second else {}
    ways = {("unpruned", RIDGES[0]): judged[2] + 2, ("unpruned", RIDGES[1]): judged[2] + 1, ("pruned", RIDGES[0]): 1e9}
    record = {
        "kept": list(range(72)), "applied": chosen is not None, "seen": chosen and chosen[0], "ridge": chosen and chosen[1],
        "tried": [{"seen": seen, "ridge": ridge, "perplexity": value} for (seen, ridge), value in ways.items()],
        "text": {"calibration, held out": text(*judged)}, "provenance": {"config_hash": config_hash, "inputs": inputs}, **more,
    }  # fmt: skip
    write_json(folder / "refitted" / place / "readers.json", record)


def write_rotation(folder: Path, place: str, moved: Mapping[str, float] | None, config_hash: str = HASH) -> None:
    record: dict[str, Any] = {"apart": [3, 1], "tokens": 24576, "provenance": {"config_hash": config_hash}}
    write_json(folder / "rotated" / place / "rotation.json", record | ({"text": moved} if moved else {}))


def moved(before: float, ratio: float, error: float) -> dict[str, float]:
    return {"perplexity_before": before, "perplexity_after": before * ratio, "perplexity_ratio": ratio, "perplexity_ratio_error": error,
            "tokens": 6141}  # fmt: skip


def tables(folder: Path, *cells: Mapping[str, Any]) -> Path:
    write_tables([write_cell(folder, each) for each in cells], folder / "tables")
    return folder / "tables"


def line(out: Path, name: str) -> dict[str, str]:
    """Return the only line of a printed table by its headings."""
    header, _, row = rows_of((out / f"{name}.md").read_text().replace("\\", ""))
    return dict(zip(header, row, strict=True))


def test_fits_over_seeds_are_means_with_intervals_beside_what_was_chosen(tmp_path: Path) -> None:
    """Student's t at two degrees of freedom is 4.302653; the second seed's readers stayed plain."""
    for seed, (plain, refitted, chosen) in enumerate([(20.0, 10.0, RIDGES[1]), (30.0, 30.0, None), (40.0, 20.0, RIDGES[1])]):
        write_rotation(tmp_path, f"tiny/gradient-untied/seed{seed}", None)
        way = None if chosen is None else ("unpruned", chosen)
        second = {"second text": text(6.0, 9.0, 8.0)} if seed else {}
        place = f"tiny/gradient-untied/leading/align-auto/0.25/seed{seed}"
        both = {"calibration, held out": text(5.0, plain, refitted)} | second
        write_readers(tmp_path, place, (5.0, plain, refitted), way, tokens=24576, text=both, error=ERRORS)
    out = tables(tmp_path, *(in_basis(seed) for seed in range(3)))
    assert line(out, "fits") == {
        "Model": "tiny", "Pruned": "25 %", "Basis": "gradient, untied", "Mask": "leading", "Chosen": "unpruned, 0.001 (2); plain (1)",
        "Second text": "–",
        "whole": "5.00 ± 0.00",
        "cut, plain": "30.00 ± 24.84",  # 4.302653 · 10 / √3
        "cut, refitted": "20.00 ± 24.84",
        "refitted / plain": "0.667 ± 0.717",  # of 1/2, 1, 1/2, whose deviation is 0.288675
        "second text, plain": "–", "second text, refitted": "–",  # a mean of two seeds of three would be none
        "missed of massive tokens, plain": "0.0400 ± 0.0000", "and refitted": "0.0020 ± 0.0000",  # the largest of two norms
        "channels": "72", "tokens": "24,576", "tokens held out": "6,141", "seeds": "3",
    }  # fmt: skip
    frame = pd.read_csv(out / "fits.csv").iloc[0]
    assert (frame["ratio"], frame["basis"], frame["align"], frame["kept"], frame["tokens"]) == (0.25, "gradient-untied", "auto", 72, 24576)
    assert frame["plain ci95"] == pytest.approx(24.8414, rel=1e-5) and frame["refitted_over_plain"] == pytest.approx(2 / 3, rel=1e-5)
    assert {path.suffix for path in out.glob("fits.*")} == {".csv", ".md", ".tex", ".html"}
    assert not list(out.glob("rotations.*")), "a tie that was broken leaves a change of basis exact"


def test_every_fit_that_was_tried_has_a_line(tmp_path: Path) -> None:
    """Of the second text the first seed does not tell one fit, whose mean would then be one of a single seed."""
    for seed, (plain, refitted) in enumerate([(30.0, 10.0), (40.0, 20.0)]):
        write_rotation(tmp_path, f"tiny/pca/seed{seed}", None)
        ways = [
            ("unpruned", RIDGES[0], refitted, 7.0),
            ("unpruned", RIDGES[1], refitted + 2, 8.0 if seed else None),
            ("pruned", RIDGES[0], 50.0, 60.0),
        ]
        tried = [{"seen": seen, "ridge": ridge, "perplexity": value, "second_text": other} for seen, ridge, value, other in ways]
        place = f"tiny/pca/leading/align-auto/0.25/seed{seed}"
        write_readers(tmp_path, place, (5.0, plain, refitted), ("unpruned", RIDGES[0]), second="c4", tried=tried)
    out = tables(tmp_path, in_basis(), in_basis(1))
    header, _, *rows = rows_of((out / "ridges.md").read_text().replace("\\", ""))
    assert header == [
        "Model",
        "Pruned",
        "Basis",
        "Mask",
        "Fitted to",
        "Second text",
        "Ridge",
        "held-out text",
        "second text",
        "chosen in",
        "seeds",
    ]
    assert [row[:4] for row in rows] == [["tiny", "25 %", "pca", "leading"]] * 3
    assert [row[4:] for row in rows] == [
        ["unpruned", "c4", "1e-06", "15.00 ± 63.53", "7.00 ± 0.00", "2", "2"],  # 12.706205 · (10 / √2) / √2
        ["unpruned", "c4", "0.001", "17.00 ± 63.53", "–", "0", "2"],
        ["pruned", "c4", "1e-06", "50.00 ± 0.00", "60.00 ± 0.00", "0", "2"],
    ]
    frame = pd.read_csv(out / "ridges.csv")
    assert list(frame["ridge"]) == [1e-6, 1e-3, 1e-6] and list(frame["chosen"]) == [2, 0, 0] and pd.isna(frame["second_text"][1])


def test_one_seed_has_no_interval_and_an_earlier_record_has_holes(tmp_path: Path) -> None:
    made = in_basis()
    del made["provenance"]["rotation"]
    write_readers(tmp_path, "tiny/native/fisher/align-32/0.25/seed0", (5.0, 20.0, 10.0), ("unpruned", RIDGES[0]))
    own = line(tables(tmp_path, made), "fits")
    assert (own["Basis"], own["Mask"], own["Chosen"]) == ("native", "fisher, aligned to 32", "unpruned, 1e-06")
    assert (own["cut, plain"], own["cut, refitted"], own["refitted / plain"]) == ("20.00", "10.00", "0.500")
    assert own["tokens"] == own["second text, plain"] == "–" and "–: the records of some seeds" in (tmp_path / "tables/fits.md").read_text()


def test_a_second_text_stands_beside_the_first(tmp_path: Path) -> None:
    texts = {"calibration, held out": text(5.0, 20.0, 10.0), "second text": text(6.0, 9.0, 8.0)}
    write_rotation(tmp_path, "tiny/pca/seed0", None)
    write_readers(
        tmp_path,
        "tiny/pca/leading/align-auto/0.25/seed0",
        (5.0, 20.0, 10.0),
        ("pruned", RIDGES[0]),
        second="wikitext2",
        text=texts,
        tokens=4096,
        error=ERRORS,
    )
    own = line(tables(tmp_path, in_basis()), "fits")
    assert (own["second text, plain"], own["second text, refitted"], own["tokens"]) == ("9.00", "8.00", "4,096")
    assert own["Second text"] == "wikitext2"
    assert "–" not in own.values() and "–" not in (tmp_path / "tables" / "fits.md").read_text()


def test_different_second_texts_of_seeds_have_no_mean(tmp_path: Path) -> None:
    texts = {"calibration, held out": text(5.0, 20.0, 10.0), "second text": text(6.0, 9.0, 8.0)}
    tried = [{"seen": "unpruned", "ridge": 1.2345678e-4, "perplexity": 10.0, "second_text": 8.0}]
    for seed, second in enumerate(("wikitext2", "c4")):
        write_rotation(tmp_path, f"tiny/pca/seed{seed}", None)
        place, chosen = f"tiny/pca/leading/align-auto/0.25/seed{seed}", ("unpruned", 1.2345678e-4)
        write_readers(tmp_path, place, (5.0, 20.0, 10.0), chosen, second=second, text=texts, tried=tried)
    out = tables(tmp_path, in_basis(), in_basis(1))
    own, tried_one = line(out, "fits"), line(out, "ridges")
    assert own["Second text"] == own["second text, plain"] == tried_one["second text"] == "–" and own["cut, plain"] == "20.00 ± 0.00"
    assert (own["Chosen"], tried_one["Ridge"]) == ("unpruned, 0.00012345678", "0.00012345678")


def test_bases_of_other_settings_ratios_and_seeds_are_left_out(tmp_path: Path) -> None:
    """They are there from an earlier form of the experiment, or of cells that are not there."""
    for basis, config_hash in (("gradient", HASH), ("pca", OTHER)):
        for seed in (0, 1):
            write_rotation(tmp_path, f"tiny/{basis}/seed{seed}", moved(16.0, 0.999, 4e-4), config_hash)
            for ratio in ("0.25", "0.5"):
                place = f"tiny/{basis}/leading/align-auto/{ratio}/seed{seed}"
                write_readers(tmp_path, place, (5.0, 20.0, 10.0), ("unpruned", RIDGES[0]))
    write_readers(tmp_path, "tiny/gradient/leading/align-4/0.25/seed0", (5.0, 2.0, 1.0), ("unpruned", RIDGES[0]), OTHER)
    out = tables(tmp_path, in_basis(), cell("lora", 0.0))
    own = line(out, "fits")
    assert (own["Pruned"], own["Basis"], own["Mask"], own["seeds"]) == ("25 %", "gradient", "leading", "1")
    assert line(out, "rotations")["Basis"] == "gradient"


def test_lines_come_by_ratio_and_several_rows_share_one(tmp_path: Path) -> None:
    for ratio in ("0.5", "0.25"):
        for mask in ("variance", "fisher"):
            write_readers(tmp_path, f"tiny/native/{mask}/align-auto/{ratio}/seed0", (5.0, 20.0, 10.0), ("unpruned", RIDGES[0]))
    cells = [in_basis(ratio=ratio) | {"method": name, "label": name} for ratio in (0.25, 0.5) for name in ("one", "other")]
    for each in cells:
        del each["provenance"]["rotation"]
    rows = rows_of((tables(tmp_path, *cells) / "fits.md").read_text())[2:]
    assert [row[1:4] for row in rows] == [[f"{share} %", "native", mask] for share in (25, 50) for mask in ("fisher", "variance")]


def test_changes_of_basis_over_seeds_and_of_one_seed_over_tokens(tmp_path: Path) -> None:
    write_rotation(tmp_path, "tiny/gradient/seed0", moved(16.0, 0.999, 4e-4))
    one = line(tables(tmp_path, in_basis()), "rotations")
    assert (one["before"], one["after"]) == ("16.00", "15.98") and one["after / before"] == "0.9990 ± 0.0008"  # 1.959964 · 0.0004
    write_rotation(tmp_path, "tiny/gradient/seed1", moved(18.0, 1.001, 4e-4))
    assert line(tables(tmp_path, in_basis(), in_basis(1)), "rotations") == {
        "Model": "tiny", "Basis": "gradient",
        "before": "17.00 ± 12.71",  # 12.706205 · √2 / √2
        "after": "17.00 ± 12.92",  # of 15.984 and 18.018
        "after / before": "1.0000 ± 0.0127",
        "channels apart": "2", "tokens": "24,576", "tokens held out": "6,141", "seeds": "2",
    }  # fmt: skip


def test_without_records_beside_the_cells_there_is_no_such_table(tmp_path: Path) -> None:
    out = tables(tmp_path, in_basis(), cell("lora", 0.0))
    assert not list(out.glob("fits.*")) and not list(out.glob("rotations.*"))


def test_records_that_are_not_the_row_s_and_cells_elsewhere_stop_no_table(tmp_path: Path) -> None:
    """A record without its settings is of another row; a cell that was copied somewhere else has no results around it."""
    write_json(tmp_path / "rotated/tiny/pca/seed0/rotation.json", {"tokens": 3})
    write_rotation(tmp_path, "tiny/gradient/seed0", moved(16.0, 0.999, 4e-4))
    assert line(tables(tmp_path, in_basis()), "rotations")["Basis"] == "gradient"
    for place in ("x", "a/b/c/d/e"):
        copy = tmp_path / place / "cell.json"
        write_json(copy, in_basis())
        write_tables([copy], tmp_path / "elsewhere", force=True)
        assert not list((tmp_path / "elsewhere").glob("rotations.*"))
    assert records_of_bases(Path("/b/c/d/e/cell.json"), in_basis()["provenance"]) == []


def test_a_refit_belongs_to_the_base_that_was_rotated_for_it(tmp_path: Path) -> None:
    """Without the rotation's record a refit of another base with the same settings is not taken for it."""
    write_readers(tmp_path, "tiny/native/leading/align-auto/0.25/seed0", (5.0, 20.0, 10.0), ("unpruned", RIDGES[0]))
    assert not list(tables(tmp_path, in_basis()).glob("fits.*"))


def test_a_refit_of_before_the_streams_were_told_apart_has_a_hole(tmp_path: Path) -> None:
    write_rotation(tmp_path, "tiny/gradient/seed0", None)
    write_readers(
        tmp_path, "tiny/gradient/leading/align-auto/0.25/seed0", (5.0, 20.0, 10.0), ("unpruned", RIDGES[0]), applied=None, seen=None
    )
    assert line(tables(tmp_path, in_basis()), "fits")["Chosen"] == "–"


def test_a_record_that_is_none_is_named(tmp_path: Path) -> None:
    write_rotation(tmp_path, "tiny/gradient/seed0", {"perplexity_before": 16.0})
    with pytest.raises(
        UserError, match=r"gradient/seed0/rotation\.json: is not a record of `pat rotate` of this version: text\.perplexity_after"
    ):
        tables(tmp_path, in_basis())
