"""`stream`: makes the steps of a file, or of lines as they arrive."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

from ntm_client.blocking import Session
from ntm_client.errors import InvalidRequest
from ntm_client.values import Durability, Policy
from ntm_lab.commands.options import LOCAL, Locations, Positive, ServerOptions
from ntm_lab.commands.sequences import Format, Writer, format_of, read, writer

STEPS_AT_ONCE = 256
STANDARD = "-"


def stream(
    model: str | None = None,
    /,
    *,
    input: str = STANDARD,  # noqa: A002 - the option's name
    format: Format | None = None,  # noqa: A002 - the option's name
    output: str = STANDARD,
    output_format: Format | None = None,
    locations: Locations = None,
    durability: Policy | None = None,
    every_steps: Positive | None = None,
    session: str | None = None,
    keep: bool = False,
    server: ServerOptions = LOCAL,
) -> None:
    """
    Make the steps of a file or of standard input, and write their outputs.

    Outputs of lines from standard input appear as the lines arrive, one line for each.

    Args:
        model: Name of the model; not needed with --session.
        input: File of the steps, - for standard input. A line of csv or jsonl is one step.
        format: Format of the steps; by default that of the file's name, else csv.
        output: File for the outputs, - for standard output.
        output_format: Format of the outputs; by default that of the file's name, else the steps'.
        durability: When steps are written to the server's store; by default as the server is set.
        every_steps: With --durability asynchronous, steps between two writings to the store.
        session: Id of a session to continue. It is not deleted at the end.
        keep: Do not delete the new session at the end.
    """
    layout = format or format_of(input, "csv")
    line_layout = "csv" if output == STANDARD and layout == "npy" else layout
    at_once = 1 if input == STANDARD else STEPS_AT_ONCE
    with ExitStack() as stack:
        source = _source(input, stack)
        client = stack.enter_context(server.connect())
        wanted = _durability(durability, every_steps)
        if session is not None:
            steps_of = _continued(client.session(session), model, locations, wanted)
        elif model is not None:
            steps_of = client.create_session(model, locations, durability=wanted)
        else:
            raise InvalidRequest("name a model, or a session to continue with --session")
        keep = keep or session is not None
        if not keep:
            stack.enter_context(steps_of)
        else:
            stack.callback(_say_how_to_continue, steps_of)
        output_layout = output_format or format_of(output, line_layout)
        sink = stack.enter_context(_outputs(output, output_layout))
        for steps in read(source, input, layout, steps_of.model.input_width, at_once):
            sink.write(steps_of.step(steps).outputs)


def _continued(
    session: Session, model: str | None, locations: int | None, durability: Durability | None
) -> Session:
    """Return the session if it is as asked for. Raises InvalidRequest if it is not."""
    if durability is not None and durability != session.durability:
        raise InvalidRequest(
            f"session {session.id} has the durability {session.durability.policy}, not "
            f"{durability.policy}, and keeps it; leave out --durability"
        )
    if model not in (None, session.model.name):
        raise InvalidRequest(
            f"session {session.id} runs {session.model.name}, not {model}; leave out the model"
        )
    if locations not in (None, session.locations):
        raise InvalidRequest(
            f"session {session.id} has {session.locations} locations, not {locations}; leave out "
            "--locations"
        )
    return session


def _durability(policy: Policy | None, every_steps: int | None) -> Durability | None:
    if every_steps and policy != "asynchronous":
        raise InvalidRequest("--every-steps goes with --durability asynchronous")
    return None if policy is None else Durability(policy, every_steps or 0)


def _source(path: str, stack: ExitStack) -> BinaryIO:
    return sys.stdin.buffer if path == STANDARD else stack.enter_context(open(path, "rb"))


def _say_how_to_continue(session: Session) -> None:
    """Also after an error or an interrupt, because the session stays open."""
    print(f"next step {session.next_step}; continue with --session {session.id}", file=sys.stderr)


@contextmanager
def _outputs(path: str, layout: str) -> Iterator[Writer]:
    """
    Write outputs to standard output or to a file.

    The file is written beside the path, and takes its place at the end, or after an error if it
    holds outputs by then. So a mistake in the input leaves an older file as it was.
    """
    is_file = path != STANDARD and (os.path.isfile(path) or not os.path.exists(path))
    part = Path(f"{path}.part") if is_file else None
    is_kept = part is None
    try:
        with (
            nullcontext(sys.stdout.buffer) if path == STANDARD else open(part or path, "wb") as file
        ):
            sink = writer(file, layout)
            try:
                yield sink
                is_kept = True
            finally:
                is_kept = is_kept or sink.steps > 0
                if is_kept:
                    sink.close()
    finally:
        if part is not None:
            if is_kept:
                part.replace(path)
            else:
                part.unlink(missing_ok=True)
