"""Inputs that mean nothing, by kind: what was once accepted without a word, or ended in a traceback, and its like. No assertion."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from tests.kit.fuzz_workspace import EVALUATE, EXPERIMENT, MAKE, PRETRAIN, PRUNE, SEARCH, TUNE, TUNING, changed

Files = Mapping[str, bytes | None]
NAN, INFINITY, HUGE = float("nan"), float("inf"), 10**30


@dataclass(frozen=True)
class Case:
    """A command, and the files beside the workspace's that it reads; `bad/` is a copy of the base with these in it, None removes one."""

    arguments: tuple[str, ...]
    files: Files = field(default_factory=dict)


def with_settings(command: tuple[str, ...], settings: Any) -> Case:
    return Case((*command, "--settings", settings if isinstance(settings, str) else json.dumps(settings)))


NO_NUMBERS = ["x", "", "1:30", "0x10", "nan", "٣", [], [1], {}, {"a": 1}, True, NAN, INFINITY, -INFINITY, -1, -1e-9, HUGE, -HUGE, 1e300]
NO_WORDS = ["", "no such", "\x00", 3, 0.5, [], ["auto"], {"a": 1}, NAN]
NO_MAPPINGS = ["x", 3, [], [{}], NAN, True]
NUMBERS = {
    "tuning": ["epochs", "max_steps", "learning_rate", "batch_size", "micro_batch_size", "max_length", "warmup_steps", "weight_decay",
               "max_grad_norm", "checkpoint_steps", "log_steps", "threads", "lora.rank", "lora.alpha", "lora.dropout"],
    "pat": ["hio_rank", "milestone_fraction", "decide_fraction", "identity_weight", "active_weight", "mask_learning_rate", "align"],
}  # fmt: skip
WORDS = {
    "tuning": ["schedule", "precision", "device", "compact", "compile"],
    "pat": ["variant", "basis", "mask", "closing", "readers", "count"],
}
OF_PRETRAINING = ["vocab_size", "hidden_size", "layers", "heads", "kv_heads", "intermediate_size", "context_length", "initializer_range",
                  "steps", "batch_size", "learning_rate", "warmup_steps", "threads", "seed", "checkpoint_steps", "heldout_fraction"]  # fmt: skip
OF_EVALUATION = ["batch_size", "max_new_tokens", "limit", "perplexity_context", "threads"]


def settings_cases() -> Iterator[Case]:
    """Every field of the settings with values that are not of its kind, or beyond its range."""
    for block, names in NUMBERS.items():
        for name in names:
            yield from (with_settings(TUNE, changed(TUNING, f"{block}.{name}", value)) for value in NO_NUMBERS)
    for block, names in WORDS.items():
        for name in names:
            yield from (with_settings(TUNE, changed(TUNING, f"{block}.{name}", value)) for value in NO_WORDS)
    for name in ("lora", "distillation", "search"):
        yield from (with_settings(TUNE, changed(TUNING, f"tuning.{name}", value)) for value in NO_MAPPINGS)
    for name in OF_PRETRAINING:
        yield from (with_settings(MAKE, PRETRAIN | {name: value}) for value in NO_NUMBERS)
    for name in OF_EVALUATION:
        yield from (with_settings(EVALUATE, {name: value}) for value in NO_NUMBERS)


