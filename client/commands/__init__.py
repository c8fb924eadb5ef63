"""The commands of `python -m client`, one a module: its arguments, and what it does."""
