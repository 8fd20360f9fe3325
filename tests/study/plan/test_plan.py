"""The plan behind the rules: constraints that match nothing else, resources that grow, sources that may be away, equal arguments."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pat.errors import UserError
from pat.io.artefacts import write_json, write_jsonl
from study.experiment.file import load_experiment
from study.experiment.schema import Experiment
from study.plan.jobs import Plan
from study.plan.values import as_json, existing, one_of
from study.results.collect import joined
from tests.kit.project import ROOT

names = st.text(alphabet="ab.-_|+()", min_size=1, max_size=6)


def smoke(**changes: Any) -> Experiment:
    return load_experiment(yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text()) | changes, "x.yaml")


def job(row: str = "pat", ratio: str = "0.5", **others: str) -> Any:
    return SimpleNamespace(model="tiny", row=row, ratio=ratio, seed="0", **others)


@given(st.lists(names, max_size=4), names)
def test_a_constraint_matches_its_names_alone(known: list[str], name: str) -> None:
    assert bool(re.fullmatch(one_of(known), name)) == (name in known)


def test_equal_settings_are_equal_arguments_whatever_their_order() -> None:
    assert as_json({"b": 1, "a": {"d": 2, "c": 3}}) == as_json({"a": {"c": 3, "d": 2}, "b": 1})


def test_sources_that_are_away_are_no_inputs(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    for name in ("b.json", "inner/a.json"):
        (tmp_path / "folder" / name).touch()
    assert existing(tmp_path / "gone") == []
    assert existing(tmp_path / "folder") == [str(tmp_path / "folder" / name) for name in ("b.json",)]  # what lies deeper is not read


def test_pruners_measure_on_the_instructions_or_on_the_corpus() -> None:
    data = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())["data"]
    own = Plan(smoke(data=data | {"calibration": "instruct"}))
    assert own.data.calibration_file() == own.data.instruct_file() and not own.data.mixed_files()
    plan = Plan(smoke(models={"here": {"path": "x"}}, data=data | {"calibration": "pretrain"}))
    assert plan.data.calibration_file() == plan.data.corpus_files()[0] != plan.data.instruct_file()
    assert plan.data.calibration_file() not in plan.data.text_files()


def test_calibration_text_is_half_instructions_half_corpus_unless_told_otherwise() -> None:
    data = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())["data"]
    plan = Plan(smoke(data={name: value for name, value in data.items() if name != "calibration"}))
    assert plan.data.mixed_files() == [plan.data.calibration_file()] == ["results/smoke/data/calibration.jsonl"]
    assert plan.data.mixed_from() == [plan.data.instruct_file(), *plan.data.corpus_files()]
    assert [option.partition(":")[0] for option in plan.data.mixing_options(None)] == ["0.5", "0.5"]
    shares = [{"of": "instruct", "share": 0.2}, {"of": "pretrain", "share": 0.6}]
    options = Plan(smoke(data=data | {"calibration": shares})).data.mixing_options(None)
    assert [option.partition(":")[0] for option in options] == ["0.2", "0.6"]
    alone = {name: value for name, value in data.items() if name not in ("calibration", "pretrain")}
    here = Plan(smoke(models={"here": {"path": "x"}}, data=alone))
    assert here.data.calibration_file() == here.data.instruct_file()


def test_a_tuning_is_told_which_sets_of_the_hub_it_learns_from() -> None:
    data = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())["data"]
    tasks = {
        "a": {"source": "hub", "layout": "arc_easy"},
        "b": {"source": "hub", "layout": "arc_challenge"},
        "c": {"source": "json", "path": "x.jsonl"},
    }
    for source, expected in (
        ({"source": "hub", "id": "someone/rows"}, "--dataset someone/rows"),
        ({"source": "tasks", "of": tasks}, "--dataset allenai/ai2_arc"),
        ({"source": "json", "path": "x.jsonl"}, ""),
        (data["instruct"], ""),
    ):
        plan = Plan(smoke(data=data | {"instruct": source, "tasks": {}, "pretrain": {"source": "hub", "id": "someone/texts"}}))
        assert plan.data.instruct_datasets(job(), None) == expected
        assert plan.data.corpus_datasets(job(), None) == "--dataset someone/texts"


def test_every_further_attempt_gets_more_and_a_model_may_ask_for_its_own() -> None:
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    raw["models"]["tiny"]["resources"] = {"tune": {"mem_mb": 1000, "gpu": 2}}
    plan = Plan(load_experiment(raw, "x.yaml"))
    assert [plan.memory("tune")(job(), attempt) for attempt in (1, 2, 3)] == [1000, 1500, 2000]
    assert plan.gpu("tune")(job()) == 2
    assert plan.gpu("tune")(SimpleNamespace()) == 0


@pytest.mark.parametrize(
    ("row", "base", "ratio", "steps"),
    [
        ("pat", "models/{model}", "0.5", ["pat/0.5/seed0/merged/merge.json"]),
        (
            "channel-magnitude-pft",
            "checkpoints/{model}/{row}/{ratio}/seed{seed}/pruned",
            "0",
            ["channel-magnitude-pft/0.5/seed0/pruned/prune.json", "channel-magnitude-pft/0.5/seed0/merged/merge.json"],
        ),
        (
            "channel-magnitude-ftp",
            "models/{model}",
            "0",
            ["lora/0/seed0/merged/merge.json", "channel-magnitude-ftp/0.5/seed0/merged/prune.json"],
        ),
        (
            "channel-magnitude-ftpft",
            "checkpoints/{model}/{row}/{ratio}/seed{seed}/pruned",
            "0",
            [
                "channel-magnitude-ftpft/before/seed0/merged/merge.json",
                "channel-magnitude-ftpft/0.5/seed0/pruned/prune.json",
                "channel-magnitude-ftpft/0.5/seed0/merged/merge.json",
            ],
        ),
    ],
)
def test_a_methods_order_decides_base_ratio_and_steps(row: str, base: str, ratio: str, steps: list[str]) -> None:
    plan = Plan(smoke())
    assert plan.tunings.base(job(row)) == f"results/smoke/{base}/manifest.json"
    assert plan.tunings.ratio(job(row)) == ratio
    assert plan.cells.step_records(job(row)) == " ".join(f"--step results/smoke/checkpoints/tiny/{step}" for step in steps)


ROW = "channel-magnitude-ftpft"
BEFORE = f"results/smoke/checkpoints/tiny/{ROW}/before"


def lengths(plan: Plan, key: str, row: str = ROW) -> list[Any]:
    """Return how long the parts of a row's tuning are, and the whole that its search tries."""
    found = [plan.tunings.settings(job(row, ratio)) for ratio in ("before", "0.5")]
    return [json.loads(settings)["tuning"].get(key) for settings in (*found, plan.tunings.whole_settings(job(row, "before")))]


