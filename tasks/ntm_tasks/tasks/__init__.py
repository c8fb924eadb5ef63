"""One module a task: its generator of sequences, and `TASK`, which the registry finds."""
