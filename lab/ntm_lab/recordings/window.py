"""Which memory locations a picture of weightings has to show, and how many share a place in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ntm_client.values import Float32

VISIBLE_WEIGHT = 0.05
MARGIN = 1


def locations_in_use(weightings: Sequence[Float32]) -> npt.NDArray[np.intp]:
    """
    The locations from the first to the last that gets visible weight, in the order of the memory.

    The memory is a ring, as the heads' shifts are: the longest run of locations without weight is
    left out, wherever it lies, so that a head that moves from location 0 to N - 1 stays whole.

    Args:
        weightings: Each [steps, heads, N].
    """
    count = weightings[0].shape[-1]
    peaks = np.max([weighting.max((0, 1)) for weighting in weightings], axis=0)
    used = np.flatnonzero(peaks >= VISIBLE_WEIGHT)
    if len(used) in (0, count):
        return np.arange(count)
    gaps = np.diff(used, append=used[0] + count)
    widest = int(gaps.argmax())
    first = int(used[(widest + 1) % len(used)])
    span = count - int(gaps[widest]) + 1
    margin = min(MARGIN, (count - span) // 2)
    shown: npt.NDArray[np.intp] = np.arange(first - margin, first + span + margin) % count
    return shown


def largest(rows: Float32, maximum: int) -> tuple[Float32, int]:
    """
    The rows as at most so many, each the largest values of equally many, and how many those are.

    The last one may be of fewer. So no peak is lost, however little room there is.
    """
    size = -(-len(rows) // maximum)
    pooled: Float32 = np.maximum.reduceat(rows, range(0, len(rows), size))
    return pooled, size


def mean(rows: Float32, maximum: int) -> tuple[Float32, int]:
    """Like `largest`, but their mean values, where a few rows do not matter by themselves."""
    size = -(-len(rows) // maximum)
    starts = np.arange(0, len(rows), size)
    counts = np.diff(starts, append=len(rows)).astype(np.float32)
    pooled = (np.add.reduceat(rows, starts) / counts[:, None]).astype(np.float32)
    return pooled, size
