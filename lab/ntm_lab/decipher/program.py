"""A program as plain data: its phases, and the rules of the heads in each phase."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ntm_lab.decipher.phases import Phases


@dataclass(frozen=True)
class Place:
    """
    A location that a rule can name.

    - `begin`: the write head's location at the first step of `phase`. In that step itself the write
      head, which moves first, knows no such place: a condition does not hold, and a goto stays.
    - `end`: the write head's location at the last step of `phase`, an earlier one.
    - `match`: the location that held a copy of the last input of `phase` before that phase began;
      see `Tape.matching`.
    - `rank`: the stored inputs are sorted by their value of `channel`, the largest first. Step 0
      names the location of the first, step 1 that of the second, and so on.
    """

    kind: Literal["begin", "end", "match", "rank"]
    phase: int = 0
    channel: int = 0
    offset: int = 0
    """Locations to add to the place's own; for `rank`, a number to add to the step."""

    def after(self, locations: int) -> Place:
        """The same place with `locations` added to its offset."""
        return replace(self, offset=self.offset + locations)


@dataclass(frozen=True)
class Condition:
    """
    A condition of a rule.

    - `step`: the step of the phase is `number`. The step of the flag is 0.
    - `length`: `phase` had `number` steps.
    - `at`: the head is at `place` before it moves.
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
    """The distance of a shift; positive towards higher locations."""
    place: Place | None = None
    """The destination of a goto; None for other kinds."""


@dataclass(frozen=True)
class Rule:
    """A move that a head makes if all conditions hold."""

    conditions: tuple[Condition, ...]
    move: Move


@dataclass(frozen=True)
class StoreRule:
    """
    What the write head writes in a phase: from step `first` until before step `end`, or to the end
    of the phase if `end` is None.
    """

    source: Literal["input", "read"]
    """The step's input, or the vector that was read in the step before."""
    first: int = 0
    end: int | None = None

    def active(self, offset: int) -> bool:
        """Whether the head writes in step `offset` of the phase."""
        return self.first <= offset and (self.end is None or offset < self.end)


@dataclass(frozen=True)
class Phase:
    """
    What happens at each step of a phase. Each head makes the move of its first rule that holds.
    """

    read: tuple[Rule, ...]
    """
    Rules of the read head. Empty if its location does not matter in this phase; it then stays.
    """
    write: tuple[Rule, ...]
    """
    Rules of the write head. Empty if its location does not matter in this phase; it then stays.
    """
    store: StoreRule | None
    emits: bool
    """Whether the output is what was read; otherwise it is all zeros."""

    @property
    def does_nothing(self) -> bool:
        """Whether the phase only hears its inputs."""
        return not (self.read or self.write or self.store or self.emits)


@dataclass(frozen=True)
class Marker:
    """
    An output that is set in one step of a phase. No other output is set in that step.

    The index of that step is L * round(slope * value + intercept) + `offset`, where L is the number
    of steps of `of_phase`, and value is the input of the flag of `phase`.
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

    In each step, in this order: the clock finds the phase of the step; the write head moves; the
    read head moves and reads; the write head writes; the output is what was read `delay` steps ago.
    """

    model: str
    """The name of the model that the program was found in."""
    locations: int
    """The number of memory locations, which form a ring."""
    input_width: int
    output_width: int
    phases: Phases
    read_head: int
    """The index of the network's read head that the program describes."""
    write_head: int
    """The index of the network's write head that the program describes."""
    read_from: int
    """
    The read head's location before the first step. On a ring, -1 is the last location.

    It is the location that leads to the later ones. The network's own may be another, if its head
    is spread in the first steps, or moves in the first of them otherwise than later.
    """
    write_from: int
    """The write head's location before the first step, found in the same way."""
    delay: int
    """Steps from the read to the output that it serves."""
    channels: tuple[tuple[int, int], ...]
    """Pairs of an output and the input whose stored value it repeats."""
    body: tuple[Phase, ...]
    """What happens in each phase, by the index of the phase."""
    marker: Marker | None
