"""The monitoring server, over real HTTP."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from service.metrics import Metrics
from service.monitoring import Monitoring


class Ready:
    """Whether the server is, as a test says."""

    now = False


@pytest.fixture
def monitoring() -> Iterator[Monitoring]:
    """A monitoring server on a free port."""
    registry = CollectorRegistry()
    Metrics(registry).streams.set(3)
    Ready.now = False
    server = Monitoring("127.0.0.1", 0, registry, lambda: Ready.now)
    yield server
    server.close()


def get(monitoring: Monitoring, path: str) -> tuple[int, str]:
    """Status and body."""
    url = f"http://127.0.0.1:{monitoring.port}{path}"
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_are_in_prometheus_format(monitoring: Monitoring) -> None:
    """With help and type, as Prometheus scrapes them."""
    status, body = get(monitoring, "/metrics")
    assert status == 200
    assert "# TYPE ntm_streams gauge\nntm_streams 3.0\n" in body


def test_ready_follows_the_server(monitoring: Monitoring) -> None:
    """503 until it serves, 200 then; alive all along."""
    assert get(monitoring, "/healthz") == (200, "ok\n")
    assert get(monitoring, "/readyz") == (503, "not ready\n")
    Ready.now = True
    assert get(monitoring, "/readyz") == (200, "ready\n")


def test_another_path_says_what_there_is(monitoring: Monitoring) -> None:
    """A person who guesses is helped."""
    assert get(monitoring, "/") == (404, "/metrics, /healthz and /readyz are here\n")
