"""The tables that the documents have beside the generated ones, and the figures of a 7B model: all their data are the records'."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from peft import get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from pat import PatConfig, attach
from pat.families.known import family_of
from pat.io.artefacts import read_json, write_json
from pat.method.lora_inputs import taken_as_they_are
from pat.method.model import lora_config
from pat.models.attention import rely_on_causal_kernel
from pat.models.kept_activations import kept_bytes
from pat.models.recomputed import recompute_feed_forward
from pat.models.token_loss import read
from pat.settings.fields import GIB
from study.figures import memory, speedup
from study.results.archive import ARCHIVE, packed
from study.results.benchmarks import read_inference
from study.results.grid import headline_grid
from study.results.published import PrintedSpeedup
from study.results.unpack import unpack_reference
from study.tables.layouts import csv_text
from tests.kit.project import ROOT

REFERENCES = ROOT / "results" / "reference"
OF_MEMORY = re.compile(r"/(lora|pat-g|slicegpt-1q-pft|llm-pruner-pft)/.*/cell\.json$")
"""The cells that docs/performance.md takes for the figure of memory."""
MINUS = str.maketrans("−", "-")

PARTS = {
    "layers and neurons, refitted writers": "layers-and-neurons-pft",
    "without the refit": "layers-and-neurons-plain",
    "layers alone (ShortGPT, refitted writers)": "shortgpt-refitted",
    "no layers (LLM-Pruner uniform, refitted writers)": "llm-pruner-uniform-refitted",
    "cut after a third of the tuning (FT→P→FT)": "layers-and-neurons-ftpft",
}
TEXTS = ("heldout", "wikitext2", "c4")

CHANGES = {
    "operators pinned, as they were": "pat-pinned",
    "no operators": "pat-plain",
    "mask learns by its plain gradient, as it did": "pat-gradient-mask",
    "mask learns by Adam": "pat-adam",
    "settled after a quarter of the way": "pat-early",
    "from the Fisher order on": "pat-prior",
    "from the Fisher order on and settled early": "pat-prior-early",
    "Fisher mask, not trained": "pat-fisher",
    "random mask": "pat-random",
    "Fisher P→FT": "channel-fisher-pft",
}

SEARCHED = {
    "LoRA, nothing removed": "lora/0",
    "PAT-G, distilled": "pat-g-distilled/0.25",
    "PAT-G": "pat-g/0.25",
    "PAT, gradient basis": "pat-gradient/0.25",
    "PAT, gradient basis, closing gradually": "pat-gradient-gradual/0.25",
    "PAT, fixed mask, PCA basis": "pat-pca/0.25",
    "SliceGPT-1Q, P→FT": "slicegpt-1q-pft/0.25",
    "SliceGPT, P→FT": "slicegpt-pft/0.25",
    "LLM-Pruner, P→FT, distilled": "llm-pruner-pft-distilled/0.25",
    "LLM-Pruner, P→FT": "llm-pruner-pft/0.25",
    "LLM-Pruner, uniform, P→FT": "llm-pruner-uniform-pft/0.25",
    "Wanda-sp, P→FT": "wanda-sp-pft/0.25",
    "ShortGPT, P→FT": "shortgpt-pft/0.25",
    "Minitron-style width, P→FT": "minitron-width-pft/0.25",
    "Channel magnitude, P→FT": "channel-magnitude-pft/0.25",
    "PAT, as the paper has it": "pat/0.25",
}


def lines(page: str, header: str) -> list[list[str]]:
    """Return the cells of the table of a page that has this header, line by line."""
    _, found, rest = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(f"{header}\n")
    assert found, f"{page}: no table {header}"
    table = rest.partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def kept_table(reference: str, name: str, *index: str) -> Any:
    table = pd.read_csv(REFERENCES / reference / "tables" / f"{name}.csv")
    return table.set_index(list(index)) if index else table


def test_what_the_parts_of_layers_and_neurons_are_worth() -> None:
    table = kept_table("smollm2-short", "perplexity", "method", "ratio")
    shown = lines("method.md", "| | 25 % removed | 50 % removed |")
    assert [line[0] for line in shown] == list(PARTS)
    for name, *entries in shown:
        for ratio, entry in zip((0.25, 0.5), entries, strict=True):
            kept = (PARTS[name], ratio) in table.index
            means = [table.loc[(PARTS[name], ratio), f"smollm2-135m {text} token"] for text in TEXTS] if kept else []
            assert entry == " / ".join(f"{mean:.2f}" for mean in means), (name, ratio)


def test_each_choice_of_the_demos_pat_taken_back() -> None:
    accuracy, perplexity = (kept_table("demo-mends", name, "method") for name in ("comparisons", "perplexity_comparisons"))
    shown = lines("experiments.md", "| changed | accuracy | 95 % over items | perplexity |")
    assert {line[0] for line in shown} == set(CHANGES) and set(CHANGES.values()) == set(accuracy.index)
    for name, *entries in shown:
        row, ratio = accuracy.loc[CHANGES[name]], perplexity.loc[CHANGES[name], "ratio_of_perplexities"]
        points = [float(point) for point in " ".join(entries[:2]).translate(MINUS).replace("…", " ").split()]
        assert points == [pytest.approx(row[key], abs=0.051) for key in ("difference", "items_low", "items_high")], name
        assert entries[2] == f"{ratio:.2f}", name


def test_the_losses_by_which_rates_were_chosen() -> None:
    shown = [half for line in lines("small-bases.md", "| row | 25 % | | row | 25 % |") for half in (line[:2], line[3:]) if half[0]]
    assert {name for name, _ in shown} == set(SEARCHED)
    for name, loss in shown:
        candidates = read_json(REFERENCES / "h100" / "rates" / SEARCHED[name] / "rate.json")["candidates"]
        assert loss == f"{min(candidate['dev_loss'] for candidate in candidates):.3f}", name


LEVEL = 0.05
NUMBER = r"(-?\d+(?:\.\d+)?)"


def of_rivals(rival: str, ratio: float) -> list[float]:
    """Return by how much layers and neurons is ahead of a rival, text by text: its perplexity over the rival's."""
    compared = kept_table("smollm2-full", "perplexity_comparisons", "method", "ratio", "text")["ratio_of_perplexities"]
    return [1 / compared[rival, ratio, text] for text in TEXTS]