def test_what_is_tuned_before_the_cut_lies_where_all_ratios_of_a_row_find_it() -> None:
    plan = Plan(smoke(ratios=[0.25, 0.5]))
    assert plan.tunings.base(job(ROW, "before")) == "results/smoke/models/{model}/manifest.json"
    assert plan.tunings.ratio(job(ROW, "before")) == "0"
    assert {plan.tunings.pruned_from(job(ROW, ratio)) for ratio in ("0.25", "0.5")} == {f"{BEFORE}/seed0/merged/manifest.json"}
    assert plan.tunings.pruned_from(job("channel-magnitude-pft")) == "results/smoke/models/tiny/manifest.json"
    assert plan.tunings.asked_ratio(job(ROW)) == "0.5"
    assert plan.cells.earlier_tuning(job(ROW)) == f"--before {BEFORE}/seed0/adapter/tuning.json"
    assert plan.cells.tuning_record(job(ROW)) == f"results/smoke/checkpoints/tiny/{ROW}/0.5/seed0/adapter/tuning.json"
    assert plan.cells.earlier_tuning(job("channel-magnitude-pft")) == plan.cells.earlier_tuning(job("lora", "0")) == ""
    assert (plan.cells.levels(), plan.cells.levels(tuned=True)) == (["0", "0.25", "0.5"], ["0", "0.25", "0.5", "before"])
    assert "before" not in Plan(smoke(methods={"lora": None})).cells.levels(tuned=True)


