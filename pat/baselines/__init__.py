"""The work of the pruners that come with pat, a module each; what they say of themselves is in pat/pruners/.

A pruner takes its job, writes a checkpoint into an empty folder and returns the record of its sizes and of how far it is from the
model it stands for.
"""

from __future__ import annotations

from pat.pruners import PRUNERS

__all__ = ["PRUNERS"]
