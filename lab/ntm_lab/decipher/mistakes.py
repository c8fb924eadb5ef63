"""Explains a sorting network's mistakes by how close the values are that it has to tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ntm_lab.decipher.program import Program
from ntm_lab.decipher.samples import ServedNetwork
from ntm_tasks import TaskSequence

MOST = 0.9
"""The distance is chosen so that this part of the wrong answers is closer."""


@dataclass(frozen=True)
class Mistakes:
    """
    How far the values of wrong and right answers are from the nearest other value of the sequence.
    """

    channel: int
    """The input whose values are sorted."""
    wrong: int
    right: int
    distance: float
    """`MOST` of the wrong answers have another value that is closer than this."""
    right_closer: int
    """Of the right answers, those that have another value that is closer too."""


def ranked_channel(program: Program) -> int | None:
    """The input channel by whose value a program's read head finds its place; None without one."""
    places = [rule.move.place for phase in program.body for rule in phase.read]
    channels = {place.channel for place in places if place is not None and place.kind == "rank"}
    return channels.pop() if channels else None


def find_mistakes(
    program: Program, network: ServedNetwork, sequences: Sequence[TaskSequence]
) -> Mistakes | None:
    """
    Compare the values of the network's wrong and right answers, if its program reads by rank.

    None if it does not, or if no answer is wrong.
    """
    channel = ranked_channel(program)
    if channel is None:
        return None
    wrong: list[float] = []
    right: list[float] = []
    answers = network.outputs([one.inputs for one in sequences])
    for sequence, answer in zip(sequences, answers, strict=True):
        differs = ((sequence.answer(answer) > 0.5) != (sequence.due > 0.5)).any(1)
        values = np.sort(sequence.inputs[sequence.inputs[:, channel] != 0, channel])[::-1]
        gaps = np.concatenate([[np.inf], -np.diff(values), [np.inf]])
        nearest = np.minimum(gaps[:-1], gaps[1:])[: len(differs)]
        wrong += nearest[differs[: len(nearest)]].tolist()
        right += nearest[~differs[: len(nearest)]].tolist()
    if not wrong:
        return None
    distance = float(np.quantile(wrong, MOST))
    closer = int((np.array(right) < distance).sum())
    return Mistakes(channel, len(wrong), len(right), distance, closer)


def mistakes_text(found: Mistakes) -> str:
    """The explanation in words."""
    return (
        f"The network's mistakes are about close values of input {found.channel}. Of its "
        f"{found.wrong:,} wrong vectors, {MOST:.0%} have another value in the sequence that is "
        f"closer than {found.distance:.3f}; of the {found.right:,} right ones, "
        f"{found.right_closer / found.right:.1%} have."
    )
