"""
The file of one session in a directory store: its owner's epoch, its end, and its record.

All numbers are little-endian:

    4 bytes   "NTMS"
    uint16    version of this layout, 1
    uint16    for how many minutes a claim keeps it, at least; 65,535: the session was deleted
    uint64    epoch of the owner
    uint64    order of the save among those of the owner
    float64   when it may be forgotten, in Unix seconds
    uint32    CRC-32 of the record
    uint32    CRC-32 of everything before it
    ...       the record
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from service.errors import CheckpointDamaged, CheckpointTooNew

MAGIC = b"NTMS"
VERSION = 1
WRITING = ".writing"
"""Suffix of a file that is still being written."""

_FOREIGN = {errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.EPERM}
"""The errors of reading what is not a file of this user: ENXIO for a socket, ELOOP for links."""

_HEAD = struct.Struct("<4sHHQQdI")
_VERSION = struct.Struct("<4sH")
_CRC = struct.Struct("<I")


DELETED = 0xFFFF
MAX_MINUTES = DELETED - 1


class Header(NamedTuple):
    """The header of a file: everything except the record."""

    epoch: int
    order: int
    forgotten_unix_seconds: float
    minutes: int
    """The least time for which a claim keeps it: at most `MAX_MINUTES`, or `DELETED`."""


def write(path: Path, header: Header, record: bytes, *, sync: bool) -> None:
    """
    Replace a file completely or not at all, even if the process is killed.

    No two callers may write the same file at once. With `sync`, the content outlives a loss of
    power after the folder is synchronised too. Raises OSError.
    """
    epoch, order, forgotten_unix_seconds, minutes = header
    head = _HEAD.pack(
        MAGIC, VERSION, minutes, epoch, order, forgotten_unix_seconds, zlib.crc32(record)
    )
    writing = path.with_name(path.name + WRITING)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        with os.fdopen(os.open(writing, flags, 0o600), "wb") as file:
            file.write(head + _CRC.pack(zlib.crc32(head)))
            file.write(record)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        writing.replace(path)
    except OSError:
        writing.unlink(missing_ok=True)  # a full disk gets its room back
        raise


def read_header(path: Path) -> Header | None:
    """
    Read a file's header without its record; None if there is no file.

    Raises:
        CheckpointTooNew: it is of a later version of the layout.
        CheckpointDamaged: it is cut short or changed, or is not such a file, or may not be read.
        OSError: the disk fails.
    """
    with _opened(path) as file:
        return None if file is None else _header(file)[0]


def read(path: Path) -> tuple[Header, bytes] | None:
    """
    Read a file's header and its record; None if there is no file. Raises the errors of
    `read_header`.
    """
    with _opened(path) as file:
        if file is None:
            return None
        header, checksum = _header(file)
        record = file.read()
    if zlib.crc32(record) != checksum:
        raise CheckpointDamaged("the stored session is damaged or cut short: its checksum is wrong")
    return header, record


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe without a writer is empty."""
    return os.open(path, flags | os.O_NONBLOCK)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO | None]:
    """
    A file to read; None if there is none. What else may be at the path is damage to one session.
    """
    try:
        file = open(path, "rb", buffering=0, opener=_without_waiting)  # noqa: SIM115
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        if error.errno not in _FOREIGN:
            raise
        raise CheckpointDamaged(f"the stored session cannot be read: {error.strerror}") from error
    with file:
        yield file


def _header(file: BinaryIO) -> tuple[Header, int]:
    data = file.read(_HEAD.size + _CRC.size)
    magic, version = _VERSION.unpack_from(data) if len(data) >= _VERSION.size else (b"", 0)
    if magic == MAGIC and version > VERSION:
        raise CheckpointTooNew(
            f"the session was stored in layout {version}, and this server reads up to {VERSION}; "
            "go on with it on a newer server"
        )
    head = data[: _HEAD.size]
    if data[_HEAD.size :] != _CRC.pack(zlib.crc32(head)) or magic != MAGIC:
        raise CheckpointDamaged("the stored session is damaged or cut short: its header is wrong")
    _, _, minutes, epoch, order, forgotten_unix_seconds, checksum = _HEAD.unpack(head)
    return Header(epoch, order, forgotten_unix_seconds, minutes), checksum
