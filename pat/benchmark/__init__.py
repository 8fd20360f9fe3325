"""`pat benchmark`: what tuning and inference cost in time and memory, the unpruned model always measured in the same run."""
