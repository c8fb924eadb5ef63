"""`demo`: streams a copy sequence through the server and counts wrong bits."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ntm_lab.commands.parsing import Subparsers, add_command, add_locations, connect, positive
from ntm_lab.pictures import figure
from ntm_lab.pictures.recording import recording_picture
from ntm_lab.pictures.terminal import Terminal, bits_picture
from ntm_lab.recordings.recording import Recording, record_task
from ntm_tasks import TaskSequence

EXAMPLES = """\
  ntm demo
  ntm demo --length 100 --locations 256 --png copy.png
"""


def add_to(subparsers: Subparsers) -> None:
    """The arguments of the command."""
    summary = "let a model copy random vectors, draw its heads and count wrong bits"
    parser = add_command(subparsers, "demo", run, summary, EXAMPLES)
    parser.add_argument("--model", default="copy-ntm-lstm", help="default: %(default)s")
    parser.add_argument(
        "--length", type=positive, default=20, metavar="L", help="vectors (default: %(default)s)"
    )
    add_locations(parser)
    parser.add_argument("--seed", type=int, metavar="S", help="of the vectors (default: random)")
    parser.add_argument("--png", type=Path, metavar="PATH", help="also draw the heads into a file")


def run(arguments: argparse.Namespace) -> int:
    """0 if every bit came back, else 1."""
    with connect(arguments) as client:
        with client.create_session(arguments.model, arguments.locations) as session:
            sequence = TaskSequence.draw("copy", (arguments.length,), arguments.seed)
            recording = record_task(session, sequence)
        print(f"{recording.title}, on {session.model.provider} at {client.target}\n")
    wrong = _show(sequence, recording, Terminal.of(sys.stdout))
    if arguments.png:
        figure.save(recording, arguments.png, "png")
        print(f"drawn to {arguments.png}")
    print(f"wrong bits: {wrong} of {sequence.due.size}")
    return 1 if wrong else 0


def _show(sequence: TaskSequence, recording: Recording, terminal: Terminal) -> int:
    """Print the pictures; how many bits are wrong."""
    answer = sequence.answer(recording.outputs)
    print(f"target\n{bits_picture(sequence.due, terminal)}")
    print(f"answer\n{bits_picture(answer, terminal)}\n")
    print(f"{recording_picture(recording, terminal)}\n")
    return int((answer != sequence.due).sum())