def test_the_steps_of_a_tuning_are_shared_out_before_and_after_the_cut() -> None:
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    assert lengths(Plan(smoke()), "max_steps") == [4, 8, 12]  # a third, as PAT's milestone
    raw["methods"]["half"] = {"method": ROW, "label": "half", "pat": {"milestone_fraction": 0.5}, "tuning": {"max_steps": 5}}
    raw["methods"]["soon"] = {"method": ROW, "label": "soon", "pat": {"milestone_fraction": 0.001}}
    raw["methods"]["epochs"] = {"method": ROW, "label": "epochs", "tuning": {"epochs": 3}}
    plan = Plan(load_experiment(raw, "x.yaml"))
    assert [lengths(plan, "max_steps", row) for row in ("half", "soon")] == [[2, 3, 5], [1, 11, 12]]
    third = pytest.approx(1 / 3, abs=1e-6)
    assert lengths(plan, "epochs", "epochs") == [3, 3, 3]
    assert lengths(plan, "share", "epochs") == [[0, third], [third, 1], None]
    assert lengths(Plan(smoke(pat={"milestone_fraction": 0.75, "align": 1, "hio_rank": 2})), "max_steps") == [9, 3, 12]
    first, second = (json.loads(plan.tunings.settings(job("half", ratio))) for ratio in ("before", "0.5"))
    assert first["tuning"] | {"max_steps": 3, "data_order": 1} == second["tuning"] and first["pat"] == second["pat"]


def test_a_tuning_in_two_parts_is_searched_once_for_all_ratios_on_the_whole_base() -> None:
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text()) | {"seeds": [3, 0], "ratios": [0.25, 0.5]}
    del raw["tuning"]["learning_rate"]
    raw["tuning"]["search"] = {"learning_rates": [1e-3, 1e-2]}
    plan = Plan(load_experiment(raw, "x.yaml"))
    assert [plan.tunings.rate(job(ROW, ratio)) for ratio in ("before", "0.25", "0.5")] == 3 * [[f"{BEFORE}/rate.json"]]
    arm = SimpleNamespace(model="tiny", row=ROW, ratio="before")
    assert plan.tunings.on_first_seed(plan.tunings.base)(arm) == "results/smoke/models/tiny/manifest.json"
    assert (plan.tunings.search_folder(arm), plan.tunings.ratio(job(ROW, "before"))) == (f"{BEFORE}/search", "0")


def test_rows_in_one_basis_share_the_rotated_base_of_their_seed() -> None:
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    raw["methods"]["turned"] = {"method": "pat", "label": "turned", "pat": {"basis": "pca"}, "tuning": {"threads": 2, "device": "cpu"}}
    plan = Plan(load_experiment(raw, "x.yaml"))
    rotated = "rotated/{model}/pca/seed{seed}"
    assert plan.tunings.base(job("turned")) == f"results/smoke/{rotated}/manifest.json"
    assert plan.tunings.base(job("pat")) == "results/smoke/models/{model}/manifest.json"
    steps = ["rotated/tiny/pca/seed0/rotation.json", "checkpoints/tiny/turned/0.5/seed0/merged/merge.json"]
    assert plan.cells.step_records(job("turned")) == " ".join(f"--step results/smoke/{step}" for step in steps)
    turning: Any = SimpleNamespace(model="tiny", basis="pca", seed="0")
    assert (plan.bases.rotating_threads(turning), plan.bases.rotating_device(turning)) == (2, "cpu")


def test_a_broken_tie_has_a_base_of_its_own() -> None:
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    raw["methods"]["turned"] = {"method": "pat", "label": "turned", "pat": {"basis": "pca"}}
    raw["methods"]["apart"] = {"method": "pat", "label": "apart", "pat": {"basis": "pca", "tie": "break"}}
    raw["methods"]["native-apart"] = {"method": "pat", "label": "native", "pat": {"tie": "break"}}
    plan = Plan(load_experiment(raw, "x.yaml"))
    turned, apart = (f"results/smoke/rotated/{{model}}/{name}/seed{{seed}}/manifest.json" for name in ("pca", "pca-untied"))
    assert (plan.tunings.base(job("turned")), plan.tunings.base(job("apart"))) == (turned, apart)
    assert plan.tunings.base(job("native-apart")) == "results/smoke/models/{model}/manifest.json"
    for basis, option in (("pca", ""), ("pca-untied", "--tie break")):
        wildcards: Any = SimpleNamespace(model="tiny", basis=basis, seed="0")
        assert (plan.bases.basis(wildcards), plan.bases.tie(wildcards)) == ("pca", option)


