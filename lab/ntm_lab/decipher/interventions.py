"""
Changes the memory or a head of a running session, and compares the effect with the program's.

Between two steps, the checkpoint of a session is taken, changed and restored; then the session goes
on. The same change is made to the state of the program. If the program does what the network does,
their outputs change in the same way. Bits that change in neither are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ntm_client import checkpoint
from ntm_client.blocking import Session
from ntm_client.values import Float32
from ntm_lab.decipher.machine import Machine
from ntm_lab.decipher.program import Program
from ntm_lab.decipher.samples import ServedNetwork
from ntm_tasks import TaskSequence

Bits = npt.NDArray[np.bool_]

InterventionKind = Literal["overwrite", "swap", "move the read head", "move the write head"]

INTERVENTION_KINDS: tuple[InterventionKind, ...] = (
    "overwrite",
    "swap",
    "move the read head",
    "move the write head",
)

DISTANCES = (-2, -1, 1, 2)
"""The numbers of locations that a head may be moved by."""


class MovedHeads(NamedTuple):
    """The heads that moves move, where no program names them."""

    read_head: int
    write_head: int


@dataclass(frozen=True)
class Intervention:
    """
    A change of the state between two steps.

    `overwrite` copies the content of location `other` to location `one`. `swap` exchanges their
    contents. A move moves a head by `one` locations, positive towards higher ones.
    """

    kind: InterventionKind
    step: int
    """The first step after the change."""
    one: int
    other: int = 0

    def to_session(self, session: Session, program: Program | MovedHeads) -> None:
        """
        Change the state of a session through its checkpoint. A move moves the head that the program
        describes.
        """
        state = checkpoint.decode(session.checkpoint())
        memory = state.tensor("memory", session.model)
        weighting = state.tensor("weighting", session.model)
        self.to_state(memory.T, weighting, session.model.read_heads, program)
        session.restore(checkpoint.encode(state.changed(memory=memory, weighting=weighting)))

    def to_state(
        self,
        memory: Float32,
        weightings: Float32,
        read_heads: int,
        program: Program | MovedHeads,
    ) -> None:
        """
        Change `memory` [N, M] and `weightings` [heads, N], the read heads first, in place.

        A move moves the head that the program describes.
        """
        if self.kind == "overwrite":
            memory[self.one] = memory[self.other]
        elif self.kind == "swap":
            memory[[self.one, self.other]] = memory[[self.other, self.one]]
        else:
            head = program.read_head
            if self.kind == "move the write head":
                head = read_heads + program.write_head
            weightings[head] = np.roll(weightings[head], self.one)

    def to_machine(self, machine: Machine) -> None:
        """Change the state of a machine, which must run the program on a ring."""
        held, heads = machine.memory, machine.pointers
        assert machine.locations is not None
        if self.kind == "overwrite":
            held[self.one] = held[self.other]
        elif self.kind == "swap":
            held[self.one], held[self.other] = held[self.other], held[self.one]
        elif self.kind == "move the read head":
            heads.read = (heads.read + self.one) % machine.locations
        else:
            heads.write = (heads.write + self.one) % machine.locations


@dataclass(frozen=True)
class Effect:
    """The effect of changes of one kind, summed over sequences."""

    kind: InterventionKind
    sequences: int
    bits: int
    """The bits that count after the change."""
    network_changed: int
    """Of these bits, those that the change altered in the network."""
    program_changed: int
    """Of these bits, those that the change altered in the program."""
    either_changed: int
    agreeing: int
    """Of `either_changed`, the bits that are the same in network and program after the change."""

    @property
    def share(self) -> float:
        """
        The part of the altered bits in which program and network agree; 0 if none was altered.
        """
        return self.agreeing / self.either_changed if self.either_changed else 0.0


@dataclass(frozen=True, eq=False)
class Changed:
    """A sequence that was changed in a running session, and what came of it."""

    sequence: TaskSequence
    change: Intervention
    before: Bits
    """[T, output width]: the network's bits without the change."""
    after: Bits
    """The same with the change. They are equal up to the step of the change."""


def foretold(effects: Sequence[Effect]) -> str:
    """The share of each kind of change, as a list in words."""
    return ", ".join(
        f"{each.kind} {each.share:.1%}" if each.either_changed else f"{each.kind} changes nothing"
        for each in effects
    )


Respond = Callable[[Sequence[Float32], Sequence[Intervention | None]], Sequence[Bits]]
"""
Gives the bits [T, output width] for inputs [T, input width], each with a change on the way or None.
"""


def intervene(
    program: Program, network: ServedNetwork, sequences: Sequence[TaskSequence], seed: int = 0
) -> list[Effect]:
    """
    Make one change of each kind in each sequence, at a step and a place drawn from the seed.

    A sequence is left out if the program stores fewer than two different vectors, because there is
    nothing to exchange.
    """
    made = change_sequences(program, network, sequences, seed)
    return effects(made, responding(program, network.memory_locations))


