"""Logs are one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys

from service.telemetry.logs import JsonFormatter, call_fields, session_tag


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


def test_lines_of_a_call_tell_which_call_it_is() -> None:
    """The fields of the call that is served are in every line, and in no line outside of it."""
    record = logging.makeLogRecord({"name": "service.x", "levelname": "INFO", "msg": "done"})
    outside = json.loads(JsonFormatter().format(record))
    token = call_fields.set({"request_id": "abc"})
    inside = json.loads(JsonFormatter().format(record))
    call_fields.reset(token)

    assert "request_id" not in outside
    assert inside["request_id"] == "abc"


def test_a_session_is_named_by_what_opens_nothing() -> None:
    """The start of its id's SHA-256, as `sha256sum` gives it."""
    assert session_tag("abc") == "ba7816bf8f01cfea"
