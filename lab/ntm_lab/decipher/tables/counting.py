"""Recordings of bits as arrays, and what stood in a table of counts at each of their steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ntm_client.values import Float32
from ntm_lab.decipher.tables.table import Float64
from ntm_lab.recordings.recording import Recording
from ntm_tasks import TaskSequence

Integers = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SMALLEST = 1e-6
"""Probabilities are kept at this distance from 0 and 1, where a divergence would be infinite."""


@dataclass(frozen=True, eq=False)
class Bits:
    """S sequences of at most T bits, and what a network said after each."""

    inputs: Integers
    """[S, T], 0 or 1; 0 after a sequence's end."""
    outputs: Float64
    """[S, T]: the network's probabilities."""
    asked: Bools
    """[S, T]: whether the step is in the sequence, and the task asks for its output."""

    @classmethod
    def of(cls, recordings: Sequence[Recording]) -> Bits:
        """Take the bits from recordings of a network with one input and one output."""
        return cls._of([(each.inputs, each.outputs, each.mask) for each in recordings])

    @classmethod
    def answered(cls, sequences: Sequence[TaskSequence], outputs: Sequence[Float32]) -> Bits:
        """Take the bits from sequences, and from a network's outputs [T, 1] for each."""
        return cls._of(
            [(each.inputs, said, each.mask) for each, said in zip(sequences, outputs, strict=True)]
        )

    @classmethod
    def _of(cls, runs: Sequence[tuple[Float32, Float32, Float32 | None]]) -> Bits:
        """From inputs [T, 1], outputs [T, 1], and a mask [T] if there is one."""
        shape = (len(runs), max(len(inputs) for inputs, _, _ in runs))
        found = cls(np.zeros(shape, np.int64), np.full(shape, 0.5), np.zeros(shape, np.bool_))
        for row, (inputs, outputs, mask) in enumerate(runs):
            steps = len(inputs)
            found.inputs[row, :steps] = inputs[:, 0] > 0.5
            found.outputs[row, :steps] = outputs[:, 0]
            found.asked[row, :steps] = True if mask is None else mask > 0
        return found

    def some(self, rows: npt.NDArray[np.intp]) -> Bits:
        """These sequences alone."""
        return Bits(self.inputs[rows], self.outputs[rows], self.asked[rows])


def contexts(bits: Bits, window: int) -> Integers:
    """[S, T]: the number of the context that the last `window` bits make; -1 before the first."""
    found = np.zeros_like(bits.inputs)
    for ago in range(window):
        found[:, ago:] += bits.inputs[:, : bits.inputs.shape[1] - ago] << ago
    found[:, : max(window - 1, 0)] = -1
    return found


def tallies(bits: Bits, window: int) -> Integers:
    """
    [S, T, 2]: how often a 0 and a 1 have followed the context of each step, before that step's own
    successor is known.
    """
    known = contexts(bits, window)
    every = np.arange(len(known))
    table = np.zeros((len(known), 2**window, 2), np.int64)
    found = np.zeros((*known.shape, 2), np.int64)
    for step in range(max(window - 1, 0), known.shape[1]):
        if step >= window:
            # Of no bits, there is one context from the beginning.
            table[every, known[:, step - 1], bits.inputs[:, step]] += 1
        found[:, step] = table[every, known[:, step]]
    return found


def divergence(network: npt.ArrayLike, program: npt.ArrayLike) -> Float64:
    """
    The Kullback-Leibler divergence [...] in bits of a program's probabilities from a network's.

    It is the bits that are lost for each bit of the sequence if what the network expects is coded
    as the program predicts.
    """
    p, q = (np.clip(each, SMALLEST, 1 - SMALLEST) for each in (network, program))
    found: Float64 = p * np.log2(p / q) + (1 - p) * np.log2((1 - p) / (1 - q))
    return found
