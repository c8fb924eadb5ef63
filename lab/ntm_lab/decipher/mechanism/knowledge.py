"""What a mechanism knows in a step: from it alone, all that the heads do follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ntm_client.values import Float32
from ntm_lab.decipher.phases import Moment, Phases, moments

FIRST_STEPS = 3
"""So many first steps of a phase are told apart; all later steps are alike."""

UNIT = 10.0
"""Steps and sums of vectors are given in this unit, so that they are about 1."""

FADING = (0.75, 0.92)
"""Of each mean of what was read, the part that a step leaves of the steps before."""


class Known(NamedTuple):
    """How much a mechanism knows. Least is what a controller without a state sees."""

    steps: int = 1
    """The last steps whose inputs, and whose read vectors one step before, are known."""
    clock: bool = False
    """Whether the phase is known, and which of its first steps this is."""
    counts: bool = False
    """
    Whether the flag's value is known, the steps since the phase began, and the sum of what was read
    in them; the lengths of the phases before, the place in laps of these lengths, and two fading
    means of what was read. A network that counts marked vectors finds their number in the sum, and
    one that repeats what it was shown goes through it in laps.
    """


class Knowledge:
    """What is known of B sequences that go on step by step."""

    def __init__(self, known: Known, phases: Phases, inputs: Float32, read_width: int) -> None:
        """Begin with `inputs` [B, T, input width]; all heads together read `read_width` numbers."""
        self._known = known
        self._inputs = inputs
        self._phases = len(phases.openers)
        self._clocks = [moments(phases, one) for one in inputs] if known.clock else []
        self._reads = [np.zeros((len(inputs), read_width), np.float32)] * known.steps
        self._sum = np.zeros((len(inputs), read_width), np.float32)
        self._faded = [self._sum] * len(FADING)

    def at(self, step: int, reads: Float32) -> Float32:
        """[B, F] for the next step, which is `step`, after one that read `reads` [B, R, M]."""
        read = reads.reshape(len(reads), -1)
        self._reads = [read, *self._reads[:-1]]
        nothing = np.zeros_like(self._inputs[:, 0])
        columns = [
            self._inputs[:, step - ago] if step >= ago else nothing
            for ago in range(self._known.steps)
        ]
        columns += self._reads
        now = [clock[step] for clock in self._clocks]
        if self._known.clock:
            columns.append(self._when(now))
        if self._known.counts:
            offsets = np.array([[one.offset] for one in now], np.float32)
            values = np.array([[one.values[-1]] for one in now], np.float32)
            self._sum = np.where(offsets == 0, 0, self._sum + read)
            columns += [values, offsets / UNIT, self._sum / UNIT]
            self._faded = [
                left * faded + (1 - left) * read
                for left, faded in zip(FADING, self._faded, strict=True)
            ]
            columns += [*self._faded, self._lengths(now) / UNIT, self._laps(now)]
        return np.concatenate(columns, 1, dtype=np.float32)

    def _lengths(self, now: Sequence[Moment]) -> Float32:
        """[B, phases - 1]: the steps of each phase that is over."""
        found = np.zeros((len(now), self._phases - 1), np.float32)
        for row, moment in enumerate(now):
            found[row, : moment.phase] = moment.lengths[: moment.phase]
        return found

    def _laps(self, now: Sequence[Moment]) -> Float32:
        """
        [B, (phases - 1) * (4 + 2 * first steps)]: the place in laps as long as each phase before.

        For each of them the laps so far, whole and in part; sine and cosine of a hand that goes
        around once a lap; then a 1 for the step if it is among the first of a lap, and one if it is
        among the last.
        """
        found = np.zeros((len(now), self._phases - 1, 4 + 2 * FIRST_STEPS), np.float32)
        for row, moment in enumerate(now):
            for phase, length in enumerate(moment.lengths[: moment.phase]):
                lap, place = divmod(moment.offset, length)
                angle = 2 * np.pi * place / length
                laps = lap / UNIT, moment.offset / length / UNIT
                found[row, phase, :4] = *laps, np.sin(angle), np.cos(angle)
                for column, steps in ((4, place), (4 + FIRST_STEPS, length - 1 - place)):
                    if steps < FIRST_STEPS:
                        found[row, phase, column + steps] = 1
        return found.reshape(len(now), -1)

    def _when(self, now: Sequence[Moment]) -> Float32:
        """[B, phases + first steps]: a 1 for the phase, and one for the step if it is a first."""
        found = np.zeros((len(now), self._phases + FIRST_STEPS), np.float32)
        for row, moment in enumerate(now):
            found[row, moment.phase] = 1
            if moment.offset < FIRST_STEPS:
                found[row, self._phases + moment.offset] = 1
        return found