def together_cases() -> Iterator[Case]:
    """Settings each of which is possible, and which do not go together, or not with the model."""
    for path, value in {
        "tuning.warmup_steps": 5, "tuning.epochs": 1.0, "tuning.micro_batch_size": 3, "tuning.lora.rank": 33,
        "tuning.distillation": {}, "tuning.search": {"learning_rates": [1e-3, 1e-2]}, "tuning.device": "cuda",
    }.items():  # fmt: skip
        yield with_settings(TUNE, changed(TUNING, path, value))
    for path, value in {
        "pat.hio_rank": 33, "pat.align": 64, "pat.milestone_fraction": 0.1, "pat.basis": "pca", "pat.readers": "least-squares",
        "pat.closing": "at-once",
    }.items():  # fmt: skip
        yield with_settings((*TUNE, "--tuner", "pat", "--ratio", "0.5"), changed(TUNING, path, value))
    yield with_settings(TUNE, {"tuning": {**TUNING["tuning"], "max_steps": None, "epochs": 0.1, "warmup_steps": 100}})
    for name, value in {"warmup_steps": 2, "heads": 3, "kv_heads": 3, "vocab_size": 100, "context_length": 10**6}.items():
        yield with_settings(MAKE, PRETRAIN | {name: value})
    yield with_settings(EVALUATE, {"max_new_tokens": 256})
    yield with_settings(EVALUATE, {"perplexity_context": 257})
    yield with_settings(("evaluate", "--model", "base", "--out", "out.json"), {})
    unscored = ("evaluate", "--model", "base", "--task", "task.jsonl", "--out", "out.json")
    yield with_settings(unscored, {"generate": False, "log_likelihood": False})
    yield with_settings((*EVALUATE, "--task", "task.jsonl"), {})
    yield with_settings((*EVALUATE, "--text", "text.jsonl"), {})


NO_JSON = [
    '{"tuning": {"max_steps": 4, "max_steps": 5}}', '{"tuning": {"batch_size": 4}, "tuning": {}}', "{", "{}", '{"tuning": null}', '{"a": 1}',
    '{"tuning": {"schedule": "\\ud800"}}', '{"tuning": {"learning_rate": 1e999}}', '{"tuning": {"max_steps": 1' + "0" * 5000 + "}}",
    "{" + '"a": {' * 3000, '{"tuning": {"batch_size": 4,}}', "{'tuning': {}}", '{"\\u0000": 1}', "missing.yaml", ".", "", "base", "/dev/null",
]  # fmt: skip
NO_YAML = [
    "a: &a [*a]", "a: &a {b: *a}", "&a [*a]", "tuning: {max_steps: 1:30}", "tuning: {max_steps: 010}", "tuning: {learning_rate: 1:30.5}",
    "tuning: {max_steps: 4}\ntuning: {}", "tuning: {schedule: off}", "tuning: {max_steps: yes}", "tuning: {max_steps: 2026-01-01}", "- 1", "text",
    "", "null", "a: [", "a: b: c", "\t- x", "a: !!python/object:os.system {}", "tuning: {max_steps: .inf}", "tuning: {max_steps: .nan}",
    'tuning: {schedule: "\\ud800"}', "a: *missing", "<<: 3", "1: {2: 3}", "? [a]\n: b", "tuning: !!binary aGk=", "--- {}\n--- {}", "%YAML 9.9\n---\na: 1",
    "\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 8))]),
]  # fmt: skip


def text_cases() -> Iterator[Case]:
    """Settings that are no JSON and no YAML, or not what anybody can have meant."""
    for text in NO_JSON:
        yield with_settings(TUNE, text)
        yield with_settings((*PRUNE, "--ratio", "0.5", "--pruner", "llm-pruner"), text if text != "{}" else "[]")
    for text in NO_YAML:
        yield Case((*TUNE, "--settings", "bad.yaml"), {"bad.yaml": text.encode()})
        yield Case(("validate", "bad.yaml"), {"bad.yaml": text.encode()})


NO_TEXTS = ["null", "[1]", "3", "0.5", "NaN", "-Infinity", "true", "{}", '"\\ud800"', '"\\udfff x"']
NO_ROWS = [
    b"",
    b"\n\n",
    b"[1]\n",
    b'"x"\n',
    b"{\n",
    b"\x00\x00\n",
    b"\xff\xfe\n",
    b'{"a": 1}\n',
    b"null\n",
    b"nan\n",
    b'{"text": "a"\n',
    b"{" * 9,
    b'{"instruction": "a", "output": "b", "output": "c", "text": "a", "text": "b", "id": "1", "id": "2"}',
]
GOOD = '{"instruction": "a", "input": "", "output": "b"}'


