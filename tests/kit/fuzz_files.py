"""Files of data in the other formats and forms that are read, none of which holds rows to learn from, and options of theirs. No assertion."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Iterator

from tests.kit.fuzz_corpus import Case
from tests.kit.fuzz_workspace import MAKE, PRETRAIN, PRUNE, TUNE, TUNING

ROW = b'{"instruction": "a", "output": "b"}'
BROKEN: dict[str, list[bytes]] = {
    "x.csv": [b"", b"instruction,output\n", b"instruction,output\na\n", b"instruction,output\na,b,c\n", b"instruction,output\na,\n", b"\xff\xfe",
              b"output,instruction,output\na,b,c\n", b'instruction,output\n"a,b\n', b"x,y\n1,2\n", b"\x00\x00\x00"],
    "x.parquet": [b"", b"PAR1", b"PAR1" + b"\x00" * 40 + b"PAR1", ROW],
    "x.json": [b"", b"[]", b"{}", b"[1]", b'{"data": [1]}', b'[{"instruction": "a", "output": "b", "output": "c"}]', b"[" + ROW, b"null", b"\xff"],
    "x.txt": [b"", b"\n \n", b"\xff"],
    "x.jsonl.gz": [b"", b"x", gzip.compress(ROW)[:-9], gzip.compress(b""), gzip.compress(b"[1]")],
    "x.jsonl.xz": [b"", b"x", lzma.compress(ROW)[:-9], lzma.compress(b"\n")],
    "x.jsonl.bz2": [b"", b"x"],
    "x.jsonl.zst": [b"", b"x"],
    "x.tsv": [ROW], "x.arrow": [b"x"], "x": [ROW],
}  # fmt: skip
NO_CHATS = [
    [], "x", 3, None, {}, [3], [{}], [{"role": "user"}], [{"role": "user", "content": 3}], [{"content": "a"}], [{"role": 3, "content": "a"}],
    [{"role": "user", "content": "a"}], [{"role": "user", "content": "a"}, {"role": "assistant", "content": None}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}], [{"role": "alien", "content": "a"}],
]  # fmt: skip
NO_COLUMNS = [["x"], ["=x"], ["output="], ["nope=x"], ["output=none"], ["output=a", "output=b"], ["instruction=a", "output=a"], [""]]
NO_BUDGETS = ["0", "-1", "nan", "inf", "x", "", "1e30", "1e-9"]


def file_cases() -> Iterator[Case]:
    """Everything that `--data` may name, broken, of another kind than its ending says, or without anything to learn."""
    recipe = ("--settings", json.dumps(TUNING))
    for name, contents in BROKEN.items():
        for content in contents:
            yield Case((*TUNE, *recipe, "--data", name), {name: content})
            yield Case((*MAKE, "--settings", json.dumps(PRETRAIN), "--corpus", "x.jsonl"), {"x.jsonl": content if content != ROW else b""})
    for field in ("messages", "conversations"):
        for chat in NO_CHATS:
            yield Case((*TUNE, *recipe, "--data", "x.jsonl"), {"x.jsonl": json.dumps({field: chat}).encode()})
    for row in ({"prompt": "a"}, {"completion": "b"}, {"prompt": 3, "completion": "b"}, {"prompt": "a", "completion": ""}, {"text": " "}):
        yield Case((*TUNE, *recipe, "--data", "x.jsonl"), {"x.jsonl": json.dumps(row).encode()})
    for columns in NO_COLUMNS:
        options = [word for each in columns for word in ("--column", each)]
        yield Case((*TUNE, *recipe, "--data", "x.jsonl", *options), {"x.jsonl": b'{"a": "a", "b": "b"}'})
    for option in ("--budget-parameters", "--budget-memory-gib"):
        yield from (Case((*PRUNE, option, value)) for value in NO_BUDGETS)
        yield Case((*PRUNE, option, "0.5", "--ratio", "0.5"))
    yield Case((*PRUNE, "--budget-parameters", "0.5", "--budget-memory-gib", "0.0001"))
