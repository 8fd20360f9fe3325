"""The experiment file: the grid it spans, whose settings win, and one message for every mistake in it."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from pat.errors import UserError
from pat.models.bounds import just_above, just_below
from pat.models.width import target_width
from study.experiment.file import load_experiment
from study.experiment.schema import Experiment
from study.figures.memory import MEASURED
from tests.kit.experiments import SMOKE, changed, refusal
from tests.kit.project import ROOT

SHIPPED = sorted((ROOT / "config").glob("*.yaml"))


def factored(*factors: dict[str, object]) -> dict[str, Any]:
    """Return the smoke experiment with an ablation table of two factors and these for one or two rows."""
    names = dict(zip(("pat", "other"), factors, strict=False))
    rows = {row: {"method": "pat", "label": row, "factors": own} for row, own in names.items()}
    return changed("methods", value=rows) | {"tables": {"ablations": {"own": ["mask", "loss"]}}}


def searched(**search: Any) -> dict[str, Any]:
    """Return the smoke experiment with a search in place of its learning rate."""
    raw = changed("tuning", "learning_rate", value=...)
    raw["tuning"]["search"] = {"learning_rates": [1e-3, 1e-2]} | search
    return raw


def loaded(raw: dict[str, Any]) -> Experiment:
    return load_experiment(raw, "x.yaml")


BAD: list[tuple[dict[str, Any], str]] = [
    (changed("sedes", value=[0]), "sedes: unknown key; did you mean 'seeds'?"),
    (changed("models", value={3: {"path": "x"}}), "models.3: is not allowed as a key: must be text; write it in quotes"),
    (changed("methods", value={True: None}), "methods.true: is not allowed as a key: must be text; write it in quotes"),
    (changed("methods", "pat", value={"factors": {1: 2}}), "methods.pat.factors.1: is not allowed as a key: must be text; write it in"),
    (
        changed("data", "instruct", value={"source": "file", "path": "a.csv", "columns": {"question": "q"}}),
        """data.instruct.columns."question": is not allowed as a key: must be 'messages', 'prompt', 'completion'""",
    ),
    (
        changed("data", "text", "held", value={"source": "text", "path": "a.jsonl.xz"}),
        'data.text.held.path: "a.jsonl.xz" is not allowed: must be plain text; a file of rows is read by source: file',
    ),
    (dict[Any, Any](SMOKE) | {3: 4}, "3: is not allowed as a key: must be text; write it in quotes"),
    (changed("root", value=3), "root: 3 is not allowed: must be text"),
    (changed("seeds", value=[]), "seeds: [] is not allowed"),
    (changed("seeds", value=[0, -1]), "seeds.1: -1 is not allowed: must be greater than or equal to 0"),
    (changed("seeds", value=[0, 1, 0]), "seeds: [0, 1, 0] is not allowed: must name each value once; 0 stands there"),
    (changed("seeds", value=...), "seeds: is required"),
    (changed("methods", "pat", value={"seeds": []}), "methods.pat.seeds: [] is not allowed"),
    (changed("methods", "pat", value={"seeds": [0, 0]}), "methods.pat.seeds: [0, 0] is not allowed: must name each value once"),
    (
        changed("methods", "pat", value={"seeds": [1, 0]}) | {"seeds": [0, 2]},
        "methods.pat.seeds: [1] is not allowed: must be among the experiment's seeds, [0, 2]",
    ),
    (
        changed("methods", "lora", value={"seeds": [2]}) | {"seeds": [0, 1, 2]},
        "methods.channel-magnitude-ftp.seeds: [0, 1] is not allowed: the row needs the model of the row 'lora' of the same seed, which runs "
        "with [2]",
    ),
    (
        changed("methods", value={"lora": {"seeds": [0]}, "pat": {"seeds": [1], "tuning": {"distillation": {}}}}) | {"seeds": [0, 1]},
        "methods.pat.seeds: [1] is not allowed: the row needs the model of the row 'lora' of the same seed, which runs with [0]",
    ),
    (changed("ratios", value=[1.0]), "ratios.0: 1.0 is not allowed: must be less than 1"),
    (changed("ratios", value=[0]), "ratios.0: 0 is not allowed: must be greater than 0"),
    (changed("ratios", value=["much"]), 'ratios.0: "much" is not allowed: must be a valid number'),
    (changed("ratios", value=0.25), "ratios: 0.25 is not allowed: must be a list"),
    (changed("ratios", value=[]), "ratios: is empty, though the experiment has methods that prune"),
    (changed("ratios", value=[0.5, 0.51]), "the ratios 0.5 and 0.51 both give width 16 of 32"),
    (changed("name", value="a b"), 'name: the name "a b" is not allowed'),
    (changed("name", value="reference"), 'name: the name "reference" is reserved'),
    (changed("figures", value=["acuracy"]), 'figures.0: "acuracy" is not allowed: must be'),
    (
        changed("figures", value=["perplexity"]) | {"data": {"instruct": {"source": "world"}}},
        'figures: "perplexity" needs a text in data.text',
    ),
    (changed("figures", value=["speedup"]) | {"benchmark": None}, 'figures: "speedup" needs benchmark.inference'),
    (changed("benchmark", value={"shapes": {"llama-2-7b": None}}), "benchmark: measures nothing: give inference, tuning or both"),
    (changed("benchmark", "shapes", value={"llama-7b": None}), 'benchmark.shapes.llama-7b: "llama-7b" is not a known shape; did you mean'),
    (changed("benchmark", "shapes", "tiny", "width", value=3), "benchmark.shapes.tiny.width: unknown key"),
    (changed("benchmark", "shapes", "a b", value=None), 'benchmark.shapes: the name "a b" is not allowed'),
    (changed("benchmark", "inference", "widths", value=[31]), "benchmark.inference.widths: 31 is not allowed: must be a multiple of 2"),
    (
        changed("benchmark", "inference", value={}),
        "benchmark.inference.ratios: give at least one of ratios and widths: a benchmark compares the unpruned model with narrower ones",
    ),
    (changed("benchmark", "inference", "contxt", value=1), "benchmark.inference.contxt: unknown key; did you mean 'context'?"),
    (changed("benchmark", "tuning", value={"pat": {"align": 32}}), "benchmark.tuning.ratio: align=32: widths are multiples of 32"),
    (
        changed("benchmark", "tuning", value={"pat": {"hio_rank": 999}}),
        "benchmark.tuning.pat.hio_rank: 999 is not allowed: must be at most",
    ),
    (changed("models", value={}), "models: {} is not allowed"),
    (changed("models", "../up", value={"path": "x"}), 'models: the name "../up" is not allowed'),
    (changed("models", "data", value={"path": "x"}), 'models: the name "data" is reserved'),
    (
        changed("models", "tiny", "path", value="here"),
        "models.tiny.hub: null is not allowed: give exactly one of pretrain, path, gguf and hub",
    ),
    (changed("models", "tiny", "pretrain", "layers", value="two"), 'models.tiny.pretrain.layers: "two" is not allowed'),
    (changed("models", "tiny", "tuning", value={"precision": "fp8"}), 'models.tiny.tuning.precision: "fp8" is not allowed'),
    (changed("models", "tiny", "resources", value={"tune": {"gpus": 1}}), "models.tiny.resources.tune.gpus: unknown key"),
    (changed("models", "tiny", "evaluation", value={"limit": "all"}), 'models.tiny.evaluation.limit: "all" is not allowed'),
    (changed("methods", "pta", value=None), "methods.pta: \"pta\" is not a method; did you mean 'pat'?"),
    (changed("methods", "frozen", value={"method": "path"}), "methods.frozen: \"path\" is not a method; did you mean 'pat'?"),
    (changed("methods", "pat", value={"pat": {"masks": "frozen"}}), "methods.pat.pat.masks: unknown key; did you mean 'mask'?"),
    (changed("methods", "pat", value={"lora": {"rank": 0}}), "methods.pat.lora.rank: 0 is not allowed: must be greater than 0"),
    (changed("methods", "pat", value={"tuning": {"lora": {"rank": 0}}}), "methods.pat.tuning.lora.rank: 0 is not allowed"),
    (
        changed("methods", "pat", value={"pat": {"hio_rank": 33}}),
        "methods.pat, models.tiny: pat.hio_rank=33: must be at most the model's hidden size, 32",
    ),
    (changed("methods", "pat", value={"pat": {"align": 64}}), "ratio 0.5 is not allowed"),
    (changed("methods", "shortgpt-pft"), "methods.shortgpt-pft, models.tiny: ratio 0.5: the nearest number of layers to drop is 3 of 2"),
    (
        changed("methods", value={"shortgpt-pft": None}) | {"ratios": [0.15, 0.25]},
        "the ratios 0.15 and 0.25 both drop 1 of 2 layers: must differ; keep one",
    ),
    (
        changed("methods", "llm-pruner-uniform-pft"),
        "methods.llm-pruner-uniform-pft, models.tiny: ratio 0.5: attention and feed-forward layers hold too little of the model",
    ),
    (
        changed("methods", "slicegpt-ftp") | {"ratios": [0.8]},
        "methods.slicegpt-ftp, models.tiny: ratio 0.8: the head, the last layer's output and the shortcuts",
    ),
    (
        changed("methods", "llm-pruner-pft", value={"prune": {"protect_first": 2}}),
        "methods.llm-pruner-pft, models.tiny: protect_first 2 and protect_last 0: leave none of 2 layers to prune",
    ),
    (
        changed("methods", value={"slicegpt-pft": {"prune": {"size": "nominal"}}}) | {"ratios": [0.4, 0.41], "pat": {"align": 4}},
        "the ratios 0.4 and 0.41 both give the same sizes",
    ),
    (changed("prune", value={"size": "exact"}), "prune.size: \"exact\" is not allowed: must be 'matched' or 'nominal'"),
    (changed("prune", value={"protect_frst": 1}), "prune.protect_frst: unknown key; did you mean 'protect_first'?"),
    (changed("methods", "wanda-sp-pft", value={"prune": {"sise": "nominal"}}), "methods.wanda-sp-pft.prune.sise: unknown key"),
    (
        changed("methods", "lora", value={"prune": {"size": "nominal"}}),
        "methods.lora.prune: has no effect: the method 'lora' has no pruner",
    ),
    (
        changed("methods", "channel-magnitude-pft", value={"prune": {"tie": "break"}}),
        "methods.channel-magnitude-pft.prune.tie: has no effect: the settings of channel-magnitude are: writers; remove it",
    ),
    (
        changed("methods", "channel-magnitude-pft", value={"prune": {"writer_tokens": 4096}}),
        "methods.channel-magnitude-pft.prune.writer_tokens: has no effect: its writers stay plain unless `writers: refitted` is set; remove it",
    ),
    (
        changed("methods", "slicegpt-pft", value={"prune": {"writer_tokens": 4096}}),
        "methods.slicegpt-pft.prune.writer_tokens: has no effect: the settings of slicegpt are: size; remove it",
    ),
    (
        changed("methods", "channel-magnitude-pft", value={"prune": {"writers": "refitted", "writer_tokens": 50}}),
        "methods.channel-magnitude-pft, models.tiny: prune.writer_tokens: 50 is not allowed: must be at least",
    ),
    (changed("prune", value={"writer_tokens": 0}), "prune.writer_tokens: 0 is not allowed: must be greater than 0"),
    (
        changed("methods", "lora", value={"pat": {"hio_rank": 2}}),
        "methods.lora.pat.hio_rank: has no effect: the method 'lora' trains no mask; remove it",
    ),
    (
        changed("methods", "pat", value={"pat": {"readers": "least-squares"}}),
        "methods.pat.pat.readers: \"least-squares\" is not allowed: must be 'plain' where the mask is trained",
    ),
    (changed("pat", "readers", value="ridge"), "pat.readers: \"ridge\" is not allowed: must be 'plain' or 'least-squares'"),
    (
        changed("methods", "lora", value={"pat": {"mask": "leading", "readers": "least-squares"}}),
        "methods.lora.pat.readers: has no effect: the method 'lora' trains no mask",
    ),
    (
        changed("methods", "pat-g", value=...) | {"refit": {"ridges": [1e-3]}},
        "refit.ridges: has no effect: no row refits readers (pat.readers: least-squares); remove it",
    ),
    (
        changed("resources", "tune", "gpu", value=3),
        "resources.tune.gpu: 3 is not allowed: models.tiny's batch_size 4 cannot be shared by 3",
    ),
    (changed("models", "tiny", "resources", "tune", "gpu", value=8), "resources.tune.gpu: 8 is not allowed"),
    (changed("tuning", "shard", value=True), "tuning.shard: has no effect on models.tiny, which is tuned on one GPU"),
    (changed("methods", "pat", value={"tuning": {"shard": True, "compile": True}}), "must be false with compile: true"),
    (changed("methods", "dora", value={"tuning": {"shard": True}}), "methods.dora: is not possible with tuning.shard on models.tiny"),
    (changed("methods", "pat", value={"tuning": {"max_steps": 2}}), "max_steps 2 with milestone_fraction 0.333333 is not allowed"),
    (
        changed("methods", "channel-magnitude-ftpft", value={"tuning": {"warmup_steps": 5}}),
        "methods.channel-magnitude-ftpft: tuning.max_steps 12 with pat.milestone_fraction 0.333333 is not allowed: leaves 4 before the cut, "
        "less than tuning.warmup_steps, 5",
    ),
    (
        changed("methods", "channel-magnitude-ftpft", value={"pat": {"milestone_fraction": 1}}),
        "methods.channel-magnitude-ftpft: tuning.max_steps 12 with pat.milestone_fraction 1 is not allowed: leaves 0 after the cut, less than "
        "one step",
    ),
    (
        changed("methods", "channel-magnitude-ftpft", value={"pat": {"milestone_fraction": 1}, "tuning": {"epochs": 2}}),
        "methods.channel-magnitude-ftpft: tuning.epochs 2 with pat.milestone_fraction 1 is not allowed: leaves nothing after the cut",
    ),
    (
        changed("methods", "channel-magnitude-ftpft", value={"pat": {"hio_rank": 2}}),
        "methods.channel-magnitude-ftpft.pat.hio_rank: has no effect: the method 'channel-magnitude-ftpft' trains no mask; of pat it takes "
        "align and milestone_fraction; remove it",
    ),
    (
        changed("methods", "channel-magnitude-pft", value={"pat": {"milestone_fraction": 0.5}}),
        "methods.channel-magnitude-pft.pat.milestone_fraction: has no effect: the method 'channel-magnitude-pft' trains no mask",
    ),
    (changed("methods", "lora", value=...), "methods.channel-magnitude-ftp: prunes what the row 'lora' has tuned"),
    (changed("methods", "channel-magnitude-ftp", value={"lora": {"rank": 2}}), "methods.channel-magnitude-ftp.lora: has no effect"),
    (changed("methods", "other", value={"method": "pat"}), "methods.other: is called \"PAT\" in the tables, as is 'pat': give it a label"),
    (
        changed("methods", "given", value={"checkpoint": {"path": "x"}, "label": "PAT"}),
        "methods.given: is called \"PAT\" in the tables, as is 'pat': give it a label",
    ),
    (
        changed("methods", "dora", value={"label": "Channel magnitude P→FT"}),
        "methods.channel-magnitude-pft: is called \"Channel magnitude P→FT\" in the tables, as is 'dora': give it a label",
    ),
    (
        changed("tables", value={"ablation": {}}),
        "tables.ablation: unknown key; did you mean 'ablations'?; allowed: ablations, accuracy, reference",
    ),
    (changed("tables", value={"accuracy": "table2"}), 'tables.accuracy: "table2" is not allowed: must be'),
    (changed("tables", value={"reference": "pta"}), "tables.reference: \"pta\" is not a row of methods; did you mean 'pat'?; allowed: "),
    (changed("tables", value={"ablations": {"a/b": ["mask"]}}), 'tables.ablations: the name "a/b" is not allowed'),
    (
        changed("tables", value={"ablations": {"mask_acc": ["mask"]}}),
        'tables.ablations: the name "mask_acc" is not allowed: a table that ends in _acc is the one of that scoring',
    ),
    (
        changed("models", "my_acc_norm", value={"path": "x"}),
        'models: the name "my_acc_norm" is not allowed: a table that ends in _acc_norm',
    ),
    (
        changed("tables", value={"ablations": {"own": ["mask", "loss", "mask"]}}),
        'tables.ablations.own: ["mask", "loss", "mask"] is not allowed: must name each value once; mask stands there more often',
    ),
    (changed("methods", MEASURED, value={"method": "lora"}), 'methods: the name "measured" is reserved'),
    (changed("tables", value={"ablations": {"mask": ["mask"]}}), "tables.ablations.mask: no row has its factors (mask)"),
    (changed("methods", "pat", value={"factors": {"mask": 1}}), "methods.pat.factors.mask: unknown factor; no table shows factors"),
    (factored({"maks": "frozen"}), "methods.pat.factors.maks: unknown factor; did you mean 'mask'?; allowed: loss, mask"),
    (factored({"mask": "frozen"}), "methods.pat.factors: gives mask alone: must give all factors of a table: mask, loss (own)"),
    (
        factored({"mask": "frozen", "loss": True, "basis": "pca"})
        | {"tables": {"ablations": {"own": ["mask", "loss"], "b": ["basis", "rank"]}}},
        "methods.pat.factors: gives basis alone: must give all factors of a table: basis, rank (b)",
    ),
    (changed("tables", value={"ablations": {"own": ["method"]}}), 'tables.ablations.own: the factor "method" is not allowed: a column'),
    (factored({"mask": ["frozen"], "loss": True}), 'methods.pat.factors.mask: ["frozen"] is not allowed'),
    (
        factored({"mask": "frozen", "loss": True}, {"mask": "frozen", "loss": True}),
        "methods.other.factors: has the place of 'pat' in tables.ablations.own (mask \"frozen\", loss true): must differ in a factor",
    ),
    (changed("data", "tasks", "capitls", value={"source": "world"}), "data.tasks.capitls: the embedded world has nothing of this name"),
    (changed("data", "tasks", "x", value={"source": "zip"}), 'data.tasks.x.source: "zip" is not allowed: must be one of'),
    (changed("data", "tasks", "x", value={"path": "y"}), "data.tasks.x.source: is required"),
    (changed("data", "tasks", "x", value={"source": "json", "pth": "y"}), "data.tasks.x.pth: unknown key; did you mean 'path'?"),
    (changed("data", "tasks", "x", value=3), "data.tasks.x: 3 is not allowed: must be a mapping"),
    (changed("data", "text", "a/b", value={"source": "text", "path": "y"}), 'data.text: the name "a/b" is not allowed'),
    (changed("data", "text", "pretrain", value={"source": "text", "path": "y"}), 'data.text: the name "pretrain" is reserved'),
    (changed("data", "pretrain", value=...), "data.pretrain: is required, because models.tiny is pretrained"),
    (changed("data", "calibration", value="heldout"), 'data.calibration: "heldout" is not allowed: must be'),
    (
        changed("models", value={"here": {"path": "x"}}) | {"data": {**SMOKE["data"], "pretrain": None, "calibration": "pretrain"}},
        "data.pretrain: is required, because data.calibration is 'pretrain'",
    ),
    (changed("data", value={"instruct": {"source": "world"}}), "data.tasks: is empty, and so are data.text"),
    (changed("tuning", value=3), "tuning: 3 is not allowed: must be a mapping"),
    (
        changed("tuning", "learning_rate", value=...),
        "tuning.learning_rate: null is not allowed: give exactly one of learning_rate and search",
    ),
    (
        changed("tuning", "search", value={"learning_rates": [1e-3, 1e-2]}),
        "tuning.learning_rate: 0.002 is not allowed: give exactly one of learning_rate and search",
    ),
    (searched(learning_rates=[1e-3]), "tuning.search.learning_rates: [0.001] is not allowed"),
    (searched(learning_rates=[1e-3, "1e-3"]), "must name each value once; 0.001 stands there more often"),
    (searched(learning_rates=[1e-3, 0]), "tuning.search.learning_rates.1: 0 is not allowed: must be greater than 0"),
    (searched(dev_rows=0), "tuning.search.dev_rows: 0 is not allowed"),
    (searched(rates=3), "tuning.search.rates: unknown key"),
    (searched(steps=2), "methods.pat: search.steps 2 with milestone_fraction 0.333333 is not allowed"),
    (
        searched() | {"methods": {"lora": None, "pat": {"tuning": {"search": {"learning_rates": [1, 2, 3]}}}}},
        "methods.pat.tuning: searches its learning rate among 3 rates, 12 steps each, by 256 rows, the row 'lora' among 2 rates, 12 steps",
    ),
    (
        searched() | {"methods": {"lora": None, "pat": {"tuning": {"max_steps": 24}}}},
        "methods.pat.tuning: searches its learning rate among 2 rates, 24 steps each",
    ),
    (changed("tuning", "epochs", value=1), "give exactly one of epochs and max_steps"),
    (changed("resources", value={"tune": {"mem_mb": 1}}), "resources.tune.mem_mb: 1 is not allowed"),
    (changed("tuning", "distillation", value=True), "tuning.distillation: true is not allowed: must be a mapping"),
    (
        changed("tuning", "distillation", value={"weight": 2}),
        "tuning.distillation.weight: 2 is not allowed: must be less than or equal to 1",
    ),
    (changed("tuning", "distillation", value={"temperature": 0}), "tuning.distillation.temperature: 0 is not allowed"),
    (changed("methods", "pat", value={"tuning": {"distillation": {"wieght": 1}}}), "methods.pat.tuning.distillation.wieght: unknown key"),
    (
        changed("methods", "lora", value={"tuning": {"distillation": {}}}),
        "methods.lora.tuning.distillation: is not allowed: the row 'lora' is",
    ),
    (changed("models", "tiny", "tuning", value={"distillation": {}}), "models.tiny.tuning.distillation: is not allowed: must stand in"),
    (
        changed("methods", value={"pat": {"tuning": {"distillation": {}}}}),
        "methods.pat: distils from what the row 'lora' has tuned: the experiment needs that row too",
    ),
]


@pytest.mark.parametrize(("raw", "expected"), BAD, ids=[expected[:60] for _, expected in BAD])
def test_a_mistake_names_field_value_and_what_is_allowed(raw: dict[str, Any], expected: str) -> None:
    assert any(expected in line for line in refusal(raw)), refusal(raw)


def test_all_mistakes_of_a_file_come_at_once() -> None:
    raw = changed("methods", "pat", value={"lora": {"rnk": 4}})
    raw |= {"sedes": [1], "ratios": [2], "tuning": {**raw["tuning"], "schedule": "step"}, "name": "../x"}
    raw["models"]["other"] = {"pretrain": {"layers": 0}}
    raw["data"]["tasks"]["paris"] = {"source": "world"}
    found = {line.split(": ")[0] for line in refusal(raw)}
    assert {"sedes", "ratios.0", "tuning.schedule", "name", "models.other.pretrain.layers", "data.tasks.paris"} < found
    assert "methods.pat.lora.rnk" in found


@pytest.mark.parametrize("raw", [None, [], 3, "text", {}, {"models": 3, "methods": [1], "data": "", "seeds": {}, "tuning": [], 3: 4}])
def test_files_of_another_shape_are_refused(raw: object) -> None:
    assert refusal(raw)


wild = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(SMOKE)), wild)
def test_any_value_anywhere_is_taken_or_refused_with_a_message(field: str, value: object) -> None:
    try:
        load_experiment(SMOKE | {field: value}, "x.yaml")
    except UserError as error:
        assert f"x.yaml: {field}" in str(error) or "x.yaml: m" in str(error) or "x.yaml: data" in str(error)


@given(st.text(min_size=1, max_size=80) | st.sampled_from(["..", ".", "a/b", "-rf", "a;b", "a b", "a'b", "$(x)", "a\nb", "{x}", "~"]))
def test_a_name_that_is_taken_is_one_safe_step_of_a_path(name: str) -> None:
    raw = deepcopy(SMOKE)
    raw["models"] = {name: raw["models"]["tiny"]}
    try:
        cells = loaded(raw).cells()
    except UserError as error:
        assert "models" in str(error)
        return
    assert name not in ("", ".", "..")
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert not name.startswith(("-", "."))
    assert all(PurePosixPath(cell.path).parts[0] == name for cell in cells)


def test_the_grid_is_models_by_rows_by_ratios_by_seeds() -> None:
    raw = SMOKE | {"seeds": [3, 1], "ratios": [0.25, 0.5]}
    cells = loaded(raw).cells()
    rows = [loaded(raw).method(row) for row in SMOKE["methods"]]
    pruning, given = sum(row.prunes for row in rows), sum(row.order == "given" for row in rows)
    seeded = len(rows) - pruning - given
    assert given and seeded and len(cells) == 2 * (2 * pruning + seeded) + given, "a given model has neither ratios nor seeds"
    assert len({cell.path for cell in cells}) == len(cells)
    assert [str(cell.path) for cell in cells[:3]] == ["tiny/base/0/seed3", "tiny/lora/0/seed3", "tiny/lora/0/seed1"]


def test_a_row_may_run_with_some_of_the_seeds() -> None:
    experiment = loaded(changed("methods", "pat", value={"seeds": [1, 4]}) | {"seeds": [3, 4, 1]})
    found = {row: [cell.seed for cell in experiment.cells() if cell.row == row] for row in ("lora", "pat")}
    assert found == {"lora": [3, 4, 1], "pat": [1, 4]}


def test_seeds_of_seven_digits_are_not_taken_for_one() -> None:
    assert {cell.seed for cell in loaded(SMOKE | {"seeds": [1_000_001, 1_000_002]}).cells()} == {1_000_001, 1_000_002}


def test_ratios_may_share_a_width_where_no_row_narrows_the_model() -> None:
    raw = changed("methods", value={"llm-pruner-pft": None, "wanda-sp-pft": None}) | {"ratios": [0.2, 0.21]}
    assert len(loaded(raw).cells()) == 4


@pytest.mark.parametrize("own", [{}, {"kv_heads": 1}, {"tie_embeddings": True}])
def test_a_layers_share_is_counted_as_stock_software_counts(own: dict[str, Any]) -> None:
    raw = changed("methods", value={"shortgpt-pft": None})
    shape = raw["models"]["tiny"]["pretrain"]
    shape |= own
    stock = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=own.get("kv_heads", 2), tie_word_embeddings=own.get("tie_embeddings", False),
        )
    )  # fmt: skip
    layer = sum(parameter.numel() for parameter in stock.model.layers[0].parameters())
    share = layer / sum(parameter.numel() for parameter in stock.parameters())
    (line,) = refusal(raw | {"ratios": [0.9]})
    possible = f"ratios from {just_above(share / 2):.1%} to {just_below(share * 1.5):.1%} are possible"
    assert f"each is {share:.1%} of all parameters: {possible}" in line


def test_a_variant_row_has_its_own_name_label_and_settings() -> None:
    raw = changed("methods", "frozen", value={"method": "pat", "label": "PAT, frozen", "pat": {"mask": "frozen"}, "lora": {"rank": 7}})
    experiment = loaded(raw)
    job = experiment.tune_job("tiny", "frozen")
    assert (experiment.method("frozen").name, experiment.label("frozen")) == ("pat", "PAT, frozen")
    assert (job.pat.mask, job.tuning.lora.rank) == ("frozen", 7)
    assert experiment.tune_job("tiny", "pat").tuning.lora.rank == SMOKE["tuning"]["lora"]["rank"]


def test_the_row_wins_over_the_model_and_the_model_over_the_recipe() -> None:
    raw = changed("methods", "pat", value={"tuning": {"warmup_steps": 3}})
    raw["models"]["tiny"] |= {"tuning": {"warmup_steps": 2, "weight_decay": 0.5}, "pat": {"hio_rank": 3}, "evaluation": {"batch_size": 2}}
    experiment = loaded(raw)
    own, others = experiment.tune_job("tiny", "pat"), experiment.tune_job("tiny", "lora")
    assert (own.tuning.warmup_steps, own.tuning.weight_decay, own.pat.hio_rank) == (3, 0.5, 3)
    assert (others.tuning.warmup_steps, others.tuning.weight_decay) == (2, 0.5)
    assert experiment.evaluation_of("tiny").batch_size == 2


def test_a_later_length_of_training_replaces_the_earlier() -> None:
    experiment = loaded(changed("methods", "lora", value={"tuning": {"epochs": 2}}))
    job = experiment.tune_job("tiny", "lora")
    assert (job.tuning.epochs, job.tuning.max_steps) == (2, None)


def test_distillation_is_every_rows_but_the_teachers_and_the_tables_say_whose() -> None:
    raw = changed("tuning", "distillation", value={"weight": 0.25})
    raw["methods"]["pat"] = {"tuning": {"distillation": {"temperature": 2}}}
    raw["methods"]["dora"] = {"label": "DoRA, data alone", "tuning": {"distillation": None}}
    raw["methods"]["again"] = {"method": "lora"}
    experiment = loaded(raw)
    found = {row: experiment.tune_job("tiny", row).tuning.distillation for row in experiment.methods}
    settings = {row: (it.weight, it.temperature) for row, it in found.items() if it}
    others = ("pat-dora", "pat-g", "channel-magnitude-pft", "channel-magnitude-ftpft", "again")
    assert settings == {"pat": (0.25, 2.0), **dict.fromkeys(others, (0.25, 1.0))}
    labels = {row: experiment.label(row) for row in experiment.methods}
    assert {row for row, label in labels.items() if label.endswith(", distilled")} == set(settings)
    assert (labels["pat"], labels["dora"], labels["channel-magnitude-ftp"]) == ("PAT, distilled", "DoRA, data alone", "Channel magnitude")


def test_a_rate_replaces_a_search_and_a_search_a_rate() -> None:
    raw = searched(steps=6)
    raw["methods"] |= {"lora": {"tuning": {"learning_rate": 5e-3}}, "pat": {"tuning": {"search": {"learning_rates": [1e-2, 1e-1]}}}}
    tunings = {row: loaded(raw).tune_job("tiny", row).tuning for row in ("lora", "dora", "pat")}
    assert (tunings["lora"].learning_rate, tunings["lora"].search) == (5e-3, None)
    assert tunings["dora"].learning_rate is None
    found = {row: (it.search.learning_rates, it.search.steps) for row, it in tunings.items() if it.search}
    assert found == {"dora": ((1e-3, 1e-2), 6), "pat": ((1e-2, 1e-1), 6)}
    again = changed("methods", "pat", value={"tuning": {"search": {"learning_rates": [1e-2, 1e-1]}}})
    assert loaded(again).tune_job("tiny", "pat").tuning.learning_rate is None


def test_settings_that_are_not_used_leave_a_jobs_hash_as_it_was() -> None:
    written = loaded(SMOKE).tune_job("tiny", "lora").model_dump(mode="json")
    assert not {"distillation", "search"} & written["tuning"].keys()
    assert not {"basis", "closing", "readers"} & written["pat"].keys()


def test_how_sizes_are_found_is_the_rows_then_the_models_then_the_experiments() -> None:
    raw = changed("methods", value={"llm-pruner-pft": {"prune": {"protect_first": 0}}, "slicegpt-pft": None})
    raw |= {"prune": {"size": "nominal", "protect_first": 1}}
    raw["models"]["tiny"]["prune"] = {"protect_last": 1}
    experiment = loaded(raw)
    own, others = (experiment.prune_settings("tiny", row) for row in ("llm-pruner-pft", "slicegpt-pft"))
    assert (own.size, own.protect_first, own.protect_last) == ("nominal", 0, 1)
    assert others.size == "nominal" and (others.protect_first, others.protect_last) == (None, None)  # which it has no use for


def test_numbers_without_a_dot_are_numbers() -> None:
    """YAML 1.1 reads 1e-3 as text."""
    assert loaded(changed("tuning", "learning_rate", value="1e-3")).tune_job("tiny", "lora").tuning.learning_rate == 1e-3


def test_relative_paths_start_from_the_root_and_absolute_ones_stay(tmp_path: Path) -> None:
    experiment = loaded(SMOKE | {"root": "my/data"})
    assert experiment.path("a.json") == "my/data/a.json"
    assert experiment.path(str(tmp_path)) == str(tmp_path)


@pytest.mark.parametrize(("ratio", "width"), [(0.2, 3264), (0.25, 3072), (0.3, 2880)])
def test_the_papers_widths(ratio: float, width: int) -> None:
    assert target_width(4096, 32, ratio, 64) == width


@pytest.mark.parametrize("path", SHIPPED, ids=[path.name for path in SHIPPED])
def test_shipped_experiments_are_valid(path: Path) -> None:
    assert load_experiment(path, path.name).cells()


def test_a_mask_that_closes_at_once_needs_no_steps_to_close() -> None:
    row = {"tuning": {"max_steps": 1}, "pat": {"mask": "random", "closing": "at-once"}}
    assert loaded(changed("methods", "pat", value=row)).tune_job("tiny", "pat").tuning.max_steps == 1


def test_a_methods_own_mask_settings_hold_under_what_the_row_says() -> None:
    raw = changed("methods", value={"pat-g": None, "wide": {"method": "pat-g", "label": "wide", "pat": {"hio_rank": 3}}, "pat": None})
    raw["pat"] = {**raw["pat"], "hio_rank": 5, "mask": "random"}
    found = {row: loaded(raw).tune_job("tiny", row).pat for row in raw["methods"]}
    assert [(it.basis, it.mask, it.closing, it.readers, it.hio_rank) for it in found.values()] == [
        ("gradient", "leading", "at-once", "least-squares", 0),
        ("gradient", "leading", "at-once", "least-squares", 3),
        ("native", "random", "gradual", "plain", 5),
    ]
    assert "methods.pat-g" in refusal(changed("methods", "pat-g", value="leading"))[0]


@pytest.mark.parametrize(
    ("block", "wrong", "right", "message"),
    [
        ("tuning", {"max_length": "long"}, {"max_length": 64}, 'tuning.max_length: "long" is not allowed'),
        ("tuning", {"lora": {"rank": -1}}, {"lora": {"rank": 2}}, "tuning.lora.rank: -1 is not allowed"),
        ("pat", {"hio_rank": []}, {"hio_rank": 2}, "pat.hio_rank: [] is not allowed"),
        ("prune", {"size": "small"}, {"size": "nominal"}, 'prune.size: "small" is not allowed'),
    ],
)
def test_a_value_that_cannot_be_is_told_though_every_row_overrides_it(
    block: str, wrong: dict[str, Any], right: dict[str, Any], message: str
) -> None:
    raw: Any = changed(block, value={**SMOKE.get(block, {}), **wrong})
    raw["models"]["tiny"] = {**raw["models"]["tiny"], block: right}
    assert sum(message in line for line in refusal(raw)) == 1


def test_what_only_the_joined_settings_have_is_no_problem_of_a_place() -> None:
    raw: Any = changed("models", "tiny", "tuning", value={"warmup_steps": 1})
    load_experiment(raw, "x.yaml")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), ""])
def test_a_factor_that_says_nothing_is_refused(value: Any) -> None:
    assert "methods.lora.factors.own" in "\n".join(refusal(changed("methods", "lora", value={"factors": {"own": value}})))


@pytest.mark.parametrize(("name", "value"), [("mem_mb", 10**24), ("runtime", 10**24), ("gpu", 10**24)])
def test_resources_beyond_every_machine_are_refused(name: str, value: int) -> None:
    assert f"resources.tune.{name}: {value} is not allowed" in "\n".join(refusal(changed("resources", value={"tune": {name: value}})))