def test_rows_of_equal_masks_share_the_base_refitted_to_them_behind_its_rotation() -> None:
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    mask = {"readers": "least-squares", "mask": "variance", "align": 4}
    raw["methods"]["native"] = {"method": "pat", "label": "native", "pat": mask, "tuning": {"threads": 2, "device": "cpu"}}
    raw["methods"]["other"] = {"method": "pat", "label": "other", "pat": mask, "lora": {"rank": 2}}
    plan = Plan(load_experiment(raw, "x.yaml"))
    leading, variance = "gradient/leading/align-1", "native/variance/align-4"
    assert plan.tunings.base(job("pat-g")) == f"results/smoke/refitted/{{model}}/{leading}/{{ratio}}/seed{{seed}}/manifest.json"
    assert plan.tunings.base(job("native")) == plan.tunings.base(job("other")) == plan.tunings.base(job("other")).replace(leading, variance)
    steps = ["rotated/tiny/gradient/seed0/rotation.json", f"refitted/tiny/{leading}/0.5/seed0/readers.json"]
    merged = "checkpoints/tiny/pat-g/0.5/seed0/merged/merge.json"
    assert plan.cells.step_records(job("pat-g")) == " ".join(f"--step results/smoke/{step}" for step in [*steps, merged])
    turned, plain = (
        SimpleNamespace(model="tiny", ratio="0.5", seed="0", **named)
        for named in (
            {"basis": "gradient", "mask": "leading", "align": "1"},
            {"basis": "native", "mask": "variance", "align": "4"},
        )
    )
    assert plan.bases.refitting_base(turned) == "results/smoke/rotated/{model}/gradient/seed{seed}/manifest.json"
    assert plan.bases.refitting_base(plain) == "results/smoke/models/{model}/manifest.json"
    assert (plan.tunings.mask_data(turned), plan.tunings.mask_data(plain)) == ([], [plan.data.instruct_file()])
    assert (
        plan.tunings.mask_data_option(plain, SimpleNamespace(data=plan.tunings.mask_data(plain))) == f"--data {plan.data.instruct_file()}"
    )
    assert (plan.bases.refitting_threads(plain), plan.bases.refitting_device(plain)) == (2, "cpu")


def test_a_distilled_row_waits_for_the_tuned_model_and_others_for_nobody() -> None:
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    raw["tuning"]["distillation"] = {}
    plan, plain = Plan(load_experiment(raw, "x.yaml")), Plan(smoke())
    teacher = "results/smoke/checkpoints/tiny/lora/0/seed0/merged"
    for row in ("pat", "channel-magnitude-pft"):
        assert plan.tunings.teacher(job(row)) == [f"{teacher}/manifest.json"]
        assert plan.tunings.teacher_option(job(row), SimpleNamespace(teacher=plan.tunings.teacher(job(row)))) == f"--teacher {teacher}"
        assert plain.tunings.teacher(job(row)) == []
    assert plan.tunings.teacher(job("lora", "0")) == plan.tunings.teacher(job("channel-magnitude-ftp")) == []


def test_a_searched_arm_waits_for_its_search_on_the_first_seed() -> None:
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text()) | {"seeds": [3, 0]}
    del raw["tuning"]["learning_rate"]
    raw["tuning"] |= {"search": {"learning_rates": [1e-3, 1e-2, 1e-1]}, "distillation": {}}
    raw["methods"]["dora"] = {"tuning": {"learning_rate": 1e-3}}
    plan, arm = Plan(load_experiment(raw, "x.yaml")), SimpleNamespace(model="tiny", row="channel-magnitude-pft", ratio="0.5")
    rate = "results/smoke/checkpoints/tiny/channel-magnitude-pft/0.5/rate.json"
    assert plan.tunings.rate(job("channel-magnitude-pft")) == [rate]
    assert plan.tunings.rate_option(job("channel-magnitude-pft"), SimpleNamespace(rate=[rate])) == f"--rate-from {rate}"
    assert (
        plan.tunings.on_first_seed(plan.tunings.base)(arm)
        == "results/smoke/checkpoints/tiny/channel-magnitude-pft/0.5/seed3/pruned/manifest.json"
    )
    assert plan.tunings.on_first_seed(plan.tunings.teacher)(arm) == ["results/smoke/checkpoints/tiny/lora/0/seed3/merged/manifest.json"]
    assert plan.tunings.first_seed(arm) == 3
    assert plan.allowances.search_time(arm, 1) == 3 * plan.time("tune")(arm, 1)
    assert plan.tunings.rate(job("dora", "0")) == plan.tunings.rate(job("channel-magnitude-ftp")) == Plan(smoke()).tunings.rate(job()) == []


