"""Ports for servers that cannot take any free one by themselves, or have to keep it."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

_PORTS = (12_000, 22_000)
"""
Below those from which systems take the ports of outgoing connections, and so is what Valkey adds
for its cluster, 10,000.
"""


def free_port() -> int:
    """A port that no outgoing connection takes, before its server is up or while it is down."""
    while True:
        port = random.randint(*_PORTS)  # noqa: S311 - no secret
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
