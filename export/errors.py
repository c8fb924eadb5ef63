"""The error of a command line that is understood, but cannot be followed."""

from __future__ import annotations


class Misused(ValueError):
    """An option or an argument is wrong; the message says which and what it may be."""
