"""Files and what is said: written atomically, read with checks, marked as ours; records of where they come from; progress."""
