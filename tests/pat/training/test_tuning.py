"""The tuning job: resumes to the same bytes, never moves a frozen weight, keeps its record, refuses what cannot work."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerControl, TrainerState, TrainingArguments

import pat.training.tuning
from pat.checkpoints.checkpoint import load_model
from pat.checkpoints.merge import merge
from pat.checkpoints.origin import ORIGIN_NAME
from pat.data.instructions import Instructions, PadToLongest
from pat.data.prompts import alpaca_prompt
from pat.errors import UserError
from pat.io import artefacts
from pat.io.artefacts import MANIFEST, check_folder, write_json, write_jsonl
from pat.method.model import PatModel
from pat.models.attention import rely_on_causal_kernel
from pat.settings.jobs import TuneJob
from pat.training.resume import SealCheckpoints, checkpoint_of, identity_of, latest_complete
from pat.training.spent import SPENT_RECORD
from tests.kit.children import child, wait_for
from tests.kit.tiny_world import ROWS, tiny_tokenizer, write_world
from tests.kit.tuning_requests import asked
from tests.kit.tunings import RECIPE, adapter_bytes, job, run, run_until

pytestmark = pytest.mark.lengthy

LOSSES = ("instruct_loss", "distillation_loss")


@pytest.mark.parametrize(("tuner", "ratio"), [("lora", 0.0), ("dora", 0.0), ("pat", 0.25), ("pat-dora", 0.25)])
def test_every_tuner_writes_an_adapter_that_merges(tuner: str, ratio: float, tmp_path: Path) -> None:
    write_world(tmp_path)
    record = run(tmp_path, "adapter", tuner, ratio)
    check_folder(tmp_path / "adapter")
    assert record == json.loads((tmp_path / "adapter" / "tuning.json").read_text())
    assert record["history"][-1]["instruct_loss"] < record["history"][0]["instruct_loss"] - 0.1
    assert record["steps"] == 24 and [entry["step"] for entry in record["history"]] == list(range(2, 25, 2))
    assert not (tmp_path / "run-adapter").exists()
    merged = merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
    assert merged["logit_gap"] <= 1e-4
    assert merged["hidden_size"]["after"] == (24 if ratio else 32) == record["width"]
    if ratio:
        assert record["health"]["kept_at_milestone"] == 24 and record["health"]["milestone_step"] == 8
        # AdamW's first steps are all of one size: channels tie at the threshold until settled proxies are drawn apart, from step 2 on.
        assert all(entry["kept"] == 24 for entry in record["history"] if entry["step"] >= 3)
    else:
        assert record["health"] is None


def test_the_record_says_what_the_base_was_read_from_where_that_is_known(tmp_path: Path) -> None:
    write_world(tmp_path)
    short = job(max_steps=2)
    assert "origin" not in run(tmp_path, "first", "lora", 0.0, short)
    (tmp_path / "base" / MANIFEST).unlink(missing_ok=True)
    origin = {"file": "a.gguf", "dtype": "bf16", "quantised": ["Q8_0"]}
    write_json(tmp_path / "base" / ORIGIN_NAME, origin)
    assert run(tmp_path, "second", "lora", 0.0, short)["origin"] == origin


def test_the_same_job_gives_the_same_bytes(tmp_path: Path) -> None:
    write_world(tmp_path)
    first, second = run(tmp_path, "first"), run(tmp_path, "second")
    assert adapter_bytes(tmp_path / "first") == adapter_bytes(tmp_path / "second")
    assert first["history"] == second["history"]


def test_passes_over_the_rows_and_a_share_of_them_come_to_the_steps_that_the_recipe_counts(tmp_path: Path) -> None:
    write_world(tmp_path)
    assert len(ROWS) == 8 * RECIPE["batch_size"]
    for share, steps in (((0.0, 1.0), 10), ((0.0, 0.35), 4), ((0.35, 1.0), 6)):
        settings = job(max_steps=None, epochs=1.2, share=share)
        assert run(tmp_path, f"from-{share[0]:g}-to-{share[1]:g}", "lora", 0.0, settings)["steps"] == steps


class Maskless(PadToLongest):
    """As it is on a GPU: batches without masks."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, device: str) -> None:
        super().__init__(tokenizer, "cuda")
        assert device == "cpu" and not self.masked


