"""A recording as induction uses it: with its phases, its output bits and its heads' locations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ntm_client.values import Float32
from ntm_lab.decipher.phases import Moment, Phases, moments
from ntm_lab.recordings.contents import memory_before, trace
from ntm_lab.recordings.instructions import MAJORITY, Instruction, instructions
from ntm_lab.recordings.recording import READ_WEIGHTING, WRITE_WEIGHTING, Recording

Integers = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Episode:
    """A recording of T steps that is divided into phases."""

    recording: Recording
    moments: list[Moment]
    bits: Bits
    """[T, output width]: whether an output is above one half."""
    counts: Bits
    """[T]: whether the task asks for the output of a step; all are True without a task."""

    @classmethod
    def of(cls, recording: Recording, phases: Phases) -> Episode:
        """Divide a recording into these phases."""
        mask = recording.mask
        counts = np.ones(len(recording.inputs), np.bool_) if mask is None else mask > 0
        return cls(recording, moments(phases, recording.inputs), recording.outputs > 0.5, counts)

    @cached_property
    def instructions(self) -> list[list[Instruction]]:
        """[step][head], the read heads first."""
        return instructions(self.recording)

    @cached_property
    def read_weightings(self) -> Float32:
        """[T + 1, read heads, N]: before the first step and after each."""
        first = memory_before(self.recording).read_weightings
        return np.concatenate([first[None], trace(self.recording, READ_WEIGHTING)])

    @cached_property
    def write_weightings(self) -> Float32:
        """[T + 1, write heads, N]: before the first step and after each."""
        first = memory_before(self.recording).write_weightings
        return np.concatenate([first[None], trace(self.recording, WRITE_WEIGHTING)])

    def positions(self, kind: str, head: int) -> Integers:
        """
        [T + 1]: the location of a head's largest weight, before the first step and after each.
        """
        positions: Integers = self._weightings(kind)[:, head].argmax(1)
        return positions

    def focused(self, kind: str, head: int) -> Bits:
        """[T + 1]: whether one location has more than half of the head's weight."""
        focused: Bits = self._weightings(kind)[:, head].max(1) > MAJORITY
        return focused

    def _weightings(self, kind: str) -> Float32:
        return self.read_weightings if kind == "read" else self.write_weightings
