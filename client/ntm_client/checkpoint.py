"""
Read and write what `Session.checkpoint` gives, to look at a session's state and to change it.

    checkpoint = decode(session.checkpoint())
    memory = checkpoint.tensor("memory", session.model)  # [width, locations]
    session.restore(encode(checkpoint.changed(memory=memory[:, ::-1])))

`ntm.checkpoint` has the format.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

import numpy as np

from ntm import checkpoint as format_
from ntm.tensors import Array
from ntm_client import arguments
from ntm_client.errors import CheckpointDamaged, InvalidArgument
from ntm_client.values import Model

__all__ = ["Checkpoint", "decode", "encode"]


@dataclass(frozen=True, eq=False)
class Checkpoint(format_.Checkpoint):
    """
    A session's state at a step. `state` has the values of each tensor in row-major order, [size].
    """

    def tensor(self, name: str, model: Model) -> Array:
        """
        A copy of a state tensor in the shape that the model has for it.

        Raises InvalidArgument if the model has no tensor of that name.
        """
        arguments.text("the name of a tensor", name, "text, such as 'memory'")
        arguments.instance("model", model, Model, "a Model, such as session.model")
        shapes = {tensor.name: tensor.shape for tensor in model.state}
        if name not in shapes or name not in self.state:
            known = ", ".join(shapes)
            raise InvalidArgument(f"{model.name} has no state tensor {name!r}; it has {known}")
        shape = shapes[name]
        sizes = [self.locations if size < 0 else size for size in shape]
        values = self.state[name]
        if values.size != np.prod(sizes):
            raise InvalidArgument(
                f"{name!r} has {values.size} values, and in {model.name} {sizes}: the checkpoint "
                "is of another model"
            )
        return values.reshape(sizes).copy()

    def changed(self, **tensors: Array) -> Checkpoint:
        """
        A copy with new values for these tensors. A new value may have any shape with the same size.
        """
        flat = {}
        for name, value in tensors.items():
            type_ = self.state[name].dtype.name if name in self.state else "float32"
            values = flat[name] = arguments.typed(name, value, type_).ravel()
            if name not in self.state or values.size != self.state[name].size:
                known = {known: values.size for known, values in self.state.items()}
                raise InvalidArgument(
                    f"no tensor {name!r} of {values.size} values; there are {known}"
                )
        return replace(self, state={**self.state, **flat})


def encode(checkpoint: format_.Checkpoint) -> bytes:
    """
    The bytes of a checkpoint. Equal states at equal steps have equal bytes.

    Raises:
        InvalidArgument: it has a value that no checkpoint can have.
    """
    needed = "a Checkpoint, as decode returns it"
    arguments.instance("checkpoint", checkpoint, format_.Checkpoint, needed)
    try:
        return format_.encode(checkpoint)
    except (AttributeError, OverflowError, TypeError, ValueError, struct.error) as error:
        raise InvalidArgument(f"the checkpoint cannot be written: {error}") from error


def decode(data: bytes) -> Checkpoint:
    """
    Read a checkpoint's bytes.

    Raises:
        InvalidArgument: they are no bytes.
        CheckpointDamaged: they are cut short or changed, have a later layout, or are not a
            checkpoint.
    """
    try:
        found = format_.decode(arguments.data("a checkpoint", data))
    except format_.TooNew as error:
        raise CheckpointDamaged(f"{error}; a newer ntm-client reads it") from error
    except format_.Damaged as error:
        raise CheckpointDamaged(str(error)) from error
    return Checkpoint(found.content_hash, found.locations, found.next_step, found.state)
