"""Finds the program that explains what a network put out, from recordings of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from client.decipher.dataflow import Dataflow, Trial, find_dataflow
from client.decipher.machine import Machine
from client.decipher.markers import find_marker
from client.decipher.phases import Phases, find_phases
from client.decipher.program import Phase, Place, Program, Rule, Store
from client.decipher.rules import UNKNOWN, Examples, Integers, learn
from client.recording import Recording

EXPLAINED = 0.95
"""A program is one if it explains at least this part, 0 being what a constant would, 1 all."""

VARIED = 0.05
"""A network whose bits differ from a constant in a smaller part says nothing to be explained."""

HELD_OUT = 4
"""Every fourth recording is kept from induction, and the program is scored on these."""


@dataclass(frozen=True)
class Candidate:
    """A program, or why there is none."""

    program: Program | None
    explained: float
    """
    How far the best program found, run freely on recordings that it was not made from, explains
    the bits that count: 1 - its wrong bits / the wrong bits of the best constant output. 1 is all,
    0 no more than a constant, and less than 0 worse.
    """
    reason: str
    """What was found, or is missing, in words."""


def induce(recordings: Sequence[Recording]) -> Candidate:
    """
    Find the program that a network runs, from recordings of sequences of mixed sizes.

    At least `HELD_OUT` of them; some 64, of all sizes in which the program is to hold, do well.
    The recordings tell everything: neither the task's name nor its targets are looked at.

    Raises:
        InvalidRequest: a recording lacks a trace that this needs.
        ValueError: there are too few recordings.
    """
    if len(recordings) < HELD_OUT:
        raise ValueError(f"{len(recordings)} recordings are too few; take {HELD_OUT} or more")
    model = recordings[0].model
    if not (model.read_heads and model.write_heads):
        return Candidate(None, 0.0, "the network has no heads and no memory")
    phases = find_phases([recording.inputs for recording in recordings])
    if phases is None:
        return Candidate(None, 0.0, "the sequences have no order of phases in common")
    trials = [Trial.of(recording, phases) for recording in recordings]
    constant = _wrong_of_constant(trials)
    if constant < VARIED:
        return Candidate(
            None, 0.0, f"the outputs hardly vary: a constant gives {1 - constant:.1%} of the bits"
        )
    program = _program([t for i, t in enumerate(trials) if (i + 1) % HELD_OUT], phases)
    explained = _explained(program, trials[HELD_OUT - 1 :: HELD_OUT])
    if explained < EXPLAINED:
        reason = f"the best program explains {max(explained, 0):.1%}, not the {EXPLAINED:.0%} wanted"
        return Candidate(None, explained, reason)
    return Candidate(program, explained, f"a program explains {explained:.1%}")


def _wrong_of_constant(trials: Sequence[Trial]) -> float:
    """Part of the bits that count which differ from the best constant output."""
    bits = np.concatenate([trial.bits[trial.counts] for trial in trials])
    return float(np.minimum(bits.mean(0), 1 - bits.mean(0)).mean())


def _explained(program: Program, trials: Sequence[Trial]) -> float:
    wrong = total = 0
    for trial in trials:
        outputs = Machine(program, trial.recording.locations).run(trial.recording.inputs) > 0.5
        wrong += int((outputs != trial.bits)[trial.counts].sum())
        total += trial.bits[trial.counts].size
    return float(1 - wrong / total / _wrong_of_constant(trials))


def _program(trials: Sequence[Trial], phases: Phases) -> Program:
    """The best program for these trials, good or not."""
    flow = find_dataflow(trials, phases)
    recording = trials[0].recording
    assert recording.before is not None
    marker = find_marker(trials, {output for output, _ in flow.channels}, len(phases.openers))
    writes = _Learner(trials, flow, "write")
    reads = _Learner(trials, flow, "read")
    body = []
    for phase, store in enumerate(flow.stores):
        write = writes.rules(phase)
        body.append(Phase(reads.rules(phase), write, store, flow.emits[phase]))
    return Program(
        model=recording.model.name,
        locations=recording.locations,
        input_width=recording.inputs.shape[1],
        output_width=recording.outputs.shape[1],
        phases=phases,
        read_head=flow.read_head,
        write_head=flow.write_head,
        read_from=int(recording.before.read_weightings[flow.read_head].argmax()),
        write_from=int(recording.before.write_weightings[flow.write_head].argmax()),
        delay=flow.delay,
        channels=flow.channels,
        body=tuple(body),
        marker=marker,
    )


class _Learner:
    """Learns the moves of one head, phase by phase."""

    def __init__(self, trials: Sequence[Trial], flow: Dataflow, kind: str) -> None:
        head = flow.read_head if kind == "read" else flow.write_head
        self._trials, self._flow, self._kind = trials, flow, kind
        self._seen = [trial.positions(kind, head) for trial in trials]
        self._focused = [trial.focused(kind, head) for trial in trials]
        # [T + 1] for each trial: where the program's head is; it stays where the rules are empty.
        self._program = [seen.copy() for seen in self._seen]
        reads = trials[0].recording.model.read_heads
        self._column = head + (0 if kind == "read" else reads)

    def rules(self, phase: int) -> tuple[Rule, ...]:
        """The rules for the next phase; to be asked for one phase after another."""
        matters = [self._matters(trial, phase) for trial in self._trials]
        if not any(steps.any() for steps in matters):
            for trial, program in zip(self._trials, self._program, strict=True):
                for step, moment in enumerate(trial.moments):
                    if moment.phase == phase:
                        program[step + 1] = program[step]
            return ()
        return learn(self._examples(phase, matters))

    def _matters(self, trial: Trial, phase: int) -> npt.NDArray[np.bool_]:
        """[T]: whether where the head is in a step of that phase has a consequence."""
        flow, steps = self._flow, len(trial.moments)
        matters = np.zeros(steps, np.bool_)
        for step, moment in enumerate(trial.moments):
            if moment.phase != phase:
                continue
            store = flow.stores[phase]
            if self._kind == "write":
                # The first step gives the phase its place, which other rules may name.
                matters[step] = store is not None and (
                    store.active(moment.offset)
                    or (store.end is None or moment.offset < store.end)
                )
                continue
            later = step + flow.delay
            emitted = later < steps and trial.counts[later]
            copied = step + 1 < steps and self._copies(trial.moments[step + 1])
            matters[step] = emitted or copied
        return matters

    def _copies(self, moment: object) -> bool:
        store = self._flow.stores[moment.phase]
        return store is not None and store.source == "read" and store.active(moment.offset)

    def _examples(self, phase: int, matters: Sequence[npt.NDArray[np.bool_]]) -> Examples:
        rows = []
        write = self._flow.write_head
        known = phase + (self._kind == "read")
        for index, trial in enumerate(self._trials):
            begins = _begins(trial, write)
            for step in np.flatnonzero(matters[index] & self._focused[index][1:]):
                moment = trial.moments[step]
                seen, program = self._seen[index], self._program[index]
                was = self._focused[index][step] and seen[step] == program[step]
                rows.append(
                    (
                        seen[step] if was else UNKNOWN,
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
