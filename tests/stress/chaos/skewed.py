"""`python -m tests.stress.chaos.skewed SECONDS ...`: the server by a calendar that is wrong."""

from __future__ import annotations

import runpy
import sys
import time

_TIME, _TIME_NS = time.time, time.time_ns


def main(seconds: float) -> None:
    """Serve; only calendars jump, the monotonic clock does not."""
    time.time = lambda: _TIME() + seconds
    time.time_ns = lambda: _TIME_NS() + int(seconds * 1e9)
    runpy.run_module("service", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(float(sys.argv.pop(1)))
