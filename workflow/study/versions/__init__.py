"""Results under version control: seals, and the way back from DVC."""
