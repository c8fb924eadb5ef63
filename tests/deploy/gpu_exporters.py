"""Replayed exporters of GPUs: the server's own collector, and the text of a DCGM exporter."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from service.telemetry.meters import GpuCollector

DCGM = (Path(__file__).parent / "dcgm-exporter.txt").read_bytes()
"""
In the form of dcgm-exporter 4 with its default counters, on a node with two GPUs. One of them is a
pod's, and has had an Xid error; the exporter has no series of errors for the other. The numbers are
made up.
"""


def of_the_server() -> bytes:
    """Return what a server with one GPU serves of it: our collector's, by a fake of the driver."""
    with pytest.MonkeyPatch.context() as patch:
        memory = SimpleNamespace(used=3 << 30, total=80 << 30)
        for name, value in {
            "nvmlInit": None,
            "nvmlDeviceGetCount": 1,
            "nvmlDeviceGetHandleByIndex": None,
            "nvmlDeviceGetMemoryInfo": memory,
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=25),
        }.items():
            patch.setattr(pynvml, name, lambda *_, value=value: value)
        registry = CollectorRegistry()
        GpuCollector(registry)
        return generate_latest(registry)


@contextmanager
def replayed() -> Iterator[str]:
    """Serve both as one target until the end; enter with its address."""
    content = of_the_server() + DCGM

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base names it so
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            serving.join()
