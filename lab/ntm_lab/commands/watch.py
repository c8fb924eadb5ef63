"""`watch`: shows a running session's memory and where its heads are, again and again."""

from __future__ import annotations

import argparse
import sys
import time

from ntm_client.errors import SessionGone
from ntm_lab.commands.parsing import Subparsers, add_command, connect, seconds
from ntm_lab.pictures.memory import memory_picture
from ntm_lab.pictures.terminal import Terminal

EXAMPLES = """\
  ntm sessions                 # which there are
  ntm watch SESSION
  ntm watch SESSION --once
"""

CLEAR = "\x1b[H\x1b[2J"
"""To the corner of the terminal, and everything away."""


def add_to(subparsers: Subparsers) -> None:
    """The arguments of the command."""
    summary = "show a running session's memory and heads, without disturbing it"
    parser = add_command(subparsers, "watch", run, summary, EXAMPLES)
    parser.add_argument("session", metavar="SESSION", help="id of the session")
    parser.add_argument(
        "--interval",
        type=seconds,
        default=0.5,
        metavar="SECONDS",
        help="from one look to the next (default: %(default)s)",
    )
    parser.add_argument("--once", action="store_true", help="look once")


def run(arguments: argparse.Namespace) -> int:
    """0 when it has looked once, or the session has ended while it was watched."""
    terminal = Terminal.of(sys.stdout)
    with connect(arguments) as client:
        session = client.session(arguments.session)
        shown = None
        while True:
            try:
                memory = session.read_memory()
            except SessionGone as gone:
                if shown is None:
                    raise
                print(gone)
                return 0
            if memory.next_step != shown:
                shown = memory.next_step
                head = f"{session.model.name}, step {shown}, {session.locations} locations"
                clear = CLEAR if sys.stdout.isatty() and not arguments.once else ""
                print(f"{clear}{head}\n\n{memory_picture(memory, terminal)}\n", flush=True)
            if arguments.once:
                return 0
            time.sleep(arguments.interval)
