"""
Checkpoints as the server takes them: decoded with its errors, and fitted to a model's spec.

`ntm.checkpoint` has the format, which the client shares.
"""

from __future__ import annotations

import numpy as np

from ntm.checkpoint import Checkpoint, Damaged, TooNew, encode
from ntm.checkpoint import decode as read
from service.errors import CheckpointDamaged, CheckpointForeign, CheckpointTooNew
from service.spec import Array, ModelSpec

__all__ = ["Checkpoint", "are_equal", "decode", "encode", "state_for"]


def decode(data: bytes) -> Checkpoint:
    """
    Read a checkpoint's bytes.

    Raises:
        CheckpointTooNew: they are of a later version of the layout.
        CheckpointDamaged: they are cut short or changed, or are not a checkpoint.
    """
    try:
        return read(data)
    except TooNew as error:
        raise CheckpointTooNew(f"{error}; restore it on a newer server") from error
    except Damaged as error:
        raise CheckpointDamaged(str(error)) from error


def state_for(checkpoint: Checkpoint, spec: ModelSpec, content_hash: str) -> dict[str, Array]:
    """
    The state in a checkpoint in the form of a model's slab: by name, each [1, ...].

    Raises:
        CheckpointForeign: it was taken from another model.
        CheckpointDamaged: it has this model's hash, but does not fit the model.
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
    for tensor in spec.state:
        if checkpoint.state[tensor.name].dtype != tensor.dtype:
            raise CheckpointDamaged(
                f"the checkpoint has {tensor.name!r} as {checkpoint.state[tensor.name].dtype}; the "
                f"model needs {tensor.type}"
            )
    return {name: checkpoint.state[name].reshape(1, *shape) for name, shape in shapes.items()}


def are_equal(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether two checkpoints are of the same state at the same step, to the bit."""
    return encode(one) == encode(other)
