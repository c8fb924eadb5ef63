"""Attacks on the monitoring port: scrapes at full rate, and requests that never end."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from tests.stress.flood.connections import connected, until_closed
from tests.stress.flood.tally import Tally, Target, repeat

_REQUEST = b"GET /metrics HTTP/1.0\r\n\r\n"


async def scrapes(target: Target, tally: Tally) -> None:
    """Scrape as fast as there are answers."""

    async def attempt() -> None:
        reader, writer = await connected(target, tally, target.metrics_port)
        writer.write(_REQUEST)
        with suppress(OSError):
            answer = await reader.read()
            tally.answered += answer.startswith(b"HTTP/1.0 200")
            if not answer:
                tally.refused["connection closed"] += 1
        writer.close()

    await repeat(20, attempt)


async def slow_scrapes(target: Target, tally: Tally) -> None:
    """Send a request a byte at a time, and never end it."""

    async def attempt() -> None:
        reader, writer = await connected(target, tally, target.metrics_port)
        closed = asyncio.create_task(until_closed(reader, tally))
        while not closed.done():
            writer.write(b"X")
            await asyncio.wait([closed], timeout=1)
        writer.close()

    await repeat(300, attempt)
