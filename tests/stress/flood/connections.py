"""Attacks below HTTP/2: connections that come and go, say nothing, or say nonsense."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

from tests.stress.flood.tally import Tally, Target, repeat

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""How every HTTP/2 client begins (RFC 9113, 3.4)."""

_MANY = 300


async def connected(
    target: Target, tally: Tally, port: int = 0
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection, to the gRPC port if no other is given; count it."""
    tally.attempts += 1
    try:
        async with asyncio.timeout(10):
            connection = await asyncio.open_connection(target.host, port or target.port)
    except (OSError, TimeoutError) as error:
        tally.refuse(error)
        await asyncio.sleep(0.05)
        raise OSError("not connected") from error
    return connection


async def until_closed(reader: asyncio.StreamReader, tally: Tally) -> None:
    """Wait until the server closes a connection, and count that as a refusal."""
    with suppress(OSError):
        while await reader.read(65_536):
            pass
    tally.refused["connection closed"] += 1


async def come_and_go(target: Target, tally: Tally) -> None:
    """Open connections and drop them at once."""

    async def attempt() -> None:
        _, writer = await connected(target, tally)
        writer.transport.abort()
        tally.answered += 1

    await repeat(_MANY, attempt)


async def half_open(target: Target, tally: Tally) -> None:
    """Hold connections that send nothing."""

    async def attempt() -> None:
        reader, writer = await connected(target, tally)
        await until_closed(reader, tally)
        writer.close()

    await repeat(_MANY, attempt)


async def garbage(target: Target, tally: Tally) -> None:
    """Send random bytes, after the preface or without it."""
    choices = random.Random(tally.attempts)  # noqa: S311 - no secrets

    async def attempt() -> None:
        reader, writer = await connected(target, tally)
        writer.write(PREFACE * choices.randrange(2) + choices.randbytes(4096))
        await until_closed(reader, tally)
        writer.close()

    await repeat(50, attempt)


async def slow_preface(target: Target, tally: Tally) -> None:
    """Send the preface a byte at a time, and never end it."""

    async def attempt() -> None:
        reader, writer = await connected(target, tally)
        closed = asyncio.create_task(until_closed(reader, tally))
        for byte in PREFACE:
            if closed.done():
                break
            writer.write(bytes([byte]))
            await asyncio.wait([closed], timeout=1)
        await closed
        writer.close()

    await repeat(_MANY, attempt)