def test_a_row_of_fewer_seeds_searches_on_its_own_first_and_has_no_file_of_the_others() -> None:
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text()) | {"seeds": [3, 0, 1]}
    del raw["tuning"]["learning_rate"]
    raw["tuning"]["search"] = {"learning_rates": [1e-3, 1e-2]}
    raw["methods"]["pat"] = {"seeds": [1, 0]}
    plan, arm = Plan(load_experiment(raw, "x.yaml")), SimpleNamespace(model="tiny", row="pat", ratio="0.5")
    assert (plan.tunings.first_seed(arm), plan.tunings.on_first_seed(lambda cell: [cell.seed])(arm)) == (1, ["1"])
    assert [path for path in plan.cells.results() if "/pat/" in path] == [
        f"results/smoke/evaluation/tiny/pat/0.5/seed{n}/cell.json" for n in (1, 0)
    ]
    assert [path for path in plan.figures.files() if "/pat/" in path] == [
        f"results/smoke/figures/health/tiny/pat/0.5/seed{n}/health.png" for n in (1, 0)
    ]


def test_the_corpus_is_no_held_out_text() -> None:
    plan = Plan(smoke())
    assert plan.data.corpus_files() == ["results/smoke/data/world/text/pretrain.jsonl"]
    assert plan.data.text_files() == plan.data.second_text() == ["results/smoke/data/world/text/heldout.jsonl"]


def test_only_hub_sources_are_fetched() -> None:
    plan = Plan(load_experiment(ROOT / "config" / "smollm2.yaml", "x.yaml"))
    fetched = plan.fetched_files()
    assert "results/smollm2/models/smollm2-135m/manifest.json" in fetched
    assert set(plan.data.files()) < set(fetched)
    assert Plan(smoke()).fetched_files() == []


def test_a_set_made_of_tasks_names_every_file_it_reads(tmp_path: Path) -> None:
    (tmp_path / "here.jsonl").write_text("{}\n")
    local = {"source": "json", "path": "here.jsonl"}
    hub = {"source": "hub", "layout": "piqa", "split": "train"}
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text()) | {"root": str(tmp_path)}
    raw["data"]["instruct"] = {"source": "tasks", "of": {"a": local, "b": hub}}
    plan = Plan(load_experiment(raw, "x.yaml"))
    anything: Any = SimpleNamespace()
    assert plan.data.source_files("instruct")(anything) == [str(tmp_path / "here.jsonl")]
    assert json.loads(plan.data.source("instruct")(anything))["of"] == {"a": local | {"path": str(tmp_path / "here.jsonl")}, "b": hub}
    assert plan.fetched_files() == [plan.data.instruct_file()]
    raw["data"]["instruct"] = {"source": "tasks", "of": {"a": local}}
    assert Plan(load_experiment(raw, "x.yaml")).fetched_files() == []


def records(folder: Path) -> tuple[Path, list[Path], Path, Path]:
    """Write the JSONs of a cell that was pruned and then tuned; return their paths."""
    figures = [(96, 48, 0.5), (48, 48, 2e-6)]
    steps = [folder / "prune.json", folder / "merge.json"]
    for path, (before, after, gap) in zip(steps, figures, strict=True):
        count = {"before": {"unique": 10 * before}, "after": {"unique": 10 * after}}
        sizes = {"hidden_size": {"before": before, "after": after}, "parameters": count, "ratio_effective": 1 - after / before}
        write_json(path, {**sizes, "logit_gap": gap, "provenance": {"seed": 0}})
    write_json(folder / "tuning.json", {"trainable_parameters": 7, "history": [1, 2], "wall_s": 3.0, "provenance": {"seed": 1}})
    tasks = {"sums": {"items": 3, "chance": 0.25, "scores": {"acc": {"value": 2 / 3, "stderr": 0.3}}}}
    write_json(folder / "evaluation.json", {"tasks": tasks, "mean": {}, "perplexity": {}, "harness": {}, "provenance": {"seed": 2}})
    answers = [{"task": "sums", "id": f"sums-{place}", "gold": place, "correct": {"acc": place != 1}} for place in range(3)]
    write_jsonl(folder / "evaluation_samples.jsonl", answers)
    return folder / "tuning.json", steps, folder / "evaluation.json", folder / "evaluation_samples.jsonl"


