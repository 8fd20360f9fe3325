"""The order of a figure's methods: that of the tables, whichever ratios a method was run at."""

from __future__ import annotations

import pandas as pd

from study.figures.lines import names_in_order


def test_a_method_of_later_ratios_alone_keeps_its_place() -> None:
    ran_at = {0.0: ["lora"], 0.25: ["slicegpt", "shortgpt", "pat"], 0.5: ["slicegpt", "llm-pruner", "shortgpt", "pat", "pat-early"]}
    data = pd.DataFrame(
        [{"method": method, "name": method.upper(), "ratio": ratio} for ratio in (0.5, 0.0, 0.25) for method in ran_at[ratio]]
    )
    assert list(names_in_order(data)) == ["lora", "slicegpt", "llm-pruner", "shortgpt", "pat", "pat-early"]
    assert names_in_order(data)["pat-early"] == "PAT-EARLY"
