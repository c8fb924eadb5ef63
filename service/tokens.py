"""`python -m service.tokens NAME`: makes a token and its line for the tokens file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from service.auth.principal import READ, SCOPES, STEP
from service.auth.tokens import new_token


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the line of a new token on standard output, and the token on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m service.tokens",
        description="Make a token: its line for the tokens file goes to standard output, the token "
        "itself, which is kept nowhere, to standard error.",
        epilog="example: python -m service.tokens alice --days 90 >>tokens.jsonl",
    )
    parser.add_argument("name", metavar="NAME", help="the principal; several tokens may have one")
    parser.add_argument("--scopes", nargs="+", choices=SCOPES, default=[READ, STEP])
    parser.add_argument("--days", type=float, help="until the token expires (default: never)")
    asked = parser.parse_args(arguments)
    expires = None if asked.days is None else datetime.now(UTC) + timedelta(days=asked.days)
    try:
        token, line = new_token(asked.name, asked.scopes, expires)
    except ValueError as error:
        parser.error(str(error))
    print(line)
    print(token, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
