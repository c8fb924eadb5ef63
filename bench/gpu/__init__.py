"""The first session on a GPU, as one command: `python -m bench.gpu`."""
