"""Finds the heads that carry the data: from the inputs to the memory, and on to the outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from ntm_lab.decipher.episode import Bits, Episode, Integers
from ntm_lab.decipher.phases import Phases
from ntm_lab.decipher.program import StoreRule

NOTHING = -1
"""Stands for a step where there is none: what is stored, or was read, is no input."""

LATEST_COPY = 4
"""In a phase with outputs that count, short writes are looked for in this many first steps."""

ALIKE = 0.005
"""Data paths are kept if their score is at most this much below the best score."""

REPEATS = 0.9
"""
An output repeats an input channel if it equals the stored value in at least this part of the steps.
"""


@dataclass(frozen=True)
class Dataflow:
    """
    How data passes through the memory: which heads carry it and in which phases, not at which
    locations.
    """

    read_head: int
    write_head: int
    delay: int
    stores: tuple[StoreRule | None, ...]
    """Of each phase."""
    emits: tuple[bool, ...]
    """Of each phase."""
    channels: tuple[tuple[int, int], ...] = ()
    """Pairs of an output and the input that it repeats."""
    score: float = 0.0
    """The part of all output bits, in the steps that count, that the data path explains."""

    @property
    def oddity(self) -> tuple[int, int, int]:
        """
        How far the path is from one that writes all inputs and nothing while it answers.

        The number of answering phases that are written throughout, of single steps that are written
        in others, and of inputs left out: 1 for a phase without its flag, 2 for one without all.
        """
        answers = zip(self.stores, self.emits, strict=True)
        written = [store for store, emits in answers if emits and store is not None]
        single = [store.end - store.first for store in written if store.end is not None]
        left_out = sum(2 if store is None else store.first for store in self.heard)
        return len(written) - len(single), sum(single), left_out

    @property
    def heard(self) -> tuple[StoreRule | None, ...]:
        """What is written in each phase that does not answer."""
        phases = zip(self.stores, self.emits, strict=True)
        return tuple(store for store, emits in phases if not emits)


def find_dataflows(episodes: Sequence[Episode], phases: Phases) -> list[Dataflow]:
    """
    The data paths whose scores are about as high as the best one.

    They come in order of their oddity. Of those that write the same while they hear, an odder one
    is included only if it explains more: where the write head is spread, a score does not tell
    whether it writes.
    """
    count = len(phases.openers)
    emits = tuple(
        any(episode.counts[step] for episode in episodes for step in _steps_of(episode, phase))
        for phase in range(count)
    )
    model = episodes[0].recording.model
    found = []
    for write_head, read_head, delay, stores in product(
        range(model.write_heads), range(model.read_heads), (0, 1), _stores(emits)
    ):
        flow = Dataflow(read_head, write_head, delay, stores, emits)
        found.append(_scored(flow, episodes, phases))
    best = max(flow.score for flow in found)
    alike = [flow for flow in found if flow.score >= best - ALIKE]
    kept: list[Dataflow] = []
    for flow in sorted(alike, key=lambda flow: (flow.oddity, -flow.score)):
        if all(flow.score > other.score for other in kept if other.heard == flow.heard):
            kept.append(flow)
    return kept


def origins(episode: Episode, flow: Dataflow, delay: int) -> Integers:
    """
    [T]: the step whose input is what was read `delay` steps ago, or `NOTHING`.

    A head is taken to be at the location of its largest weight, even where it is spread.
    """
    steps = len(episode.moments)
    read = np.full(steps + 1, NOTHING)
    for step, write in enumerate(_writes_read(episode, flow)):
        if write != NOTHING:
            read[step + 1] = read[write] if _copies(episode, flow, write) else write
    return read[1 - delay : steps + 1 - delay]


def relevant_steps(episode: Episode, flow: Dataflow, kind: str) -> Bits:
    """
    [T]: the steps in which the location of the read head, or the write head, has a consequence.
    """
    reads, writes = _needed(episode, flow)
    if kind == "read":
        return reads
    found = np.zeros(len(episode.moments), np.bool_)
    for step, moment in enumerate(episode.moments):
        store = flow.stores[moment.phase]
        if store is not None and (store.end is None or moment.offset < store.end):
            # Also before the first write: rules may name where the head was at the phase's first
            # step. An input that this sequence does not need, another of its kind would.
            begins = moment.offset == 0 or moment.offset < store.first
            found[step] = store.source == "input" or begins or writes[step]
    return found


def _needed(episode: Episode, flow: Dataflow) -> tuple[Bits, Bits]:
    """
    [T] each: the steps whose reads are put out or copied on, and those whose writes are read then.
    """
    steps = len(episode.moments)
    reads, writes = np.zeros(steps, np.bool_), np.zeros(steps, np.bool_)
    reads[: steps - flow.delay] = episode.counts[flow.delay :]
    for step, write in reversed(list(enumerate(_writes_read(episode, flow)))):
        if reads[step] and write != NOTHING:
            writes[write] = True
            if write and _copies(episode, flow, write):
                reads[write - 1] = True
    return reads, writes


def _writes_read(episode: Episode, flow: Dataflow) -> list[int]:
    """[T]: the step in which what is read was written, or `NOTHING`."""
    reads, writes = (
        episode.positions("read", flow.read_head),
        episode.positions("write", flow.write_head),
    )
    memory: dict[int, int] = {}
    found = []
    for step, moment in enumerate(episode.moments):
        found.append(memory.get(int(reads[step + 1]), NOTHING))
        store = flow.stores[moment.phase]
        if store is not None and store.active(moment.offset):
            memory[int(writes[step + 1])] = step
    return found


def _copies(episode: Episode, flow: Dataflow, write: int) -> bool:
    """Whether what was written in a step had been read one step before."""
    store = flow.stores[episode.moments[write].phase]
    return store is not None and store.source == "read"


def _steps_of(episode: Episode, phase: int) -> list[int]:
    return [step for step, moment in enumerate(episode.moments) if moment.phase == phase]


def _stores(emits: Sequence[bool]) -> Iterator[tuple[StoreRule | None, ...]]:
    """
    Every choice of what is written in each phase: inputs in phases without outputs that count, with
    the flag or after it; and nothing, inputs or copies of what was read in the others.
    """
    inputs = [StoreRule("input"), StoreRule("input", first=1), None]
    copies = [None, StoreRule("read"), StoreRule("input")]
    for first in range(LATEST_COPY):
        copies += [StoreRule("read", first, end) for end in range(first + 1, LATEST_COPY + 1)]
    return product(*[copies if answers else inputs for answers in emits])


def _scored(flow: Dataflow, episodes: Sequence[Episode], phases: Phases) -> Dataflow:
    stored, given = [], []
    for episode in episodes:
        steps = origins(episode, flow, flow.delay)
        known = episode.counts & (steps != NOTHING)
        stored.append(episode.recording.inputs[steps[known]] > 0.5)
        given.append(episode.bits[known])
    due = sum(int(episode.counts.sum()) for episode in episodes)
    inputs, outputs = np.concatenate(stored), np.concatenate(given)
    if not len(inputs):
        return flow
    # By products of matrices, which count as far as float32 has integers.
    payload = inputs[:, phases.payload].astype(np.float32)
    ones = outputs.astype(np.float32)
    equal = ones.T @ payload + (1 - ones).T @ (1 - payload)
    chosen = equal.argmax(1)
    most = equal[np.arange(len(equal)), chosen]
    repeated = np.flatnonzero(most >= REPEATS * len(inputs))
    channels = tuple((int(to), phases.payload[chosen[to]]) for to in repeated)
    right = int(most[repeated].sum())
    return replace(flow, channels=channels, score=right / (due * outputs.shape[1]))
