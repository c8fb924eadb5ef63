"""Finds the locations of the places that rules may name, at each step of a recording."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ntm_client.values import Float32
from ntm_lab.decipher.dataflow import Dataflow, origins
from ntm_lab.decipher.episode import Episode
from ntm_lab.decipher.program import Place
from ntm_lab.decipher.rules import UNKNOWN
from ntm_lab.decipher.tape import Tape


def graded_channels(sequences: Sequence[Float32]) -> list[int]:
    """The input channels with values other than 0 and 1 in more than one step of some sequence."""
    graded = [((steps != 0) & (steps != 1)).sum(0) > 1 for steps in sequences]
    return [int(channel) for channel in np.flatnonzero(np.any(graded, 0))]


def locate(episode: Episode, flow: Dataflow, places: Sequence[Place], kind: str) -> list[list[int]]:
    """
    [T][places]: the location of each place at each step, or `UNKNOWN`, from the recorded heads.

    `kind` is that of the head that is to go there. The write head moves first, so that it knows
    where a phase began only after the phase's first step.
    """
    tape, begins, ends, writes = Tape(), list[int](), list[int](), list[int]()
    heard: list[list[Float32]] = []
    positions = episode.positions("write", flow.write_head)[1:]
    read = origins(episode, flow, delay=1)
    located = []
    for step, moment in enumerate(episode.moments):
        x = episode.recording.inputs[step]
        begun = len(begins)
        if begun == moment.phase:
            begun += kind == "read"
            begins.append(int(positions[step]))
            ends.append(UNKNOWN)
            writes.append(len(tape.written))
            heard.append([])
        ends[moment.phase] = int(positions[step])
        heard[moment.phase].append(x)
        row = []
        for place in places:
            found: int | None = None
            if place.kind == "rank":
                found = tape.ranked(place.channel, moment.offset + place.offset)
            elif place.kind == "begin":
                found = begins[place.phase] if place.phase < begun else None
            elif place.kind == "end":
                found = ends[place.phase] if place.phase < moment.phase else None
            elif place.phase < moment.phase:
                found = tape.matching(heard[place.phase], writes[place.phase])
            row.append(UNKNOWN if found is None else found)
        located.append(row)
        store = flow.stores[moment.phase]
        if store is not None and store.active(moment.offset):
            source = step if store.source == "input" else int(read[step])
            content = episode.recording.inputs[source] if source >= 0 else None
            tape.write(int(positions[step]), content)
    return located
