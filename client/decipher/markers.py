"""Finds when an output that repeats no input is set: after a count of rounds, such as the end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from client.decipher.dataflow import Trial
from client.decipher.program import Marker

LATEST = 2
"""A marker may come so many steps after the last round."""


def find_marker(trials: Sequence[Trial], explained: set[int], phases: int) -> Marker | None:
    """
    When the output that is not among the explained ones is set, if it follows a count.

    Its step has to be the length of an earlier phase, times a whole number that is a linear
    function of what a flag showed, in every trial.
    """
    for output in range(trials[0].bits.shape[1]):
        if output in explained:
            continue
        for phase in range(1, phases):
            for of_phase in range(phase):
                for offset in range(LATEST + 1):
                    marker = _fitted(trials, output, phase, of_phase, offset)
                    if marker is not None:
                        return marker
    return None


def _fitted(
    trials: Sequence[Trial], output: int, phase: int, of_phase: int, offset: int
) -> Marker | None:
    values, times = [], []
    for trial in trials:
        (steps,) = np.nonzero(trial.bits[:, output] & trial.counts)
        if len(steps) != 1 or trial.moments[steps[0]].phase != phase:
            return None
        moment = trial.moments[steps[0]]
        rounds, rest = divmod(moment.offset - offset, moment.lengths[of_phase])
        if rest:
            return None
        values.append(moment.values[phase])
        times.append(rounds)
    if len(set(values)) > 1:
        slope, intercept = (float(value) for value in np.polyfit(values, times, 1))
    else:
        slope, intercept = 0.0, float(times[0])
    fitted = [round(slope * value + intercept) for value in values]
    return Marker(output, phase, of_phase, slope, intercept, offset) if fitted == times else None
