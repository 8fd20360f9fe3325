"""The mix of calibration text: shares of the characters in any part of it, equal inputs give equal rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pat.data.calibration import Calibration, blocks
from pat.io.artefacts import read_jsonl, write_jsonl
from study.data import mix as mix_calibration
from tests.kit.pruning_inputs import word_tokenizer


def write_sets(folder: Path) -> tuple[Path, Path]:
    own, general = folder / "own.jsonl", folder / "general.jsonl"
    write_jsonl(own, ({"instruction": f"w{3 + n % 40} w4", "input": "", "output": "w5 w6 w7"} for n in range(200)))
    write_jsonl(general, ({"text": " ".join([f"w{50 + n % 40}"] * (5 + n % 9))} for n in range(400)))
    return own, general


def shares(rows: list[dict[str, str]]) -> float:
    lengths = {kind: sum(mix_calibration.characters(row) for row in rows if ("text" in row) is kind) for kind in (True, False)}
    return lengths[False] / (lengths[True] + lengths[False])


@pytest.mark.parametrize("own_share", [0.5, 0.2])
def test_each_set_has_its_share_and_the_scarcer_one_is_used_up(own_share: float, tmp_path: Path) -> None:
    own, general = write_sets(tmp_path)
    rows = mix_calibration.mixed([(own, own_share), (general, 1 - own_share)], seed=0)
    assert shares(rows) == pytest.approx(own_share, abs=0.02)
    kept = {kind: sum(("text" in row) is kind for row in rows) for kind in (True, False)}
    assert kept[True] == 400 or kept[False] == 200
    original = [*read_jsonl(own, ()), *read_jsonl(general, ())]
    assert all(row in original for row in rows)


def test_a_text_in_one_row_has_its_share_of_what_is_measured_on(tmp_path: Path) -> None:
    """All of WikiText-2 is one row: uncut, the first tokens of the mix were instructions alone, or WikiText alone."""
    own, book = write_sets(tmp_path)[0], tmp_path / "book.jsonl"
    write_jsonl(own, ({"instruction": f"w{3 + n % 40} " * 20, "input": "", "output": "w5 w6 w7"} for n in range(4000)))
    lines = "".join(" ".join([f"w{50 + (n + place) % 40}" for place in range(9)]) + "\n" for n in range(8000))
    write_jsonl(book, [{"text": lines}])
    rows = mix_calibration.mixed([(own, 0.5), (book, 0.5)], seed=0)
    assert shares(rows) == pytest.approx(0.5, abs=0.02)
    assert shares(rows[: len(rows) // 2]) == pytest.approx(0.5, abs=0.15)
    pieces = [row["text"] for row in rows if "text" in row]
    assert len(pieces) > 20 and all(piece in lines and piece.endswith("\n") for piece in pieces)


@pytest.mark.parametrize("text", ["w " * 9000, "w" * 20000, " \n" * 20000 + "w3", "w3\n" * 20000])
def test_pieces_make_up_the_text(text: str) -> None:
    pieces = [piece["text"] for piece in mix_calibration._pieces({"text": text})]
    assert "".join(pieces).strip() == text.strip() and max(map(len, pieces)) <= 2 * mix_calibration.PIECE_CHARACTERS


def test_shares_need_not_add_up_to_one(tmp_path: Path) -> None:
    own, general = write_sets(tmp_path)
    assert mix_calibration.mixed([(own, 1.0), (general, 1.0)], 0) == mix_calibration.mixed([(own, 0.5), (general, 0.5)], 0)


def test_the_script_writes_what_calibration_reads(tmp_path: Path) -> None:
    own, general = write_sets(tmp_path)
    arguments = ["--part", f"0.5:{own}", "--part", f"0.5:{general}", "--out"]
    for name in ("one", "other"):
        found = CliRunner().invoke(app(), [*arguments, str(tmp_path / f"{name}.jsonl")])
        assert found.exit_code == 0, found.output
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "other.jsonl").read_bytes()
    text = blocks(Calibration(tmp_path / "one.jsonl"), word_tokenizer(), 32, 320)
    assert text.ids_NT.shape == (10, 32)


def test_the_mix_replaces_none_of_its_parts_and_other_content_only_by_force(tmp_path: Path) -> None:
    own, general = write_sets(tmp_path)
    before = own.read_bytes()
    arguments = ["--part", f"0.5:{own}", "--part", f"0.5:{general}", "--force", "--out"]
    assert "--part" in CliRunner().invoke(app(), [*arguments, str(own)]).output
    assert own.read_bytes() == before
    other = tmp_path / "other.jsonl"
    other.write_text("something else")
    refused = CliRunner().invoke(app(), [word for word in [*arguments, str(other)] if word != "--force"])
    assert refused.exit_code == 1 and "--force" in refused.output and other.read_text() == "something else"
    assert CliRunner().invoke(app(), [*arguments, str(other)]).exit_code == 0


@pytest.mark.parametrize("part", ["0:{}", "-1:{}", "nan:{}", "inf:{}", "1:", "{}", "x:{}"])
def test_a_share_that_is_none_is_refused(part: str, tmp_path: Path) -> None:
    own, _ = write_sets(tmp_path)
    refused = CliRunner().invoke(app(), ["--part", part.format(own), "--out", str(tmp_path / "out.jsonl")])
    assert refused.exit_code == 1 and "must be <share>:<JSONL>" in refused.output and not (tmp_path / "out.jsonl").exists()


def app() -> typer.Typer:
    program = typer.Typer()
    program.command()(mix_calibration.main)
    return program
