"""Compares a program, given the inputs alone, with the network that it was found in."""

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
    """How far a program and the network differ when the program is given the inputs alone."""

    wrong: int
    """Bits that count and that differ between program and network."""
    bits: int
    """Bits that count."""
    misplaced: int
    """Of `steps`, those in which the program has the head at another location."""
    steps: int
    """Steps in which the network's head matters and is at one location, summed over both heads."""


def compare(
    program: Program,
    episodes: Sequence[Episode],
    heads: Sequence[WatchedHead],
    max_wrong: float = inf,
) -> FreeRun:
    """
    Run a program on the inputs of episodes alone, and compare it with the network.

    `heads` are the network's two heads that the program describes, as they moved in these episodes.
    The comparison may stop once there are more than `max_wrong` wrong bits.
    """
    wrong = bits = misplaced = steps = 0
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
            misplaced += int((head.relevant[index] & ~there).sum())
            steps += int(head.relevant[index].sum())
        if wrong > max_wrong:
            break
    return FreeRun(wrong, bits, misplaced, steps)


def fails(program: Program, episode: Episode) -> bool:
    """Whether any bit that counts differs when the program is given the inputs alone."""
    machine = Machine(program, episode.recording.locations)
    for step, x in enumerate(episode.recording.inputs):
        output = machine.step(x) > 0.5
        if episode.counts[step] and (output != episode.bits[step]).any():
            return True
    return False
