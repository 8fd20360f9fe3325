"""The experiment: what runs, on which data, and what becomes of the numbers. Uses the library `pat`, which knows nothing of it."""
