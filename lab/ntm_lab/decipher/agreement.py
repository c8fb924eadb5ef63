"""Compares a program with its network, bit by bit, on sequences that it was not found in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ntm_lab.decipher.machine import Machine
from ntm_lab.decipher.program import Program
from ntm_lab.decipher.samples import ServedNetwork
from ntm_tasks import TaskSequence

Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Agreement:
    """
    How a network, its program and the task compare on some sequences.

    A bit is whether an output is above one half, in a step whose outputs count. The numbers about a
    program are None if there is no program.
    """

    sizes: str
    """The sizes of the sequences, in words."""
    locations: int
    sequences: int
    bits: int
    network_wrong: int
    """Bits in which the network differs from the target."""
    network_exact: int
    """Sequences in which the network has no wrong bit."""
    program_wrong: int | None
    """Bits in which the program differs from the target."""
    differing: int | None
    """Bits in which the program differs from the network."""
    agreeing: int | None
    """Sequences in which program and network differ in no bit."""
    agreeing_exact: int | None
    """Of the sequences in which the network has no wrong bit, those in which the program agrees."""
    constant_agreeing: int
    """
    Sequences in which the best constant answer and the network differ in no bit. The constant
    answer has, for each output, the bit that the network gives more often. If this number is high,
    the agreement of a program says little.
    """

    @property
    def share(self) -> float:
        """
        The part of the sequences in which the program agrees in every bit; 0 without a program.
        """
        return (self.agreeing or 0) / self.sequences

    @property
    def bit_share(self) -> float:
        """The part of the bits in which the program agrees; 0 without a program."""
        return 0.0 if self.differing is None else 1 - self.differing / self.bits


def agree(
    program: Program | None, network: ServedNetwork, sequences: Sequence[TaskSequence], sizes: str
) -> Agreement:
    """
    Run the sequences through the network, and through the program on a ring of as many locations.
    """
    answers = network.outputs([sequence.inputs for sequence in sequences])
    found = [
        sequence.answer(answer) > 0.5 for sequence, answer in zip(sequences, answers, strict=True)
    ]
    due = [sequence.due > 0.5 for sequence in sequences]
    locations = network.memory_locations
    constant = np.concatenate(found).mean(0) > 0.5
    own: list[Bits] | None = None
    if program is not None:
        own = [
            sequence.answer(Machine(program, locations).run(sequence.inputs)) > 0.5
            for sequence in sequences
        ]
    return Agreement(
        sizes,
        locations,
        len(sequences),
        bits=sum(bits.size for bits in due),
        network_wrong=sum(_differing(found, due)),
        network_exact=_differing(found, due).count(0),
        program_wrong=None if own is None else sum(_differing(own, due)),
        differing=None if own is None else sum(_differing(own, found)),
        agreeing=None if own is None else _differing(own, found).count(0),
        agreeing_exact=None if own is None else _agreeing_exact(own, found, due),
        constant_agreeing=[bool((bits == constant).all()) for bits in found].count(True),
    )


def _agreeing_exact(own: Sequence[Bits], found: Sequence[Bits], due: Sequence[Bits]) -> int:
    pairs = zip(_differing(found, due), _differing(own, found), strict=True)
    return sum(wrong == 0 and differing == 0 for wrong, differing in pairs)


def _differing(one: Sequence[Bits], other: Sequence[Bits]) -> list[int]:
    """The number of bits that differ, for each sequence."""
    return [int((a != b).sum()) for a, b in zip(one, other, strict=True)]
