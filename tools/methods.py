"""The table of methods in config/README.md, from what the registries say of each: what it does, at which ratios, when to take it."""

from __future__ import annotations

import re
from itertools import groupby

from pat.pruners import PRUNERS
from study.experiment.methods import METHODS, Method

BLOCK = re.compile(r"(<!-- methods -->\n).*?(<!-- /methods -->)", re.DOTALL)
HEAD = "| method | what it does | ratios | when to take it |\n| --- | --- | --- | --- |\n"


def page(text: str) -> str:
    """Return a page with the table between its marks made again."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{table()}\n{found[2]}", text)


def table() -> str:
    """Return a line a method, one for all orders of a pruner, and what the lines have in common."""
    lines = [_line(list(methods)) for _, methods in groupby(METHODS.values(), lambda method: (method.summary, method.pruner))]
    plain = ", ".join(f"`{pruner.name}`" for pruner in PRUNERS.values() if pruner.measures != "text")
    return (
        HEAD
        + "".join(lines)
        + "\n`-pft` prunes the base and then tunes it with LoRA (P→FT); `-ftp` takes the merged model of the row `lora` and "
        "prunes that (FT→P);\n`-ftpft` tunes the base for the first part of the steps, merges and prunes it, and tunes it for the rest "
        "(FT→P→FT).\n"
        f"All pruners but {plain} measure on text, see `data.calibration`.\n"
    )


def _line(methods: list[Method]) -> str:
    names, first = ", ".join(f"`{method.name}`" for method in methods), methods[0]
    return f"| {names} | {first.summary} | {first.reach} | {first.when} |\n"
