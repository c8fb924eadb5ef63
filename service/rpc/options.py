"""What a connection may do: the gRPC arguments of the port."""

from __future__ import annotations

from typing import Any

from service.settings import Settings

HANDSHAKE_SECONDS = 10.0
"""How long a new connection may take to say what it wants; gRPC's own default is two minutes."""

METADATA_BYTES = 16_384
"""Most metadata of a call; room for a large signed token."""

CALLS_OF_A_CONNECTION = 1_024
"""Calls under way at once on one connection; gRPC's clients let the next one wait."""

PING_SECONDS = 5.0
"""
What lies between two pings of a client, at least; who pings faster is disconnected.

A balancer may ask every ten, so that it soon leaves a server that hangs.
"""

KEEPALIVE_SECONDS = 60.0
"""How often a connection is asked whether its client is still there; if not, its calls end."""

ANSWER_SECONDS = 20.0
"""How long the client has to answer that."""

IDLE_SECONDS = 900.0
"""How long a connection without a call is kept."""


def arguments(settings: Settings) -> list[tuple[str, Any]]:
    """The channel arguments of a server with these settings."""
    found: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        # Two servers on one port would each see half of a client's calls.
        ("grpc.so_reuseport", 0),
        ("grpc.server_handshake_timeout_ms", _milliseconds(HANDSHAKE_SECONDS)),
        # Between the two, gRPC would refuse at random.
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
        ("grpc.max_concurrent_streams", CALLS_OF_A_CONNECTION),
        # One for each call and, between calls, one for each session.
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
