"""What the options of the commands may be: each number, folder and name is declared here once."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token
from cyclopts import validators as limits

from export.configuration import MAX_LOCATIONS, MAX_SEQUENCES

MAX_SEED = 2**63 - 1
"""The largest seed that PyTorch and numpy both take."""


def _whole(kind: Any, tokens: Sequence[Token]) -> int:
    # Python's own reading takes 1_0 for 10, and cyclopts' 2.5 for 2.
    (token,) = tokens
    if not re.fullmatch("-?[0-9]{1,100}", token.value):
        raise ValueError(f"{token.value[:80]!r} is not a whole number of at most 100 digits")
    return int(token.value)


def _folder(kind: Any, tokens: Sequence[Token]) -> Path:
    (token,) = tokens
    if not token.value:  # Path would take it for the current folder
        raise ValueError("it is empty")
    return Path(token.value)


def _number(minimum: int, maximum: int) -> Parameter:
    """Declare a whole number and its limits."""
    return Parameter(
        converter=_whole, n_tokens=1, validator=limits.Number(gte=minimum, lte=maximum)
    )


def _check_name(kind: Any, name: str | None) -> None:
    if name is not None and (not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", name, re.ASCII)):
        raise ValueError("it must start with a letter or a digit, with more of these, . _ or -")
    if name in RESERVED:
        raise ValueError("that folder holds the pictures of the report")


def _check_filled(kind: Any, text: str | None) -> None:
    if text == "":
        raise ValueError("it is empty")


RESERVED = ("report",)
"""Names in the folder of models that are no model's."""

SEVERAL = Parameter(consume_multiple=(1, 10_000))

Seed = Annotated[int, _number(0, MAX_SEED)]
Seeds = Annotated[tuple[Seed, ...], SEVERAL]
Threads = Annotated[int, _number(1, 256)]
Device = Literal["cpu", "cuda"]
Sequences = Annotated[int, _number(1, MAX_SEQUENCES)]
MemorySize = Annotated[int, _number(1, MAX_LOCATIONS)]
Locations = Annotated[tuple[MemorySize, ...], SEVERAL]
Sizes = Annotated[tuple[str, ...], SEVERAL]
Folder = Annotated[
    Path, Parameter(converter=_folder, n_tokens=1, validator=limits.Path(file_okay=False))
]
"""A folder to write in, which is there or can be made; the command calls `check_output`."""
Picture = Annotated[
    Path | None,
    Parameter(converter=_folder, n_tokens=1, validator=limits.Path(dir_okay=False, ext=("png",))),
]
ExistingFolder = Annotated[
    Path,
    Parameter(converter=_folder, n_tokens=1, validator=limits.Path(file_okay=False, exists=True)),
]
ModelName = Annotated[str | None, Parameter(validator=_check_name)]
Address = Annotated[str | None, Parameter(validator=_check_filled)]
Text = Annotated[str, Parameter(validator=_check_filled)]
TaskSource = Annotated[
    str | None,
    Parameter(
        validator=_check_filled,
        help="A task of your own that the model may be of: MODULE:NAME, whose code is run, or a "
        "file of sequences, .npz.",
    ),
]

ArchitectureSource = Annotated[
    str | None,
    Parameter(
        validator=_check_filled,
        help="An architecture of your own that the model may be of: MODULE:NAME, whose code is "
        "run.",
    ),
]


def check_output(option: str, folder: Path) -> None:
    """
    Check that a folder can be made and written, by a folder that is made there and removed.

    A validator would leave out the option's default.

    Raises:
        ValueError: it cannot; the message names the option.
    """
    there = folder
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    try:
        with TemporaryDirectory(prefix=".ntm-export.", dir=there):
            pass
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be written ({error.strerror}); name another folder with {option}"
        ) from error