def compared_rows(*rows: str) -> Any:
    """Return the comparisons of rows with layers and neurons, those of unpruned rows aside."""
    table = kept_table("smollm2-full", "perplexity_comparisons")
    return table[table["method"].isin(rows) & (table["ratio"] > 0)]


def at_each_ratio(rival: str) -> list[float]:
    return [ahead for ratio in (0.125, 0.25, 0.5) for ahead in of_rivals(rival, ratio)]


def ours_over(row: str, other: str) -> list[float]:
    """Return one row's perplexity over another's that has the same seeds, at each ratio and on each text."""
    ours, theirs = (compared_rows(name).set_index(["ratio", "text"]) for name in (row, other))
    assert (ours["seeds"] == 3).all() and (theirs["seeds"] == 3).all()
    return list(ours["ratio_of_perplexities"] / theirs["ratio_of_perplexities"])


def as_calibrated_now(row: str) -> list[float]:
    """Return a row's perplexity over that of layers and neurons, of one seed, where calibration text shows BOS."""
    compared = kept_table("smollm2-calibrated", "perplexity_comparisons")
    ours = compared[(compared["method"] == row) & (compared["ratio"] > 0)]
    assert (ours["seeds"] == 1).all() and len(ours) == 6 and (ours["reference"] == "layers-and-neurons-pft").all()
    return list(ours["ratio_of_perplexities"])