def row_cases() -> Iterator[Case]:
    """Rows of instructions and of texts that hold no text."""
    wrong = [(name, value) for name in ("instruction", "output", "input") for value in NO_TEXTS if (name, value) != ("input", "null")]
    recipe = json.dumps(TUNING)
    search = json.dumps(
        changed(changed(TUNING, "tuning.search", {"learning_rates": [1e-3, 1e-2], "dev_rows": 1}), "tuning.learning_rate", None)
    )
    for name, value in wrong:
        row = json.dumps({"instruction": "a", "input": "", "output": "b", name: "@"}).replace('"@"', value)
        file = {"bad.jsonl": f"{GOOD}\n{row}\n".encode()}
        yield Case((*TUNE, "--data", "bad.jsonl", "--settings", recipe), file)
        yield Case((*SEARCH, "--data", "bad.jsonl", "--settings", search), file)
    for value in NO_TEXTS:
        file = {"bad.jsonl": f'{{"text": "a"}}\n{{"text": {value}}}\n'.encode()}
        yield Case((*MAKE, "--corpus", "bad.jsonl", "--settings", json.dumps(PRETRAIN)), file)
        yield Case(("evaluate", "--model", "base", "--settings", "{}", "--text", "bad.jsonl", "--out", "out.json"), file)
    for content in NO_ROWS:
        file = {"bad.jsonl": content}
        yield Case((*TUNE, "--data", "bad.jsonl", "--settings", recipe), file)
        yield Case((*MAKE, "--corpus", "bad.jsonl", "--settings", json.dumps(PRETRAIN)), file)
        yield Case(("evaluate", "--model", "base", "--settings", "{}", "--task", "bad.jsonl", "--out", "out.json"), file)
    for command in (
        (*MAKE, "--corpus", "bad.jsonl", "--settings", json.dumps(PRETRAIN)),
        (*EVALUATE[:3], "--settings", "{}", "--text", "bad.jsonl", *EVALUATE[-2:]),
    ):
        yield Case(command, {"bad.jsonl": b'{"text": " "}\n{"text": "\\n\\t"}\n'})
    for blank in ({"instruction": " ", "output": "b"}, {"instruction": "a", "output": ""}, {"instruction": "a", "output": "\n"}):
        yield Case((*TUNE, "--data", "bad.jsonl", "--settings", recipe), {"bad.jsonl": json.dumps(blank).encode() + b"\n"})
    long_row = json.dumps({"instruction": "a", "input": "", "output": "word " * 500})
    longer = json.dumps(changed(TUNING, "tuning.max_length", 400))
    yield Case((*TUNE, "--data", "bad.jsonl", "--settings", longer), {"bad.jsonl": f"{long_row}\n".encode()})


ITEM: dict[str, Any] = {"id": "1", "question": "q", "choices": ["x", "y"], "answer": 0, "task": "t", "group": ""}
NO_ITEMS: dict[str, list[Any]] = {
    "id": [None, [1], {}, "", " ", 0.5],
    "question": [None, 3, "", " ", [], NAN],
    "choices": [None, "xy", [], ["x"], ["x", ""], ["x", " "], ["x", None], [["x"], "y"], {"a": "b"}, ["x"] * 27],
    "answer": [None, 2, -1, "x", 0.0, True, [0], NAN, HUGE],
    "task": [None, "", 3, []],
    "group": [None, 3, []],
}


def item_cases() -> Iterator[Case]:
    """Items that cannot be scored, as the evaluation reads them and as their preparation does."""
    scored = ("evaluate", "--model", "base", "--settings", "{}", "--task", "bad.jsonl", "--out", "out.json")
    prepared = ("prepare-task", "--task", "t", "--out", "out.jsonl", "--source", json.dumps({"source": "json", "path": "bad.json"}))
    for name, values in NO_ITEMS.items():
        for value in values:
            yield Case(scored, {"bad.jsonl": json.dumps(ITEM | {name: value}).encode()})
            if name in ("question", "choices", "answer"):
                yield Case(prepared, {"bad.json": json.dumps([ITEM | {name: value}]).encode()})
    yield Case(scored, {"bad.jsonl": (json.dumps(ITEM) + "\n" + json.dumps(ITEM)).encode()})
    yield Case(prepared, {"bad.json": json.dumps([ITEM, ITEM]).encode()})
    for block in ('{"source": "json", "path": "a\\u0000b"}', '{"source": "json", "path": ""}', '{"source": "json", "source": "text"}',
                  '{"source": "json", "path": "base"}', '{"source": "json"}', "[]", "{", "null"):  # fmt: skip
        yield Case((*prepared[:-1], block))


