"""Put servers under a varied load, to fill dashboards: `python -m deploy.generate.load`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import random
import time
from collections.abc import Sequence
from datetime import timedelta

import numpy as np

from bench.arguments import number
from ntm_client import AsyncClient, NtmClientError
from ntm_client.aio import AsyncSession
from ntm_client.values import Float32, Model

MAX_SECONDS = 86_400.0

WAVE_SECONDS = 90.0
"""The period of the waves in which the load rises and falls."""

IDLE_TIMEOUT = timedelta(seconds=2)
"""The idle timeout of the sessions that no client deletes."""


class Load:
    """Clients of every kind. Each runs until it is cancelled."""

    def __init__(
        self, client: AsyncClient, models: Sequence[Model], others: Sequence[AsyncClient] = ()
    ) -> None:
        """`client` steps the `models`; `others` are clients of servers with the same store."""
        self._client = client
        self._others = others
        self._models = models
        # No cryptographic generator is needed.
        self._random = random.Random(0)  # noqa: S311
        self._start = time.monotonic()

    async def run(self, seconds: float) -> None:
        """Run all clients at once, for `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as clients:
                for model in self._models:
                    clients.create_task(self.talk(model))
                    clients.create_task(self.stream(model, sessions=6))
                clients.create_task(self.forget())
                clients.create_task(self.err())
                clients.create_task(self.crowd())
                clients.create_task(self.repeat())
                for other in self._others:
                    clients.create_task(self.wander(other))

    async def talk(self, model: Model) -> None:
        """Step short sessions by unary calls, one or four steps at a time, and delete them."""
        while True:
            with contextlib.suppress(NtmClientError):
                async with await self._client.create_session(model.name) as session:
                    for _ in range(self._random.randrange(5, 40)):
                        await session.step(self.inputs(model, self._random.choice((1, 1, 1, 4))))
                        await self.think(0.15)
                    if model.default_locations:
                        await session.read_memory()
                    await session.reset()
            await self.think(0.5)

    async def stream(self, model: Model, sessions: int) -> None:
        """Step sessions on one stream, in longer chunks, one of them with traces."""
        while True:
            try:
                async with self._client.stream() as stream, asyncio.TaskGroup() as group:
                    for number in range(sessions):
                        session = await stream.open(model.name)
                        traces = [trace.name for trace in model.traces] if number == 0 else []
                        group.create_task(self._pursue(session, traces))
            except* NtmClientError:
                pass  # refused because there is no room; try again
            await self.think(1.0)

    async def _pursue(self, session: AsyncSession, traces: Sequence[str]) -> None:
        async with session:
            for _ in range(self._random.randrange(40, 120)):
                inputs = self.inputs(session.model, self._random.choice((1, 4, 16)))
                await session.step(inputs, traces)
                await self.think(0.2)

    async def forget(self) -> None:
        """Create sessions that expire, and step them after that."""
        while True:
            for model in self._models:
                with contextlib.suppress(NtmClientError):
                    session = await self._client.create_session(
                        model.name, idle_timeout=IDLE_TIMEOUT
                    )
                    await session.step(self.inputs(model, 8))
                    await asyncio.sleep(1.5 * IDLE_TIMEOUT.total_seconds())
                    await session.step(self.inputs(model, 8))
                await self.think(0.2)

    async def err(self) -> None:
        """Send requests that the server refuses, each for a different reason."""
        model = self._models[0]
        while True:
            with contextlib.suppress(NtmClientError):
                await self._client.create_session("no-such-model")
            with contextlib.suppress(NtmClientError):
                await self._client.create_session(model.name, locations=10**7)
            with contextlib.suppress(NtmClientError):
                await self._client.session("0" * 32)
            with contextlib.suppress(NtmClientError):
                session = await self._client.create_session(model.name)
                await session.delete()
                await session.step(self.inputs(model, 1))
            await self.think(1.5)

    async def crowd(self) -> None:
        """Create up to 100 sessions every few seconds, which exceeds a low limit of the server."""
        while True:
            sessions: list[AsyncSession] = []
            name = self._models[-1].name
            with contextlib.suppress(NtmClientError):
                for _ in range(100):
                    session = await self._client.create_session(name)
                    sessions.append(session)
            await self.think(3.0)
            for session in sessions:
                with contextlib.suppress(NtmClientError):
                    await session.delete()
            await self.think(15.0)

    async def repeat(self) -> None:
        """Send each chunk of a session twice, as after a lost answer."""
        model = self._models[0]
        while True:
            with contextlib.suppress(NtmClientError):
                async with await self._client.create_session(model.name) as session:
                    for _ in range(20):
                        first, inputs = session.next_step, self.inputs(model, 4)
                        await session.step(inputs)
                        session.next_step = first
                        await session.step(inputs)
                        await self.think(0.5)
            await self.think(0.5)

    async def wander(self, other: AsyncClient) -> None:
        """Step sessions on another server, which takes them over, and then on the first again."""
        model = self._models[0]
        while True:
            with contextlib.suppress(NtmClientError):
                here = await self._client.create_session(model.name)
                async with await other.session(here.id) as there:
                    for _ in range(self._random.randrange(5, 20)):
                        await there.step(self.inputs(model, 4))
                        await self.think(0.2)
                    here.next_step = there.next_step
                    await here.step(self.inputs(model, 1))
            await self.think(0.5)

    async def think(self, seconds: float) -> None:
        """Wait for a random time of `seconds` on average, longer and shorter in waves."""
        phase = 2 * math.pi * (time.monotonic() - self._start) / WAVE_SECONDS
        await asyncio.sleep(seconds * (1.2 - math.sin(phase)) * self._random.expovariate(1.0))

    def inputs(self, model: Model, steps: int) -> Float32:
        """Return random bits, [steps, input_width]."""
        bits = [[self._random.randrange(2) for _ in range(model.input_width)] for _ in range(steps)]
        return np.array(bits, np.float32)


async def load(addresses: Sequence[str], seconds: float, names: Sequence[str]) -> None:
    """Put the first server under load for `seconds`, with the models of `names`, or all."""
    async with contextlib.AsyncExitStack() as opened:
        client, *others = [
            # Without retries, refusals and losses show in the dashboards.
            await opened.enter_async_context(AsyncClient(address, resume=None))
            for address in addresses
        ]
        models = [model for model in await client.models() if not names or model.name in names]
        await Load(client, models, others).run(seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m deploy.generate.load", description=__doc__)
    parser.add_argument(
        "addresses",
        nargs="+",
        help="HOST:PORT of servers with one store; the first gets the load, others take sessions",
    )
    parser.add_argument(
        "--seconds",
        type=number(1, MAX_SECONDS),
        default=300.0,
        help="duration of the load (default: %(default)s)",
    )
    parser.add_argument("--models", nargs="*", default=(), help="names of models; default: all")
    arguments = parser.parse_args()
    asyncio.run(load(arguments.addresses, arguments.seconds, arguments.models))
