"""Finds the program that explains a network's outputs, from recordings of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ntm_lab.decipher.comparison import FreeRun, compare
from ntm_lab.decipher.dataflow import Dataflow, find_dataflows
from ntm_lab.decipher.episode import Episode
from ntm_lab.decipher.markers import find_marker
from ntm_lab.decipher.phases import Phases, find_phases
from ntm_lab.decipher.program import Phase, Program
from ntm_lab.decipher.refinement import pruned, refined
from ntm_lab.decipher.watched import WatchedHead
from ntm_lab.recordings.recording import Recording

EXPLAINED = 0.95
"""
A program counts as found if it explains at least this part of the bits. 0 is what the best constant
output explains, and 1 is all.
"""

VARIED = 0.05
"""If a smaller part of the bits differs from a constant output, there is nothing to explain."""

HELD_OUT = 4
"""One recording in this many is held out of induction; the program is scored on these."""

PATHS = 8
"""The largest number of data paths, all of which explain about as much, that are tried."""


@dataclass(frozen=True)
class Candidate:
    """A program, or why there is none."""

    program: Program | None
    explained: float
    """
    How much of the bits that count the best program explains: 1 - (its wrong bits) / (wrong bits of
    the best constant output). It is run on the inputs of held-out recordings alone. 1 is all, 0 is
    as much as a constant, and below 0 is worse than a constant.
    """
    located: float
    """
    Of the steps in which a head matters and is at one location, the part in which the program's
    head is at the same location.
    """
    reason: str
    """A phrase that says what was found, or what is missing."""


def induce(recordings: Sequence[Recording]) -> Candidate:
    """
    Find the program that a network runs, from recordings of sequences of mixed sizes.

    There must be at least `HELD_OUT` recordings. About 128 are enough, if they have all sizes that
    the program is to explain. Only the recordings are used, neither the task's name nor its
    targets.

    Raises:
        InvalidRequest: a recording lacks a trace that this needs.
        ValueError: there are too few recordings.
    """
    if len(recordings) < HELD_OUT:
        raise ValueError(f"{len(recordings)} recordings are too few; take {HELD_OUT} or more")
    model = recordings[0].model
    if not (model.read_heads and model.write_heads):
        return Candidate(None, 0.0, 0.0, "the network has no heads and no memory")
    phases = find_phases([recording.inputs for recording in recordings])
    if phases is None:
        return Candidate(None, 0.0, 0.0, "the sequences have no order of phases in common")
    episodes = [Episode.of(recording, phases) for recording in recordings]
    constant = _wrong_of_constant(episodes)
    if constant < VARIED:
        reason = f"the outputs hardly vary: a constant gives {1 - constant:.1%} of the bits"
        return Candidate(None, 0.0, 0.0, reason)
    kept = episodes[HELD_OUT - 1 :: HELD_OUT]
    learned = [episode for index, episode in enumerate(episodes) if (index + 1) % HELD_OUT]
    program, flow = _best(learned, phases, find_dataflows(learned, phases)[:PATHS])
    return _judged(program, compare(program, kept, _watched(kept, flow)), constant)


def _judged(program: Program, found: FreeRun, constant: float) -> Candidate:
    explained = 1 - found.wrong / found.bits / constant
    located = 1 - found.misplaced / max(found.steps, 1)
    if explained >= EXPLAINED:
        return Candidate(program, explained, located, f"a program explains {explained:.1%}")
    reason = f"the best program explains {max(explained, 0):.1%}, not the {EXPLAINED:.0%} wanted"
    return Candidate(None, explained, located, reason)


def _wrong_of_constant(episodes: Sequence[Episode]) -> float:
    """The part of the bits that count in which the best constant output is wrong."""
    bits = np.concatenate([episode.bits[episode.counts] for episode in episodes])
    return float(np.minimum(bits.mean(0), 1 - bits.mean(0)).mean())


def _watched(episodes: Sequence[Episode], flow: Dataflow) -> tuple[WatchedHead, WatchedHead]:
    return WatchedHead(episodes, flow, "write"), WatchedHead(episodes, flow, "read")


def _best(
    episodes: Sequence[Episode], phases: Phases, flows: Sequence[Dataflow]
) -> tuple[Program, Dataflow]:
    """The program that explains these episodes best, however well, and its data path."""
    found = []
    for flow in flows:
        heads = _watched(episodes, flow)
        program = pruned(_program(episodes, phases, flow, heads), episodes, heads)
        found.append((compare(program, episodes, heads).wrong, program, flow, heads))
    _, program, flow, heads = min(found, key=lambda each: each[0])
    return refined(program, episodes, heads), flow


def _program(
    episodes: Sequence[Episode],
    phases: Phases,
    flow: Dataflow,
    heads: tuple[WatchedHead, WatchedHead],
) -> Program:
    """The program that two heads of a data path follow, as learned phase by phase."""
    recording = episodes[0].recording
    assert recording.before is not None
    writes, reads = heads
    body = [
        Phase(reads.rules(phase), writes.rules(phase), store, flow.emits[phase])
        for phase, store in enumerate(flow.stores)
    ]
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
        marker=find_marker(episodes, {output for output, _ in flow.channels}, len(body)),
    )
