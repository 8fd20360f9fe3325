"""The largest numbers that settings and options can hold. For the command line too, which knows nothing of pydantic until a verb runs."""

from __future__ import annotations

MOST = 2**31 - 1
"""The largest whole number that torch's kernels count with."""
MOST_THREADS = 1024
LARGEST_SEED = 2**32 - 1
"""numpy's generators take no larger one."""
LARGEST_FACTOR = 1e6
"""Beyond it, rates and factors of losses leave nothing of fp32's digits."""