def test_a_run_without_masks_takes_the_course_of_one_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher is asked without masks too. What was compiled is in the record: on a CPU nothing."""
    write_world(tmp_path / "other", seed=1)
    write_world(tmp_path)
    teacher, settings = tmp_path / "other" / "base", job(distillation={})
    masked = run(tmp_path, "masked", settings=settings, teacher=teacher)
    told: list[int] = []

    def watched(stock: PreTrainedModel, longest: int) -> None:
        told.append(longest)
        rely_on_causal_kernel(stock, longest)

    monkeypatch.setattr(pat.training.tuning, "rely_on_causal_kernel", watched)
    monkeypatch.setattr(pat.training.tuning, "PadToLongest", Maskless)
    maskless = run(tmp_path, "maskless", settings=settings, teacher=teacher)
    for found, expected in zip(maskless["history"], masked["history"], strict=True):
        assert [found[name] for name in LOSSES] == pytest.approx([expected[name] for name in LOSSES], rel=1e-4)
    assert told == [256, 256] and (masked["compiled"], maskless["compiled"]) == (False, False)


@pytest.mark.parametrize(("compact", "stops"), [(False, (4, 16)), (True, (4, 8, 16))])
def test_half_and_resume_equals_straight(compact: bool, stops: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops before, at and after the milestone: optimizer, mask step, dropout and data order all continue."""
    write_world(tmp_path)
    settings = job(compact=compact, checkpoint_steps=4)
    straight = run(tmp_path, "straight", settings=settings)
    assert straight["compacted"] == compact
    for stop in stops:
        halves = f"halves-{stop}"
        run_until(stop, tmp_path, halves, monkeypatch, settings=settings)
        assert not (tmp_path / halves).exists()
        left = latest_complete(tmp_path / f"run-{halves}")
        assert left is not None
        (left / SPENT_RECORD).write_text('{"wall_s": 1e6, "peak_memory_gib": 500.0}')
        artefacts.seal(left)
        resumed = run(tmp_path, halves, settings=settings)
        assert resumed["wall_s"] > 1e6 > straight["wall_s"] and resumed["peak_memory_gib"] == 500.0  # it took the first half too
        assert resumed["compacted"] == compact
        assert resumed["history"] == straight["history"], f"stopped at {stop}"
        assert adapter_bytes(tmp_path / "straight") == adapter_bytes(tmp_path / halves), f"stopped at {stop}"


