"""Fixtures that the end-to-end tests share."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.telemetry.logs import access
from tests.e2e.calls import Lines
from tests.e2e.versions import look_often, put
from tests.support.tiny_models import ledger


@pytest.fixture
def lines() -> Iterator[Lines]:
    """The lines of the access log from now on."""
    handler, log = Lines(), access
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield handler
    log.removeHandler(handler)
    log.setLevel(logging.NOTSET)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of models with the ledger alone, to be changed, that servers look at often."""
    look_often(monkeypatch)
    put(tmp_path / "models", ledger())
    return tmp_path / "models"
