"""The card of a checkpoint, README.md, as the hub reads it: front matter with what is inherited, what was removed, how to open it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCardData

from pat.checkpoints.lineage import DATASETS, OWN_TAG
from pat.checkpoints.origin import origin_sentence
from pat.models.reshaped import ReshapedConfig

STOCK_CARD = "A stock checkpoint: `AutoModelForCausalLM.from_pretrained` opens it, and so does everything built on it."
RESHAPED_CARD = """Its layers have sizes that no stock class holds. It needs the package `pruning-aware-tuning`: after

    import pat.reshaped

`AutoModelForCausalLM.from_pretrained` opens it, without remote code."""
PROBED = {"text": "a few passages of text", "vocabulary": "random words of its vocabulary"}
FIELDS: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": [OWN_TAG]}
PRUNED_TAG = "structured-pruning"


def front(fields: Mapping[str, Any]) -> str:
    """Return fields as a card's front matter."""
    return f"---\n{ModelCardData(**fields).to_yaml(line_break=chr(10))}\n---\n"


def linked(name: str, kind: str = "") -> str:
    """Return a link to a model of the hub, or with `kind` to another thing there."""
    return f"[{name}](https://huggingface.co/{kind}{name})"


def model_card(record: dict[str, Any], how: str, config: Any, lineage: Mapping[str, Any] | None = None) -> str:
    """Return the README.md of a checkpoint: what it is and is made of, how to open it, its sizes."""
    opening = RESHAPED_CARD if isinstance(config, ReshapedConfig) else STOCK_CARD
    base, width, count = record["base"], record["hidden_size"]["after"], record["parameters"]["after"]
    named, learned = (lineage or {}).get("base_model"), (lineage or {}).get(DATASETS) or ()
    made = [f"Made of {linked(named)}."] if named else []
    made += [f"Trained on {', '.join(linked(name, 'datasets/') for name in learned)}."] if learned else []
    smaller = record["removed"] > 0
    text = f"""
# A {"pruned and " if smaller and not record["ratio_requested"] else ""}{how} model

{opening}
{f"{chr(10)}{' '.join(made)}{chr(10)}" if made else ""}
| | base model | this model |
| --- | --- | --- |
| hidden size | {base["hidden_size"]} | {width} |
| parameters, each counted once | {base["parameters"]["unique"]:,} | {count["unique"]:,} |
| parameters without embedding and head | {base["parameters"]["without_embeddings"]:,} | {count["without_embeddings"]:,} |

{_removed(record)}
Written in {record["kl_dtype"]}, its predictions differ from those of the model that it stands for by {record["kl_on_text"]:.1e} nats per
token (KL divergence on {PROBED[record["kl_probe"]]}); before rounding, its logits differ by {record["fold_gap"]:.1e} of their size.
The JSON file beside this card says which settings, code version and inputs made it.
"""
    origin = origin_sentence(record.get("origin"))
    tags = {"tags": [*FIELDS["tags"], PRUNED_TAG]} if smaller else {}
    return front(FIELDS | tags | dict(lineage or {})) + text + (f"\n{origin}\n" if origin else "")


def _removed(record: Mapping[str, Any]) -> str:
    """Return what is gone of the model that was given first, and what this step was asked for, where it prunes."""
    if record["removed"] <= 0:
        return "None of the base model's parameters are removed."
    asked = f"Requested ratio {record['ratio_requested']:.2%}; " if record["ratio_requested"] else ""
    return f"{asked}{record['removed']:.2%} of the base model's parameters are removed."
