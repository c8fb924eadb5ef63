"""One head as it was seen to move, from which its rules are learned phase by phase."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from client.decipher.dataflow import Dataflow, mattering
from client.decipher.program import Place, Rule
from client.decipher.rules import UNKNOWN, Examples, learn
from client.decipher.trial import Bits, Trial


class Watched:
    """The read head, or the write head, of a data path in some trials."""

    def __init__(self, trials: Sequence[Trial], flow: Dataflow, kind: str) -> None:
        """Look at the head that the data path names."""
        head = flow.read_head if kind == "read" else flow.write_head
        self.kind = kind
        self.seen = [trial.positions(kind, head) for trial in trials]
        """For each trial [T + 1]: its location, before the first step and after each."""
        self._focused = [trial.focused(kind, head) for trial in trials]
        self.telling = [
            mattering(trial, flow, kind) & focused[1:]
            for trial, focused in zip(trials, self._focused, strict=True)
        ]
        """For each trial [T]: the steps in which it matters, and is at one place."""
        self._trials, self._flow = trials, flow
        # [T + 1] for each trial: where the program's head is; it stays where the rules are empty.
        self._program = [seen.copy() for seen in self.seen]
        self._column = head + (0 if kind == "read" else trials[0].recording.model.read_heads)

    def rules(self, phase: int) -> tuple[Rule, ...]:
        """The rules for the next phase; to be asked for one phase after another."""
        inside = [
            np.array([moment.phase == phase for moment in trial.moments]) for trial in self._trials
        ]
        telling = [steps & within for steps, within in zip(self.telling, inside, strict=True)]
        if any(steps.any() for steps in telling):
            return learn(self._examples(phase, telling))
        for program, within in zip(self._program, inside, strict=True):
            for step in np.flatnonzero(within):
                program[step + 1] = program[step]
        return ()

    def _examples(self, phase: int, telling: Sequence[Bits]) -> Examples:
        """What can be learned from, in the telling steps of that phase."""
        # The write head moves first: only the read head can know where this phase began to write.
        known = phase + (self.kind == "read")
        rows = []
        for index, trial in enumerate(self._trials):
            begins = _begins(trial, self._flow.write_head)
            seen, focused = self.seen[index], self._focused[index]
            for step in np.flatnonzero(telling[index]):
                moment = trial.moments[step]
                # A head that was spread, or elsewhere than the program's, did not shift from there.
                was_there = focused[step] and seen[step] == self._program[index][step]
                rows.append(
                    (
                        seen[step] if was_there else UNKNOWN,
                        seen[step + 1],
                        trial.instructions[step][self._column].move == "jump",
                        moment.offset,
                        *moment.lengths[:phase],
                        *begins[:known],
                    )
                )
        table = np.array(rows, np.int64).reshape(-1, 4 + phase + known)
        return Examples(
            self._trials[0].recording.locations,
            previous=table[:, 0],
            location=table[:, 1],
            jumped=table[:, 2] > 0,
            offset=table[:, 3],
            lengths={earlier: table[:, 4 + earlier] for earlier in range(phase)},
            places={Place("begin", p): table[:, 4 + phase + p] for p in range(known)},
        )


def _begins(trial: Trial, write_head: int) -> list[int]:
    """Where the write head was at the first step of each phase."""
    positions = trial.positions("write", write_head)
    begins: list[int] = []
    for step, moment in enumerate(trial.moments):
        if len(begins) == moment.phase:
            begins.append(int(positions[step + 1]))
    return begins
