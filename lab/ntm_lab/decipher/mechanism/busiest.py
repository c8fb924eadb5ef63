"""Chooses the heads of a network that are moved, where no program names them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ntm_lab.decipher.interventions import MovedHeads
from ntm_lab.recordings.recording import READ_WEIGHTING, WRITE_WEIGHTING, Recording


def busiest(recordings: Sequence[Recording]) -> MovedHeads | None:
    """
    The read head that is most focused in the steps that count, and the write head that is at the
    most locations before them. None for recordings without heads or without a task.
    """
    focus, visited = [], []
    for each in recordings:
        if each.mask is None or not {READ_WEIGHTING, WRITE_WEIGHTING} <= set(each.traces):
            return None
        counted = each.mask > 0
        focus.append(each.traces[READ_WEIGHTING][counted].max(2).mean(0))
        places = each.traces[WRITE_WEIGHTING][: int(counted.argmax())].argmax(2)
        visited.append([len(np.unique(column)) for column in places.T])
    return MovedHeads(int(np.mean(focus, axis=0).argmax()), int(np.mean(visited, axis=0).argmax()))
