"""The settings of a run, checked and frozen, and how a mistake in them is worded. No torch."""
