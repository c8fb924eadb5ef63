"""
Checkpoints: a session's state at a step as bytes, from which any server of its model goes on.

All numbers are little-endian:

    4 bytes   "NTMC"
    uint16    version of this layout, 1
    uint16    number of state tensors
    32 bytes  SHA-256 of the model's ONNX file
    uint32    memory locations; 0 for a network without memory
    uint64    index of the step that comes next
    then for each state tensor, in the order of the model's spec
        uint8     bytes of its name
        ...       its name, UTF-8
        uint32    number of values
        ...       the values, float32, in row-major order
    uint32    CRC-32 of everything before it
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from service.errors import CheckpointDamaged, CheckpointForeign, CheckpointTooNew
from service.spec import Float32, ModelSpec

MAGIC = b"NTMC"
VERSION = 1

_HEAD = struct.Struct("<4sHH32sIQ")
_VERSION = struct.Struct("<4sH")
_COUNT = struct.Struct("<I")
_FLOAT = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A session's state at a step, outside of any slab."""

    content_hash: str
    """SHA-256 of the model's ONNX file, in hexadecimal."""
    locations: int
    next_step: int
    state: Mapping[str, Float32]
    """By state tensor's name, its values in row-major order, [size]."""


def encode(checkpoint: Checkpoint) -> bytes:
    """The bytes of a checkpoint."""
    parts = [
        _HEAD.pack(
            MAGIC,
            VERSION,
            len(checkpoint.state),
            bytes.fromhex(checkpoint.content_hash),
            checkpoint.locations,
            checkpoint.next_step,
        )
    ]
    for name, values in checkpoint.state.items():
        label = name.encode()
        parts += [bytes([len(label)]), label, _COUNT.pack(values.size)]
        parts.append(values.astype(_FLOAT, copy=False).tobytes())
    body = b"".join(parts)
    return body + _COUNT.pack(zlib.crc32(body))


def decode(data: bytes) -> Checkpoint:
    """
    Read a checkpoint's bytes.

    Raises:
        CheckpointTooNew: they are of a later version of the layout.
        CheckpointDamaged: they are cut short, changed, or no checkpoint at all.
    """
    magic, version = _VERSION.unpack_from(data) if len(data) >= _VERSION.size else (b"", 0)
    if magic != MAGIC:
        raise CheckpointDamaged(f"no checkpoint: {len(data)} bytes that start with {data[:4]!r}")
    if version > VERSION:
        raise CheckpointTooNew(
            f"the checkpoint is of version {version}, and this server reads up to {VERSION}; "
            "restore it on a newer server"
        )
    body = data[: -_COUNT.size]
    if data[-_COUNT.size :] != _COUNT.pack(zlib.crc32(body)):
        raise CheckpointDamaged(
            f"the checkpoint of {len(data)} bytes is damaged or cut short: its checksum is wrong"
        )
    try:
        return _read(body)
    except (ValueError, IndexError, struct.error) as error:
        raise CheckpointDamaged(f"the checkpoint's parts do not add up: {error}") from error


def state_for(checkpoint: Checkpoint, spec: ModelSpec, content_hash: str) -> dict[str, Float32]:
    """
    A checkpoint's state as a model's slab takes it: by name, each [1, ...].

    Raises:
        CheckpointForeign: it was taken from another model.
        CheckpointDamaged: it says that it is this model's, but does not fit it.
    """
    if checkpoint.content_hash != content_hash:
        raise CheckpointForeign(
            f"the checkpoint is of the model with content hash {checkpoint.content_hash}, the "
            f"session's is {content_hash}",
            expected=content_hash,
            actual=checkpoint.content_hash,
        )
    shapes = {tensor.name: tensor.shape_at(checkpoint.locations) for tensor in spec.state}
    sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    found = {name: values.size for name, values in checkpoint.state.items()}
    if found != sizes:
        raise CheckpointDamaged(f"the checkpoint has values {found}; the model needs {sizes}")
    return {name: checkpoint.state[name].reshape(1, *shape) for name, shape in shapes.items()}


def are_equal(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether two checkpoints are of the same state at the same step, to the bit."""
    return encode(one) == encode(other)


def _read(body: bytes) -> Checkpoint:
    _, _, tensors, digest, locations, next_step = _HEAD.unpack_from(body)
    state: dict[str, Float32] = {}
    place = _HEAD.size
    for _ in range(tensors):
        size = body[place]
        name = body[place + 1 : place + 1 + size].decode()
        place += 1 + size
        (count,) = _COUNT.unpack_from(body, place)
        place += _COUNT.size
        values = np.frombuffer(body, _FLOAT, count, place).astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            raise ValueError(f"{name!r} holds values that are not finite")
        state[name] = values
        place += values.nbytes
    if place != len(body) or len(state) != tensors:
        raise ValueError(f"{len(body) - place} bytes are left over")
    return Checkpoint(digest.hex(), locations, next_step, state)
