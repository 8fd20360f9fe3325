"""Scoring: questions and held-out text put to a checkpoint, and what its answers are worth."""
