"""What is checked of a tuning before a model is loaded: first what takes milliseconds, as a search of its rate does too, then the rest."""

from __future__ import annotations

from pat.checkpoints.base_checks import check_base, check_checkpoint
from pat.checkpoints.basis_record import check_basis
from pat.checkpoints.readers_record import check_readers
from pat.data.context import check_context, context_of
from pat.errors import UserError
from pat.families.known import family_of
from pat.io import artefacts
from pat.io.progress import say
from pat.machine import processes
from pat.models.recomputed import check_recomputation
from pat.models.sharding import check_sharding
from pat.training.distillation import check_teacher
from pat.training.fit import check_fit, check_milestone, check_steps
from pat.training.request import TuningRequest


def check_request(request: TuningRequest) -> None:
    """Raise UserError where a tuning cannot be, by its settings, the JSON files of its models and the headers of their weights.

    That is: an unknown tuner, a ratio, ranks or an alignment that do not fit, a teacher without distillation or the other way round, a
    folder that no model can be opened from, a base that cannot be pruned or recomputed so, or is in another basis or with other readers.
    """
    request.check()
    check_teacher(request)
    check_base(request.base, tokenizer=True)
    if request.teacher is not None:
        check_checkpoint(request.teacher)
    if request.masked and (reason := family_of(request.model_config).width_obstacle) is not None:
        raise UserError(f"--tuner {request.tuner} with --base {request.base}: cannot prune while it tunes: {reason}; lora and dora tune it")
    check_fit(request)
    check_recomputation(request)
    if request.masked:
        choices = request.job.pat
        check_basis(request.base, choices.basis, choices.tie)
        check_readers(request.base, choices.readers, choices.mask, request.ratio)


def check_inputs(request: TuningRequest) -> None:
    """As `check_request`, and by what takes longer: the contents of the base, the device, the rows. Its processes join one another here."""
    check_request(request)
    artefacts.check_if_listed(request.base)
    check_sharding(request)
    processes.join(request.device)
    _check_rows(request)


def _check_rows(request: TuningRequest) -> None:
    """Raise UserError where the rows are too long for the model or too few for the recipe; say what the settings take from them."""
    check_context(request.rows, context_of(request.model_config))
    check_steps(request.job, len(request.rows))
    if request.masked:
        check_milestone(request.job, len(request.rows))
    if lost := request.rows.losses():
        say(f"tune: {lost}")