def of_verdicts(*rows: str) -> list[float]:
    """Return in how many tests rows are shown to be worse, and in how many they were compared; each is worse by its figure."""
    compared = compared_rows(*rows)
    assert (compared["ratio_of_perplexities"] > 1).all()
    return [(compared["p_holm"] < LEVEL).sum(), len(compared)]


def number_of_tests_that_show_none_of(*rows: str) -> list[float]:
    assert (compared_rows(*rows)["p_holm"] > LEVEL).all()
    return [kept_table("smollm2-full", "perplexity_comparisons")["p_holm"].count()]


def points_of_shortgpt() -> list[float]:
    """Return by how many points ShortGPT's higher mean is above the highest of all else that is cut, ratio by ratio."""
    table = kept_table("smollm2-full", "table1_acc_norm")
    cut = table[table["ratio"].notna() & (table["ratio"] > 0)]
    by_name = cut.assign(of_shortgpt=cut["method"].str.startswith("shortgpt")).groupby(["ratio", "of_shortgpt"])["smollm2-135m mean"].max()
    return [by_name[ratio, True] - by_name[ratio, False] for ratio in (0.125, 0.25, 0.5)]


def of_the_demo(*rows: str) -> list[float]:
    means = kept_table("demo", "table1", "method", "ratio")["tiny mean"]
    return [means[row, 0.5] for row in rows]


def extremes(values: list[float]) -> list[float]:
    return [min(values), max(values)]


def ahead_at_its_rate(rival: str) -> list[float]:
    """Return the same at each rate that both were tuned at, in 1,000 steps at a half."""
    perplexities = kept_table("smollm2-rates", "perplexity", "method")
    return [
        perplexities.loc[f"layers-and-neurons-pft-{rate}", column] / perplexities.loc[f"{rival}-{rate}", column]
        for rate in (1, 2, 4, 8)
        for column in (f"smollm2-135m {text} token" for text in TEXTS)
    ]


CLAIMS = {
    rf"{NUMBER}, {NUMBER} and {NUMBER} times ShortGPT's perplexity": lambda: of_rivals("shortgpt-refitted", 0.5),
    rf"{NUMBER} to {NUMBER} times LLM-Pruner's": lambda: extremes(of_rivals("llm-pruner-uniform-refitted", 0.5)),
    rf"LLM-Pruner by its own ranking and Wanda-sp: {NUMBER} to {NUMBER} times theirs":
        lambda: extremes([*of_rivals("llm-pruner-pft", 0.5), *of_rivals("wanda-sp-pft", 0.5)]),
    rf"{NUMBER}, {NUMBER} and {NUMBER} of that at a quarter, {NUMBER}, {NUMBER} and {NUMBER} at a half":
        lambda: [1 / ahead for ratio in (0.25, 0.5) for ahead in of_rivals("layers-and-neurons-ftpft", ratio)],
    rf"level with ShortGPT so refitted\*\* \({NUMBER}, {NUMBER}, {NUMBER};": lambda: of_rivals("shortgpt-refitted", 0.25),
    rf"ShortGPT's mean is highest of what is cut, by {NUMBER} to {NUMBER} points": lambda: extremes(points_of_shortgpt()),
    rf"PAT's perplexity is {NUMBER} to {NUMBER} times theirs": lambda: extremes([1 / ahead for ahead in at_each_ratio("pat")]),
    rf"PAT-G's \(gradient basis, cut at once\) {NUMBER} to {NUMBER};": lambda: extremes([1 / ahead for ahead in at_each_ratio("pat-g")]),
    rf"; {NUMBER} to {NUMBER} as calibrated now \(one seed\)": lambda: extremes(as_calibrated_now("pat-g")),
    rf"shown in {NUMBER} of {NUMBER} tests": lambda: of_verdicts("pat", "pat-g"),
    rf"Corrected for {NUMBER} tests none is shown": lambda: number_of_tests_that_show_none_of("shortgpt-refitted", "llm-pruner-uniform-refitted"),
    rf"it has {NUMBER} to {NUMBER} times that of a cut at once by Fisher information": lambda: extremes(ours_over("pat", "channel-fisher-pft")),
    rf"PAT-G {NUMBER}, PAT with a random mask {NUMBER}, PAT {NUMBER}; pruned first, then tuned: magnitude {NUMBER}, channel Fisher {NUMBER}":
        lambda: of_the_demo("pat-g", "pat-random", "pat", "channel-magnitude-pft", "channel-fisher-pft"),
}  # fmt: skip
"""What the front page says, and what the records give. A sentence that is no longer there is not looked for."""