def adapter_cases() -> Iterator[Case]:
    """Adapters of LoRA's settings that cannot be, and imports and sizes of what is no model."""
    merge = ("merge", "--base", "base", "--adapter", "bad", "--out", "out")
    odd: dict[str, list[Any]] = {
        "r": [0, -1, "x", NAN, 2.5, None], "lora_alpha": ["x", 0, -1, NAN, None], "lora_dropout": [2, -1, "x"], "target_modules": [[], "", 3, None, "(", ["q_proj", "["]],
        "rank_pattern": ["x", {"q_proj": "x"}, {"(": 2}, {"": 2}], "alpha_pattern": ["x", {"q_proj": NAN}, {"[": 2}, {"*": 2}], "exclude_modules": ["(", ["["], 3],
        "layers_pattern": ["(", [3]], "use_dora": ["x"], "use_rslora": [3],
        "init_lora_weights": ["pissa", "olora"], "peft_type": ["IA3", None, 3], "layers_to_transform": ["x", -1], "bias": ["all"],
    }  # fmt: skip
    for name, values in odd.items():
        for value in values:
            record = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], name: value}
            yield Case(merge, {"bad/adapter_config.json": json.dumps(record).encode(), "bad/adapter_model.safetensors": b"x"})
    for content in (b"", b"GGUF", b"PK\x03\x04", b"GGUF\x03\x00\x00\x00" + b"\xff" * 16, b"GGUF\x03\x00\x00\x00" + b"\x00" * 64):
        yield Case(("import-model", "--gguf", "x.gguf", "--out", "out"), {"x.gguf": content})
    for arguments in (("--path", "base", "--dtype", "fp32"), ("--path", "base", "--hub", "x"), (), ("--hub", ""), ("--hub", "a/b/c"), ("--path", ""),
                      ("--gguf", "base"), ("--gguf", "text.jsonl"), ("--path", "text.jsonl")):  # fmt: skip
        yield Case(("import-model", *arguments, "--out", "out"))
    for ratio in ("1", "-0.1", "nan", "inf", "x"):
        yield Case(("sizes", "--base", "base", "--model", "base", "--ratio", ratio, "--out", "out.json"))


def calibration_cases() -> Iterator[Case]:
    """Text that nothing can be measured on."""
    rotate = ("rotate", "--base", "base", "--basis", "pca", "--out", "out")
    refit = ("refit-readers", "--base", "base", "--mask", "magnitude", "--ratio", "0.5", "--out", "out")
    prepare = ("prepare", "--base", "base", "--ratio", "0.5", "--out", "out")
    prune = (*PRUNE[:3], "--pruner", "minitron-width", "--ratio", "0.5", "--out", "out")
    rows = [*NO_ROWS, *(f'{{"text": {value}}}'.encode() for value in NO_TEXTS), b'{"text": "a"}', b'{"text": " "}', b'{"text": "one two']
    for content in rows:
        for command in (rotate, refit, prepare, prune):
            yield Case((*command, "--calibration", "bad.jsonl"), {"bad.jsonl": content})
    for command in (rotate, refit, prepare, prune):
        for tokens in ("0", "-1", "1", "x"):
            yield Case((*command, "--calibration", "text.jsonl", "--calibration-tokens", tokens))
    for mask in ("", "x", "trained", "data"):
        yield Case((*refit, "--mask", mask, "--calibration", "text.jsonl"))
    for plugin in ("missing.py", "no.such.module", "text.jsonl", "bad.py"):
        yield Case((*rotate, "--calibration", "text.jsonl", "--plugin", plugin), {"bad.py": b"import sys; sys.exit(0)"})


