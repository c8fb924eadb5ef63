"""
Read and write what `Session.checkpoint` gives, to look at a session's state and to change it.

    checkpoint = decode(session.checkpoint())
    memory = checkpoint.tensor("memory", session.model)  # [width, locations]
    session.restore(encode(checkpoint.changed(memory=memory[:, ::-1])))

All numbers of a checkpoint are little-endian:

    4 bytes   "NTMC"
    uint16    version of this layout, 1
    uint16    number of state tensors
    32 bytes  SHA-256 of the model's ONNX file
    uint32    memory locations; 0 for a network without memory
    uint64    index of the step that comes next
    then for each state tensor, in the order of the model's `state`
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
from dataclasses import dataclass, replace

import numpy as np

from ntm_client.errors import CheckpointDamaged
from ntm_client.records import Float32, Model

MAGIC = b"NTMC"
VERSION = 1

_HEAD = struct.Struct("<4sHH32sIQ")
_COUNT = struct.Struct("<I")
_FLOAT = np.dtype("<f4")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A session's state at a step."""

    content_hash: str
    """SHA-256 of the model's ONNX file, in hexadecimal."""
    locations: int
    next_step: int
    state: Mapping[str, Float32]
    """By state tensor's name, its values in row-major order, [size]."""

    def tensor(self, name: str, model: Model) -> Float32:
        """A copy of a state tensor in the shape that the model has for it."""
        shape = next(tensor.shape for tensor in model.state if tensor.name == name)
        sizes = [self.locations if size < 0 else size for size in shape]
        return self.state[name].reshape(sizes).copy()

    def changed(self, **tensors: Float32) -> Checkpoint:
        """The same with other values for these tensors, each of any shape of as many values."""
        flat = {name: np.asarray(value, np.float32).ravel() for name, value in tensors.items()}
        for name, values in flat.items():
            if name not in self.state or values.size != self.state[name].size:
                known = {known: values.size for known, values in self.state.items()}
                raise ValueError(f"no tensor {name!r} of {values.size} values; there are {known}")
        return replace(self, state={**self.state, **flat})


def encode(checkpoint: Checkpoint) -> bytes:
    """The bytes of a checkpoint, which `Session.restore` and `Client.create_session` take."""
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
        parts.append(values.astype(_FLOAT).tobytes())
    body = b"".join(parts)
    return body + _COUNT.pack(zlib.crc32(body))


def decode(data: bytes) -> Checkpoint:
    """
    Read a checkpoint's bytes.

    Raises:
        CheckpointDamaged: they are cut short, changed, of a later layout, or no checkpoint at all.
    """
    if len(data) < _HEAD.size + _COUNT.size or not data.startswith(MAGIC):
        raise CheckpointDamaged(f"no checkpoint: {len(data)} bytes that start with {data[:4]!r}")
    _, version, tensors, digest, locations, next_step = _HEAD.unpack_from(data)
    if version != VERSION:
        raise CheckpointDamaged(
            f"the checkpoint is of layout {version}, and this library reads {VERSION}"
        )
    body = data[: -_COUNT.size]
    if data[-_COUNT.size :] != _COUNT.pack(zlib.crc32(body)):
        raise CheckpointDamaged(
            f"the checkpoint of {len(data)} bytes is damaged or cut short: its checksum is wrong"
        )
    try:
        state = _state(body, tensors)
    except (ValueError, IndexError, struct.error) as error:
        raise CheckpointDamaged(f"the checkpoint's parts do not add up: {error}") from error
    return Checkpoint(digest.hex(), locations, next_step, state)


def _state(body: bytes, tensors: int) -> dict[str, Float32]:
    state: dict[str, Float32] = {}
    place = _HEAD.size
    for _ in range(tensors):
        size = body[place]
        name = body[place + 1 : place + 1 + size].decode()
        place += 1 + size
        (count,) = _COUNT.unpack_from(body, place)
        place += _COUNT.size
        state[name] = np.frombuffer(body, _FLOAT, count, place).astype(np.float32)
        place += state[name].nbytes
    if place != len(body) or len(state) != tensors:
        raise ValueError(f"{len(body) - place} bytes are left over")
    return state
