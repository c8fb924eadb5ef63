"""`stream`: makes the steps of a file, or of lines as they arrive."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from typing import BinaryIO, get_args

from ntm_client.blocking import Client, Session
from ntm_client.errors import InvalidRequest
from ntm_client.records import Durability, Policy
from ntm_lab.commands.parsing import Subparsers, add_command, add_locations, connect, positive
from ntm_lab.commands.sequences import FORMATS, format_of, read, writer

EXAMPLES = """\
  ntm stream copy-ntm-lstm --input steps.npy --output outputs.npy
  ./sensor | ntm stream copy-ntm-lstm --format jsonl | ./display
  ntm stream copy-ntm-lstm --input first.csv --keep
  ntm stream --session ID --input second.csv
  ./sensor | ntm stream copy-ntm-lstm --durability synchronous

A line is a step: values separated by commas, or a JSON array of numbers. Outputs of lines from
standard input appear as the lines arrive, one line for each.
"""

STEPS_AT_ONCE = 256
STANDARD = "-"


def add_to(subparsers: Subparsers) -> None:
    """The arguments of the command."""
    summary = "make the steps of a file or of standard input, and write their outputs"
    parser = add_command(subparsers, "stream", run, summary, EXAMPLES)
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="name of the model; not needed with --session"
    )
    parser.add_argument(
        "--input", default=STANDARD, metavar="FILE", help="steps; - for standard input (default)"
    )
    parser.add_argument(
        "--format", choices=FORMATS, help="of the steps (default: by the file's name, else csv)"
    )
    parser.add_argument(
        "--output", default=STANDARD, metavar="FILE", help="- for standard output (default)"
    )
    parser.add_argument(
        "--output-format",
        choices=FORMATS,
        help="of the outputs (default: by the file's name, else that of the steps; "
        "to standard output csv for npy)",
    )
    add_locations(parser)
    parser.add_argument(
        "--durability",
        choices=get_args(Policy),
        help="when steps are written to the server's store (default: as the server is set)",
    )
    parser.add_argument(
        "--every-steps",
        type=positive,
        metavar="N",
        help="with --durability asynchronous, steps between two writings (default: the server's)",
    )
    parser.add_argument(
        "--session", metavar="ID", help="continue this session, and do not delete it at the end"
    )
    parser.add_argument("--keep", action="store_true", help="do not delete the new session either")


def run(arguments: argparse.Namespace) -> int:
    """0 when every step was made and written."""
    layout = arguments.format or format_of(arguments.input, "csv")
    line_layout = "csv" if arguments.output == STANDARD and layout == "npy" else layout
    output_layout = arguments.output_format or format_of(arguments.output, line_layout)
    at_once = 1 if arguments.input == STANDARD else STEPS_AT_ONCE
    with ExitStack() as stack:
        source = _source(arguments.input, stack)
        client = stack.enter_context(connect(arguments))
        session = _session(client, arguments)
        if not (arguments.keep or arguments.session):
            stack.enter_context(session)
        output = writer(_sink(arguments.output, stack), output_layout)
        for steps in read(source, arguments.input, layout, session.model.input_width, at_once):
            output.write(session.step(steps).outputs)
        output.close()
    if arguments.keep or arguments.session:
        print(
            f"next step {session.next_step}; continue with --session {session.id}", file=sys.stderr
        )
    return 0


def _session(client: Client, arguments: argparse.Namespace) -> Session:
    durability = _durability(arguments)
    if not arguments.session:
        if not arguments.model:
            raise InvalidRequest("name a model, or a session to continue with --session")
        return client.create_session(arguments.model, arguments.locations, durability=durability)
    session = client.session(arguments.session)
    if durability not in (None, session.durability):
        raise InvalidRequest(
            f"session {session.id} has the durability {session.durability.policy}, which stays"
        )
    if arguments.model not in (None, session.model.name):
        raise InvalidRequest(f"session {session.id} runs {session.model.name}")
    if arguments.locations not in (None, session.locations):
        raise InvalidRequest(f"session {session.id} has {session.locations} locations")
    return session


def _durability(arguments: argparse.Namespace) -> Durability | None:
    if arguments.every_steps and arguments.durability != "asynchronous":
        raise InvalidRequest("--every-steps goes with --durability asynchronous")
    if arguments.durability is None:
        return None
    return Durability(arguments.durability, arguments.every_steps or 0)


def _source(path: str, stack: ExitStack) -> BinaryIO:
    return sys.stdin.buffer if path == STANDARD else stack.enter_context(open(path, "rb"))


def _sink(path: str, stack: ExitStack) -> BinaryIO:
    return sys.stdout.buffer if path == STANDARD else stack.enter_context(open(path, "wb"))