@pytest.mark.parametrize(("tuner", "ratio"), [("lora", 0.0), ("pat", 0.25)])
def test_the_last_step_leaves_no_checkpoint_to_take_one_more_from(
    tuner: str, ratio: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the adapter was there, a run of 12 steps, in the middle of an epoch, was of 13 afterwards."""
    saved: list[int] = []

    class Noted(SealCheckpoints):
        def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
            super().on_save(args, state, control, **kwargs)
            saved.append(state.global_step)

    monkeypatch.setattr(pat.training.tuning, "SealCheckpoints", Noted)
    write_world(tmp_path)
    found = run(tmp_path, "out", tuner, ratio, job(max_steps=12, checkpoint_steps=4))
    assert (found["steps"], saved) == (12, [4, 8])


def test_a_checkpoint_that_a_last_step_once_left_is_passed_over(tmp_path: Path) -> None:
    before = sealed(tmp_path, 16, {"rate": 1})
    sealed(tmp_path, 24, {"rate": 1})
    assert latest_complete(tmp_path) == before


@pytest.mark.parametrize("tuned", [{}, {"mask": "random", "closing": "at-once"}])
def test_a_compacted_job_ends_where_the_masked_one_does(tuned: dict[str, Any], tmp_path: Path) -> None:
    """Without dropout, whose draws depend on the width; both adapters merge to the same logits."""
    write_world(tmp_path)
    no_dropout = {"lora": {"rank": 2, "alpha": 4.0, "dropout": 0.0}}
    masked = run(tmp_path, "masked", settings=job(tuned, **no_dropout, compact=False))
    cut = run(tmp_path, "cut", settings=job(tuned, **no_dropout, compact=True))
    for expected, found in zip(masked["history"], cut["history"], strict=True):
        assert found["instruct_loss"] == pytest.approx(expected["instruct_loss"], abs=1e-5)
        assert found["grad_norm"] == pytest.approx(expected["grad_norm"], abs=1e-4)
    logits = []
    for name in ("masked", "cut"):
        merge(tmp_path / "base", tmp_path / name, tmp_path / f"merged-{name}")
        with torch.no_grad():
            logits.append(load_model(tmp_path / f"merged-{name}", torch.float32)(input_ids=torch.arange(20)[None]).logits)
    assert torch.allclose(logits[0], logits[1], atol=1e-4)


def test_the_proxy_has_a_constant_rate_of_its_own(tmp_path: Path) -> None:
    """Where Adam moves it: 0.5 over the milestone step, 8 of 24, to the last, while the recipe's rate falls to zero."""
    write_world(tmp_path)
    settings = job({"mask_learning": "adam"})
    trainer, model = pat.training.tuning.train(
        asked(tmp_path / "base", tmp_path / "instruct.jsonl", "pat", 0.25, 7, settings, tmp_path / "run")
    )
    assert isinstance(model, PatModel) and trainer.optimizer is not None
    recipe, own = trainer.optimizer.param_groups
    assert [parameter is model.sparsifier.mask.proxy for parameter in own["params"]] == [True]
    assert (own["initial_lr"], own["lr"]) == (0.5 / 8, 0.5 / 8)
    assert recipe["initial_lr"] == RECIPE["learning_rate"] and recipe["lr"] == pytest.approx(0.0)
    assert len(recipe["params"]) + 1 == sum(parameter.requires_grad for parameter in model.parameters())


def sealed(run_dir: Path, step: int, job: dict[str, object]) -> Path:
    """Leave a checkpoint as a job does."""
    folder = run_dir / f"checkpoint-{step}"
    artefacts.write_json(folder / "trainer_state.json", {"global_step": step, "max_steps": 24})
    artefacts.write_json(folder / "job.json", job)
    artefacts.seal(folder)
    return folder


def test_checkpoints_of_other_settings_are_not_resumed_from(tmp_path: Path) -> None:
    """A job that is killed, changed and started again must not go on from what the old settings made; changed back, it goes on."""
    run_dir = tmp_path / "run"
    assert checkpoint_of(run_dir, {"rate": 1}) is None
    folder = sealed(run_dir, 4, {"rate": 1})
    assert checkpoint_of(run_dir, {"rate": 1}) == folder
    assert checkpoint_of(run_dir, {"rate": 2}) is None
    assert not folder.exists()
    other = sealed(run_dir, 8, {"rate": 2})
    assert checkpoint_of(run_dir, {"rate": 1}) == folder and not other.exists()
    assert checkpoint_of(run_dir, {"rate": 2}) == other and not folder.exists()


def test_a_checkpoint_belongs_to_the_job_that_made_it_whatever_its_folder_says(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert checkpoint_of(run_dir, {"rate": 2}) is None
    sealed(run_dir, 8, {"rate": 1})
    mine = sealed(run_dir, 4, {"rate": 2})
    assert checkpoint_of(run_dir, {"rate": 2}) == mine


def test_a_first_run_gives_no_alarm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_world(tmp_path)
    for _ in range(2):
        run(tmp_path, "adapter")
    assert "other settings" not in caplog.text


def test_a_job_does_not_go_on_upon_a_base_that_was_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new base has the old one's path, shape and size, and other weights."""
    base, _ = write_world(tmp_path)
    run_until(8, tmp_path, "replaced", monkeypatch)
    weights = load_file(base / "model.safetensors")
    save_file({name: tensor.flip(0) for name, tensor in weights.items()}, base / "model.safetensors", metadata={"format": "pt"})
    assert adapter_bytes(tmp_path / "run-replaced" / "checkpoint-8")
    run(tmp_path, "replaced")
    run(tmp_path, "straight")
    assert adapter_bytes(tmp_path / "replaced") == adapter_bytes(tmp_path / "straight")


def test_a_base_is_the_same_wherever_it_lies_and_another_when_a_file_changes(tmp_path: Path) -> None:
    base, _ = write_world(tmp_path)
    moved = base.rename(tmp_path / "moved")
    before = identity_of(moved)
    assert json.loads(json.dumps(before)) == before, "it is compared with what was read back"
    shutil.copytree(moved, tmp_path / "copied")  # keeps the times
    assert identity_of(tmp_path / "copied") == before
    found = (moved / "model.safetensors").stat()
    os.utime(moved / "model.safetensors", ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    assert identity_of(moved) != before


def test_a_listed_base_is_known_by_its_list(tmp_path: Path) -> None:
    base, _ = write_world(tmp_path)
    artefacts.write_json(base / artefacts.MANIFEST, artefacts.manifest(base))
    before = identity_of(base)
    os.utime(base / "model.safetensors")
    assert identity_of(base) == before
    (base / "config.json").write_text("{}")
    artefacts.write_json(base / artefacts.MANIFEST, artefacts.manifest(base))
    assert identity_of(base) != before


def test_a_broken_checkpoint_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (8, 16, 24):
        folder = tmp_path / f"checkpoint-{step}"
        artefacts.write_json(folder / "trainer_state.json", {"global_step": step, "max_steps": 100})
        (folder / "weights").write_bytes(b"x" * step)
        if step != 24:  # 24: killed before it was sealed
            artefacts.write_json(folder / "manifest.json", artefacts.manifest(folder))
    (tmp_path / "checkpoint-16" / "weights").write_bytes(b"y" * 16)
    assert latest_complete(tmp_path) == tmp_path / "checkpoint-8"
    shutil.rmtree(tmp_path / "checkpoint-8")
    assert latest_complete(tmp_path) is None


@pytest.mark.slow
def test_a_killed_process_group_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    write_world(tmp_path)
    settings = job(max_steps=60, checkpoint_steps=4)
    run(tmp_path, "straight", settings=settings)
    command = [
        sys.executable, "-m", "pat.cli", "tune", "--base", str(tmp_path / "base"), "--data", str(tmp_path / "instruct.jsonl"), "--tuner", "pat",
        "--ratio", "0.25", "--seed", "7", "--settings", settings.model_dump_json(), "--run-dir", str(tmp_path / "run"), "--out", str(tmp_path / "killed"),
    ]  # fmt: skip
    with child(command, start_new_session=True, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: list((tmp_path / "run").glob("checkpoint-*")), process)
        os.killpg(process.pid, signal.SIGKILL)
    assert not (tmp_path / "killed").exists()
    subprocess.run(command, check=True)
    assert adapter_bytes(tmp_path / "straight") == adapter_bytes(tmp_path / "killed")


def test_frozen_mask_and_release_variant_run_to_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="pat")
    write_world(tmp_path)
    frozen = run(tmp_path, "frozen", settings=job({"mask": "frozen"}))
    assert frozen["health"]["kept_at_milestone"] == 24
    kept = load_file(tmp_path / "frozen" / "hsm.safetensors")["mask.kept"]
    assert kept.tolist() == [False] * 8 + [True] * 24
    release = run(tmp_path, "release", settings=job({"variant": "release"}))
    assert release["width"] == 24 and not release["compacted"]
    assert frozen["health"]["undecided"] == 0 and release["health"]["undecided"] == 32  # so few steps leave every gate near a half
    assert "warning: 32 of 32 gates are half open at the end" in caplog.text and caplog.text.count("half open") == 1
    assert merge(tmp_path / "base", tmp_path / "release", tmp_path / "merged")["hidden_size"]["after"] == 24


@pytest.mark.parametrize(
    ("tuner", "ratio", "settings", "message"),
    [
        ("lore", 0.0, job(), "'lore': must be one of lora, dora, pat, pat-dora, pat-g"),
        ("lora", 0.25, job(), "only pat, pat-dora and pat-g prune"),
        ("pat", 1.5, job(), r"must lie in \[0, 1\)"),
        ("pat", 0.25, job(max_steps=3), "milestone"),
        ("pat", 0.25, job({"hio_rank": 64}), "hio_rank=64"),
        ("pat", 0.25, job({"align": 64}), "align=64"),
        ("lora", 0.0, job(max_length=8), "max_length=8"),
    ],
)
def test_what_cannot_work_is_one_clear_message(tuner: str, ratio: float, settings: TuneJob, message: str, tmp_path: Path) -> None:
    write_world(tmp_path)
    with pytest.raises(UserError, match=message):
        run(tmp_path, "adapter", tuner, ratio, settings)
    assert not (tmp_path / "adapter").exists()


def test_cuda_is_refused_where_there_is_none(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    write_world(tmp_path)
    with pytest.raises(UserError, match="no CUDA device"):
        run(tmp_path, "adapter", settings=job(device="cuda"))


def test_only_the_answer_is_learned(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    write_jsonl(tmp_path / "rows.jsonl", ROWS[:4])
    rows = Instructions(tmp_path / "rows.jsonl", tokenizer, 256)
    for source, row in zip(ROWS, (rows[i] for i in range(4)), strict=False):
        learned = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
        assert tokenizer.decode(learned) == f" {source['output']}</s>"
        assert str(tokenizer.decode(row["input_ids"])).startswith(alpaca_prompt(source["instruction"], source["input"]))
        assert all(label in (-100, token) for token, label in zip(row["input_ids"], row["labels"], strict=True))


@pytest.mark.parametrize("side", ["left", "right"])
def test_batches_are_padded_without_labels(side: str, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = side
    batch = PadToLongest(tokenizer)([{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, {"input_ids": [8], "labels": [8]}])
    padding, mine = [-100, -100], [8]
    assert batch["labels"][1].tolist() == (padding + mine if side == "left" else mine + padding)
    assert batch["input_ids"][1].tolist() == ([0, 0, 8] if side == "left" else [8, 0, 0])
    assert batch["attention_mask"].sum().item() == 4


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_has_a_mask_where_a_real_token_would_see_padding(side: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = side
    row, short = ({"input_ids": tokens, "labels": tokens} for tokens in ([5, 6, 7], [8]))
    padded: list[Mapping[str, list[int]]] = [row, short]
    even: list[Mapping[str, list[int]]] = [row, row]
    assert "attention_mask" not in PadToLongest(tokenizer)(even)
    assert ("attention_mask" in PadToLongest(tokenizer, "cuda")(padded)) == (side == "left")


def test_without_its_mask_a_batch_padded_on_the_right_has_the_same_loss_and_gradients(tmp_path: Path) -> None:
    base, _ = write_world(tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = "right"
    rows: list[Mapping[str, list[int]]] = [{key: list(range(5, 5 + length)) for key in ("input_ids", "labels")} for length in (9, 4, 1)]
    figures = []
    for device in ("cpu", "cuda"):  # the collator alone is told so
        model = load_model(base, torch.float64)
        loss = model(**PadToLongest(tokenizer, device)(rows)).loss
        loss.backward()
        figures.append([loss.detach(), *(parameter.grad for parameter in model.parameters())])
    assert all(torch.allclose(one, other, rtol=1e-9, atol=1e-12) for one, other in zip(*figures, strict=True))


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    write_world(tmp_path)
    (tmp_path / "instruct.jsonl").write_text('{"instruction": "a", "output": "b"}\n{"instruction": "a"}\n')
    with pytest.raises(UserError, match=r"instruct\.jsonl:2: lacks the field output or response"):
        run(tmp_path, "adapter")
