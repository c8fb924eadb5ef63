"""The processes that are measured."""

from __future__ import annotations

import socket
from pathlib import Path

from bench import processes
from bench.row import Options

TALKATIVE = '''
"""Says that it serves, logs more than a pipe holds, and then greets whoever connects."""

import json
import socket
import sys

with socket.create_server(("127.0.0.1", 0)) as listener:
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    line = {"message": "serving", "address": address, "monitoring": ""}
    print(json.dumps(line), file=sys.stderr, flush=True)
    for _ in range(1000):
        print("x" * 1000, file=sys.stderr)
    connected, _ = listener.accept()
    with connected:
        connected.sendall(b"hello")
    listener.accept()
'''


def test_a_server_is_not_stopped_by_its_own_log(tmp_path: Path) -> None:
    """A server that logs a megabyte while it is measured answers, and ends with the measurement."""
    (tmp_path / "talkative.py").write_text(TALKATIVE)
    with processes.server(Options(checkout=tmp_path), module="talkative") as served:
        host, _, port = served.address.partition(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            assert connection.recv(5) == b"hello"
