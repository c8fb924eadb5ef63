"""
Chooses the memory locations that a picture of weightings shows, and merges rows that share a line.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ntm_client.values import Float32

VISIBLE_WEIGHT = 0.05
MARGIN = 1


def locations_in_use(weightings: Sequence[Float32]) -> npt.NDArray[np.intp]:
    """
    The locations from the first to the last with visible weight, in the order of the memory.

    The memory is a ring, because shifts wrap around. The longest run of locations without weight is
    left out, wherever it lies, so that the path of a head from location 0 to N - 1 is not cut.

    Args:
        weightings: Weightings of heads, each [steps, heads, N].
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
    Merge groups of rows, so that at most `maximum` are left; also return the size of a group.

    A merged row has the largest values of its group, so that no peak is lost. The last group may be
    smaller.
    """
    size = -(-len(rows) // maximum)
    pooled: Float32 = np.maximum.reduceat(rows, range(0, len(rows), size))
    return pooled, size


def mean(rows: Float32, maximum: int) -> tuple[Float32, int]:
    """Merge groups of rows as `largest` does, but to their mean values."""
    size = -(-len(rows) // maximum)
    starts = np.arange(0, len(rows), size)
    counts = np.diff(starts, append=len(rows)).astype(np.float32)
    pooled = (np.add.reduceat(rows, starts) / counts[:, None]).astype(np.float32)
    return pooled, size
