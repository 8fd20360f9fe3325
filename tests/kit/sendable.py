"""A model that can be sent to the hub: a base as it lies in the hub's cache, what is pruned of it, and an evaluation of that."""

from __future__ import annotations

from pathlib import Path

from pat.checkpoints.checkpoint import import_model
from pat.checkpoints.push import Published
from pat.data.items import write_items
from pat.io.artefacts import write_jsonl
from pat.pruners.pruning import prune
from pat.scoring.evaluation import evaluate
from pat.settings.jobs import EvaluationSettings
from tests.kit.tiny_checkpoint import some_items, write_tiny_checkpoint

CARD = "---\nlicense: other\nlicense_name: tiny\nlicense_link: LICENSE.md\nlanguage: [en, de]\nbase_model: their/first\ntags: [x]\n---\n# Theirs\n"


def write_sendable(folder: Path) -> None:
    """Write imported, pruned and evaluation.json into a folder."""
    base = write_tiny_checkpoint(folder / "models--someone--tiny" / "snapshots" / "abc")
    (base / "README.md").write_text(CARD, encoding="utf-8")
    (base / "LICENSE.md").write_text("terms", encoding="utf-8")
    (base / "chat_template.jinja").write_text("{{ messages[0]['content'] }}", encoding="utf-8")
    import_model(base, folder / "imported")
    prune(folder / "imported", "channel-magnitude", 0.25, 8, folder / "pruned")
    write_items(folder / "toy.jsonl", some_items(6))
    write_jsonl(folder / "held.jsonl", [{"text": "a text that is held out"}])
    settings = EvaluationSettings(batch_size=4, perplexity_context=16, device="cpu")
    evaluate(folder / "pruned", [folder / "toy.jsonl"], [folder / "held.jsonl"], settings, 0, folder / "evaluation.json")


def published(work: Path) -> Published:
    """Return what is said of it."""
    return Published(work / "evaluation.json", ["my/rows"], benchmarks={"toy": "some/benchmark:toy_task"})
