"""The gRPC arguments of the port, which limit connections."""

from __future__ import annotations

from typing import Any

from service.settings import Settings

HANDSHAKE_SECONDS = 10.0
"""How long the handshake of a new connection may take; gRPC's own default is two minutes."""

METADATA_BYTES = 16_384
"""The largest size of a call's metadata, with room for a large signed token."""

CALLS_OF_A_CONNECTION = 1_024
"""The largest number of calls at once on one connection. In gRPC's clients the next call waits."""

PING_SECONDS = 5.0
"""
Least time between two pings of a client; a client that pings faster is disconnected.

A balancer may ping every ten seconds, to find a server that hangs.
"""

KEEPALIVE_SECONDS = 60.0
"""The time between the server's pings to a client. Without an answer, the client's calls end."""

ANSWER_SECONDS = 20.0
"""How long the client has to answer a ping."""

IDLE_SECONDS = 900.0
"""How long a connection without a call is kept."""


def arguments(settings: Settings) -> list[tuple[str, Any]]:
    """The channel arguments of a server with these settings."""
    found: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        # Two servers could else share a port, and each would get half of a client's calls.
        ("grpc.so_reuseport", 0),
        ("grpc.server_handshake_timeout_ms", _milliseconds(HANDSHAKE_SECONDS)),
        # gRPC refuses at random what lies between the two, so they are equal.
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
        ("grpc.max_concurrent_streams", CALLS_OF_A_CONNECTION),
        # A connection for each call and, between calls, one for each session.
        (
            "grpc.max_allowed_incoming_connections",
            min(settings.max_calls + settings.max_sessions, 2**31 - 1),  # what gRPC's options hold
        ),
        ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(PING_SECONDS)),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.keepalive_time_ms", _milliseconds(KEEPALIVE_SECONDS)),
        ("grpc.keepalive_timeout_ms", _milliseconds(ANSWER_SECONDS)),
        ("grpc.max_connection_idle_ms", _milliseconds(IDLE_SECONDS)),
    ]
    if settings.max_connection_age_seconds:
        found += [
            ("grpc.max_connection_age_ms", _milliseconds(settings.max_connection_age_seconds)),
            ("grpc.max_connection_age_grace_ms", _milliseconds(settings.drain_seconds)),
        ]
    return found


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)
