"""The arguments of the programs: numbers with limits, and files that can be written."""

from __future__ import annotations

import os
import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path

from ntm_lab import outputs
from ntm_lab.outputs import OutputInvalid

BUILD = Path("build")
"""The folder of what programs make, which a fresh checkout lacks."""

MAX_ROUNDS = 1_000


def whole(minimum: int, maximum: int) -> Callable[[str], int]:
    """A reader of whole numbers in these limits."""

    def read(text: str) -> int:
        value = int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else None
        if value is None or not minimum <= value <= maximum:
            raise ArgumentTypeError(
                f"{text!r:.80} is not a whole number from {minimum} to {maximum}"
            )
        return value

    return read


def number(minimum: float, maximum: float) -> Callable[[str], float]:
    """A reader of numbers in these limits, in decimal digits."""

    def read(text: str) -> float:
        value = float(text) if re.fullmatch(r"[+-]?[0-9]{1,12}(\.[0-9]{1,12})?", text) else None
        if value is None or not minimum <= value <= maximum:
            raise ArgumentTypeError(f"{text!r:.80} is not a number from {minimum:g} to {maximum:g}")
        return value

    return read


def output(text: str, *suffixes: str) -> Path:
    """Read the path of a file that is written at the end."""
    path = Path(text)
    if path.parent == BUILD:
        BUILD.mkdir(exist_ok=True)
    try:
        outputs.check(path, suffixes)
    except OutputInvalid as error:
        raise ArgumentTypeError(f"{text!r} cannot be written: {error}") from error
    return path


def markdown(text: str) -> Path:
    """Read the path of a Markdown file to write."""
    return output(text, ".md")


def json(text: str) -> Path:
    """Read the path of a JSON file to write."""
    return output(text, ".json")


def png(text: str) -> Path:
    """Read the path of a picture to write."""
    return output(text, ".png")


def checkout(text: str) -> Path:
    """Read the folder of a checkout of the project."""
    path = Path(text)
    if not os.path.isfile(path / "service" / "__main__.py"):  # unlike Path's, it never raises
        raise ArgumentTypeError(f"{text!r} is not the folder of a checkout of the project")
    return path
