"""What a connection may do: the gRPC arguments of the port."""

from __future__ import annotations

from service.rpc import options
from service.settings import Settings


def test_the_sizes_and_times_are_those_of_the_settings() -> None:
    """In bytes and milliseconds, as gRPC has them."""
    found = dict(options.arguments(Settings(max_message_bytes=2**20, max_calls=7, max_sessions=5)))

    assert found["grpc.max_receive_message_length"] == 2**20
    assert found["grpc.max_send_message_length"] == 2**20
    assert found["grpc.max_allowed_incoming_connections"] == 12
    assert found["grpc.keepalive_time_ms"] == 60_000
    assert found["grpc.server_handshake_timeout_ms"] == 10_000
    assert found["grpc.so_reuseport"] == 0


def test_no_limit_is_larger_than_grpc_can_hold() -> None:
    """A 32-bit number: more would be refused, or wrap around."""
    settings = Settings(max_calls=2**30, max_sessions=2**30)
    found = dict(options.arguments(settings))

    assert found["grpc.max_allowed_incoming_connections"] == 2**31 - 1


def test_connections_have_an_age_only_if_one_is_set() -> None:
    """Calls under way then have as long to end as in a drain."""
    assert "grpc.max_connection_age_ms" not in dict(
        options.arguments(Settings(max_connection_age_seconds=0))
    )
    aged = dict(options.arguments(Settings(max_connection_age_seconds=90, drain_seconds=2.5)))

    assert aged["grpc.max_connection_age_ms"] == 90_000
    assert aged["grpc.max_connection_age_grace_ms"] == 2_500
