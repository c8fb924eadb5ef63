"""What the commands' arguments have in common."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TypeAlias

SERVER_VARIABLE = "NTM_SERVER"
DEFAULT_SERVER = "localhost:50051"

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(
    subparsers: Subparsers,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    examples: str,
) -> argparse.ArgumentParser:
    """A command with the option that all have; `run` gets its arguments, returns its status."""
    parser = subparsers.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    server = os.environ.get(SERVER_VARIABLE, DEFAULT_SERVER)
    parser.add_argument(
        "--server",
        default=server,
        metavar="ADDRESS",
        help=f"address of the server [{SERVER_VARIABLE}] (default: {server})",
    )
    parser.set_defaults(run=run)
    return parser


def add_locations(parser: argparse.ArgumentParser) -> None:
    """The option of commands that open a session."""
    parser.add_argument(
        "--locations",
        type=positive,
        metavar="N",
        help="memory locations of the session (default: the model's)",
    )


def positive(text: str) -> int:
    """A whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number