def place_cases() -> Iterator[Case]:
    """Outputs, run folders and logs where nothing can be written, or something else is."""
    recipe = ("--settings", json.dumps(TUNING))
    for out in (
        ".",
        "..",
        "/",
        "",
        "base",
        "base/",
        "/dev/null",
        "/proc/self/out",
        "/sys/out",
        "text.jsonl",
        "text.jsonl/out",
        "\x00",
        "run",
    ):
        yield Case((*TUNE, *recipe, "--out", out))
        yield Case((*TUNE, *recipe, "--out", out, "--force")) if out != "text.jsonl" else Case((*TUNE, *recipe, "--out", out))
        yield Case((*PRUNE, "--ratio", "0.5", "--out", out if out != "run" else "instruct.jsonl"))
    for folder in (".", "..", "/", "", "base", "/dev/null", "/proc/self/run", "text.jsonl", "out", "out/run"):
        yield Case((*TUNE, *recipe, "--run-dir", folder))
    for log in (
        "text.jsonl",
        "instruct.jsonl",
        "base/config.json",
        "base",
        "/dev/null",
        "out",
        "run",
        "out/log",
        "run/log",
        "/proc/self/log",
    ):
        yield Case((*TUNE, *recipe, "--log", log))
    for out in ("base/config.json", "base/model.safetensors", "task.jsonl", "base", "/dev/full"):
        yield Case((*EVALUATE, "--settings", "{}", "--out", out))
        yield Case((*EVALUATE, "--settings", "{}", "--out", out, "--force"))


RATIOS = ["nan", "inf", "-inf", "1", "0", "-0.5", "1e-9", "0.9999999", "2", "half", "", "0.5.5", "1e999"]
SEEDS = ["-1", str(2**32), "1.5", "9" * 40, "x", "", "nan"]


def option_cases() -> Iterator[Case]:
    """Options beyond what they can be."""
    recipe = ("--settings", json.dumps(TUNING))
    for ratio in RATIOS:
        yield Case((*PRUNE, "--ratio", ratio))
        for pruner in ("llm-pruner", "shortgpt"):
            yield Case((*PRUNE, "--pruner", pruner, "--ratio", ratio, "--settings", '{"size": "nominal"}'))
        yield Case(("rotate", "--base", "base", "--basis", ratio or "x", "--calibration", "text.jsonl", "--out", "out"))
        if ratio != "0":
            yield Case((*TUNE, "--tuner", "pat", "--ratio", ratio, *recipe))
            yield Case((*TUNE, "--ratio", ratio, *recipe))
    for seed in SEEDS:
        yield Case((*TUNE, "--seed", seed, *recipe))
        yield Case((*SEARCH, "--seed", seed, *recipe))
        yield Case((*EVALUATE, "--seed", seed, "--settings", "{}"))
    for threads in ("0", "-1", "1000000", "x", str(HUGE)):
        yield Case((*PRUNE, "--ratio", "0.5", "--threads", threads))
    for align in ("0", "-1", "x", "1000", "64", "1.5", "٣", ""):
        yield Case((*PRUNE, "--ratio", "0.5", "--align", align))
    for tuner in ("", "LoRA", "nothing", "pat", "pat-dora"):
        yield Case((*TUNE, "--tuner", tuner, *recipe))
    for pruner in ("", "nothing", "slicegpt", "shortgpt"):
        yield Case((*PRUNE, "--ratio", "0.5", "--pruner", pruner))
    for extra in (
        ("--no-such",),
        ("extra",),
        ("--teacher", "base"),
        ("--rate-from", "missing.json"),
        ("--base", "missing"),
        ("--data", "base"),
    ):
        yield Case((*TUNE, *recipe, *extra))
    yield from (
        Case(arguments) for arguments in [("no-such-verb",), ("tune",), ("benchmark", "nothing"), ("validate",), ("explain", "missing")]
    )


OF_CONFIG = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
             "max_position_embeddings"]  # fmt: skip


