"""A recording in the characters of a terminal: each head over time, and the memory at the end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ntm_client.values import Float32
from ntm_lab.pictures.memory import memory_picture
from ntm_lab.pictures.terminal import Terminal, weighting_picture
from ntm_lab.recordings.recording import (
    ADD_VECTOR,
    ERASE_VECTOR,
    READ_WEIGHTING,
    WRITE_WEIGHTING,
    Recording,
)

STRENGTHS = {"erase": ERASE_VECTOR, "add": ADD_VECTOR}
"""The traces of write heads that are shown as the mean of their absolute values."""

LEAST_ROWS = 7
"""The least number of lines for a head, however many heads there are."""

MEMORY_ROWS = 14
"""The number of lines for the memory after the last step; the memory before has half of them."""


def recording_picture(recording: Recording, terminal: Terminal) -> str:
    """
    The weightings of every head, write heads first, then the memory before and after.

    Two lines below a write head's weighting show how much it erases and adds: the mean of the erase
    vector, and the mean absolute value of the add vector. A network without heads gets a sentence
    instead.
    """
    model = recording.model
    rows = max(LEAST_ROWS, terminal.rows // max(model.read_heads, model.write_heads, 1))
    smaller = replace(terminal, rows=rows)
    pictures = [
        _head(recording, name, head, smaller)
        for name in (WRITE_WEIGHTING, READ_WEIGHTING)
        if name in recording.traces
        for head in range(recording.traces[name].shape[1])
    ]
    for when, memory, maximum in (
        ("before the first step", recording.before, MEMORY_ROWS // 2),
        ("after the last step", recording.after, MEMORY_ROWS),
    ):
        if memory:
            lines = memory_picture(memory, replace(terminal, rows=maximum))
            pictures.append(f"memory {when} (down: locations in use, across: elements)\n{lines}")
    return "\n\n".join(pictures) or "The network has no heads to draw."


def _head(recording: Recording, name: str, head: int, terminal: Terminal) -> str:
    trace = recording.traces[name]
    heads = trace.shape[1]
    title = name.replace("_", " ") + (f", head {head + 1} of {heads}" if heads > 1 else "")
    strengths = _strengths(recording, head) if name == WRITE_WEIGHTING else {}
    label = max(map(len, STRENGTHS))
    picture = weighting_picture(trace[:, head], recording.window(), terminal, strengths, label)
    return f"{title} (down: locations, across: steps)\n{picture}"


def _strengths(recording: Recording, head: int) -> dict[str, Float32]:
    return {
        # In float64, because the sum of large values is no float32.
        word: np.abs(recording.traces[name][:, head]).mean(1, dtype=np.float64).astype(np.float32)
        for word, name in STRENGTHS.items()
        if name in recording.traces
    }
