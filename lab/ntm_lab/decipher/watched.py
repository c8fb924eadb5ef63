"""The recorded moves of one head, from which its rules are learned phase by phase."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ntm_lab.decipher.dataflow import Dataflow, relevant_steps
from ntm_lab.decipher.episode import Bits, Episode
from ntm_lab.decipher.locating import graded_channels, locate
from ntm_lab.decipher.program import Condition, Move, Place, Rule
from ntm_lab.decipher.rules import UNKNOWN, Examples, learn

LATEST_RANK = 3
"""Reading by rank may begin in any of this many first steps of a phase."""


class WatchedHead:
    """The read head or the write head of a data path, in some episodes."""

    def __init__(self, episodes: Sequence[Episode], flow: Dataflow, kind: str) -> None:
        head = flow.read_head if kind == "read" else flow.write_head
        self.kind = kind
        self.seen = [episode.positions(kind, head) for episode in episodes]
        """For each episode [T + 1]: the head's location before the first step and after each."""
        self._focused = [episode.focused(kind, head) for episode in episodes]
        self.relevant = [
            relevant_steps(episode, flow, kind) & focused[1:]
            for episode, focused in zip(episodes, self._focused, strict=True)
        ]
        """For each episode [T]: the steps in which the head matters and is at one location."""
        self._episodes, self._flow = episodes, flow
        # For each episode [T + 1]: the location of the program's head, which stays while it has no
        # rules.
        self._program = [seen.copy() for seen in self.seen]
        self._column = head + (0 if kind == "read" else episodes[0].recording.model.read_heads)

    def rules(self, phase: int) -> tuple[Rule, ...]:
        """Learn the rules of a phase. Call this once for each phase, in the order of the phases."""
        inside = [
            np.array([moment.phase == phase for moment in episode.moments])
            for episode in self._episodes
        ]
        relevant = [steps & within for steps, within in zip(self.relevant, inside, strict=True)]
        if any(steps.any() for steps in relevant):
            return learn(self._examples(phase, relevant))
        if self.kind == "write":
            return self._beginning(phase, inside)
        for program, within in zip(self._program, inside, strict=True):
            for step in np.flatnonzero(within):
                program[step + 1] = program[step]
        return ()

    def _beginning(self, phase: int, inside: Sequence[Bits]) -> tuple[Rule, ...]:
        """
        Rules that move the head at the first step of a phase, and hold it there. The location of
        that step is a place that other rules may name.
        """
        first = []
        for index, within in enumerate(inside):
            steps = np.zeros_like(within)
            steps[within.argmax()] = within.any() and self._focused[index][within.argmax() + 1]
            first.append(steps)
        rules = learn(self._examples(phase, first))
        for within, program in zip(inside, self._program, strict=True):
            for step in np.flatnonzero(within)[1 if rules else 0 :]:
                program[step + 1] = program[step]
        hold = Rule((), Move("hold"))
        begun = Condition("step", 0)
        return (*(Rule((begun, *rule.conditions), rule.move) for rule in rules), hold)

    def _examples(self, phase: int, relevant: Sequence[Bits]) -> Examples:
        """The examples in the relevant steps of a phase, from which rules are learned."""
        rows = []
        places = _places(self._episodes, phase, self.kind)
        for index, episode in enumerate(self._episodes):
            located = locate(episode, self._flow, places, self.kind)
            seen, focused = self.seen[index], self._focused[index]
            for step in np.flatnonzero(relevant[index]):
                moment = episode.moments[step]
                # If the head was spread, or elsewhere than the program's, its shift says nothing
                # here.
                was_there = focused[step] and seen[step] == self._program[index][step]
                rows.append(
                    (
                        seen[step] if was_there else UNKNOWN,
                        seen[step + 1],
                        episode.instructions[step][self._column].move == "jump",
                        moment.offset,
                        *moment.lengths[:phase],
                        *located[step],
                    )
                )
        table = np.array(rows, np.int64).reshape(-1, 4 + phase + len(places))
        return Examples(
            self._episodes[0].recording.locations,
            previous=table[:, 0],
            location=table[:, 1],
            jumped=table[:, 2] > 0,
            offset=table[:, 3],
            lengths={earlier: table[:, 4 + earlier] for earlier in range(phase)},
            places={place: table[:, 4 + phase + at] for at, place in enumerate(places)},
        )


def _places(episodes: Sequence[Episode], phase: int, kind: str) -> list[Place]:
    """The places that a head's rules may name in a phase."""
    places = [Place("begin", earlier) for earlier in range(phase + 1)]
    places += [Place("end", earlier) for earlier in range(phase)]
    if kind == "read":
        places += [Place("match", earlier) for earlier in range(1, phase)]
        for channel in graded_channels([episode.recording.inputs for episode in episodes]):
            places += [Place("rank", channel=channel, offset=-late) for late in range(LATEST_RANK)]
    return places
