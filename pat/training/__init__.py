"""Tuning and pretraining: from settings and data to an adapter, resumable after a kill."""
