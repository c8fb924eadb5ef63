"""Files that commands write: checked before the work, and never left half written."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

DEVICES = Path("/dev")

STANDARD_INPUT = 0

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Faults that only writing has. The system names no file with them."""


class OutputInvalid(ValueError):
    """A file cannot be written, or its name is not of its format; the message says why."""


def check(path: Path, suffixes: Collection[str] = ()) -> None:
    """
    Check that a file can be written, without writing it.

    Args:
        path: The file; a pipe or another device is taken as it is.
        suffixes: Endings that its name may have, such as .png. A name may also have none.

    Raises:
        OutputInvalid: it cannot be written, or its name has another ending.
    """
    if suffixes and path.suffix and path.suffix.lower() not in suffixes:
        raise OutputInvalid(f"its name must end in {' or '.join(suffixes)}")
    with _explained():
        if path.is_dir():
            raise OutputInvalid("it is a folder; name a file")
        if path.exists() and not os.access(path, os.W_OK):
            raise OutputInvalid("it is there and may not be written")
        if _is_replaced(path) or not path.exists():
            check_folder(_place(path).parent)


def check_folder(folder: Path) -> None:
    """
    Check that files can be written into a folder.

    Raises:
        OutputInvalid: it is missing, is no folder, or may not be written.
    """
    with _explained():
        if not folder.is_dir():
            raise OutputInvalid(f"there is no folder {folder}")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputInvalid(f"the folder {folder} may not be written")


def is_same(first: Path, second: Path) -> bool:
    """Whether two paths are the same regular file, or will be when it is written."""
    if not (_is_replaced(first) and _is_replaced(second)):
        return False
    if first.exists() and second.exists():
        return first.samefile(second)
    return _place(first) == _place(second)


def is_standard_input(path: Path) -> bool:
    """Whether a path is the regular file that standard input comes from."""
    try:
        return _is_replaced(path) and os.path.samestat(path.stat(), os.fstat(STANDARD_INPUT))
    except OSError:
        return False  # one of them is not there


def has_content(path: Path) -> bool:
    """Whether there is a regular file of at least one byte, whose content writing would replace."""
    return path.exists() and _is_replaced(path) and path.stat().st_size > 0


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """
    Open a file for writing, which takes the path's place when the block ends without an error.

    It is written beside the path. After an error, what was at the path before is there still. A
    pipe or another device is written directly.

    Raises:
        OSError: it cannot be written; if no place is left for it, the error has the path.
    """
    try:
        yield from _replacing(path)
    except OSError as error:
        name_full(error, path)
        raise


def name_full(error: BaseException, path: Path) -> None:
    """Give an error the path if no place was left for it, because the system names none then."""
    if isinstance(error, OSError) and error.errno in FULL and error.filename is None:
        error.filename = str(path)


def _replacing(path: Path) -> Iterator[BinaryIO]:
    if not _is_replaced(path):
        with path.open("wb") as file:
            yield file
        return
    place = _place(path)
    part = place.with_name(f"{place.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
        if place.exists():
            shutil.copymode(place, part)
        part.replace(place)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, as `replacing` does."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


@contextmanager
def _explained() -> Iterator[None]:
    """Raise OutputInvalid where the system cannot even look, such as at a name that is too long."""
    try:
        yield
    except OSError as error:
        raise OutputInvalid(error.strerror or str(error)) from error


def _place(path: Path) -> Path:
    """Where a path leads: a link stays, and the file that it names is replaced."""
    return Path(os.path.realpath(path))


def _is_replaced(path: Path) -> bool:
    """Whether a path is of a regular file. One of /dev may be a file that a shell has open."""
    if DEVICES in path.absolute().parents:
        return False
    return not path.exists() or stat.S_ISREG(path.stat().st_mode)
