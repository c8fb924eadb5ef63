"""A mechanism as plain data: what the heads do in a step, as a function of what is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal, NamedTuple

import numpy as np

from ntm_client.values import Float32, Memory
from ntm_lab.decipher.mechanism.knowledge import Known
from ntm_lab.decipher.phases import Phases

Part = Literal["key", "strength", "gate", "shift", "sharpening", "erase", "add"]
"""What the heads do in a step, before the activation functions."""

SHIFTS = 3


class Layer(NamedTuple):
    """
    One layer of U hyperbolic tangents, and what is read from it. The last row of each is constant.
    """

    units: Float32
    """[F + 1, U]: from what is known"""
    heads: Float32
    """[U + 1, K]: to all parts, side by side"""
    output: Float32
    """[U + R * M + 1, Y]: from the units, and what the read heads read in the step itself"""


@dataclass(frozen=True, eq=False)
class Mechanism:
    """
    What a network's heads do, without its controller.

    One layer gives, from what is known in a step, what all heads do. Then come the activation
    functions of the paper, and equations 2 to 9 on a memory that has the network's own contents.
    """

    phases: Phases
    start: Memory
    """Memory and weightings before the first step."""
    known: Known
    layer: Layer
    dropped: frozenset[int] = frozenset()
    """
    Heads that do nothing, the read heads first. A dropped read head reads zeros, and a dropped
    write head writes nothing.
    """

    @property
    def read_heads(self) -> int:
        """The number of the network's read heads."""
        return len(self.start.read_weightings)

    @property
    def write_heads(self) -> int:
        """The number of the network's write heads."""
        return len(self.start.write_weightings)

    @property
    def coefficients(self) -> int:
        """The numbers in the layer."""
        return sum(matrix.size for matrix in self.layer)

    def without(self, head: int) -> Mechanism:
        """The same mechanism without one head more."""
        return replace(self, dropped=self.dropped | {head})

    def kept(self, reads: Float32) -> Float32:
        """The read vectors [B, R, M], with zeros for dropped heads."""
        heads = [head for head in self.dropped if head < self.read_heads]
        if not heads:
            return reads
        reads = reads.copy()
        reads[:, heads] = 0
        return reads


def columns(start: Memory) -> dict[Part, slice]:
    """The columns of each part in K, for a network that begins with this memory."""
    width = start.memory.shape[1]
    writes = len(start.write_weightings)
    heads = len(start.read_weightings) + writes
    widths: dict[Part, int] = {
        "key": heads * width,
        "strength": heads,
        "gate": heads,
        "shift": heads * SHIFTS,
        "sharpening": heads,
        "erase": writes * width,
        "add": writes * width,
    }
    ends = accumulate(widths.values())
    return {
        part: slice(end - wide, end) for (part, wide), end in zip(widths.items(), ends, strict=True)
    }


def with_one(rows: Float32) -> Float32:
    """Rows [B, F] with a constant column: [B, F + 1]."""
    return np.concatenate([rows, np.ones_like(rows[:, :1])], 1)
