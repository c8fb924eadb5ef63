"""The access log stays within its rate, by a clock turned by hand."""

from __future__ import annotations

import logging

import pytest

from service.telemetry.access import AccessLog
from tests.conftest import Clock


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    """Code and count of those left out, of each line."""
    records = [vars(record) for record in caplog.records]
    return [(record["code"], record["left_out"]) for record in records]


@pytest.fixture(autouse=True)
def at_info(caplog: pytest.LogCaptureFixture) -> None:
    """Log as servers do."""
    caplog.set_level(logging.INFO)


def test_more_calls_than_the_rate_are_left_out_and_counted(
    caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    """Two lines a second: of five calls two are logged, and a second later it says that."""
    access = AccessLog(2.0, clock)
    for _ in range(5):
        access.note("OK", method="Step")
    clock.seconds += 1
    access.note("OK", method="Step")

    assert lines(caplog) == [("OK", 0), ("OK", 0), ("OK", 3)]


def test_calls_that_failed_are_not_hidden_by_those_that_went_well(
    caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    """Each kind has the rate to itself."""
    access = AccessLog(1.0, clock)
    for code in ("OK", "OK", "NOT_FOUND", "ABORTED"):
        access.note(code)

    assert lines(caplog) == [("OK", 0), ("NOT_FOUND", 0)]


def test_less_than_a_line_a_second_still_gives_one(
    caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    """At an eighth, one in eight seconds."""
    access = AccessLog(0.125, clock)
    for _ in range(20):
        access.note("OK")
        clock.seconds += 1

    assert lines(caplog) == [("OK", 0), ("OK", 7), ("OK", 7)]


def test_a_rate_of_nothing_logs_nothing(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    """For those who want no access log."""
    access = AccessLog(0.0, clock)
    access.note("OK")
    clock.seconds += 100
    access.note("NOT_FOUND")

    assert lines(caplog) == []
