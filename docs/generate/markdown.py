"""Pieces of Markdown that the reference pages share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

CODE = re.compile(
    r"`[^`]+`"  # is code already
    r"|\[[\w, ]+\]"  # a shape, which would otherwise look like a link
    r"|--[a-z][a-z-]*"
    r"|\b(?:ABORTED|DRAINING|INTERNAL|UNAUTHENTICATED|UNAVAILABLE)\b"
    r"|\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b"
    r"|\b[a-z0-9]+(?:_[a-z0-9]+)+\b"
)
"""The parts of sentences in docstrings and comments that are set as code."""


def head(title: str, source: str) -> str:
    """A page's title, and a note that the page is generated."""
    note = f"<!-- Written by `make reference` from {source}. Do not edit this page. -->"
    return f"# {title}\n\n{note}\n"


def prose(text: str) -> str:
    """A sentence of the code as Markdown: names and shapes are set as code."""
    return CODE.sub(lambda found: f"`{found[0].strip('`')}`", text)


def sentence(text: str) -> str:
    """A phrase of the code as a sentence."""
    text = prose(text)
    # Not a name such as gRPC, nor what is set as code.
    first = text[:1].upper() if text[1:2].islower() or text[1:2] == " " else text[:1]
    return f"{first}{text[1:].rstrip('.')}."


def cell(text: str) -> str:
    """A sentence as a cell of a table, on one line."""
    return " ".join(prose(text).split()).replace("|", "\\|")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
