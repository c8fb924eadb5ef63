"""Repeat copy (section 4.2): repeat a sequence of vectors a given number of times."""

from __future__ import annotations

import numpy as np

from ntm_tasks.task import Batch, Size, Task, blank, vectors
from ntm_tasks.tasks.copy import COPY_BITS

MAX_REPEATS = 10
"""
The largest number of repeats in training. Repeats are uniform from 1 to this, and shown normalised.
"""


def repeat_copy(
    generator: np.random.Generator, batch: int, size: Size, blank_rate: float = 0.0
) -> Batch:
    """
    Repeat a sequence a given number of times, then mark the end; size (length, repeats).

    Channels 0 to 7 show `length` random vectors; then channel 8 alone shows the number of repeats,
    less the mean and over the standard deviation of its law in training; then the input is silent
    while the vectors are due `repeats` times on outputs 0 to 7, and then output 8 alone is due
    once, the end marker: T = length + 1 + length * repeats + 1.
    """
    length, repeats = size
    shown = vectors(generator, (length, batch, COPY_BITS), blank_rate)
    out = blank(length + 1 + length * repeats + 1, batch, COPY_BITS + 1, COPY_BITS + 1)
    out.inputs[:length, :, :COPY_BITS] = shown
    out.inputs[length, :, COPY_BITS] = normalised_count(repeats)
    out.targets[length + 1 : -1, :, :COPY_BITS] = np.tile(shown, (repeats, 1, 1))
    out.targets[-1, :, COPY_BITS] = 1
    out.mask[length + 1 :] = 1
    return out


def normalised_count(repeats: int) -> float:
    """A repeat count with mean 0 and variance 1 under the law of training."""
    mean = (1 + MAX_REPEATS) / 2
    variance = (MAX_REPEATS**2 - 1) / 12
    return float((repeats - mean) / variance**0.5)


def _marks(size: Size) -> dict[int, str]:
    length, repeats = size
    return {length: f"{repeats} times", length + 1 + length * repeats: "end"}


TASK = Task(
    "repeat-copy",
    COPY_BITS + 1,
    COPY_BITS + 1,
    ("length", "repeats"),
    smallest=(1, 1),
    largest=(10, MAX_REPEATS),
    easiest=(1, 1),
    least=(1, 1),
    generate=repeat_copy,
    marks=_marks,
    longer=((20, 10), (10, 12), (10, 15), (10, 20), (20, 20)),
    vector_bits=COPY_BITS,
    end_bit=COPY_BITS,
)
