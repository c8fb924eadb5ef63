"""
The tensors of a step, and how their bytes lie in chunks and replies.

Each step is a record: the bytes of its tensors one after another in the model's order, each in
row-major order, little-endian and without padding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Type = Literal["float32", "float16", "int64", "int32", "bool"]

TYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "bool": np.dtype("?"),
}
"""The types that tensors can have, as they are in messages and records: little-endian."""


@dataclass(frozen=True)
class StepTensor:
    """A tensor that a step takes or gives."""

    name: str
    """The graph's name of it."""
    type: Type
    shape: tuple[int, ...]
    """Shape for one session and one step, without the batch axis."""

    def __str__(self) -> str:
        """Name, type and shape, such as `audio float32[2, 3]`."""
        return f"{self.name} {self.type}{list(self.shape) if self.shape else ''}"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its elements, little-endian."""
        return TYPES[self.type]

    @property
    def size(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)

    @property
    def is_floating(self) -> bool:
        """Whether its elements can be infinite or NaN."""
        return self.dtype.kind == "f"


def vector(name: str, width: int) -> StepTensor:
    """A vector of float32, as the networks of the trainer take and give them."""
    return StepTensor(name, "float32", (width,))


def record(tensors: Sequence[StepTensor]) -> np.dtype[Any]:
    """
    The type of one step's tensors together: their bytes one after another, without padding.

    An array of steps has the shape [steps, *shape] if there is one tensor. If there are several,
    it has the shape [steps], and a field for each tensor's name.
    """
    if len(tensors) == 1:
        return np.dtype((tensors[0].dtype, tensors[0].shape))
    return np.dtype([(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors])


def parts(steps: Array, tensors: Sequence[StepTensor]) -> list[Array]:
    """Views of each tensor, [..., *shape], in an array whose elements are of type `record`."""
    return [steps] if len(tensors) == 1 else [steps[tensor.name] for tensor in tensors]
