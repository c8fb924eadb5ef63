"""The monitoring server, over real HTTP."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.auth.principal import METRICS, READ
from service.auth.tokens import watched
from service.telemetry.metrics import Metrics
from service.telemetry.monitoring import Monitoring
from tests.support.tokens import token_line


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


def get(monitoring: Monitoring, path: str, authorization: str = "") -> tuple[int, str]:
    """Status and body."""
    url = f"http://127.0.0.1:{monitoring.port}{path}"
    headers = {"Authorization": authorization} if authorization else {}
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - likewise
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_connections_that_say_nothing_give_way_to_others(monitoring: Monitoring) -> None:
    """Of a hundred, the oldest are closed, and whoever asks is answered."""
    with ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", monitoring.port)))
            for _ in range(100)
        ]
        assert get(monitoring, "/healthz") == (200, "ok\n")
        for connection in silent[:36]:
            connection.settimeout(10)
            assert connection.recv(1) == b""
        silent[-1].sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert silent[-1].recv(12) == b"HTTP/1.0 200"


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


def test_metrics_need_a_token_where_there_is_a_file_of_them(tmp_path: Path) -> None:
    """One with the scope metrics; whether the server is there stays open to all."""
    file = tmp_path / "tokens.jsonl"
    file.write_text(token_line("scraper", "s3cret", METRICS) + token_line("alice", "other", READ))
    registry = CollectorRegistry()
    Metrics(registry)
    tokens = watched("metrics_token_file", file)
    server = Monitoring("127.0.0.1", 0, registry, lambda: True, tokens)
    try:
        refused = (401, "send a token with the scope metrics, as Authorization: Bearer TOKEN\n")
        for wrong in ("", "Bearer", "Bearer x", "Bearer other", "Basic s3cret", "s3cret"):
            assert get(server, "/metrics", wrong) == refused
        assert get(server, "/metrics", "Bearer s3cret")[0] == 200
        assert get(server, "/healthz") == (200, "ok\n")
        assert get(server, "/readyz") == (200, "ready\n")
        file.write_text(token_line("scraper", "renewed", METRICS))
        assert get(server, "/metrics", "Bearer s3cret") == refused
        assert get(server, "/metrics", "Bearer renewed")[0] == 200
    finally:
        server.close()
