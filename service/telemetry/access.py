"""The access log: a line for a call, as many a second as are wanted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class AccessLog:
    """
    Logs calls within a rate, and says in the next line how many it left out.

    Calls that failed have a rate of their own, so that those that went well do not hide them.
    """

    def __init__(
        self, lines_per_second: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """At most so many lines a second, for calls that went well and for those that failed."""
        self._budgets = {ok: _Budget(lines_per_second, clock()) for ok in (True, False)}
        self._clock = clock

    def note(self, code: str, **fields: object) -> None:
        """Log a call that ended with that gRPC code, unless there were too many."""
        budget = self._budgets[code == "OK"]
        if budget.take(self._clock()):
            log.info("call", extra={"code": code, **fields, "left_out": budget.left_out})
            budget.left_out = 0
        else:
            budget.left_out += 1


class _Budget:
    """A token bucket that holds the lines of one second."""

    def __init__(self, lines_per_second: float, now: float) -> None:
        self._rate = lines_per_second
        self._most = max(1.0, lines_per_second) if lines_per_second else 0.0
        self._lines = self._most
        self._filled = now
        self.left_out = 0

    def take(self, now: float) -> bool:
        """Take a line if there is one."""
        self._lines = min(self._most, self._lines + (now - self._filled) * self._rate)
        self._filled = now
        if self._lines < 1:
            return False
        self._lines -= 1
        return True
