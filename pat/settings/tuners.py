"""The tuners by name: which there are, which of them prune while they tune, and whose low-rank adapters are DoRA's. No torch."""

from __future__ import annotations

MASKED = ("pat", "pat-dora", "pat-g")
"""They prune while they tune."""
TUNERS = ("lora", "dora", *MASKED)
WITH_DORA = ("dora", "pat-dora")
MASKED_NAMES = "pat, pat-dora and pat-g"