def test_a_cells_sizes_go_from_before_its_first_step_to_after_its_last(tmp_path: Path) -> None:
    tuning, steps, *evaluated = records(tmp_path)
    cell = joined({"method": "x"}, tuning, steps, *evaluated)
    assert (cell["hidden_size"], cell["ratio_effective"]) == ({"before": 96, "after": 48}, 0.5)
    assert cell["parameters"] == {"before": {"unique": 960}, "after": {"unique": 480}}
    assert cell["logit_gap"] == 0.5
    assert cell["tuning"] == {"trainable_parameters": 7, "wall_s": 3.0}
    assert set(cell["provenance"]) == {"tune", "prune", "merge", "evaluate"}


def test_a_cell_that_was_tuned_in_two_parts_has_the_records_of_both(tmp_path: Path) -> None:
    tuning, (pruned, merged), *evaluated = records(tmp_path)
    count = {name: {"unique": 960} for name in ("before", "after")}
    sizes = {"hidden_size": {"before": 96, "after": 96}, "parameters": count, "ratio_effective": 0.0, "logit_gap": 0.0}
    write_json(tmp_path / "first" / "merge.json", sizes | {"provenance": {"seed": 3}})
    write_json(tmp_path / "first" / "tuning.json", {"trainable_parameters": 9, "history": [], "wall_s": 1.0, "provenance": {"seed": 4}})
    steps = [tmp_path / "first" / "merge.json", pruned, merged]
    evaluation, samples = evaluated
    cell = joined({"method": "x"}, tuning, steps, evaluation, samples, tmp_path / "first" / "tuning.json")
    assert (cell["tuning_before"]["wall_s"], cell["tuning"]["wall_s"]) == (1.0, 3.0)
    assert cell["trainable_parameters"] == 9, "the larger of the two"
    assert {name: made["seed"] for name, made in cell["provenance"].items()} == {
        "before/tune": 4, "before/merge": 3, "prune": 0, "tune": 1, "merge": 0, "evaluate": 2,
    }  # fmt: skip
    assert (cell["hidden_size"], cell["ratio_effective"]) == ({"before": 96, "after": 48}, 0.5)


def test_a_record_that_lacks_a_field_is_a_message(tmp_path: Path) -> None:
    tuning, steps, *evaluated = records(tmp_path)
    broken = json.loads(steps[1].read_text())
    del broken["parameters"]
    write_json(steps[1], broken)
    with pytest.raises(UserError, match=r"merge\.json.*lacks the field 'parameters'"):
        joined({}, tuning, steps, *evaluated)


def test_a_cell_says_which_items_are_right_and_has_a_hash_of_its_items(tmp_path: Path) -> None:
    files = records(tmp_path)
    first = joined({}, *files)["tasks"]["sums"]
    assert first["scores"]["acc"] == {"value": 2 / 3, "stderr": 0.3, "right": "101"}
    others = [{"task": "sums", "id": f"sums-{place}", "gold": 0, "correct": {"acc": True}} for place in range(3)]
    write_jsonl(files[-1], others)
    assert joined({}, *files)["tasks"]["sums"]["items_hash"] != first["items_hash"]


def test_answers_that_are_not_those_scored_are_a_message(tmp_path: Path) -> None:
    files = records(tmp_path)
    write_jsonl(files[-1], [{"task": "sums", "id": "a", "gold": 0, "correct": {"acc": True}}])
    with pytest.raises(UserError, match=r"evaluation_samples\.jsonl: holds 1 answers to sums, of which 3 were scored"):
        joined({}, *files)


def test_an_experiment_draws_the_figures_it_names_or_all_it_has_data_for() -> None:
    everything = [Path(path).relative_to("results/smoke/figures").with_suffix("").as_posix() for path in Plan(smoke()).figures.files()]
    assert everything == [
        "accuracy", "methods", "perplexity", "trainable", "memory", "speedup", "gate",
        "health/tiny/pat/0.5/seed0/health", "health/tiny/pat-dora/0.5/seed0/health",
        "health/tiny/pat-g/0.5/seed0/health",
    ]  # fmt: skip
    assert Plan(smoke(figures=["gate", "methods"])).figures.files() == [f"results/smoke/figures/{name}.png" for name in ("gate", "methods")]
    assert "results/smoke/figures/speedup.png" not in Plan(smoke(benchmark=None)).figures.files()


