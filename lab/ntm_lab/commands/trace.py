"""`trace`: draws what the heads do over time."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from ntm_client.errors import InvalidRequest
from ntm_client.records import Float32, Model
from ntm_lab.commands.parsing import Subparsers, add_command, add_locations, connect, positive
from ntm_lab.commands.sequences import SequenceError, format_of, read
from ntm_lab.pictures import figure, page
from ntm_lab.pictures.recording import recording_picture
from ntm_lab.pictures.terminal import Terminal
from ntm_lab.recordings import files
from ntm_lab.recordings.recording import Recording, record, record_task
from ntm_tasks import TASKS, Size, TaskSequence

EXAMPLES = """\
  ntm trace copy-ntm-lstm
  ntm trace repeat-copy-ntm-ff --size 10 3 --seed 1 --png heads.png
  ntm trace copy-ntm-lstm --input steps.csv --png heads.png
  ntm trace copy-ntm-lstm --save copy.npz
  ntm trace --open copy.npz --svg heads.svg --html heads.html
"""

SIZES = "; ".join(f"{name}: {' '.join(task.size_names)}" for name, task in TASKS.items())


def add_to(subparsers: Subparsers) -> None:
    """The arguments of the command."""
    summary = "draw what the heads do over time, and the memory before and after"
    parser = add_command(subparsers, "trace", run, summary, EXAMPLES)
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="name of the model; not needed with --open"
    )
    parser.add_argument(
        "--size",
        type=positive,
        nargs="+",
        metavar="S",
        help=f"of the random sequence of the model's task ({SIZES}; "
        "default: the largest in training)",
    )
    parser.add_argument("--seed", type=int, metavar="S", help="of that sequence (default: random)")
    parser.add_argument(
        "--input", type=Path, metavar="FILE", help="steps to trace instead: .npy, .csv or .jsonl"
    )
    add_locations(parser)
    parser.add_argument(
        "--open", type=Path, metavar="FILE", help="draw what --save wrote; needs no server"
    )
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the recording, as .npz")
    parser.add_argument("--png", type=Path, metavar="FILE", help="also draw a picture into a file")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="likewise, for a page or a paper")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="likewise, to move along time in a browser"
    )


def run(arguments: argparse.Namespace) -> int:
    """0 when drawn."""
    recording = _recording(arguments)
    print(f"{recording.title}\n\n{recording_picture(recording, Terminal.of(sys.stdout))}")
    if result := recording.result():
        print(f"\n{result}")
    if arguments.save:
        files.save(recording, arguments.save)
        print(f"\nsaved to {arguments.save}")
    for layout in ("png", "svg"):
        if path := getattr(arguments, layout):
            figure.save(recording, path, layout)
            print(f"\ndrawn to {path}")
    if arguments.html:
        page.save(recording, arguments.html)
        print(f"\ndrawn to {arguments.html}")
    return 0


def _recording(arguments: argparse.Namespace) -> Recording:
    if arguments.input and (arguments.size or arguments.seed is not None):
        raise InvalidRequest("--size and --seed are of a random sequence, not of --input")
    if arguments.open:
        made = (arguments.model, arguments.input, arguments.size, arguments.seed)
        if any(value is not None for value in (*made, arguments.locations)):
            raise InvalidRequest("--open draws a recording as it is; name only where to draw it")
        return files.load(arguments.open)
    if not arguments.model:
        raise InvalidRequest("name a model, or a recording with --open")
    with (
        connect(arguments) as client,
        client.create_session(arguments.model, arguments.locations) as session,
    ):
        if arguments.input:
            return record(session, _steps(arguments.input, session.model))
        size = tuple(arguments.size) if arguments.size else None
        return record_task(session, _task_sequence(session.model, size, arguments.seed))


def _task_sequence(model: Model, size: Size | None, seed: int | None) -> TaskSequence:
    if model.task not in TASKS:
        raise InvalidRequest(
            f"{model.name} has the task {model.task!r}, and sequences can be drawn of "
            f"{', '.join(TASKS)}; name steps with --input"
        )
    return TaskSequence.draw(model.task, size, seed)


def _steps(path: Path, model: Model) -> Float32:
    with path.open("rb") as file:
        blocks = list(read(file, str(path), format_of(path.name, "csv"), model.input_width, 1000))
    if not blocks:
        raise SequenceError(f"{path} has no steps")
    return np.concatenate(blocks)
