"""A program as plain data: phases, and in each of them what the heads do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ntm_lab.decipher.phases import Phases


@dataclass(frozen=True)
class Place:
    """
    A location that a program can name.

    `begin`: where the write head was at the first step of `phase`. `match`: where what the last
    input of `phase` is was stored before it, see `Tape.matching`. `rank`: where, of all that is
    stored, that with the largest value of input `channel` is at step 0, the next at step 1.
    """

    kind: Literal["begin", "match", "rank"]
    phase: int = 0
    channel: int = 0
    offset: int = 0
    """Locations after it; with `rank`, steps."""

    def after(self, locations: int) -> Place:
        """The place that many locations after this one."""
        return replace(self, offset=self.offset + locations)


@dataclass(frozen=True)
class Condition:
    """
    What has to hold for a rule.

    `step`: it is that step of the phase, the flag's own being 0. `length`: `phase` had this many
    steps. `at`: the head is at `place`, before it moves.
    """

    kind: Literal["step", "length", "at"]
    number: int = 0
    phase: int = 0
    place: Place | None = None


@dataclass(frozen=True)
class Move:
    """How a head gets to its next location."""

    kind: Literal["hold", "shift", "goto"]
    amount: int = 0
    """Of a shift; positive to higher locations."""
    place: Place | None = None
    """Of a goto."""


@dataclass(frozen=True)
class Rule:
    """A move, and the conditions that all have to hold for it."""

    conditions: tuple[Condition, ...]
    move: Move


@dataclass(frozen=True)
class StoreRule:
    """What the write head writes in a phase, from the step `first` to before `end`, if any."""

    source: Literal["input", "read"]
    """The input of the step, or what was read in the step before."""
    first: int = 0
    end: int | None = None

    def active(self, offset: int) -> bool:
        """Whether it writes in that step of the phase."""
        return self.first <= offset and (self.end is None or offset < self.end)


@dataclass(frozen=True)
class Phase:
    """What happens at each step of a phase: the first rule that holds moves each head."""

    read: tuple[Rule, ...]
    """Moves of the read head. Empty: where it is does not matter, and it stays."""
    write: tuple[Rule, ...]
    """Moves of the write head, likewise."""
    store: StoreRule | None
    emits: bool
    """Whether what is read is put out; otherwise the output is silent, all zeros."""


@dataclass(frozen=True)
class Marker:
    """
    An output that is set, and alone, in one step of a phase.

    That step is `steps` of `of_phase`, times round(slope * value + intercept), plus `offset`, where
    the value is what the flag of `phase` showed.
    """

    output: int
    phase: int
    of_phase: int
    slope: float
    intercept: float
    offset: int


@dataclass(frozen=True)
class Program:
    """
    What a network does, step by step.

    In each step the clock of the phases ticks; the write head moves, then the read head; the read
    head reads what the memory holds; the write head writes; what was read `delay` steps ago is
    put out.
    """

    model: str
    """The model that it was found in."""
    locations: int
    """Memory locations, which are a ring."""
    input_width: int
    output_width: int
    phases: Phases
    read_head: int
    """Which of the network's read heads it is that matters, and which of its write heads."""
    write_head: int
    read_from: int
    """
    Where the read head is before the first step, and the write head.

    A network's head that is spread in the first steps begins where it would have to, to be where
    it later is.
    """
    write_from: int
    delay: int
    """Steps from reading to putting out."""
    channels: tuple[tuple[int, int], ...]
    """Pairs of an output and the input whose stored value it repeats."""
    body: tuple[Phase, ...]
    """Of each of the phases."""
    marker: Marker | None
