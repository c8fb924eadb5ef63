"""Logs: one JSON object a line on standard error."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

_PLAIN = set(vars(logging.makeLogRecord({}))) | {"message", "taskName"}

call_fields: ContextVar[dict[str, object]] = ContextVar("call_fields")
"""What every line logged in this context tells of the call that it serves, its request_id first."""


class JsonFormatter(logging.Formatter):
    """Time, level, logger and message, the call's fields, and whatever was passed as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
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


def session_tag(session_id: str) -> str:
    """
    What names a session where others can read: the start of its id's SHA-256, in hexadecimal.

    Who knows an id may use the session, so the id itself is not for logs.
    """
    return hashlib.sha256(session_id.encode()).hexdigest()[:16]


def set_up(level: str) -> None:
    """Send the logs of this process to standard error, from that level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
