"""Counts the instructions of each head over recordings, to show what it does most of the time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ntm_lab.recordings.instructions import Instruction, instructions
from ntm_lab.recordings.recording import READ_WEIGHTING, Recording

RARE = 0.02
"""Instructions that a head carries out in a smaller part of the steps are left out."""


@dataclass(frozen=True)
class Habit:
    """An instruction that a head carries out again and again."""

    head: str
    instruction: str
    """The instruction in words, such as "shift +1, read"."""
    share: float
    """The part of all steps in which the head carries it out, from 0 to 1."""
    focus: float
    """The mean weight of the head's location in these steps."""
    confidence: float
    """The mean confidence of the instruction in these steps."""


def habits(recordings: Sequence[Recording]) -> list[Habit]:
    """The habits of each head, the most frequent first; empty for a network without heads."""
    steps: dict[tuple[str, str], list[Instruction]] = defaultdict(list)
    total = 0
    for recording in recordings:
        if READ_WEIGHTING not in recording.traces:
            return []
        total += len(recording.inputs)
        for row in instructions(recording):
            for each in row:
                steps[f"{each.kind} head {each.head + 1}", _words(each)].append(each)
    found = [
        Habit(
            head,
            what,
            len(same) / total,
            sum(each.focus for each in same) / len(same),
            sum(each.confidence for each in same) / len(same),
        )
        for (head, what), same in steps.items()
        if len(same) >= RARE * total
    ]
    return sorted(found, key=lambda habit: (habit.head, -habit.share))


def _words(each: Instruction) -> str:
    if each.spread:
        return f"spread, {each.access}"
    if each.move == "hold":
        moved = "hold"
    elif each.move == "shift":
        moved = f"shift {each.shift:+d}"
    else:
        moved = "content jump" + (f", then shift {each.shift:+d}" if each.shift else "")
    return f"{moved}, {each.access}"
