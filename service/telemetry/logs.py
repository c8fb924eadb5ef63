"""Logs: one JSON object a line on standard error, and the access log within a rate."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime

access = logging.getLogger("service.access")

_PLAIN = set(vars(logging.makeLogRecord({}))) | {"message", "taskName"}

call_fields: ContextVar[dict[str, object]] = ContextVar("call_fields")
"""Fields of the call in progress, `request_id` first; every line that is logged in it has them."""


class JsonFormatter(logging.Formatter):
    """Writes time, level, logger and message, the call's fields, and the fields of `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of JSON, without a newline; a traceback is one of its fields."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= call_fields.get({})
        fields |= {key: value for key, value in vars(record).items() if key not in _PLAIN}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


class AccessLog:
    """
    Logs calls up to a rate; each line says how many calls were left out before it.

    Failed calls have a rate of their own, so that successful calls do not push them out.
    """

    def __init__(
        self, lines_per_second: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Allow this many lines a second for successful calls, and as many for failed ones.

        The clock gives seconds.
        """
        self._budgets = {ok: _Budget(lines_per_second, clock()) for ok in (True, False)}
        self._clock = clock

    def note(self, code: str, **fields: object) -> None:
        """Log a call that ended with this gRPC code, or count it as left out."""
        budget = self._budgets[code == "OK"]
        if budget.take(self._clock()):
            access.info("call", extra={"code": code, **fields, "left_out": budget.left_out})
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
        """Take one line; False if there is none."""
        self._lines = min(self._most, self._lines + (now - self._filled) * self._rate)
        self._filled = now
        if self._lines < 1:
            return False
        self._lines -= 1
        return True


def session_tag(session_id: str) -> str:
    """
    Return the name of a session for logs and spans: 16 hexadecimal digits of its id's SHA-256.

    The id itself stays out of logs, because a person with the id may be able to use the session.
    """
    return hashlib.sha256(session_id.encode()).hexdigest()[:16]


def set_up(level: str) -> None:
    """Send this process's logs to standard error, from this level on (debug, info, ...)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
