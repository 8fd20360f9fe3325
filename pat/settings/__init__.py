"""What a run can be told: checked, frozen settings, and how a mistake in them is worded. No torch."""
