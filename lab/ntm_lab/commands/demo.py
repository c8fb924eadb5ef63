"""`demo`: streams a copy sequence through the server and counts wrong bits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from ntm_lab.commands.options import LOCAL, Length, Locations, Seed, ServerOptions, Text, output
from ntm_lab.pictures import figure
from ntm_lab.pictures.characters import recording_picture
from ntm_lab.pictures.terminal import Terminal, bits_picture
from ntm_lab.recordings.recording import Recording, record_task
from ntm_tasks import TaskSequence


def demo(
    *,
    model: Text = "copy-ntm-lstm",
    length: Length = 20,
    locations: Locations = None,
    seed: Seed | None = None,
    png: Annotated[Path | None, output(".png")] = None,
    server: ServerOptions = LOCAL,
) -> int:
    """
    Let a model copy random vectors, draw its heads and count wrong bits.

    The status is 0 if every bit came back, else 1.

    Args:
        model: Name of a model of the copy task.
        length: Vectors to copy.
        seed: Seed of the vectors; random by default.
        png: Also draw the heads into this file.
    """
    with server.connect() as client:
        with client.create_session(model, locations) as session:
            sequence = TaskSequence.draw("copy", (length,), seed)
            recording = record_task(session, sequence)
        print(f"{recording.title}, on {session.model.provider} at {client.target}\n")
    wrong = _show(sequence, recording, Terminal.of(sys.stdout))
    if png:
        figure.save(recording, png, "png")
        print(f"drawn to {png}")
    print(f"wrong bits: {wrong} of {sequence.due.size}")
    return 1 if wrong else 0


def _show(sequence: TaskSequence, recording: Recording, terminal: Terminal) -> int:
    """Print the pictures, and return the number of wrong bits."""
    answer = sequence.answer(recording.outputs)
    print(f"target\n{bits_picture(sequence.due, terminal)}")
    print(f"answer\n{bits_picture(answer, terminal)}\n")
    print(f"{recording_picture(recording, terminal)}\n")
    return int((answer != sequence.due).sum())
