"""Intervals and paired tests. Knows nothing of files or tables."""
