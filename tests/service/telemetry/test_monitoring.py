"""The monitoring server, over real HTTP."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from prometheus_client import CollectorRegistry

from service.telemetry.metrics import Metrics
from service.telemetry.monitoring import Monitoring

DESCRIBED = {"": {"name": "the server"}, "copy": {"name": "copy"}}
"""What the server tells of itself and of its models."""


class Ready:
    """Whether the server is ready, which a test sets."""

    now = False


@pytest.fixture
def monitoring() -> Iterator[Monitoring]:
    """A monitoring server on a free port."""
    registry = CollectorRegistry()
    Metrics(registry).streams.set(3)
    Ready.now = False
    server = Monitoring(
        "127.0.0.1",
        0,
        registry,
        is_ready=lambda: Ready.now,
        may_scrape=lambda _: True,
        described=DESCRIBED.get,
    )
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
    """Of a hundred silent connections the oldest are closed, and requests are answered."""
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
    """Each has its help and its type."""
    status, body = get(monitoring, "/metrics")
    assert status == 200
    assert "# TYPE ntm_streams gauge\nntm_streams 3.0\n" in body


def test_ready_follows_the_server(monitoring: Monitoring) -> None:
    """/readyz answers 503 until the server serves, then 200; /healthz answers 200 all the time."""
    assert get(monitoring, "/healthz") == (200, "ok\n")
    assert get(monitoring, "/readyz") == (503, "not ready\n")
    Ready.now = True
    assert get(monitoring, "/readyz") == (200, "ready\n")


def test_another_path_lists_the_paths(monitoring: Monitoring) -> None:
    """The answer is 404."""
    assert get(monitoring, "/") == (404, "/metrics, /healthz, /readyz and /v2 are here\n")


def test_metrics_are_refused_to_those_who_may_not_scrape() -> None:
    """The answer is 401 and says what to send; /healthz and /readyz stay open."""
    server = Monitoring(
        "127.0.0.1",
        0,
        CollectorRegistry(),
        is_ready=lambda: True,
        may_scrape=lambda authorization: authorization == "Bearer s3cret",
        described=DESCRIBED.get,
    )
    try:
        refused = (401, "send a token with the scope metrics, as Authorization: Bearer TOKEN\n")
        assert get(server, "/metrics") == refused
        assert get(server, "/metrics", "Bearer other") == refused
        assert get(server, "/metrics", "Bearer s3cret")[0] == 200
        assert get(server, "/v2/models/copy") == refused
        assert get(server, "/v2/models/copy", "Bearer s3cret") == (200, '{"name": "copy"}\n')
        assert get(server, "/v2/health/live") == (200, "ok\n")
        assert get(server, "/healthz") == (200, "ok\n")
        assert get(server, "/readyz") == (200, "ready\n")
    finally:
        server.close()


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_the_monitoring_port_may_have_an_ipv6_address(host: str) -> None:
    """With brackets, as --host has it, or without."""
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    server = Monitoring(
        host,
        0,
        CollectorRegistry(),
        is_ready=lambda: True,
        may_scrape=lambda _: True,
        described=DESCRIBED.get,
    )
    try:
        with urllib.request.urlopen(f"http://[::1]:{server.port}/healthz", timeout=10) as response:
            assert response.read() == b"ok\n"
    finally:
        server.close()


def test_the_paths_of_the_open_inference_protocol_are_there_to_read(
    monitoring: Monitoring,
) -> None:
    """Live is always 200, ready only when the server is; metadata is JSON."""
    assert get(monitoring, "/v2/health/live") == (200, "ok\n")
    assert get(monitoring, "/v2/health/ready") == (503, "not ready\n")
    Ready.now = True
    assert get(monitoring, "/v2/health/ready") == (200, "ready\n")
    assert get(monitoring, "/v2") == (200, '{"name": "the server"}\n')
    for path in ("/v2/models/copy", "/v2/models/copy/ready"):
        assert get(monitoring, path) == (200, '{"name": "copy"}\n')
    for path in ("/v2/models/none", "/v2/models/", "/v2/models/copy/infer", "/v2/x", "/v2x"):
        assert get(monitoring, path)[0] == 404
