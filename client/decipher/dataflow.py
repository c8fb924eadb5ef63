"""Which heads carry the data: from where what is put out was read, and what was written there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
import numpy.typing as npt

from client.decipher.contents import memory_before, trace
from client.decipher.instructions import MAJORITY, Instruction, instructions
from client.decipher.phases import Moment, Phases, moments
from client.decipher.program import Store
from client.recording import READ_WEIGHTING, WRITE_WEIGHTING, Recording

Integers = npt.NDArray[np.intp]
Bits = npt.NDArray[np.bool_]

NOTHING = -1
"""Instead of a step: what is stored, or was read, is no input."""

LATEST_COPY = 4
"""In a phase of answers, single writes are looked for in so many first steps."""

ALIKE = 0.0002
"""Data paths whose scores differ by less explain equally much: the one that writes least is taken."""

REPEATS = 0.9
"""An output repeats an input if it equals what was stored of it at least this often."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A recording as induction looks at it."""

    recording: Recording
    moments: list[Moment]
    bits: Bits
    """[T, output width]: outputs over a half."""
    counts: Bits
    """[T]: the steps whose outputs the task asks for; all, if there is no task."""

    @classmethod
    def of(cls, recording: Recording, phases: Phases) -> Trial:
        """A recording with its phases."""
        steps = len(recording.inputs)
        mask = recording.mask
        counts = np.ones(steps, np.bool_) if mask is None else mask > 0
        return cls(recording, moments(phases, recording.inputs), recording.outputs > 0.5, counts)

    @cached_property
    def instructions(self) -> list[list[Instruction]]:
        """[step][head], the read heads first."""
        return instructions(self.recording)

    def positions(self, kind: str, head: int) -> Integers:
        """[T + 1]: the location of most weight, before the first step and after each."""
        return self._weightings(kind, head).argmax(1)

    def focused(self, kind: str, head: int) -> Bits:
        """[T + 1]: whether the head is at one place."""
        focused: Bits = self._weightings(kind, head).max(1) > MAJORITY
        return focused

    def _weightings(self, kind: str, head: int) -> npt.NDArray[np.float32]:
        before = memory_before(self.recording)
        if kind == "read":
            first, name = before.read_weightings, READ_WEIGHTING
        else:
            first, name = before.write_weightings, WRITE_WEIGHTING
        return np.concatenate([first[None], trace(self.recording, name)])[:, head]


@dataclass(frozen=True)
class Dataflow:
    """How data goes through the memory, wherever the heads are."""

    read_head: int
    write_head: int
    delay: int
    stores: tuple[Store | None, ...]
    """Of each phase."""
    emits: tuple[bool, ...]
    """Of each phase."""
    channels: tuple[tuple[int, int], ...] = ()
    """Pairs of an output and the input that it repeats."""
    score: float = 0.0
    """Part of the bits of those outputs, in the steps that count, that it explains."""

    @property
    def writes(self) -> tuple[int, int]:
        """How much it writes: phases that are written throughout, and single steps besides."""
        stores = [store for store in self.stores if store is not None]
        single = [store.end - store.first for store in stores if store.end is not None]
        return len(stores) - len(single), sum(single)


def find_dataflow(trials: Sequence[Trial], phases: Phases) -> Dataflow:
    """The path that explains most of the outputs; of those alike, the one that writes least."""
    count = len(phases.openers)
    emits = tuple(
        any(trial.counts[step] for trial in trials for step in _steps_of(trial, phase))
        for phase in range(count)
    )
    model = trials[0].recording.model
    found = []
    for write_head, read_head, delay, stores in product(
        range(model.write_heads), range(model.read_heads), (0, 1), _stores(emits)
    ):
        flow = Dataflow(read_head, write_head, delay, stores, emits)
        found.append(_scored(flow, trials, phases))
    best = max(flow.score for flow in found)
    return min(
        (flow for flow in found if flow.score >= best - ALIKE),
        key=lambda flow: (flow.writes, -flow.score),
    )


def origins(trial: Trial, flow: Dataflow) -> Integers:
    """
    [T]: which step's input is what the network puts out, or `NOTHING`.

    Follows the heads' traced locations, whatever their focus.
    """
    reads, writes = trial.positions("read", flow.read_head), trial.positions("write", flow.write_head)
    memory: dict[int, int] = {}
    steps = len(trial.moments)
    read = np.full(steps + 1, NOTHING)
    for step, moment in enumerate(trial.moments):
        read[step + 1] = memory.get(int(reads[step + 1]), NOTHING)
        store = flow.stores[moment.phase]
        if store is not None and store.active(moment.offset):
            source = step if store.source == "input" else int(read[step])
            memory[int(writes[step + 1])] = source
    return read[1 - flow.delay : steps + 1 - flow.delay]


def _steps_of(trial: Trial, phase: int) -> list[int]:
    return [step for step, moment in enumerate(trial.moments) if moment.phase == phase]


def _stores(emits: Sequence[bool]) -> Iterator[tuple[Store | None, ...]]:
    """What may be written in each phase: inputs before an answer is due, then copies, or nothing."""
    hears = Store("input")
    copies = [None, Store("read"), Store("input")]
    for first in range(LATEST_COPY):
        copies += [Store("read", first, end) for end in range(first + 1, LATEST_COPY + 1)]
    return product(*[copies if answers else [hears] for answers in emits])


def _scored(flow: Dataflow, trials: Sequence[Trial], phases: Phases) -> Dataflow:
    stored, given = [], []
    for trial in trials:
        steps = origins(trial, flow)
        known = trial.counts & (steps != NOTHING)
        stored.append(trial.recording.inputs[steps[known]] > 0.5)
        given.append(trial.bits[known])
    due = sum(int(trial.counts.sum()) for trial in trials)
    inputs, outputs = np.concatenate(stored), np.concatenate(given)
    if not len(inputs):
        return flow
    equal = np.array(
        [
            [(outputs[:, to] == inputs[:, source]).mean() for source in phases.payload]
            for to in range(outputs.shape[1])
        ]
    )
    channels = tuple(
        (to, phases.payload[int(row.argmax())])
        for to, row in enumerate(equal)
        if row.max() >= REPEATS
    )
    right = sum(int((outputs[:, to] == inputs[:, source]).sum()) for to, source in channels)
    return replace(flow, channels=channels, score=right / (due * outputs.shape[1]))
