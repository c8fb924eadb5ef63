"""The command line: parses it, runs the command, and says in a sentence what went wrong."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from ntm_client.errors import NtmClientError
from ntm_lab.commands import decipher, demo, listing, stream, trace, watch
from ntm_lab.commands.sequences import SequenceError
from ntm_lab.pictures.figure import DrawingUnavailable
from ntm_lab.recordings.files import RecordingError
from ntm_tasks import TaskError

EXPECTED = (NtmClientError, TaskError, SequenceError, RecordingError, DrawingUnavailable, OSError)
"""What can go wrong without a mistake in the program."""

FAILED, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Its status; 2 after an error, which is said on standard error."""
    arguments = parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return command(arguments)
    except BrokenPipeError:
        # Whoever read the output has had enough; let Python's last flush go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except EXPECTED as error:
        print(f"ntm-client: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def parser() -> argparse.ArgumentParser:
    """All commands and their arguments."""
    found = argparse.ArgumentParser(
        prog="ntm",
        description="Step Neural Turing Machines on a server, and look at what their heads do.",
        epilog="`ntm COMMAND --help` has the arguments and examples of a command.",
    )
    subparsers = found.add_subparsers(required=True, metavar="COMMAND")
    for command in (demo, stream, trace, decipher, watch, listing):
        command.add_to(subparsers)
    return found