def base_cases() -> Iterator[Case]:
    """Bases whose config, tokenizer or weights are not what they should be; `bad` is a copy of the base."""
    tune = (*TUNE, "--base", "bad", "--settings", json.dumps(TUNING))
    sizes: list[Any] = [0, -1, "x", 1.5, [], True, HUGE, NAN]
    tokens: list[Any] = [10**6, "x", -7, 1.5]
    for name in OF_CONFIG:
        for value in sizes:
            yield Case(tune, {"bad/config.json": json.dumps({name: value}).encode()})
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        for value in tokens:
            yield Case(tune, {"bad/config.json": json.dumps({name: value}).encode()})
    for fields in ({"model_type": "gpt2"}, {"model_type": "no such"}, {"model_type": None}, {"quantization_config": {"quant_method": "gptq"}},
                   {"rope_scaling": 3}, {"torch_dtype": "fp4"}):  # fmt: skip
        yield Case(tune, {"bad/config.json": json.dumps(fields).encode()})
    odd: dict[str, list[Any]] = {
        "rms_norm_eps": [NAN, 0.0, -1.0, 1e30, "x"], "attention_dropout": [NAN, 2, -1, "x"], "sliding_window": [0, -1, "x"],
        "rope_theta": [NAN, 0, -1, "x", []], "rope_parameters": [{"rope_theta": 0}, {"rope_theta": "x"}, {"rope_type": "nothing"}, [], "x"],
        "rope_scaling": [{"rope_type": "linear", "factor": 0}, {"rope_type": "linear", "factor": "x"}, {"rope_type": "llama3"}, []],
        "num_hidden_layers": [1, 3, 10**6], "num_attention_heads": [3, 5], "num_key_value_heads": [3, 5], "head_dim": [1, 3, 7],
        "hidden_act": ["nothing", 3], "model_type": ["llama ", "LLAMA", [], 3],
    }  # fmt: skip
    other = (
        ("merge", "--base", "bad", "--adapter", "base", "--out", "out"),
        ("evaluate", "--model", "bad", "--settings", "{}", *EVALUATE[3:]),
        ("import-model", "--path", "bad", "--out", "out"),
        (*PRUNE[:1], "--base", "bad", *PRUNE[3:], "--ratio", "0.5"),
        ("rotate", "--base", "bad", "--basis", "pca", "--calibration", "text.jsonl", "--out", "out"),
    )
    for name, values in odd.items():
        for number, value in enumerate(values):
            changed_config = {"bad/config.json": json.dumps({name: value}).encode()}
            yield Case(tune, changed_config)
            yield Case(other[number % len(other)], changed_config)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        for content in (None, b"", b"{", b"[1]", b"\x00" * 9, b"null"):
            yield Case(tune, {f"bad/{name}": content})
            yield Case((*PRUNE[:1], "--base", "bad", *PRUNE[3:], "--ratio", "0.5"), {f"bad/{name}": content or b"{"})


