"""
The checkpoint format: a session's state at a step as bytes. Any server of its model takes them.

All numbers are little-endian:

    4 bytes   "NTMC"
    uint16    version of this layout, 1 or 2
    uint16    number of state tensors
    32 bytes  SHA-256 of the model's ONNX file
    uint32    memory locations; 0 for a network without memory
    uint64    index of the step that comes next
    then for each state tensor, in the order of the model's spec
        uint8     bytes of its name
        ...       its name, UTF-8
        uint8     in version 2 alone: their type, 0 float32, 1 float16, 2 int64, 3 int32, 4 bool
        uint32    number of values
        ...       the values in row-major order: float32 in version 1; floating ones are finite
    uint32    CRC-32 of everything before it

A state of float32 alone is written as version 1, which older servers and clients read.

Server and client both read and write it with this module, which needs numpy alone. Each turns the
errors below into its own.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ntm.tensors import TYPES, Array

MAGIC = b"NTMC"
VERSION = 2
"""The latest version of the layout."""

_TYPES = tuple(TYPES.values())
"""The types of values, by their number in version 2."""

_HEAD = struct.Struct("<4sHH32sIQ")
_VERSION = struct.Struct("<4sH")
_COUNT = struct.Struct("<I")


class Damaged(ValueError):
    """The bytes are not a checkpoint, or differ from the checkpoint that was written."""


class TooNew(ValueError):
    """The bytes are a checkpoint of a later layout than this module reads."""

    def __init__(self, version: int) -> None:
        """`version` is the version of the layout that the checkpoint has."""
        super().__init__(
            f"the checkpoint has layout version {version}; the latest known is {VERSION}"
        )
        self.version = version


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A session's state at a step, outside of any server."""

    content_hash: str
    """SHA-256 of the model's ONNX file, in hexadecimal."""
    locations: int
    next_step: int
    state: Mapping[str, Array]
    """The values of each state tensor in row-major order, [size], by its name."""


def encode(checkpoint: Checkpoint) -> bytes:
    """
    The bytes of a checkpoint. Equal states at equal steps have equal bytes.

    Raises ValueError for a tensor of a type that `ntm.tensors` has not.
    """
    types = {
        name: _TYPES.index(values.dtype.newbyteorder("<"))
        for name, values in checkpoint.state.items()
    }
    version = 2 if any(types.values()) else 1
    parts = [
        _HEAD.pack(
            MAGIC,
            version,
            len(checkpoint.state),
            bytes.fromhex(checkpoint.content_hash),
            checkpoint.locations,
            checkpoint.next_step,
        )
    ]
    for name, values in checkpoint.state.items():
        label = name.encode()
        kind = bytes([types[name]]) if version == 2 else b""
        parts += [bytes([len(label)]), label, kind, _COUNT.pack(values.size)]
        parts.append(values.astype(_TYPES[types[name]], copy=False).tobytes())
    body = b"".join(parts)
    return body + _COUNT.pack(zlib.crc32(body))


def decode(data: bytes) -> Checkpoint:
    """
    Read a checkpoint's bytes.

    Raises:
        TooNew: a later version of this module wrote them. The checksum is not checked, because a
            later layout may have it elsewhere.
        Damaged: they are cut short or changed, or are not a checkpoint.
    """
    magic, version = _VERSION.unpack_from(data) if len(data) >= _VERSION.size else (b"", 0)
    if magic != MAGIC:
        raise Damaged(f"no checkpoint: {len(data)} bytes that start with {data[:4]!r}")
    if version > VERSION:
        raise TooNew(version)
    body = data[: -_COUNT.size]
    if data[-_COUNT.size :] != _COUNT.pack(zlib.crc32(body)):
        raise Damaged(
            f"the checkpoint of {len(data)} bytes is damaged or cut short: its checksum is wrong"
        )
    try:
        return _read(body)
    except (ValueError, IndexError, struct.error) as error:
        raise Damaged(f"the checkpoint's parts do not add up: {error}") from error


def _read(body: bytes) -> Checkpoint:
    _, version, tensors, digest, locations, next_step = _HEAD.unpack_from(body)
    state: dict[str, Array] = {}
    place = _HEAD.size
    for _ in range(tensors):
        size = body[place]
        name = body[place + 1 : place + 1 + size].decode()
        place += 1 + size
        type_ = _TYPES[0]
        if version == 2:
            type_ = _TYPES[body[place]]
            place += 1
        (count,) = _COUNT.unpack_from(body, place)
        place += _COUNT.size
        values = np.frombuffer(body, type_, count, place)
        if type_.kind == "f" and not np.isfinite(values).all():
            raise ValueError(f"{name!r} holds values that are not finite")
        if type_.kind == "b" and (values.view(np.uint8) > 1).any():
            raise ValueError(f"{name!r} holds bytes that are neither 0 nor 1")
        state[name] = values
        place += values.nbytes
    if place != len(body) or len(state) != tensors:
        raise ValueError(f"{len(body) - place} bytes are left over")
    return Checkpoint(digest.hex(), locations, next_step, state)
