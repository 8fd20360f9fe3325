"""What every command of the study has in common: its places, its options, how it ends."""
