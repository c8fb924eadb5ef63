"""Fixtures that the end-to-end tests share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from service.telemetry.logs import access
from tests.e2e.calls import Lines


@pytest.fixture
def lines() -> Iterator[Lines]:
    """The lines of the access log from now on."""
    handler, log = Lines(), access
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield handler
    log.removeHandler(handler)
    log.setLevel(logging.NOTSET)
