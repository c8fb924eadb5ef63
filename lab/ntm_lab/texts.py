"""Texts that others wrote, such as a server, as they are printed."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""
    The text in one line that leaves the terminal as it is: a line end is written as `\n`, and any
    other character that cannot be seen by its code.
    """
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )
