"""What an attacker saw: how often it tried, and how it was refused."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from tests.e2e.calls import reason


@dataclass
class Target:
    """Where the server is, and the limits it was given."""

    host: str
    port: int
    metrics_port: int
    max_message_bytes: int


@dataclass
class Tally:
    """Counts of one attack."""

    attempts: int = 0
    answered: int = 0
    """Attempts that the server did what it was asked for."""
    refused: Counter[str] = field(default_factory=Counter)
    """By the reason of `service.errors`, else by what gRPC, HTTP/2 or TCP said."""

    def to_json(self) -> str:
        """As one line, for the process that started the attack."""
        return json.dumps({**vars(self), "refused": dict(self.refused)})

    @classmethod
    def from_json(cls, text: str) -> Tally:
        """Read it back."""
        fields = json.loads(text)
        return cls(fields["attempts"], fields["answered"], Counter(fields["refused"]))

    def refuse(self, error: Exception) -> None:
        """Count a failed attempt under the name of what made it fail."""
        self.refused[_name(error)] += 1

    async def count(self, call: Awaitable[Any]) -> None:
        """Make an attempt that is one gRPC call."""
        self.attempts += 1
        try:
            await call
            self.answered += 1
        except grpc.aio.AioRpcError as error:
            self.refuse(error)


async def repeat(workers: int, attempt: Callable[[], Awaitable[object]]) -> None:
    """Make attempts at full rate, so many at once, for ever."""

    async def work() -> None:
        while True:
            with suppress(OSError):
                await attempt()
            await asyncio.sleep(0)

    await asyncio.gather(*(work() for _ in range(workers)))


def _name(error: Exception) -> str:
    if not isinstance(error, grpc.aio.AioRpcError):
        return type(error).__name__
    with suppress(AssertionError):  # it has no details: gRPC refused by itself
        return reason(error)
    return f"gRPC {error.code().name}: " + re.sub(r"\d+", "N", (error.details() or "")[:60])
