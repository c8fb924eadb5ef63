"""The commands of `ntm`, one a module: its arguments, and what it does."""
