"""A server without metrics and logs, for comparison: `python -m bench.unobserved`."""

from __future__ import annotations

import sys

from prometheus_client import Counter, Gauge, Histogram

from service.__main__ import main
from service.engine.counts import Counts
from service.telemetry.logs import AccessLog
from service.telemetry.metrics import Observations


def _nothing(*_: object, **__: object) -> None:
    """Replace a method that observes."""


def _blind() -> None:
    for observer, names in (
        (Counter, ["inc"]),
        (Gauge, ["inc", "dec", "set", "set_function"]),
        (Histogram, ["observe"]),
        (Observations, ["observe", "observe_one"]),
        (Counts, ["opened", "closed", "admitted", "begun", "committed", "failed"]),
        (AccessLog, ["note"]),
    ):
        for name in names:
            setattr(observer, name, _nothing)


if __name__ == "__main__":
    _blind()
    sys.exit(main())
