"""Runs a program step by step, on a memory that holds whole inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ntm_client.values import Float32
from ntm_lab.decipher.listing import executed_lines, listing
from ntm_lab.decipher.phases import Clock, Moment
from ntm_lab.decipher.program import Condition, Move, Phase, Place, Program, Rule
from ntm_lab.decipher.tape import Tape


@dataclass
class Pointers:
    """The locations of the heads. They may be changed between steps."""

    read: int
    write: int


class Machine:
    """
    Runs a program from its first step on.

    `pointers` and `memory` may be changed between steps, to find out the consequences. `memory` has
    the input [input width] that is stored at each location in use. `executed` names the parts of
    the program that the last step executed, as in `listing.Line.keys`.
    """

    def __init__(self, program: Program, locations: int | None = None) -> None:
        """Give the program a ring of `locations`, or an endless tape if it is None."""
        self.program = program
        self.locations = locations
        self.pointers = Pointers(
            self._wrapped(program.read_from), self._wrapped(program.write_from)
        )
        self._tape = Tape()
        self.memory = self._tape.contents
        self.executed: tuple[str, ...] = ()
        self.steps = 0
        """The number of steps made."""
        self._listing = listing(program)
        self._shown, self._sources = np.array(program.channels, np.intp).reshape(-1, 2).T
        self._clock = Clock(program.phases)
        self._begins: list[int] = []
        self._ends: list[int] = []
        self._writes: list[int] = []
        """For each phase so far, the number of writes before it."""
        self._inputs: list[list[Float32]] = []
        """For each phase so far, its inputs."""
        self._reads: list[Float32 | None] = []

    def step(self, x: Float32) -> Float32:
        """Make one step: from an input [input width] to an output [output width] of 0 and 1."""
        moment = self._clock.tick(x)
        phase = self.program.body[moment.phase]
        executed = [f"{moment.phase}"]
        if len(self._inputs) <= moment.phase:
            self._inputs.append([])
            self._writes.append(len(self._tape.written))
        self._inputs[moment.phase].append(x)
        self.pointers.write = self._moved(
            "write", phase.write, self.pointers.write, moment, executed
        )
        if len(self._begins) <= moment.phase:
            self._begins.append(self.pointers.write)
            self._ends.append(self.pointers.write)
        self._ends[moment.phase] = self.pointers.write
        self.pointers.read = self._moved("read", phase.read, self.pointers.read, moment, executed)
        self._reads.append(self.memory.get(self.pointers.read))
        self._store(phase, moment, executed)
        output = self._output(phase, moment, executed)
        self.executed = tuple(executed)
        self.steps += 1
        return output

    @property
    def lines(self) -> tuple[int, ...]:
        """The lines of the program's `listing` that the last step executed, by index."""
        return executed_lines(self._listing, self.executed)

    def run(self, inputs: Float32) -> Float32:
        """Make T steps: from inputs [T, input width] to outputs [T, output width]."""
        return np.array([self.step(x) for x in inputs], np.float32)

    def _moved(
        self,
        head: str,
        rules: tuple[Rule, ...],
        pointer: int,
        moment: Moment,
        executed: list[str],
    ) -> int:
        for index, rule in enumerate(rules):
            if all(self._holds(condition, pointer, moment) for condition in rule.conditions):
                executed.append(f"{moment.phase}.{head}.{index}")
                return self._target(rule.move, pointer, moment)
        return pointer

    def _holds(self, condition: Condition, pointer: int, moment: Moment) -> bool:
        if condition.kind == "step":
            return moment.offset == condition.number
        if condition.kind == "length":
            return moment.lengths[condition.phase] == condition.number
        assert condition.place is not None
        return pointer == self._location(condition.place, moment)

    def _target(self, move: Move, pointer: int, moment: Moment) -> int:
        if move.kind == "goto":
            assert move.place is not None
            location = self._location(move.place, moment)
            return pointer if location is None else location
        return self._wrapped(pointer + move.amount)

    def _location(self, place: Place, moment: Moment) -> int | None:
        if place.kind == "begin":
            if place.phase == len(self._begins):
                return None  # for the write head, which moves first, in the phase's first step
            return self._wrapped(self._begins[place.phase] + place.offset)
        if place.kind == "end":
            return self._wrapped(self._ends[place.phase] + place.offset)
        if place.kind == "rank":
            return self._tape.ranked(place.channel, moment.offset + place.offset)
        found = self._tape.matching(self._inputs[place.phase], self._writes[place.phase])
        return None if found is None else self._wrapped(found + place.offset)

    def _wrapped(self, location: int) -> int:
        return location if self.locations is None else location % self.locations

    def _store(self, phase: Phase, moment: Moment, executed: list[str]) -> None:
        store = phase.store
        if store is None or not store.active(moment.offset):
            return
        executed.append(f"{moment.phase}.store")
        content = self._inputs[-1][-1] if store.source == "input" else self._last_read(1)
        self._tape.write(self.pointers.write, content)

    def _last_read(self, ago: int) -> Float32 | None:
        return self._reads[-1 - ago] if len(self._reads) > ago else None

    def _output(self, phase: Phase, moment: Moment, executed: list[str]) -> Float32:
        output = np.zeros(self.program.output_width, np.float32)
        if not phase.emits:
            return output
        marker = self.program.marker
        if marker is not None and marker.phase == moment.phase:
            times = round(marker.slope * moment.values[marker.phase] + marker.intercept)
            if moment.offset == moment.lengths[marker.of_phase] * times + marker.offset:
                executed.append(f"{moment.phase}.marker")
                output[marker.output] = 1
                return output
        executed.append(f"{moment.phase}.emit")
        content = self._last_read(self.program.delay)
        if content is not None:
            output[self._shown] = content[self._sources] > 0.5
        return output