def change_sequences(
    program: Program | MovedHeads,
    network: ServedNetwork,
    sequences: Sequence[TaskSequence],
    seed: int = 0,
) -> dict[InterventionKind, list[Changed]]:
    """Make the changes of `intervene` in the network alone."""
    plain = network.outputs([sequence.inputs for sequence in sequences])
    made = {}
    for kind in INTERVENTION_KINDS:
        luck = np.random.default_rng([seed, INTERVENTION_KINDS.index(kind)])
        changes = [
            (sequence, before > 0.5, change)
            for sequence, before in zip(sequences, plain, strict=True)
            if (change := drawn(kind, program, network, sequence, luck))
        ]
        made[kind] = network.each(lambda each: _changed(program, network, *each), changes)
    return made


def effects(made: Mapping[InterventionKind, Sequence[Changed]], respond: Respond) -> list[Effect]:
    """Compare what the changes did in the network with what they do in something that responds."""
    found = []
    for kind, each in made.items():
        inputs = [one.sequence.inputs for one in each]
        before = respond(inputs, [None] * len(each)) if each else []
        after = respond(inputs, [one.change for one in each]) if each else []
        counts = [_counts(*one) for one in zip(each, before, after, strict=True)]
        total = np.sum(counts, axis=0, dtype=int) if counts else np.zeros(5, int)
        found.append(Effect(kind, len(each), *(int(count) for count in total)))
    return found


def responding(program: Program, locations: int) -> Respond:
    """What the program does on a ring of so many locations."""

    def respond(
        inputs: Sequence[Float32], changes: Sequence[Intervention | None]
    ) -> Sequence[Bits]:
        found = []
        for one, change in zip(inputs, changes, strict=True):
            machine = Machine(program, locations)
            outputs = []
            for step, x in enumerate(one):
                if change is not None and step == change.step:
                    change.to_machine(machine)
                outputs.append(machine.step(x) > 0.5)
            found.append(np.array(outputs))
        return found

    return respond


def drawn(
    kind: InterventionKind,
    program: Program | MovedHeads,
    network: ServedNetwork,
    sequence: TaskSequence,
    luck: np.random.Generator,
) -> Intervention | None:
    """A random change for one sequence; None if the program holds nothing that can be changed."""
    answer = np.flatnonzero(sequence.mask)
    if kind == "move the write head":
        # Before the answer, while the network stores its inputs. Later it may write nothing that
        # matters.
        return Intervention(
            kind, int(luck.integers(1, max(2, answer[0]))), int(luck.choice(DISTANCES))
        )
    # From just before the answer to its middle, so that much of it is still to come.
    step = int(luck.integers(answer[0], answer[0] + len(answer) // 2 + 1))
    if kind == "move the read head":
        return Intervention(kind, step, int(luck.choice(DISTANCES)))
    if isinstance(program, Program):
        machine = Machine(program, network.memory_locations)
        machine.run(sequence.inputs[:step])
        payload = list(program.phases.payload)
        held = {tuple(stored[payload]): place for place, stored in machine.memory.items()}
        places = sorted(held.values())
    else:
        places = _written(program.write_head, network, sequence.inputs[: answer[0]])
    if len(places) < 2:
        return None
    one, other = luck.permutation(places)[:2]
    return Intervention(kind, step, int(one), int(other))


def _written(head: int, network: ServedNetwork, inputs: Float32) -> list[int]:
    """The locations of a write head's largest weights in these steps."""
    with network.session() as session:
        weightings = session.step(inputs, traces=["write_weighting"]).traces["write_weighting"]
    return sorted({int(place) for place in weightings[:, head].argmax(1)})


def _changed(
    program: Program | MovedHeads,
    network: ServedNetwork,
    sequence: TaskSequence,
    before: Bits,
    change: Intervention,
) -> Changed:
    start, inputs = change.step, sequence.inputs
    with network.session() as session:
        session.step(inputs[:start])
        change.to_session(session, program)
        after = session.step(inputs[start:]).array > 0.5
    return Changed(sequence, change, before, np.concatenate([before[:start], after]))


def _counts(made: Changed, before: Bits, after: Bits) -> tuple[int, int, int, int, int]:
    """The five numbers of bits of `Effect` for one sequence, and bits before and after."""
    start = made.change.step
    counts = np.broadcast_to(made.sequence.mask[start:, None] > 0, after[start:].shape)
    by_network = (made.after != made.before)[start:] & counts
    by_program = (after != before)[start:] & counts
    either = by_network | by_program
    agreeing = either & (made.after == after)[start:]
    numbers = counts.sum(), by_network.sum(), by_program.sum(), either.sum(), agreeing.sum()
    bits, network_changed, program_changed, changed, same = (int(number) for number in numbers)
    return bits, network_changed, program_changed, changed, same
