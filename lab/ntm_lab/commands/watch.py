"""`watch`: shows a running session's memory and where its heads are, again and again."""

from __future__ import annotations

import sys
import time
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from ntm_client.errors import SessionGone
from ntm_lab.commands.options import LOCAL, ServerOptions, Text, seconds
from ntm_lab.pictures.memory import memory_picture
from ntm_lab.pictures.terminal import Terminal

CLEAR = "\x1b[H\x1b[2J"
"""Moves the cursor to the corner of the terminal and clears it."""


def watch(
    session: Text,
    /,
    *,
    interval: Annotated[
        float, Parameter(converter=seconds, validator=Number(gte=0.01, lte=86_400))
    ] = 0.5,
    once: bool = False,
    server: ServerOptions = LOCAL,
) -> None:
    """
    Show a running session's memory and heads, again and again, without disturbing it.

    It ends with the session.

    Args:
        session: Id of the session; `ntm sessions` lists them.
        interval: Seconds from one look to the next.
        once: Look once.
    """
    terminal = Terminal.of(sys.stdout)
    with server.connect() as client:
        watched = client.session(session)
        shown = None
        while True:
            try:
                memory = watched.read_memory()
            except SessionGone as gone:
                if shown is None:
                    raise
                print(gone)
                return
            if memory.next_step != shown:
                shown = memory.next_step
                head = f"{watched.model.name}, step {shown}, {watched.locations} locations"
                clear = CLEAR if sys.stdout.isatty() and not once else ""
                print(f"{clear}{head}\n\n{memory_picture(memory, terminal)}\n", flush=True)
            if once:
                return
            time.sleep(interval)
