"""Sessions while everything around them breaks: `python -m tests.stress.chaos --minutes M`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from bench.arguments import number, whole
from tests.stress.chaos.report import is_sound, table
from tests.stress.chaos.trial import trial


def main() -> int:
    """Make a run and print its table; 1 if any output was wrong, or a session lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.chaos", description=__doc__)
    parser.add_argument("--minutes", type=number(0.1, 10_080), default=5.0, help="[5]")
    parser.add_argument(
        "--seed", type=whole(0, 2**32 - 1), default=1, help="of sessions and faults [1]"
    )
    parser.add_argument("--replicas", type=whole(2, 20), default=3, help="servers [3]")
    parser.add_argument("--store", choices=("valkey", "directory"), default="valkey")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    print(f"logs of servers in {folder}", flush=True)
    seconds = 60 * arguments.minutes
    tally = asyncio.run(trial(folder, arguments.seed, seconds, arguments.replicas, arguments.store))
    print(table(tally))
    return 0 if is_sound(tally) else 1


if __name__ == "__main__":
    sys.exit(main())
