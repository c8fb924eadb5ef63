"""Priority sort (section 4.5): answer with vectors in the order of their priorities."""

from __future__ import annotations

import numpy as np

from ntm_tasks.task import Batch, Size, Task, blank, delimiter_after, vectors

SORT_BITS = 8
"""Bits of each vector; the paper does not say how many."""


def priority_sort(
    generator: np.random.Generator, batch: int, size: Size, blank_rate: float = 0.0
) -> Batch:
    """
    Answer with the vectors of highest priority, in order; size (items,).

    Channels 0 to 7 show `items` random vectors, channel 8 the priority of each, uniform from -1 to
    1. Channel 9 alone marks the end; then the input is silent while the four fifths of highest
    priority are due (of 20 items 16), the highest first: T = items + 1 + 4 items / 5.
    """
    (items,) = size
    wanted = sorted_count(items)
    shown = vectors(generator, (items, batch, SORT_BITS), blank_rate)
    priorities = generator.uniform(-1, 1, (items, batch)).astype(np.float32)
    order = np.argsort(-priorities, axis=0)[:wanted]
    out = blank(items + 1 + wanted, batch, SORT_BITS + 2, SORT_BITS)
    out.inputs[:items, :, :SORT_BITS] = shown
    out.inputs[:items, :, SORT_BITS] = priorities
    out.inputs[items, :, SORT_BITS + 1] = 1
    out.targets[items + 1 :] = np.take_along_axis(shown, order[:, :, None], 0)
    out.mask[items + 1 :] = 1
    return out


def sorted_count(items: int) -> int:
    """The number of items that priority sort asks for: four fifths, at least one."""
    return max(1, 4 * items // 5)


TASK = Task(
    "priority-sort",
    SORT_BITS + 2,
    SORT_BITS,
    ("items",),
    smallest=(20,),
    largest=(20,),
    easiest=(2,),
    least=(1,),
    generate=priority_sort,
    marks=delimiter_after,
    longer=((25,), (40,)),
    vector_bits=SORT_BITS,
)
