"""Associative recall (section 4.3): answer an item with the one that followed it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ntm_tasks.task import Batch, Float32, Size, Task, blank, vectors

ITEM_BITS = 6
"""Bits of each vector of an item."""

ITEM_VECTORS = 3
"""Vectors of an item."""


def associative_recall(
    generator: np.random.Generator, batch: int, size: Size, blank_rate: float = 0.0
) -> Batch:
    """
    Hear items, then one of them again, and answer with the item that followed it; size (items,).

    An item is three 6-bit vectors on channels 0 to 5, after a step in which channel 6 alone marks
    its start. Channel 7 alone marks the query, which follows, then marks its end; then the input
    is silent for the three steps in which the next item is due: T = 4 items + 8. Any item but the
    last is queried equally often. Items are drawn anew until none equals the queried one.
    """
    (items,) = size
    item_shape = (batch, ITEM_VECTORS, ITEM_BITS)
    shown = vectors(generator, (items, *item_shape), blank_rate)
    asked = generator.integers(0, items - 1, batch)
    every = np.arange(batch)
    while (same := _repeats_of(shown, asked)).any():
        shown[same] = generator.integers(0, 2, (int(same.sum()), *item_shape[1:]))
    out = blank(4 * items + 8, batch, ITEM_BITS + 2, ITEM_BITS)
    for item in range(items):
        out.inputs[4 * item, :, ITEM_BITS] = 1
        out.inputs[4 * item + 1 : 4 * item + 4, :, :ITEM_BITS] = shown[item].transpose(1, 0, 2)
    query = 4 * items
    out.inputs[[query, query + 4], :, ITEM_BITS + 1] = 1
    out.inputs[query + 1 : query + 4, :, :ITEM_BITS] = shown[asked, every].transpose(1, 0, 2)
    out.targets[-ITEM_VECTORS:] = shown[asked + 1, every].transpose(1, 0, 2)
    out.mask[-ITEM_VECTORS:] = 1
    return out


def _repeats_of(shown: Float32, asked: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """[items, B]: whether an item equals the queried item but stands at another place."""
    queried = shown[asked, np.arange(shown.shape[1])]
    same: npt.NDArray[np.bool_] = (shown == queried).all((2, 3))
    same[asked, np.arange(shown.shape[1])] = False
    return same


def _marks(size: Size) -> dict[int, str]:
    query = 4 * size[0]
    return dict.fromkeys(range(0, query, 4), "item") | {query: "query", query + 4: "delimiter"}


def _allows(shown: Float32) -> bool:
    """Whether the query, which is the last item, equals one item and no other."""
    items = shown.reshape(-1, ITEM_VECTORS * shown.shape[1])
    return int((items[:-1] == items[-1]).all(1).sum()) == 1


TASK = Task(
    "associative-recall",
    ITEM_BITS + 2,
    ITEM_BITS,
    ("items",),
    smallest=(2,),
    largest=(6,),
    easiest=(2,),
    least=(2,),
    generate=associative_recall,
    marks=_marks,
    longer=((8,), (10,), (12,), (15,), (20,)),
    vector_bits=ITEM_BITS,
    allows=_allows,
)
