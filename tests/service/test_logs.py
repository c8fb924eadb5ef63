"""Logs are one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys

from service.logs import JsonFormatter


def test_a_record_becomes_one_line_of_json() -> None:
    """With the extra fields, and a traceback inside the line."""
    record = logging.makeLogRecord(
        {"name": "service.x", "levelname": "ERROR", "msg": "lost %d", "args": (3,), "model": "m"}
    )
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record.exc_info = sys.exc_info()
    line = JsonFormatter().format(record)
    fields = json.loads(line)
    assert "\n" not in line
    assert fields["level"] == "error"
    assert fields["message"] == "lost 3"
    assert fields["model"] == "m"
    assert "ValueError: two" in fields["traceback"]
    assert fields["time"].endswith("+00:00")
