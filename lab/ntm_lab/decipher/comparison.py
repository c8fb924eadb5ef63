"""Compares a program that runs freely with the network that it was found in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from ntm_lab.decipher.episode import Episode
from ntm_lab.decipher.machine import Machine
from ntm_lab.decipher.program import Program
from ntm_lab.decipher.watched import WatchedHead


@dataclass(frozen=True)
class FreeRun:
    """A free run of a program against the network, in some episodes."""

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
    episodes: Sequence[Episode],
    heads: Sequence[WatchedHead],
    max_wrong: float = inf,
) -> FreeRun:
    """
    Run a program on episodes, freely, and compare.

    `heads` are the two that the program is about, watched in these episodes. The comparison may
    stop once there are more than `max_wrong` wrong bits.
    """
    wrong = bits = astray = steps = 0
    for index, episode in enumerate(episodes):
        machine = Machine(program, episode.recording.locations)
        outputs = []
        pointers = []
        for x in episode.recording.inputs:
            outputs.append(machine.step(x) > 0.5)
            pointers.append((machine.pointers.read, machine.pointers.write))
        wrong += int((np.array(outputs) != episode.bits)[episode.counts].sum())
        bits += episode.bits[episode.counts].size
        reads, writes = np.array(pointers).T
        for head in heads:
            there = (reads if head.kind == "read" else writes) == head.seen[index][1:]
            astray += int((head.telling[index] & ~there).sum())
            steps += int(head.telling[index].sum())
        if wrong > max_wrong:
            break
    return FreeRun(wrong, bits, astray, steps)


def fails(program: Program, episode: Episode) -> bool:
    """Whether any bit that counts differs, when the program runs freely."""
    machine = Machine(program, episode.recording.locations)
    for step, x in enumerate(episode.recording.inputs):
        output = machine.step(x) > 0.5
        if episode.counts[step] and (output != episode.bits[step]).any():
            return True
    return False
