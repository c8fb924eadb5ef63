"""What the commands' arguments have in common."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from ntm_client.blocking import Client
from ntm_client.connection import Token, tls
from ntm_client.errors import InvalidRequest

SERVER_VARIABLE = "NTM_SERVER"
DEFAULT_SERVER = "localhost:50051"

TOKEN_VARIABLE = "NTM_TOKEN"  # noqa: S105 - the name of a variable

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


_TLS_FILES = {
    "ca": "authorities to trust instead of the usual ones",
    "cert": "certificate to show to the server",
    "key": "private key of that certificate",
}


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
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help=f"file of the token to send (default: the token in {TOKEN_VARIABLE}, if there is one)",
    )
    parser.add_argument("--tls", action="store_true", help="encrypt; any option below does as well")
    for name, what in _TLS_FILES.items():
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"{what}, as PEM")
    parser.set_defaults(run=run)
    return parser


def connect(arguments: argparse.Namespace) -> Client:
    """A client of the server that the arguments name, encrypted and with a token if they say so."""
    files = arguments.ca, arguments.cert, arguments.key
    if (arguments.cert is None) != (arguments.key is None):
        raise InvalidRequest("--cert and --key go together; give both")
    encrypted = arguments.tls or any(files)
    credentials = tls(*files) if encrypted else None
    return Client(arguments.server, credentials=credentials, token=_token(arguments.token_file))


def _token(file: Path | None) -> Token | None:
    # The file is read for every call, since what renews the token replaces it.
    if file is not None:
        return lambda: file.read_text().strip()
    return os.environ.get(TOKEN_VARIABLE) or None


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


def seconds(text: str) -> float:
    """A time above 0."""
    number = float(text)
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return number
