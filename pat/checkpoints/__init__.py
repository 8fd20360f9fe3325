"""Checkpoints on disk: read, checked, changed a tensor at a time, merged, and compared with what they stand for."""
