"""`import pat.reshaped`, as model cards say: registers the class of models that no stock class holds with transformers' Auto classes."""

from __future__ import annotations

from pat.models.reshaped import ReshapedConfig, ReshapedForCausalLM

__all__ = ["ReshapedConfig", "ReshapedForCausalLM"]
