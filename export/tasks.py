"""The tasks: seeded generators of input and target sequences, in numpy alone.

A task is one generator and one row of `TASKS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

COPY_BITS = 8
"""Bits of each vector that the copy task stores."""


class Purpose(IntEnum):
    """What sequences are drawn for; each purpose has random streams of its own."""

    TRAINING = 0
    VALIDATION = 1
    EVALUATION = 2
    VERIFICATION = 3


class Batch(NamedTuple):
    """T steps of B sequences of one length."""

    inputs: Float32
    """[T, B, input width]"""
    targets: Float32
    """[T, B, output width], 0 or 1; zeros where the mask is 0."""
    mask: Float32
    """[T, B]: 1 in the steps whose output counts, else 0."""


class Generate(Protocol):
    """Draws a batch of sequences of one length."""

    def __call__(
        self, generator: np.random.Generator, batch: int, length: int, blank_rate: float = 0.0
    ) -> Batch:
        """In training, `blank_rate` of the vectors may be made zero."""


@dataclass(frozen=True)
class Task:
    """What one task asks of a network."""

    input_width: int
    output_width: int
    lengths: tuple[int, int]
    """Shortest and longest length in training, both included; each is equally likely."""
    generate: Generate

    def draw(self, generator: np.random.Generator, batch: int, blank_rate: float = 0.0) -> Batch:
        """Sequences of one length, drawn by the law of training."""
        shortest, longest = self.lengths
        length = int(generator.integers(shortest, longest + 1))
        return self.generate(generator, batch, length, blank_rate)


def generator_for(purpose: Purpose, seed: int, *index: int) -> np.random.Generator:
    """The random stream of one purpose, seed and index; streams do not overlap."""
    return np.random.default_rng([purpose, seed, *index])


def copy(generator: np.random.Generator, batch: int, length: int, blank_rate: float = 0.0) -> Batch:
    """
    Repeat a sequence after hearing it to its end.

    Channels 0 to 7 show `length` random vectors, then channel 8 alone marks the end, then the
    input is silent for `length` steps, in which the vectors are due: T = 2 length + 1.

    That part `blank_rate` of the vectors is all zeros, besides those that are by chance: so rare
    (one in 256) and so like the silence that a network may never learn to tell the two apart.
    """
    vectors = generator.integers(0, 2, (length, batch, COPY_BITS)).astype(np.float32)
    if blank_rate:
        vectors[generator.random((length, batch)) < blank_rate] = 0
    steps = 2 * length + 1
    inputs = np.zeros((steps, batch, COPY_BITS + 1), np.float32)
    targets = np.zeros((steps, batch, COPY_BITS), np.float32)
    mask = np.zeros((steps, batch), np.float32)
    inputs[:length, :, :COPY_BITS] = vectors
    inputs[length, :, COPY_BITS] = 1
    targets[length + 1 :] = vectors
    mask[length + 1 :] = 1
    return Batch(inputs, targets, mask)


TASKS = {"copy": Task(COPY_BITS + 1, COPY_BITS, (1, 20), copy)}
