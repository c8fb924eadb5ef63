"""The phases of a sequence: what its flags, such as a delimiter, divide it into."""

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
    """Whether the same flag begins the same phase again, as each item of a list does."""


@dataclass(frozen=True)
class Phases:
    """How sequences are divided. A channel is a flag if it is only ever set while no other is."""

    flags: tuple[int, ...]
    payload: tuple[int, ...]
    """The other channels."""
    openers: tuple[Opener, ...]
    """Of each phase, in their order."""


@dataclass(frozen=True)
class Moment:
    """Where in the phases a step is."""

    phase: int
    offset: int
    """Steps since the phase began, or began again; its flag's own step is 0."""
    lengths: tuple[int, ...]
    """Steps of each phase so far, this one included."""
    values: tuple[float, ...]
    """What the flag showed that began each phase so far; 0 where no flag did."""


class Clock:
    """Tells the phase of each step from the inputs up to it."""

    def __init__(self, phases: Phases) -> None:
        self._phases = phases
        self._moment: Moment | None = None

    def tick(self, step: Float32) -> Moment:
        """Take the next input, [input width]."""
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
    """Where in the phases each of the steps [T, input width] is."""
    clock = Clock(phases)
    return [clock.tick(step) for step in inputs]


def flag_of(step: Float32, flags: Sequence[int]) -> int | None:
    """The flag that is set in an input [input width], alone; None if none is."""
    (shown,) = np.nonzero(step)
    return int(shown[0]) if len(shown) == 1 and shown[0] in flags else None


def find_phases(sequences: Sequence[Float32]) -> Phases | None:
    """
    The phases that inputs [T, input width] have in common; None if they have no order in common.

    A flag that comes equally often in all of them begins a phase of its own each time. One that
    comes more often in some, as before each item of a list, begins one phase again and again.
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
        # Nothing but flags: these are what is to be processed.
        flags = ()
    payload = tuple(channel for channel in range(width) if channel not in flags)
    shown = [[flag_of(step, flags) for step in sequence] for sequence in sequences]
    counts = {flag: {row.count(flag) for row in shown} for flag in flags}
    orders = {_order(row, {flag for flag in flags if len(counts[flag]) > 1}) for row in shown}
    if len(orders) != 1:
        return None
    return Phases(flags, payload, orders.pop())


def _order(shown: Sequence[int | None], varying: set[int]) -> tuple[Opener, ...]:
    """What begins the phases of a sequence that showed these flags, one or none at each step."""
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
