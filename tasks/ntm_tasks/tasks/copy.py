"""Copy (section 4.1): repeat a sequence of vectors after it has ended."""

from __future__ import annotations

import numpy as np

from ntm_tasks.task import Batch, Size, Task, blank, delimiter_after, vectors

COPY_BITS = 8
"""Bits of each vector, of repeat copy as well."""


def copy(generator: np.random.Generator, batch: int, size: Size, blank_rate: float = 0.0) -> Batch:
    """
    Repeat a sequence after hearing it to its end; size (length,).

    Channels 0 to 7 show `length` random vectors, then channel 8 alone marks the end, then the
    input is silent for `length` steps, in which the vectors are due: T = 2 length + 1.
    """
    (length,) = size
    shown = vectors(generator, (length, batch, COPY_BITS), blank_rate)
    out = blank(2 * length + 1, batch, COPY_BITS + 1, COPY_BITS)
    out.inputs[:length, :, :COPY_BITS] = shown
    out.inputs[length, :, COPY_BITS] = 1
    out.targets[length + 1 :] = shown
    out.mask[length + 1 :] = 1
    return out


TASK = Task(
    "copy",
    COPY_BITS + 1,
    COPY_BITS,
    ("length",),
    smallest=(1,),
    largest=(20,),
    easiest=(1,),
    least=(1,),
    generate=copy,
    marks=delimiter_after,
    longer=((40,), (60,), (80,), (100,), (120,)),
    vector_bits=COPY_BITS,
)
