"""`pat refit-readers`: a base whose readers compensate for the channels that a fixed mask will drop; stock, with `readers.json` beside it.

Owns the verb and its record. The arithmetic is readers.py's, the channels are those that `attach` would keep.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pat.bases.reader_fit import RIDGES, Fit
from pat.bases.readers import Fits, Seen, fit_to_pruned, fit_to_unpruned, map_norms, refit_in_place, write_refitted
from pat.bases.text_gap import Said, perplexity, said
from pat.checkpoints import checkpoint
from pat.checkpoints.base_checks import check_base
from pat.checkpoints.basis_record import basis_of, tie_of
from pat.checkpoints.fidelity import gap_to_changed
from pat.checkpoints.merge import record_of, summary
from pat.checkpoints.readers_record import HELD_OUT, READERS_RECORD, SECOND_TEXT, readers_of
from pat.data.calibration import CHECK_TOKENS, Blocks, Calibration, blocks_and_check, blocks_for
from pat.errors import UserError
from pat.families.known import family_of
from pat.io import artefacts
from pat.io.marks import FOLDERS, check_replaceable
from pat.io.progress import say
from pat.io.provenance import checksums, provenance
from pat.machine.threads import threads_given_back
from pat.method.importance import channel_importance
from pat.method.mask import largest
from pat.models.masked import kept_channels_only
from pat.models.reshaped import ReshapedConfig
from pat.models.width import planned_width, width_at
from pat.settings.config import Mask, PatConfig


@threads_given_back
def refit_readers(
    base: Path,
    mask: str,
    ratio: float,
    align: int | Literal["auto"],
    calibration: Calibration,
    out: Path,
    data: Path | None = None,
    threads: int = 1,
    second_text: Path | None = None,
    *,
    ridges: Sequence[float] = RIDGES,
    columns: Mapping[str, str] | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Write `base` with readers refitted to the channels that `mask` keeps at `ratio` to `out`, and return its record.

    `data` is the instruction set of the tuning to come, on which some masks are measured, `columns` what it calls our fields. `error` in
    the record is, a norm, the share of its output that plain and refitted readers miss, of ordinary, massive and held-out tokens. `tokens`
    is how many tokens the fits are to. `text` is what the cut does to the base's perplexity with both, on held-out calibration text, which
    chooses among the fits `tried`, and on `second_text`, which has no part in it; `tried` has both of each fit, two for each of
    `ridges`. Where no fit makes the cut better on the held-out text the readers stay plain: `applied` says which; `ridge` and `seen` are
    None.
    Raises UserError on a mask that is learned, a width that cannot be, missing data, a base that is incomplete, changed, reshaped or
    refitted already, or where `out` holds something else, unless with `force`.
    """
    check_replaceable(out, FOLDERS["refit-readers"], force=force)
    config = _checked(mask, ratio, align, calibration.seed, data)
    _check_base(base)
    check_share(base, ratio, align)
    torch.set_num_threads(threads)
    learned = None if data is None else Calibration(data, seed=config.seed, columns=columns or None)
    before = _measured(base, config, calibration, learned, second_text)
    best, tried = _best(_tried(base, calibration.device, before, ridges))
    applied = helps(best.perplexity, perplexity(before.plain[HELD_OUT]))
    with artefacts.new_folder(out, FOLDERS["refit-readers"], force=force) as folder:
        record = _write_model(base, folder, best.fits if applied else {}, before.kept_D)
        record |= {"basis": basis_of(base), "tie": tie_of(base), "mask": mask, "pruning_ratio": ratio}
        record |= {"kept": before.kept_D.nonzero().flatten().tolist(), "tokens": int(before.text.mask_NT.sum())}
        record |= {"applied": applied, "ridge": best.ridge if applied else None, "seen": best.seen if applied else None}
        record |= {"best_perplexity": best.perplexity, "tried": tried, "error": {norm: _errors(fit) for norm, fit in best.fits.items()}}
        refitted = _said_when_cut(folder, before.kept_D, before.texts, calibration.device) if applied else before.plain
        record["text"] = {name: _effect(before.whole[name], before.plain[name], refitted[name]) for name in before.texts}
        record["provenance"] = _origin(base, config, calibration, learned, second_text, ridges)
        artefacts.write_json(folder / READERS_RECORD, record)
    _report(record, len(before.kept_D))
    return record


def _check_base(base: Path) -> None:
    """Raise UserError where a folder is no base whose readers can be refitted."""
    check_base(base, tokenizer=True)
    artefacts.check_if_listed(base)
    if isinstance(checkpoint.load_config(base), ReshapedConfig):
        raise UserError(f"{base}: is reshaped, its layers do not share one stream; give a stock model")
    if (reason := family_of(checkpoint.load_config(base)).readers_obstacle) is not None:
        raise UserError(f"{base}: its readers have no channels to do without: {reason}")
    if readers_of(base) != "plain":
        raise UserError(f"{base}: its readers are refitted already; give the model that it was made from")


