"""`trace`: draws what the heads do over time."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from client import figure
from client.commands.parsing import Subparsers, add_command, add_locations, connect, positive
from client.copy_task import CopySequence
from client.recording import record, record_copy
from client.records import Float32, Model
from client.sequences import SequenceError, format_of, read
from client.terminal import Terminal, recording_picture

EXAMPLES = """\
  python -m client trace copy-ntm-lstm
  python -m client trace copy-ntm-lstm --length 40 --png heads.png
  python -m client trace copy-ntm-lstm --input steps.csv --png heads.png
"""


def add_to(subparsers: Subparsers) -> None:
    """The arguments of the command."""
    summary = "draw the head weightings over time, as in figure 6 of the paper"
    parser = add_command(subparsers, "trace", run, summary, EXAMPLES)
    parser.add_argument("model", metavar="MODEL", help="name of the model")
    sequence = parser.add_mutually_exclusive_group()
    sequence.add_argument(
        "--length",
        type=positive,
        default=20,
        metavar="L",
        help="vectors of a random copy sequence (default: %(default)s)",
    )
    sequence.add_argument(
        "--input", type=Path, metavar="FILE", help="steps to trace instead: .npy, .csv or .jsonl"
    )
    add_locations(parser)
    parser.add_argument("--png", type=Path, metavar="PATH", help="also draw a picture into a file")


def run(arguments: argparse.Namespace) -> int:
    """0 when drawn."""
    with (
        connect(arguments) as client,
        client.create_session(arguments.model, arguments.locations) as session,
    ):
        if arguments.input:
            recording = record(session, _steps(arguments.input, session.model))
        else:
            sequence = CopySequence.random(session.model, arguments.length)
            recording = record_copy(session, sequence)
    print(f"{recording.title}\n\n{recording_picture(recording, Terminal.of(sys.stdout))}")
    if arguments.png:
        figure.save(recording, arguments.png)
        print(f"\ndrawn to {arguments.png}")
    return 0


def _steps(path: Path, model: Model) -> Float32:
    with path.open("rb") as file:
        blocks = list(read(file, str(path), format_of(path.name, "csv"), model.input_width, 1000))
    if not blocks:
        raise SequenceError(f"{path} has no steps")
    return np.concatenate(blocks)
