"""The machine and the processes of a job: GPUs, threads, memory. Knows nothing of models or files."""
