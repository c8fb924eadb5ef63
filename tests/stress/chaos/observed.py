"""
`python -m tests.stress.chaos.observed SECONDS FILE ...`: the server, with a calendar that is wrong.

Each error that the server counts is also a line of the file, written before the client can see
the error: these counts outlive a server that is killed, which its metrics do not.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from typing import Any

from prometheus_client import Counter

_TIME, _TIME_NS = time.time, time.time_ns
_INC = Counter.inc


def main(seconds: float, refusals: str) -> None:
    """Serve; only calendars jump, the monotonic clock does not."""
    file = os.open(refusals, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def counted(counter: Counter, *arguments: Any) -> None:
        if counter._name == "ntm_errors":
            os.write(file, f"{counter._labelvalues[0]}\n".encode())
        _INC(counter, *arguments)

    Counter.inc = counted  # type: ignore[assignment] # takes what it took
    time.time = lambda: _TIME() + seconds
    time.time_ns = lambda: _TIME_NS() + int(seconds * 1e9)
    runpy.run_module("service", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(float(sys.argv.pop(1)), sys.argv.pop(1))