@pytest.mark.parametrize(("accuracy", "named"), [("table1", "methods"), ("table3", "methods --accuracy table3")])
def test_a_figure_with_numbers_of_the_paper_is_told_of_which_table(accuracy: str, named: str) -> None:
    figures = Plan(smoke(tables={"accuracy": accuracy})).figures
    assert figures.named(SimpleNamespace(figure="methods")) == named
    assert figures.named(SimpleNamespace(figure="memory")) == "memory"


def test_a_known_shape_needs_no_sizes() -> None:
    plan = Plan(smoke(benchmark={"shapes": {"llama-2-7b": None}, "inference": {"widths": [3072]}, "tuning": {}}))
    assert plan.benchmarks.files() == [f"results/smoke/benchmark/{kind}/llama-2-7b.json" for kind in ("inference", "tuning")]
    assert json.loads(plan.benchmarks.shape(SimpleNamespace(shape="llama-2-7b")))["hidden_size"] == 4096
    assert json.loads(plan.benchmarks.settings("inference"))["widths"] == [3072]


def test_what_the_experiment_leaves_open_is_asked_for_by_the_models_size(tmp_path: Path) -> None:
    llama = {"vocab_size": 32000, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 11008}
    write_json(tmp_path / "large" / "config.json", llama)
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text()) | {"root": str(tmp_path)}
    raw["models"]["large"] = {"path": "large", "resources": {"evaluate": {"gpu": 2, "mem_mb": 99_000}}}
    raw["models"]["unfetched"] = {"hub": {"id": "a/b"}}
    plan = Plan(load_experiment(raw, "x.yaml"))
    large: Any = SimpleNamespace(model="large", row="lora", ratio="0", seed="0")
    unfetched: Any = SimpleNamespace(model="unfetched", row="lora", ratio="0", seed="0")
    assert (plan.gpu("tune")(large), plan.gpu("merge")(large), plan.gpu("tune")(job()), plan.gpu("tune")(unfetched)) == (1, 0, 0, 0)
    assert plan.memory("tune")(large, 1) == 3000 + 40431  # one and a half copies in fp32
    assert (plan.memory("tune")(job(), 1), plan.memory("tune")(unfetched, 1)) == (4000, 4000)
    assert plan.time("merge")(large, 1) == 60 + 26 and plan.time("merge")(large, 3) == 172
    assert (plan.gpu("evaluate")(large), plan.memory("evaluate")(large, 1)) == (2, 99_000)
    assert plan.time("merge")(unfetched, 1) == 60


def test_a_model_of_the_hub_has_a_size_once_it_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within one run too: Snakemake asks again before each job starts."""
    monkeypatch.chdir(tmp_path)
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text()) | {"models": {"tiny": {"hub": {"id": "a/b"}}}}
    plan = Plan(load_experiment(raw, "x.yaml"))
    assert plan.gpu("tune")(job()) == 0 and plan.memory("tune")(job(), 1) == 4000
    config = {"vocab_size": 49152, "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "intermediate_size": 1536}
    write_json(tmp_path / "results/smoke/models/tiny/config.json", config)
    assert plan.gpu("tune")(job()) == 1 and plan.memory("tune")(job(), 1) > 3000


def test_a_tuning_on_several_gpus_is_started_as_several_processes_and_its_search_as_one() -> None:
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text()) | {"resources": {"tune": {"gpu": 4}}}
    raw["tuning"]["threads"] = 3
    plan = Plan(load_experiment(raw, "x.yaml"))
    assert plan.allowances.cores(job()) == 12 and plan.allowances.one_gpu(job()) == 1
    assert plan.allowances.launcher(job(), SimpleNamespace(gpu=4)) == "python -m pat.machine.several 4"
    assert plan.allowances.launcher(job(), SimpleNamespace(gpu=1)) == plan.allowances.launcher(job(), SimpleNamespace(gpu=0)) == ""
    assert Plan(smoke()).allowances.cores(job()) == 1 and Plan(smoke()).allowances.one_gpu(job()) == 0


def test_lm_evals_own_tasks_are_fetched_with_all_else() -> None:
    plan = Plan(smoke(evaluation={"harness_tasks": ["winogrande", "arc_easy"]}))
    assert plan.fetched_files() == plan.data.harness_file() == ["results/smoke/data/harness.json"]
    assert plan.data.harness_tasks() == ["arc_easy", "winogrande"]
    assert Plan(smoke()).data.harness_file() == []