def front_page() -> str:
    """Return the README in one line."""
    return " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


def test_the_front_page_says_what_the_records_give() -> None:
    page = front_page()
    said = {pattern: found.groups() for pattern in CLAIMS if (found := re.search(pattern, page))}
    assert said
    for pattern, numbers in said.items():
        for number, value in zip(numbers, CLAIMS[pattern](), strict=True):
            assert number == f"{value:.{len(number.partition('.')[2])}f}", (pattern, numbers)


def test_layers_and_neurons_is_ahead_at_each_rate() -> None:
    assert "lower at each of four rates too" in front_page()
    for rival in ("shortgpt-refitted", "llm-pruner-uniform-refitted"):
        ahead = ahead_at_its_rate(rival)
        assert len(ahead) == 12 and max(ahead) < 1, rival


def of_cells(records: Path, row: str) -> dict[tuple[str, str, str], float]:
    """Return a row's perplexities by ratio, seed and text."""
    return {
        (path.parts[-3], path.parts[-2], text): measured["token_perplexity"]
        for path in records.glob(f"evaluation/*/{row}/*/*/cell.json")
        for text, measured in read_json(path)["perplexity"].items()
    }


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The records of the grid, as files again."""
    folder = tmp_path_factory.mktemp("grid") / "records"
    unpack_reference(REFERENCES / "smollm2-full", folder)
    return folder


def test_pairs_of_the_same_seed(records: Path) -> None:
    """What the front page says of every pair is so in the cells themselves."""
    rows = ("pat", "pat-g", "pat-random", "slicegpt-1q-pft", "layers-and-neurons-pft", "layers-and-neurons-ftpft")
    pat, gradient, random, sliced, ours, later = (of_cells(records, row) for row in rows)
    assert len(pat) == len(gradient) == len(random) == len(sliced) == len(ours) == 27 and len(later) == 18
    assert all(pat[pair] < random[pair] and pat[pair] > ours[pair] and gradient[pair] > ours[pair] for pair in ours)
    assert "beat a random one in all 27 pairs" in front_page() and "higher in all 54 pairs" in front_page()
    counts = {"lower than `slicegpt-1q-pft` in": (gradient, sliced), "at a half, lower in": (later, ours)}
    for said, (row, other) in counts.items():
        lower = sum(row[pair] < other[pair] for pair in row)
        assert f"{said} {lower} of {len(row)} pairs" in front_page(), said


REFIT = (
    rf"takes {NUMBER}, {NUMBER} and {NUMBER} % off ShortGPT's perplexity at a half, {NUMBER}, {NUMBER} and {NUMBER} % off LLM-Pruner's, "
    rf"at a quarter {NUMBER} % at most"
)


def test_what_the_refit_takes_off_is_of_the_same_seed(records: Path) -> None:
    off: dict[str, list[float]] = {"0.25": [], "0.5": []}
    for rival in ("shortgpt", "llm-pruner-uniform"):
        refitted, plain = (of_cells(records, f"{rival}-{form}") for form in ("refitted", "pft"))
        for ratio, taken in off.items():
            taken += [100 * (1 - refitted[ratio, "seed0", text] / plain[ratio, "seed0", text]) for text in TEXTS]
    found = re.search(REFIT, front_page())
    assert found and [float(number) for number in found.groups()] == [round(value) for value in (*off["0.5"], max(off["0.25"]))]


SHAPE: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 576, "intermediate_size": 1536,
    "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True,
}  # fmt: skip
"""SmolLM2-135M's, but for the vocabulary."""


