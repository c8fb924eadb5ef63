"""Logs: one JSON object a line on standard error, and the access log within a rate."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime

access = logging.getLogger("service.access")

_PLAIN = set(vars(logging.makeLogRecord({}))) | {"message", "taskName"}

_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)

Metadata = Iterable[tuple[str, str | bytes]]


class CallFields:
    """
    What every line that is logged in a call says about the call.

    Most calls log no line, so that the fields are made when the first one asks for them.
    """

    __slots__ = ("_request_id", "metadata", "principal", "reason", "session_id")

    def __init__(self, metadata: Metadata) -> None:
        """The metadata with which the call came."""
        self.metadata = metadata
        self.principal = ""
        """The caller's name, if the caller is authenticated."""
        self.session_id = ""
        """The session that the request names."""
        self.reason = ""
        """The reason for which the call failed."""
        self._request_id = ""

    @property
    def request_id(self) -> str:
        """The client's id of its request, if it is safe to log, else a new one."""
        if not self._request_id:
            self._request_id = _request_id(self.metadata) or secrets.token_hex(8)
        return self._request_id

    def by_name(self) -> dict[str, object]:
        """The fields that are known, `request_id` first; the session by its tag."""
        fields = {
            "request_id": self.request_id,
            "principal": self.principal,
            "session": session_tag(self.session_id) if self.session_id else "",
            "reason": self.reason,
        }
        return {name: value for name, value in fields.items() if value}


call_fields: ContextVar[CallFields] = ContextVar("call_fields")
"""The fields of the call in progress."""


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
        if call := call_fields.get(None):
            fields |= call.by_name()
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

    def note(self, code: str, fields: Callable[[], Mapping[str, object]]) -> None:
        """
        Log a call that ended with this gRPC code, or count it as left out.

        Only a line that is written has its fields made.
        """
        budget = self._budgets[code == "OK"]
        if budget.take(self._clock()):
            access.info("call", extra={"code": code, **fields(), "left_out": budget.left_out})
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


def _request_id(metadata: Metadata) -> str:
    """The id that a client gave its request; empty if there is none that is safe to log."""
    for key, value in metadata:
        if key == "x-request-id" and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    return ""


def set_up(level: str) -> None:
    """Send this process's logs to standard error, from this level on (debug, info, ...)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
