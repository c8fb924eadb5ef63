"""The command `python -m service.tokens NAME`, which makes a token for the tokens file."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from service.auth.principal import READ, SCOPES, STEP
from service.auth.tokens import new_token

MAX_DAYS = 36_500


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the line for the file on standard output and the token on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m service.tokens",
        description="Make a token. Its line for the tokens file goes to standard output. The token "
        "itself goes to standard error; it is not stored.",
        epilog="example: python -m service.tokens alice --days 90 >>tokens.jsonl",
    )
    parser.add_argument(
        "name", metavar="NAME", help="name of the principal; it may have several tokens"
    )
    parser.add_argument(
        "--scopes",
        nargs="+",
        choices=SCOPES,
        default=[READ, STEP],
        help="what the token allows (default: read step)",
    )
    parser.add_argument(
        "--days", type=_days, help="days until the token expires (default: it does not expire)"
    )
    asked = parser.parse_args(arguments)
    expires = None if asked.days is None else datetime.now(UTC) + timedelta(days=asked.days)
    try:
        token, line = new_token(asked.name, asked.scopes, expires)
    except ValueError as error:
        parser.error(str(error))
    print(line)
    print(token, file=sys.stderr)
    return 0


def _days(text: str) -> float:
    """Read a number of days in decimal digits."""
    days = float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) else None
    if days is None or not 0 < days <= MAX_DAYS:
        raise argparse.ArgumentTypeError(
            f"{text!r:.80} is not a number above 0 and at most {MAX_DAYS}"
        )
    return days


if __name__ == "__main__":
    sys.exit(main())
