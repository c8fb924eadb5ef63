"""The monitoring server: /metrics for Prometheus, /healthz and /readyz for whoever starts us."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from service.auth.principal import METRICS
from service.auth.tokens import Tokens
from service.watched_files import Reloaded

_WHO_SCRAPES = b"send a token with the scope metrics, as Authorization: Bearer TOKEN\n"

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


log = logging.getLogger(__name__)

_MOST_CONNECTIONS = 64
"""Each takes a thread and a file; when one more comes, the oldest is closed."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = _MOST_CONNECTIONS

    def __init__(self, *arguments: Any) -> None:
        self._lock = threading.Lock()
        self._connections: dict[Any, None] = {}
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._connections) == _MOST_CONNECTIONS:
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
    timeout = 10  # seconds; a client that sends nothing holds no thread for longer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Log nothing: a scrape every few seconds is no news."""


class Monitoring:
    """Serves HTTP on a thread of its own until closed."""

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        ready: Callable[[], bool],
        tokens: Reloaded[Tokens] | None = None,
    ) -> None:
        """
        Listen.

        Args:
            host: Address to listen on.
            port: 0 for any free one.
            registry: What /metrics tells.
            ready: Whether /readyz answers 200 or 503.
            tokens: Of which /metrics needs one with the scope metrics; None for open metrics.
        """
        self._tokens = tokens
        self._metrics = make_wsgi_app(registry)
        self._ready = ready
        self._server = make_server(host, port, self._answer, _Server, _Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._server.server_port

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics" and not self._may_scrape(environ.get("HTTP_AUTHORIZATION", "")):
            return _text(
                start_response, "401 Unauthorized", _WHO_SCRAPES, ("WWW-Authenticate", "Bearer")
            )
        if path == "/metrics":
            answer: Iterable[bytes] = self._metrics(environ, start_response)
            return answer
        if path == "/healthz":
            return _text(start_response, "200 OK", b"ok\n")
        if path == "/readyz" and self._ready():
            return _text(start_response, "200 OK", b"ready\n")
        if path == "/readyz":
            return _text(start_response, "503 Service Unavailable", b"not ready\n")
        return _text(start_response, "404 Not Found", b"/metrics, /healthz and /readyz are here\n")

    def _may_scrape(self, authorization: str) -> bool:
        if self._tokens is None:
            return True
        scheme, _, token = authorization.partition(" ")
        principal = self._tokens.value().principal(token) if scheme.lower() == "bearer" else None
        return principal is not None and METRICS in principal.scopes


def _text(
    start_response: StartResponse, status: str, body: bytes, *headers: tuple[str, str]
) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), *headers])
    return [body]
