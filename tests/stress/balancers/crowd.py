"""Clients of a long run: each steps a session at a pace, and knows what it was answered."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import numpy as np

from ntm_client import AsyncClient, AsyncSession, Durability, Resume, Stream
from ntm_client.errors import NtmClientError
from service.spec import Float32
from tests.stress.balancers.replicas import MODEL

CHUNK_STEPS = 4
STREAM_CHUNKS = 4
"""Chunks before a stream is ended and the session goes on with another, wherever that is led."""

POLICIES = (Durability("synchronous"), Durability("asynchronous"))
"""Of sessions, by turns."""


@dataclass
class Resumed:
    """What the clients of killed replicas have seen, in seconds."""

    after: list[float] = field(default_factory=list)
    """From each kill to the first new reply of each session that the replica had."""
    waits: list[float] = field(default_factory=list)
    """How much of that a client waited for an answer, rather than for its turn to ask."""


class Member:
    """
    A client with a connection, a stream and a session of its own.

    `killed_at`, by `time.perf_counter`, is to be set when the replica that has the session is
    killed; it is cleared by the first new reply.
    """

    def __init__(self, address: str, seed: int, number: int, resumed: Resumed) -> None:
        """Nothing is connected yet."""
        self._client = AsyncClient(
            address,
            # Channels with the same arguments would share one connection.
            resume=Resume(largest_backoff_seconds=5 + number / 1000),
        )
        # What the balancer goes by: the same seed leads to the same replicas.
        self._stream: Stream = self._client.stream(f"{seed}-{number}")
        self._chance = np.random.default_rng([seed, number])
        self._durability = POLICIES[number % len(POLICIES)]
        self._resumed = resumed
        self.session: AsyncSession
        self.inputs: list[Float32] = []
        self.outputs: list[Float32] = []
        self.stream = 0
        """How many streams it has begun."""
        self.answered_on = 0
        """On which of them it was last answered."""
        self.killed_at: float | None = None
        self.loss = ""
        """Why it could not go on, if so."""

    async def open(self) -> None:
        """Open the session, where the balancer leads it."""
        async with self._stream:
            self.session = await self._stream.open(MODEL, durability=self._durability)

    async def go(self, pace_seconds: float, over: asyncio.Event) -> None:
        """Send a chunk at that pace until it is over; then see whether the session is complete."""
        try:
            # All of them at once would wait for each other.
            await asyncio.sleep(self._chance.uniform(0.0, pace_seconds))
            while not over.is_set():
                async with self._stream:
                    self.stream += 1
                    for _ in range(STREAM_CHUNKS):
                        turn = asyncio.create_task(asyncio.sleep(pace_seconds))
                        await self._step()
                        await turn
            async with self._stream:
                step = (await self.session.describe()).next_step
                if step != CHUNK_STEPS * len(self.outputs):
                    self.loss = f"is at step {step} after {len(self.outputs)} chunks"
                await self.session.delete()
        except NtmClientError as error:
            self.loss = f"{type(error).__name__}: {error}"
        finally:
            self.killed_at = None

    async def close(self) -> None:
        """End the connection."""
        await self._client.close()

    async def _step(self) -> None:
        width = self.session.model.input_width
        self.inputs.append(self._chance.random((CHUNK_STEPS, width), np.float32))
        before = self.session.resumptions
        sent = time.perf_counter()
        result = await self.session.step(self.inputs[-1])
        self.outputs.append(result.array)
        self.answered_on = self.stream
        answered = time.perf_counter()
        killed = self.killed_at
        # An answer that was on its way at the kill is none of another replica.
        if killed is not None and (sent > killed or self.session.resumptions > before):
            self._resumed.after.append(answered - killed)
            self._resumed.waits.append(answered - max(sent, killed))
            self.killed_at = None
