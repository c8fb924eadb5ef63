"""A mechanism as plain data: what the heads do in each situation, as functions of what is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from ntm_client.values import Float32, Memory
from ntm_lab.decipher.mechanism.regression import Floats
from ntm_lab.decipher.phases import Phases

Part = Literal["key", "strength", "gate", "shift", "sharpening", "erase", "add", "output"]
"""What is computed in a step: what the heads do, and the output."""

PARTS: tuple[Part, ...] = (
    "key",
    "strength",
    "gate",
    "shift",
    "sharpening",
    "erase",
    "add",
    "output",
)

FIRST_STEPS = 3
"""So many first steps of a phase are situations of their own; all later steps are one."""


class Situation(NamedTuple):
    """What decides which maps a step uses."""

    phase: int
    step: int
    """The index of the step in its phase, at most `FIRST_STEPS`."""
    round: int
    """
    0 before a jump in this phase, 1 after one, 2 after as many as the phase's flag asks for; 0 for
    a mechanism that does not count.
    """


class Counter(NamedTuple):
    """
    How a mechanism counts: the jumps of a read head in a phase, up to what the flag asks for.

    A step is a jump if the head's gate is above one half. The flag asks for
    round(slope * value + intercept), the value being what the flag showed.
    """

    head: int
    slope: float
    intercept: float


@dataclass(frozen=True, eq=False)
class Mechanism:
    """
    What a network's heads do, without its controller.

    In each step, a situation chooses a map for each part. A map [F, K] is applied to the F
    features: 1, the inputs of the last steps, the flag's value and the count where there is a
    counter, and what the read heads read in the last steps. The map of the output has what the read
    heads read in the step itself besides. Then come the activation functions of the paper, and
    equations 2 to 9 on a memory that has the network's own contents.
    """

    phases: Phases
    start: Memory
    """Memory and weightings before the first step."""
    input_steps: int
    """The number of steps whose inputs are known: this one and those before it."""
    read_steps: int
    """The number of steps before this one whose read vectors are known."""
    counter: Counter | None
    maps: Mapping[Situation, Mapping[Part, Floats]]
    dropped: frozenset[int] = frozenset()
    """
    Heads that do nothing, the read heads first. A dropped read head reads zeros, and a dropped
    write head writes nothing.
    """

    @property
    def read_heads(self) -> int:
        """The number of the network's read heads."""
        return len(self.start.read_weightings)

    @property
    def write_heads(self) -> int:
        """The number of the network's write heads."""
        return len(self.start.write_weightings)

    def without(self, head: int) -> Mechanism:
        """The same mechanism without one head more."""
        return replace(self, dropped=self.dropped | {head})

    def features(
        self, inputs: Float32, step: int, values: Floats, counts: Floats, reads: list[Float32]
    ) -> Floats:
        """
        [B, F] for B sessions: `inputs` [B, T, input width], `values` and `counts` [B], and the
        `reads` of the steps before, the last one first, each [B, R, M].
        """
        sessions = len(inputs)
        columns = [np.ones((sessions, 1))]
        for ago in range(self.input_steps):
            known = inputs[:, step - ago] if step >= ago else np.zeros_like(inputs[:, 0])
            columns.append(known.astype(np.float64))
        if self.counter is not None:
            columns.append(np.stack([values, counts], 1))
        for ago in range(self.read_steps):
            read = reads[ago] if ago < len(reads) else np.zeros_like(reads[0])
            columns.append(self.kept(read).reshape(sessions, -1).astype(np.float64))
        return np.concatenate(columns, 1)

    def kept(self, reads: Float32) -> Float32:
        """The read vectors [B, R, M], with zeros for dropped heads."""
        heads = [head for head in self.dropped if head < self.read_heads]
        if not heads:
            return reads
        reads = reads.copy()
        reads[:, heads] = 0
        return reads

    def situation(self, phase: int, offset: int, value: float, count: float) -> Situation:
        """The situation of a step: its phase and step there, the flag's value, and the count."""
        turn = 0
        if self.counter is not None and count:
            due = round(self.counter.slope * value + self.counter.intercept)
            turn = 2 if count >= due else 1
        return Situation(phase, min(offset, FIRST_STEPS), turn)

    def nearest(self, situation: Situation) -> Situation:
        """The situation that has maps and is most like the one given."""
        if situation in self.maps:
            return situation
        return min(
            self.maps,
            key=lambda other: (
                abs(other.phase - situation.phase),
                abs(other.step - situation.step),
                abs(other.round - situation.round),
            ),
        )
