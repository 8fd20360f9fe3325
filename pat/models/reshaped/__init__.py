"""Models that no stock class holds: layers of different sizes, or a stream of another width and basis before every block.

Importing this module registers the class with transformers' Auto classes; such a checkpoint then opens like any other, without remote
code. Owns the class alone: what is cut and why is the pruners'.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModelForCausalLM

from pat.models.reshaped.config import ReshapedConfig
from pat.models.reshaped.model import ReshapedForCausalLM

__all__ = ["ReshapedConfig", "ReshapedForCausalLM"]

AutoConfig.register(ReshapedConfig.model_type, ReshapedConfig, exist_ok=True)
AutoModelForCausalLM.register(ReshapedConfig, ReshapedForCausalLM, exist_ok=True)
