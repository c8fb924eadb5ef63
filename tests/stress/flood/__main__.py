"""Attacks on a server, one by one and together: `python -m tests.stress.flood [NAME ...]`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from bench.arguments import number
from tests.stress.flood.attack import ATTACKS
from tests.stress.flood.report import BOUNDS, HEAD, faults, refusals, row
from tests.stress.flood.trial import trial

TOGETHER = "together"


def main() -> int:
    """Make the attacks named, or all; 1 if any bound was not kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.flood", description=__doc__)
    names = [*ATTACKS, TOGETHER]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"among {', '.join(names)}")
    parser.add_argument(
        "--seconds", type=number(0.1, 86_400), default=10.0, help="of each attack [10]"
    )
    parser.add_argument(
        "--calm", type=number(0.1, 86_400), default=5.0, help="seconds before and after [5]"
    )
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.names) - set(names)):
        parser.error(f"no attacks: {', '.join(unknown)}; there are {', '.join(names)}")
    print(BOUNDS)
    print(HEAD)
    short = 0
    log = Path("build/flood.log")
    log.parent.mkdir(exist_ok=True)
    for name in arguments.names or names:
        attacks = list(ATTACKS) if name == TOGETHER else [name]
        outcome = asyncio.run(trial(attacks, arguments.seconds, arguments.calm, log))
        print(row(name, outcome))
        print("\n".join(refusals(outcome)) or "    nothing was refused", flush=True)
        short += any(faults(outcome))
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
