"""Finds the rule for an output that repeats no input and marks a moment, such as the end."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from ntm_lab.decipher.episode import Episode
from ntm_lab.decipher.phases import Moment
from ntm_lab.decipher.program import Marker

LATEST = 2
"""The largest number of steps from the last round to a marker."""

AGREEING = 0.9
"""A rule must hold in this part of the episodes. In the others the network may be wrong."""


def find_marker(episodes: Sequence[Episode], explained: set[int], phases: int) -> Marker | None:
    """
    The rule for an output that is not among the `explained` ones; None if none is found.

    The step of the marker must be the length of an earlier phase times a whole number. That number
    must be a linear function of the value that a flag showed.
    """
    for output in range(episodes[0].bits.shape[1]):
        if output in explained:
            continue
        moments = [_only_moment(episode, output) for episode in episodes]
        for phase, offset in product(range(1, phases), range(LATEST + 1)):
            for of_phase in range(phase):
                marker = _fitted(moments, output, phase, of_phase, offset)
                if marker is not None:
                    return marker
    return None


def _only_moment(episode: Episode, output: int) -> Moment | None:
    """The only step in which an output is set; None if it is set in no step or in several."""
    (steps,) = np.nonzero(episode.bits[:, output] & episode.counts)
    return episode.moments[steps[0]] if len(steps) == 1 else None


def _fitted(
    moments: Sequence[Moment | None], output: int, phase: int, of_phase: int, offset: int
) -> Marker | None:
    counted = [
        (moment.values[phase], (moment.offset - offset) // moment.lengths[of_phase])
        for moment in moments
        if moment is not None
        and moment.phase == phase
        and (moment.offset - offset) % moment.lengths[of_phase] == 0
    ]
    enough = AGREEING * len(moments)
    if len(counted) < enough:
        return None
    values, times = np.array(counted).T
    if len(set(values)) > 1:
        slope, intercept = (float(value) for value in np.polyfit(values, times, 1))
    else:
        slope, intercept = 0.0, float(np.median(times))
    if (np.rint(slope * values + intercept) == times).sum() < enough:
        return None
    return Marker(output, phase, of_phase, slope, intercept, offset)
