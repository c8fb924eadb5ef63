"""Logs are one JSON object a line; the access log stays within its rate."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from service.telemetry.logs import AccessLog, CallFields, JsonFormatter, call_fields, session_tag
from tests.conftest import Clock


def test_a_record_becomes_one_line_of_json() -> None:
    """It has the fields of extra, and a traceback as one field."""
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


def test_lines_of_a_call_have_its_fields() -> None:
    """The fields of a call are in every line logged while it is served, and in no other line."""
    record = logging.makeLogRecord({"name": "service.x", "levelname": "INFO", "msg": "done"})
    outside = json.loads(JsonFormatter().format(record))
    fields = CallFields((("x-request-id", "abc"),))
    token = call_fields.set(fields)
    begun = json.loads(JsonFormatter().format(record))
    fields.principal, fields.session_id, fields.reason = "token:a", "abc", "DRAINING"
    ended = json.loads(JsonFormatter().format(record))
    call_fields.reset(token)

    assert outside == {name: outside[name] for name in ("time", "level", "logger", "message")}
    assert begun == {**outside, "request_id": "abc"}
    assert ended == {
        **begun,
        "principal": "token:a",
        "session": "ba7816bf8f01cfea",
        "reason": "DRAINING",
    }


def test_a_call_without_an_id_gets_one_that_stays() -> None:
    """Every line of the call has the same one."""
    fields = CallFields(())
    assert len(bytes.fromhex(fields.request_id)) == 8
    assert fields.by_name() == {"request_id": fields.request_id}


def test_only_a_line_that_is_written_has_its_fields_made(
    caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    """The fields of calls beyond the rate are not asked for."""
    access = AccessLog(1.0, clock)
    asked: list[str] = []

    def fields() -> dict[str, object]:
        asked.append("once")
        return {}

    for _ in range(3):
        access.note("OK", fields)

    assert asked == ["once"]


def test_a_session_is_named_by_a_hash_of_its_id() -> None:
    """The first 16 digits of the SHA-256 that `sha256sum` prints."""
    assert session_tag("abc") == "ba7816bf8f01cfea"


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    """The gRPC code and the number of calls left out, of each line."""
    records = [vars(record) for record in caplog.records]
    return [(record["code"], record["left_out"]) for record in records]


@pytest.fixture(autouse=True)
def at_info(caplog: pytest.LogCaptureFixture) -> None:
    """Log from level info on, as servers do."""
    caplog.set_level(logging.INFO)


def test_more_calls_than_the_rate_are_left_out_and_counted(
    caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    """At two lines a second, two of five calls are logged; a second later a line counts three."""
    access = AccessLog(2.0, clock)
    for _ in range(5):
        access.note("OK", lambda: {"method": "Step"})
    clock.seconds += 1
    access.note("OK", lambda: {"method": "Step"})

    assert lines(caplog) == [("OK", 0), ("OK", 0), ("OK", 3)]


def test_successful_calls_do_not_push_out_failed_ones(
    caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    """Successful and failed calls have a rate each."""
    access = AccessLog(1.0, clock)
    for code in ("OK", "OK", "NOT_FOUND", "ABORTED"):
        access.note(code, dict)

    assert lines(caplog) == [("OK", 0), ("NOT_FOUND", 0)]


def test_less_than_a_line_a_second_still_gives_one(
    caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    """An eighth of a line a second is one line in eight seconds."""
    access = AccessLog(0.125, clock)
    for _ in range(20):
        access.note("OK", dict)
        clock.seconds += 1

    assert lines(caplog) == [("OK", 0), ("OK", 7), ("OK", 7)]


def test_a_rate_of_nothing_logs_nothing(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    """The rate 0 turns the access log off."""
    access = AccessLog(0.0, clock)
    access.note("OK", dict)
    clock.seconds += 100
    access.note("NOT_FOUND", dict)

    assert lines(caplog) == []
