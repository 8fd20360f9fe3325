"""What a user can change when memory runs out, of the GPU or of the machine, by the verb that ran out of it."""

from __future__ import annotations

import errno

ON_GPU = {
    "tune": "set tuning.micro_batch_size: auto, or a lower number (fewer rows at once; the batch, and with it the result, stays), "
    "tuning.gradient_checkpointing: feed-forward or true, tuning.precision: bf16, or tuning.max_length lower",
    "pretrain": "set pretrain.batch_size or pretrain.context_length lower, or pretrain.precision: bf16",
    "prune": "measure on the CPU (tuning.device: cpu; by hand --device cpu)",
    "evaluate": "set evaluation.batch_size lower, evaluation.precision: bf16, or evaluation.perplexity_context lower",
    "benchmark": "set the benchmark's batch_sizes or batch_size lower",
}
ON_MACHINE = {
    "prune": "prune.writer_tokens lower, where writers are refitted",
    "refit-readers": "fewer refit.ridges (by hand --ridge), where they are more than two",
}
PHASES = {"search-rate": "tune", "rotate": "prune", "refit-readers": "prune", "prepare": "prune", "import-model": "prepare"}
"""Verbs that are not named after the block of `resources` that they run under."""
REFUSED_BY_CPU = ("can't allocate memory", "not enough memory")
"""Torch has no exception of its own for this, on the CPU."""
FULL_GPU = "out of memory"
"""Nor for what CUDA itself says."""


def memory_advice(error: BaseException, verb: str) -> str | None:
    """Return one message that says what ran out and what to change; None where the error is no lack of memory."""
    phase = PHASES.get(verb, verb)
    if _is_of_gpu(error):
        change = ON_GPU.get(phase, "use a larger GPU")
        return f"the GPU's memory is too small for this job: {_first_sentences(error)}\nWhat helps: {change}; or a GPU with more memory."
    if _is_of_machine(error):
        less = ON_MACHINE.get(verb) or (ON_GPU[phase] if phase in ("tune", "evaluate") else None)
        also = "" if less is None else f", or {less}"
        return f"the machine's memory is too small for this job: {error}\nWhat helps: resources.{phase}.mem_mb higher{also}."
    return None


def lacks_memory(error: BaseException) -> bool:
    """Return whether an error is a lack of memory, so that nobody takes it for a broken file."""
    return _is_of_gpu(error) or _is_of_machine(error)


def _is_of_gpu(error: BaseException) -> bool:
    import torch

    if isinstance(error, getattr(torch, "AcceleratorError", ())):  # from torch 2.8 on: not the allocator but CUDA itself found no memory
        return FULL_GPU in str(error)
    return isinstance(error, torch.OutOfMemoryError)


def _is_of_machine(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in REFUSED_BY_CPU)


def _first_sentences(error: BaseException) -> str:
    """Return torch's words without its advice on the allocator or on debugging, which seldom helps."""
    return str(error).partition(" Of the allocated memory")[0].partition("\n")[0].strip()
