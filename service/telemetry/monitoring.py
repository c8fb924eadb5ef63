"""
The monitoring port, over HTTP: /metrics for Prometheus, /healthz and /readyz for probes.

Platforms that know the Open Inference Protocol find its paths below /v2, to read alone.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from ntm import addresses
from ntm.addresses import Address

StartResponse = Callable[[str, list[tuple[str, str]]], Any]

log = logging.getLogger(__name__)

_MAX_CONNECTIONS = 64
"""Each takes a thread and a file. One more connection closes the oldest."""

_TIMEOUT_SECONDS = 10
"""After this time without a byte from the client, its connection is closed."""


class _Server(ThreadingMixIn, WSGIServer):
    # prometheus_client has a server too, without a limit of connections or of their time.
    daemon_threads = True
    request_queue_size = _MAX_CONNECTIONS

    # Two servers could else share a port, and Prometheus would get now one, now the other.
    allow_reuse_port = False

    def __init__(self, address: Address) -> None:
        self._lock = threading.Lock()
        self._connections: dict[Any, None] = {}
        self._is_any = address.is_any
        self.address_family, place = address.places()[0]
        super().__init__(place, _Handler)

    def server_bind(self) -> None:
        if self._is_any and self.address_family == socket.AF_INET6:
            # The system's default may be that :: takes IPv6 alone; the gRPC port takes both.
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # Not HTTPServer's, which asks the network's name servers for its own name.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._connections) == _MAX_CONNECTIONS:
                oldest = next(iter(self._connections))
                del self._connections[oldest]
                with suppress(OSError):  # it may have ended meanwhile
                    oldest.shutdown(socket.SHUT_RDWR)
            self._connections[request] = None
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("request failed", extra={"client": client_address}, exc_info=True)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)


class _Handler(WSGIRequestHandler):
    timeout = _TIMEOUT_SECONDS

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Log nothing: Prometheus scrapes every few seconds."""


class Monitoring:
    """Serves HTTP on a thread of its own until closed."""

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        *,
        is_ready: Callable[[], bool],
        may_scrape: Callable[[str], bool],
        described: Callable[[str], object | None],
    ) -> None:
        """
        Listen and start to answer.

        Args:
            host: Address or name to listen on; an IPv6 address may have brackets.
            port: Port to listen on; 0 for any free one.
            registry: The metrics of /metrics.
            is_ready: Says whether /readyz answers 200; else it answers 503.
            may_scrape: Says whether a request with this header Authorization ("" for none) may read
                /metrics and what /v2 tells of models; else the answer is 401.
            described: Returns what /v2 tells of the server, for "", or of the model of this name,
                as what JSON can hold; None if there is none.

        Raises:
            OSError: the port is taken, or the host is not an address of this machine.
        """
        self._metrics = make_wsgi_app(registry)
        self._scraping = threading.Lock()
        """One thread at a time writes the metrics: each one takes processor time from steps."""
        self._is_ready = is_ready
        self._may_scrape = may_scrape
        self._described = described
        address = addresses.listening(host, port)
        try:
            self._server = _Server(address)
        except OSError as error:
            raise OSError(
                f"cannot listen on {address}: {error.strerror}; see --metrics-host and "
                "--metrics-port"
            ) from error
        self.address = address.at(self._server.server_port)
        """What it listens on."""
        self._server.set_app(self._answer)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self.address.port

    def close(self) -> None:
        """Stop listening; connections in progress end with their answer."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        may_scrape = self._may_scrape(environ.get("HTTP_AUTHORIZATION", ""))
        headers = [("Content-Type", "text/plain; charset=utf-8")]
        if path == "/metrics" and may_scrape:
            with self._scraping:
                answer: Iterable[bytes] = self._metrics(environ, start_response)
            return answer
        if path in ("/healthz", "/v2/health/live"):
            status, text = "200 OK", "ok"
        elif path in ("/readyz", "/v2/health/ready"):
            is_ready = self._is_ready()
            status = "200 OK" if is_ready else "503 Service Unavailable"
            text = "ready" if is_ready else "not ready"
        elif path != "/metrics" and not path.startswith("/v2"):
            status, text = "404 Not Found", "/metrics, /healthz, /readyz and /v2 are here"
        elif not may_scrape:
            status = "401 Unauthorized"
            text = "send a token with the scope metrics, as Authorization: Bearer TOKEN"
            headers.append(("WWW-Authenticate", "Bearer"))
        else:
            model, has_prefix = path.removeprefix("/v2/models/"), path.startswith("/v2/models/")
            name, _, rest = model.partition("/")
            is_known = path == "/v2" or (has_prefix and name and rest in ("", "ready"))
            told = self._described(name if has_prefix else "") if is_known else None
            status = "404 Not Found" if told is None else "200 OK"
            text = json.dumps(told or {"error": f"there is no {path} here"})
            headers = [("Content-Type", "application/json")]
        start_response(status, headers)
        return [f"{text}\n".encode()]