def check_share(base: Path, ratio: float, align: int | Literal["auto"]) -> None:
    """Raise UserError where a ratio leaves readers nothing to do without, or comes to no width of a base; before any work."""
    if ratio == 0:
        raise UserError("--ratio 0: no channel goes, so that readers have nothing to do without; give a share above 0")
    width_at(checkpoint.load_config(base), ratio, align)


@dataclass(frozen=True)
class _Before:
    """What the fits start from: the channels to keep, the text to fit on, and what the base says of other texts, whole and cut."""

    kept_D: Tensor
    text: Blocks
    texts: dict[str, Blocks]
    whole: dict[str, Said]
    plain: dict[str, Said]


def _measured(base: Path, config: PatConfig, calibration: Calibration, data: Calibration | None, second_text: Path | None) -> _Before:
    """Return what the base is before anything is fitted. Raises UserError on a width that cannot be."""
    model, tokenizer = checkpoint.load_to_measure(base, calibration.device), checkpoint.load_tokenizer(base)
    kept_D = kept_by(model, tokenizer, config, data)
    text, check = blocks_and_check(model.config, calibration, tokenizer)
    texts = {HELD_OUT: check}
    if second_text is not None:
        texts[SECOND_TEXT] = blocks_for(model.config, replace(calibration, path=second_text, tokens=CHECK_TOKENS, columns=None), tokenizer)
    whole = _said(model, texts)
    del model  # two of them would need twice the memory
    return _Before(kept_D, text, texts, whole, _said_when_cut(base, kept_D, texts, calibration.device))


def _write_model(base: Path, folder: Path, fits: Mapping[str, Fit], kept_D: Tensor) -> dict[str, Any]:
    """Write the base with its readers changed by the fits; return the record of its sizes, and of how far it is from what was meant."""
    written = write_refitted(base, folder, fits, kept_D)
    return record_of(base, folder, 0.0) | gap_to_changed(written, lambda model: map_norms(model, fits, kept_D))


def _origin(
    base: Path, config: PatConfig, calibration: Calibration, data: Calibration | None, second_text: Path | None, ridges: Sequence[float]
) -> dict[str, Any]:
    """Return what the model is made from: settings, the contents of the texts, and code."""
    texts = {"calibration": calibration.path, "data": data.path if data else None, "second_text": second_text}
    settings: dict[str, object] = {"mask": config.mask, "ratio": config.ratio, "align": config.align, "tokens": calibration.tokens}
    settings |= {name: checksums(path) for name, path in texts.items() if path}
    settings |= {} if tuple(ridges) == RIDGES else {"ridges": list(ridges)}
    settings |= (data.naming("columns") if data else {}) | calibration.naming("calibration_columns")
    return provenance(settings, calibration.seed, calibration.device, {"base": base, **texts})


def _report(record: dict[str, Any], channels: int) -> None:
    """Say what was done, and what it does to text."""
    done = "refitted to" if record["applied"] else "left plain for"
    say(f"readers {done} {len(record['kept'])} of {channels} channels; {summary(record)}")
    for sentence in _told(record["text"]) if record["applied"] else [_why_plain(record)]:
        say(sentence)


@dataclass(frozen=True)
class _Tried:
    """One way to fit the readers, and the perplexities of the cut model with them: of the held-out text, and of the second one if any."""

    seen: Seen
    ridge: float
    fits: Fits
    perplexities: Mapping[str, float]

    @property
    def perplexity(self) -> float:
        """That of the text which chooses among the fits."""
        return self.perplexities[HELD_OUT]

    @property
    def figures(self) -> dict[str, Any]:
        """What the record tells of it."""
        second = {"second_text": self.perplexities[SECOND_TEXT]} if SECOND_TEXT in self.perplexities else {}
        return {"seen": self.seen, "ridge": self.ridge, "perplexity": self.perplexity, **second}


def _tried(base: Path, device: str, before: _Before, ridges: Sequence[float]) -> Iterator[_Tried]:
    """Yield every way to fit the readers."""
    unpruned = _fits_to_unpruned(base, device, before, ridges)
    for ridge in ridges:
        yield _with_unpruned(base, device, before, ridge, unpruned.pop(ridge))
    for ridge in ridges:
        yield _with_pruned(base, device, before, ridge)


# One model is in memory at a time: each of these has its own, and lets it go.
def _fits_to_unpruned(base: Path, device: str, before: _Before, ridges: Sequence[float]) -> dict[float, Fits]:
    model, check = checkpoint.load_to_measure(base, device), before.texts[HELD_OUT]
    return fit_to_unpruned(model, before.text.batches(), before.kept_D, check.batches(), ridges)