def bytes_of_a_layer(tuner: str, dropout: float) -> tuple[float, ...]:
    """Return what one more token keeps in one more layer, as PEFT casts by itself, as a tuning does, and as one does that recomputes."""
    counts = []
    for layers in (1, 2):
        stock: Any = LlamaForCausalLM(LlamaConfig(**SHAPE, num_hidden_layers=layers)).bfloat16()
        rely_on_causal_kernel(stock, 8)
        if tuner == "PAT":
            model: Any = attach(stock, PatConfig(pruning_ratio=0.25, hio_rank=28, lora_rank=32, lora_dropout=dropout, total_steps=300))
        else:
            model = get_peft_model(stock, lora_config(family_of(stock.config), 32, 32.0, dropout, use_dora=False))
        model.train()
        counts.append([kept_of_a_token(model, stock, casts) for casts in (nullcontext(), taken_as_they_are(model, autocast=True))])
        recompute_feed_forward(stock)
        counts[-1].append(kept_of_a_token(model, stock, taken_as_they_are(model, autocast=True)))
    return tuple(two - one for one, two in zip(*counts, strict=True))


def kept_of_a_token(model: Any, stock: Any, casts: AbstractContextManager[None]) -> float:
    with torch.autocast("cpu", torch.bfloat16), casts:
        batches = [{"input_ids": torch.zeros(rows, 8, dtype=torch.long)} for rows in (1, 2)]
        one, two = (kept_bytes(partial(read, model, stock, batch), (*model.parameters(), *model.buffers())) for batch in batches)
    return (two - one) / 8


def test_what_a_token_keeps_for_backward() -> None:
    again = "feed-forward computed again"
    shown = lines(
        "performance.md",
        f"| | dropout | bytes per token and layer, before | now | {again} | GiB for 64 × 256 tokens, before | now | {again} |",
    )
    assert len(shown) == 4
    for tuner, dropout, *entries in shown:
        before, now, recomputed, *gib = (float(entry.replace(",", "")) for entry in entries)
        counted_before, counted_now, counted_recomputed = bytes_of_a_layer(tuner, float(dropout))
        assert (counted_now, counted_recomputed) == (now, recomputed), (tuner, dropout)
        assert gib == pytest.approx([each * 30 * 64 * 256 / GIB for each in (before, now, recomputed)], abs=0.11)
        assert counted_before == before or tuner == "PAT", dropout  # whose operators kept more then


def test_the_figures_of_a_7b_model_have_the_data_of_their_commands(tmp_path: Path) -> None:
    measured = [REFERENCES / "h200" / "benchmark" / f"llama-2-7b-inference-compiled{prompts}.json" for prompts in ("", "-1")]
    fast = speedup.points([read_inference(path) for path in measured], PrintedSpeedup())
    records = {name: record for name, record in packed(REFERENCES / "real-comparison" / ARCHIVE) if OF_MEMORY.search(name)}
    cells = [tmp_path / name for name in records]
    for path, record in zip(cells, records.values(), strict=True):
        write_json(path, record)
    small = memory.points(headline_grid(cells), [read_inference(measured[0])])
    for name, data in (("speedup", fast), ("memory", small)):
        assert csv_text(data, digits=6) == (REFERENCES / "h200" / "figures" / f"{name}.csv").read_text(encoding="utf-8"), name


def test_every_reference_that_a_page_names_is_there_or_its_commit_is_named() -> None:
    pages = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
    named = [
        (page, name, after)
        for page, text in pages.items()
        for name, after in re.findall(r"results/reference/([\w-]+)(.{0,60})", text, re.S)
    ]
    assert len(named) > 10
    missing = [(page, name) for page, name, after in named if not ((REFERENCES / name).is_dir() or re.match(r"/` of\s+commit", after))]
    assert not missing
