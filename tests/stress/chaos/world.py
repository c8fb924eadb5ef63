"""What all walks of a run share: the tally, the ways to the replicas, the clock, chance."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import numpy as np

from ntm_client import AsyncClient, Client, Durability, Resume
from ntm_client.aio import Stream
from ntm_client.blocking import Session
from ntm_client.values import SessionInfo, StepResult
from tests.stress.chaos.balancer import Balancer, Way
from tests.stress.chaos.expected import Expected, Reference
from tests.stress.chaos.tally import Tally, WatchedRetries

RESUME = Resume(seconds=90.0, first_backoff_seconds=0.05, largest_backoff_seconds=1.0)
TIMEOUT_SECONDS = 4.0


class Walked(Protocol):
    """A session as walks use it."""

    id: str
    next_step: int
    durable_step: int
    resumptions: int
    replayed_steps: int
    durability: Durability

    async def step(self, inputs: Any) -> StepResult:
        """Make steps."""

    async def reset(self) -> None:
        """Go back to the start."""

    async def checkpoint(self) -> bytes:
        """The state as it is."""

    async def restore(self, checkpoint: bytes) -> None:
        """Go back to a state."""

    async def fork(self) -> Walked:
        """Open another session that goes on from here."""

    async def describe(self) -> SessionInfo:
        """Learn its next step anew."""

    async def delete(self) -> None:
        """Close it."""


class Opener(Protocol):
    """What opens and finds sessions: a client, one that blocks, or a stream."""

    async def open(
        self, model: str, idle_timeout: timedelta | None, durability: Durability
    ) -> Walked:
        """A new session."""

    async def find(self, session_id: str) -> Walked:
        """A session by its id."""


@dataclass
class Kept:
    """A session that is open, and what its clients were told of it."""

    expected: Expected
    id: str
    durability: Durability
    known_steps: int
    durable_step: int


class World:
    """Made once for a run."""

    def __init__(
        self, seed: int, reference: Reference, balancer: Balancer, end_seconds: float
    ) -> None:
        """Until that time, by the monotonic clock, walks begin anew."""
        self.seed = seed
        self.reference = reference
        self.tally = Tally()
        self.ways: list[Way] = []
        self.kept: list[Kept] = []
        self._balancer = balancer
        self._end_seconds = end_seconds
        self._numbers = itertools.count()

    @property
    def is_over(self) -> bool:
        """Whether the walks are to come to an end."""
        return time.monotonic() >= self._end_seconds

    def next(self) -> Expected:
        """The session that is opened next."""
        self.tally.sessions += 1
        return self.reference.expected(next(self._numbers))

    async def way(self) -> Way:
        """A way to the replicas for one more client."""
        way = Way(self._balancer)
        await way.open()
        self.ways.append(way)
        return way

    def chance(self, purpose: str) -> random.Random:
        """Chance that one purpose has for itself."""
        return random.Random(f"{self.seed} {purpose}")  # noqa: S311 - no secret

    def asynchronous(self, target: str) -> AsyncClient:
        """An asynchronous client."""
        client = AsyncClient(target, timeout_seconds=TIMEOUT_SECONDS, resume=RESUME)
        client.retries = WatchedRetries(RESUME, self.tally)
        return client

    def blocking(self, target: str) -> Client:
        """A client that blocks."""
        client = Client(target, timeout_seconds=TIMEOUT_SECONDS, resume=RESUME)
        client.retries = WatchedRetries(RESUME, self.tally)
        return client


@dataclass
class Unary:
    """Opens through the calls of an asynchronous client."""

    client: AsyncClient

    async def open(
        self, model: str, idle_timeout: timedelta | None, durability: Durability
    ) -> Walked:
        """See `Opener`."""
        return await self.client.create_session(
            model, idle_timeout=idle_timeout, durability=durability
        )

    async def find(self, session_id: str) -> Walked:
        """See `Opener`."""
        return await self.client.session(session_id)


@dataclass
class OnStream:
    """Opens on a stream."""

    stream: Stream

    async def open(
        self, model: str, idle_timeout: timedelta | None, durability: Durability
    ) -> Walked:
        """See `Opener`."""
        return await self.stream.open(model, idle_timeout=idle_timeout, durability=durability)

    async def find(self, session_id: str) -> Walked:
        """See `Opener`."""
        return await self.stream.session(session_id)


@dataclass
class Threaded:
    """Opens through a client that blocks, whose calls are made on threads."""

    client: Client

    async def open(
        self, model: str, idle_timeout: timedelta | None, durability: Durability
    ) -> Walked:
        """See `Opener`."""
        return _ThreadedSession(
            await asyncio.to_thread(
                self.client.create_session, model, None, idle_timeout, None, durability
            )
        )

    async def find(self, session_id: str) -> Walked:
        """See `Opener`."""
        return _ThreadedSession(await asyncio.to_thread(self.client.session, session_id))


class _ThreadedSession:
    def __init__(self, session: Session) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def step(self, inputs: Any) -> StepResult:
        return await asyncio.to_thread(self._session.step, inputs)

    async def reset(self) -> None:
        await asyncio.to_thread(self._session.reset)

    async def checkpoint(self) -> bytes:
        return await asyncio.to_thread(self._session.checkpoint)

    async def restore(self, checkpoint: bytes) -> None:
        await asyncio.to_thread(self._session.restore, checkpoint)

    async def fork(self) -> Walked:
        return _ThreadedSession(await asyncio.to_thread(self._session.fork))

    async def describe(self) -> SessionInfo:
        return await asyncio.to_thread(self._session.describe)

    async def delete(self) -> None:
        await asyncio.to_thread(self._session.delete)


def quantile(values: Sequence[float], share: float) -> float:
    """The quantile; not a number where there are no values."""
    return float(np.quantile(values, share)) if values else float("nan")