def _with_unpruned(base: Path, device: str, before: _Before, ridge: float, fits: Fits) -> _Tried:
    model = checkpoint.load_to_measure(base, device)
    refit_in_place(model, fits, before.kept_D)
    return _Tried("unpruned", ridge, fits, _perplexities_when_cut(model, fits, before))


def _with_pruned(base: Path, device: str, before: _Before, ridge: float) -> _Tried:
    model, check = checkpoint.load_to_measure(base, device), before.texts[HELD_OUT]
    fits = fit_to_pruned(model, before.text.batches(), before.kept_D, check.batches(), ridge)
    return _Tried("pruned", ridge, fits, _perplexities_when_cut(model, fits, before))


def _perplexities_when_cut(model: PreTrainedModel, fits: Fits, before: _Before) -> dict[str, float]:
    """Return the perplexity of each text of a model whose readers have these fits, with its dead channels at zero."""
    final = family_of(model.config).final_norm  # its reader, the head, is not refitted in place
    kept_channels_only(model, before.kept_D)
    map_norms(model, {norm: fit for norm, fit in fits.items() if norm == final}, before.kept_D)
    return {name: perplexity(said(model, text)) for name, text in before.texts.items()}


def _best(tried: Iterable[_Tried]) -> tuple[_Tried, list[dict[str, Any]]]:
    """Return the way that is best on the held-out text, and the figures of all; of a large model's fits two are held at most."""
    best: _Tried | None = None
    figures = []
    for one in tried:
        figures.append(one.figures)
        best = one if best is None or one.perplexity < best.perplexity else best
        del one  # or it would be held while the next is fitted
    assert best is not None
    return best, figures


def helps(refitted: float, plain: float) -> bool:
    """Return whether readers are refitted, by the cut model's perplexities on held-out text."""
    return refitted < plain


def _why_plain(record: Mapping[str, Any]) -> str:
    name, it = next(iter(record["text"].items()))
    return (
        f"readers stay plain: perplexity on {name} is {it['plain']:.2f} with the cut alone and {record['best_perplexity']:.2f} with the "
        "best refit; more calibration text may change that"
    )


def _errors(fit: Fit) -> dict[str, Any]:
    found: dict[str, Any] = {"plain": fit.error_plain, "least-squares": fit.error}
    if fit.massive_tokens:
        found["massive"] = {"tokens": fit.massive_tokens, "plain": fit.massive_plain, "least-squares": fit.massive}
    if fit.held_out is not None:
        found["held out"] = {"plain": fit.held_out_plain, "least-squares": fit.held_out}
    return found


def _said(model: PreTrainedModel, texts: Mapping[str, Blocks]) -> dict[str, Said]:
    return {name: said(model, blocks) for name, blocks in texts.items()}


def _said_when_cut(folder: Path, kept_D: Tensor, texts: Mapping[str, Blocks], device: str) -> dict[str, Said]:
    """Return what the model in a folder says of the texts with its dead channels at zero."""
    model = checkpoint.load_to_measure(folder, device)
    kept_channels_only(model, kept_D)
    return _said(model, texts)


def _effect(whole: Said, plain: Said, refitted: Said) -> dict[str, float]:
    """Return the perplexities of the base and of the cut with plain and with refitted readers, and how many tokens they are of."""
    of = {"base": whole, "plain": plain, "least-squares": refitted}
    return {name: perplexity(one) for name, one in of.items()} | {"tokens": len(whole.next_N)}


def _told(texts: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return what the user should know of the fit: its effect on each text, and a warning where it harms one."""
    told = [
        f"perplexity on {name}: {it['base']:.2f} whole, {it['plain']:.2f} cut, {it['least-squares']:.2f} cut with refitted readers"
        for name, it in texts.items()
    ]
    helped, harmed = ([name for name, it in texts.items() if (it["least-squares"] < it["plain"]) is better] for better in (True, False))
    if harmed and helped:
        told.append(
            f"warning: refitting helps on {helped[0]} and harms on {harmed[0]}: it has learned the calibration text; give calibration text "
            "of more kinds or more of it, or use readers: plain"
        )
    return told


def _checked(mask: str, ratio: float, align: int | Literal["auto"], seed: int, data: Path | None) -> PatConfig:
    config = PatConfig(pruning_ratio=ratio, mask=cast(Mask, mask), align=align, readers="least-squares", seed=seed)
    if config.measured and data is None:
        raise UserError(f"--mask {mask}: is measured on the instruction set that the model will be tuned on; give it as --data")
    return config


def kept_by(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: PatConfig, data: Calibration | None) -> Tensor:
    """Return the channels that `attach` keeps of a base, (D,) boolean. Raises UserError on a width that cannot be."""
    text = None
    if config.measured and data is not None:
        text = blocks_for(model.config, data, tokenizer)
    importance_D = channel_importance(model, config, text)
    assert importance_D is not None  # a fixed mask has an order
    return largest(importance_D.cpu(), planned_width(model.config, config))
