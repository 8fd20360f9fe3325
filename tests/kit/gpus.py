"""The GPUs of the machine: the tests' own process sees the first alone."""

import os

ALL_GPUS = "PAT_TESTS_GPUS"
"""The variable that names all GPUs that whoever started the tests may use."""


def all_gpus() -> list[str]:
    """Return them as CUDA_VISIBLE_DEVICES would name them."""
    return os.environ[ALL_GPUS].split(",")
