"""Compares a program that runs freely with the network that it was found in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from ntm_lab.decipher.machine import Machine
from ntm_lab.decipher.program import Program
from ntm_lab.decipher.trial import Trial
from ntm_lab.decipher.watched import Watched


@dataclass(frozen=True)
class Comparison:
    """A free run of a program against the network, in some trials."""

    wrong: int
    """Bits that count and differ."""
    bits: int
    """Bits that count."""
    astray: int
    """Steps in which a head matters and is at one place, but the program's is elsewhere."""
    steps: int
    """Steps in which a head matters and is at one place, for each head."""


def compare(
    program: Program,
    trials: Sequence[Trial],
    heads: Sequence[Watched],
    most_wrong: float = inf,
) -> Comparison:
    """
    Run a program on trials, freely, and compare.

    `heads` are the two that the program is about, watched in these trials. The comparison may stop
    once there are more than `most_wrong` wrong bits.
    """
    wrong = bits = astray = steps = 0
    for index, trial in enumerate(trials):
        machine = Machine(program, trial.recording.locations)
        outputs = []
        pointers = []
        for x in trial.recording.inputs:
            outputs.append(machine.step(x) > 0.5)
            pointers.append((machine.pointers.read, machine.pointers.write))
        wrong += int((np.array(outputs) != trial.bits)[trial.counts].sum())
        bits += trial.bits[trial.counts].size
        reads, writes = np.array(pointers).T
        for head in heads:
            there = (reads if head.kind == "read" else writes) == head.seen[index][1:]
            astray += int((head.telling[index] & ~there).sum())
            steps += int(head.telling[index].sum())
        if wrong > most_wrong:
            break
    return Comparison(wrong, bits, astray, steps)


def fails(program: Program, trial: Trial) -> bool:
    """Whether any bit that counts differs, when the program runs freely."""
    machine = Machine(program, trial.recording.locations)
    for step, x in enumerate(trial.recording.inputs):
        output = machine.step(x) > 0.5
        if trial.counts[step] and (output != trial.bits[step]).any():
            return True
    return False