def experiment_cases() -> Iterator[Case]:
    """Experiments that validate has to refuse, for what is written or for what is on the disk."""
    junk = ["x", 3, -1, [], [3], {}, None, True, NAN, HUGE]
    for path in ("name", "seeds", "ratios", "models", "methods", "data", "tuning.batch_size", "evaluation.batch_size", "data.instruct",
                 "models.tiny", "data.tasks.own", "data.text.held", "methods.lora", "pat.hio_rank", "benchmark"):  # fmt: skip
        for value in junk:
            if not _is_possible(path, value):
                yield experiment(changed(EXPERIMENT, path, value))
    off: dict[str, Any] = {
        "models.tiny.path": "missing", "models.tiny.hub": {"id": "x"}, "data.instruct.path": "missing.jsonl", "tuning.lora.rank": 33,
        "data.tasks.own.path": "own.txt", "evaluation.max_new_tokens": 256, "tuning.warmup_steps": 99,
        "evaluation.perplexity_context": 10**4, "pat.align": 64, "data.instruct.fraction": 2, "resources.tune.gpu": -1, "root": "missing",
        "tuning.max_steps": "1:30", "data.text.held.source": "no such", "tables.reference": "x", "figures": ["x"],
    }  # fmt: skip
    for path, value in off.items():
        yield experiment(changed(EXPERIMENT, path, value))
    for seeds in ([2**32], [-1], [0, 0], [0.5], ["0"], "[0, 1", "0"):
        yield experiment(EXPERIMENT | {"seeds": seeds})
    for ratios in ([0.9999999], [1e-9], [1], [0.5, 0.5], [NAN], ["x"]):
        yield experiment(EXPERIMENT | {"ratios": ratios})
    of_bad = changed(EXPERIMENT, "models.tiny.path", "bad")
    for files in (
        {"bad/config.json": None}, {"bad/tokenizer.json": None, "bad/tokenizer_config.json": None}, {"bad/model.safetensors": None},
        {"bad/model.safetensors": None, "bad/pytorch_model.bin": b"x"}, {"bad/config.json": b'{"model_type": "gpt2"}'},
        {"bad/config.json": None, "bad/adapter_config.json": b"{}"}, {"bad/config.json": None, "bad/x.gguf": b"GGUF"},
    ):  # fmt: skip
        yield experiment(of_bad, files)
    for name, content in {
        "x.jsonl": b"[1]", "x.json": b"x", "x.jsonl.xz": b"no xz", "x.jsonl.gz": b"x", "y.jsonl": b"", "z.jsonl": b"\xff\xfe", "x": b"{}",
        "n.jsonl": b"\x00\x00",
    }.items():  # fmt: skip
        yield experiment(changed(EXPERIMENT, "data.instruct.path", name), {name: content})
    yield from _with_data(EXPERIMENT)
    gguf = changed(EXPERIMENT, "models.tiny", {"gguf": "x.gguf"})
    yield from (experiment(gguf, {"x.gguf": content}) for content in (b"", b"GGUF", b"PK\x03\x04", b"GGUF\x03\x00\x00\x00" + b"\xff" * 16))
    yield experiment(gguf)
    for hub_id in ("a b", "../x", "a/b/c", "a--b", ".a", "a/", "/a", "a/b.git", "ü/x", ""):
        yield experiment(changed(EXPERIMENT, "models.tiny", {"hub": {"id": hub_id}}))
        yield experiment(changed(EXPERIMENT, "data.text.held", {"source": "hub", "id": hub_id}))
    no_columns: list[Any] = [{"nope": "q"}, {"instruction": "output", "output": "output"}, {"instruction": "q"}, {"output": ""}, [], "x", 3]
    for columns in no_columns:
        block = {"source": "file", "path": "x.csv", "columns": columns}
        yield experiment(changed(EXPERIMENT, "data.instruct", block), {"x.csv": b"instruction,output\na,b\n"})
    for method in ("wanda-sp-pft", "llm-pruner-pft", "slicegpt-pft", "shortgpt-pft"):
        yield experiment(EXPERIMENT | {"ratios": [0.9], "methods": {method: None}})


def _with_data(whole: dict[str, Any]) -> Iterator[Case]:
    """Experiments whose data files hold, in their second row, what the preparation would refuse."""
    for value in NO_TEXTS:
        rows = f'{GOOD}\n{{"instruction": "a", "output": {value}}}\n'
        yield experiment(changed(whole, "data.instruct.path", "x.jsonl"), {"x.jsonl": rows.encode()})
        texts = f'{{"text": "a"}}\n{{"text": {value}}}\n'
        yield experiment(changed(whole, "data.text.held.path", "x.jsonl"), {"x.jsonl": texts.encode()})
    for name, values in NO_ITEMS.items():
        for value in values if name in ("question", "choices", "answer") else []:
            items = [{"question": "q", "choices": ["x", "y"], "answer": 0}, ITEM | {name: value}]
            yield experiment(changed(whole, "data.tasks.own.path", "x.json"), {"x.json": json.dumps(items).encode()})
    for content in NO_ROWS:
        yield experiment(changed(whole, "data.instruct.path", "x.jsonl"), {"x.jsonl": content})


def _is_possible(path: str, value: object) -> bool:
    """Return whether a value that is nonsense elsewhere can stand here."""
    return (path, str(value)) in {
        ("name", "x"), ("seeds", "[3]"), ("methods.lora", "{}"), ("methods.lora", "None"), ("benchmark", "None"), ("ratios", "[]"),
        ("tuning.batch_size", "3"), ("evaluation.batch_size", "3"), ("pat.hio_rank", "3"),
    }  # fmt: skip


def experiment(raw: Mapping[str, Any], files: Files | None = None) -> Case:
    return Case(("validate", "bad.yaml"), {"bad.yaml": yaml.safe_dump(dict(raw)).encode(), **(files or {})})


KINDS = {
    "settings": settings_cases, "settings together": together_cases, "texts of settings": text_cases, "rows": row_cases, "items": item_cases,
    "options": option_cases, "places": place_cases, "adapters": adapter_cases, "calibration": calibration_cases, "bases": base_cases, "experiments": experiment_cases,
}  # fmt: skip
