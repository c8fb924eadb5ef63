"""Divides sequences into phases at their flags, such as a delimiter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ntm_client.values import Float32


@dataclass(frozen=True)
class Opener:
    """What begins a phase."""

    channel: int | None
    """The flag; None for a first phase that no flag begins."""
    again: bool
    """
    Whether the flag begins this phase again each time it comes, as before each item of a list.
    """


@dataclass(frozen=True)
class Phases:
    """
    How sequences are divided. A channel is a flag if no other channel is ever set in the same step.
    """

    flags: tuple[int, ...]
    payload: tuple[int, ...]
    """The channels that are no flags."""
    openers: tuple[Opener, ...]
    """What begins each phase, in the order of the phases."""


@dataclass(frozen=True)
class Moment:
    """The place of a step among the phases."""

    phase: int
    offset: int
    """Steps since the phase began, or began again. The step of its flag is 0."""
    lengths: tuple[int, ...]
    """The number of steps of each phase so far, this step included."""
    values: tuple[float, ...]
    """For each phase so far, the value of the flag that began it; 0 if no flag began it."""


class Clock:
    """Finds the phase of each step from the inputs up to that step."""

    def __init__(self, phases: Phases) -> None:
        self._phases = phases
        self._moment: Moment | None = None

    def tick(self, step: Float32) -> Moment:
        """Return the place of the next step, given its input [input width]."""
        flag = flag_of(step, self._phases.flags)
        last = self._moment
        if last is None:
            self._moment = Moment(0, 0, (1,), (0.0 if flag is None else float(step[flag]),))
            return self._moment
        openers = self._phases.openers
        following = last.phase + 1
        if flag is not None and following < len(openers) and openers[following].channel == flag:
            values = (*last.values, float(step[flag]))
            self._moment = Moment(following, 0, (*last.lengths, 1), values)
        else:
            opener = openers[last.phase]
            begins = flag is not None and opener.again and opener.channel == flag
            lengths = (*last.lengths[:-1], last.lengths[-1] + 1)
            offset = 0 if begins else last.offset + 1
            self._moment = Moment(last.phase, offset, lengths, last.values)
        return self._moment


def moments(phases: Phases, inputs: Float32) -> list[Moment]:
    """The place of each step among the phases, for inputs [T, input width]."""
    clock = Clock(phases)
    return [clock.tick(step) for step in inputs]


def flag_of(step: Float32, flags: Sequence[int]) -> int | None:
    """
    The flag that is the only channel set in an input [input width]; None if there is no such flag.
    """
    (shown,) = np.nonzero(step)
    return int(shown[0]) if len(shown) == 1 and shown[0] in flags else None


def find_phases(sequences: Sequence[Float32]) -> Phases | None:
    """
    The phases that sequences of inputs [T, input width] share; None if their order differs.

    A flag that comes equally often in all sequences begins a new phase each time. A flag that comes
    more often in some sequences, as before each item of a list, begins the same phase again.
    """
    steps = np.concatenate(sequences)
    width = steps.shape[1]
    alone = (steps != 0).sum(1) == 1
    flags = tuple(
        channel
        for channel in range(width)
        if (shown := steps[:, channel] != 0).any() and alone[shown].all()
    )
    if len(flags) == width:
        # If every channel looks like a flag, the channels are the data.
        flags = ()
    payload = tuple(channel for channel in range(width) if channel not in flags)
    shown = [[flag_of(step, flags) for step in sequence] for sequence in sequences]
    counts = {flag: {row.count(flag) for row in shown} for flag in flags}
    orders = {_order(row, {flag for flag in flags if len(counts[flag]) > 1}) for row in shown}
    if len(orders) != 1:
        return None
    return Phases(flags, payload, orders.pop())


def _order(shown: Sequence[int | None], varying: set[int]) -> tuple[Opener, ...]:
    """
    What begins the phases of a sequence, given the flag of each step, or None where it has none.
    """
    openers = [] if shown[0] is not None else [Opener(None, again=False)]
    for flag in shown:
        if flag is None:
            continue
        again = Opener(flag, again=True)
        if flag not in varying:
            openers.append(Opener(flag, again=False))
        elif not openers or openers[-1] != again:
            openers.append(again)
    return tuple(openers)
