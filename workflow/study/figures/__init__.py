"""Figures drawn from cells, benchmarks and records, each with its data beside it."""
