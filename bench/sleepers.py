"""Load for `bench.load`: sessions that are idle for long, so that they sleep and wake."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import time
from collections import deque
from typing import Any

import numpy as np

from bench.messages import (
    MODEL,
    STEPS,
    connection,
    message_of,
    open_sessions,
    outcomes_of,
    some_sessions,
    step_of,
)
from bench.quantiles import quantiles
from ntm.v1 import ntm_pb2 as pb

live: list[Any] = []
"""Channels and calls that stay open until this process ends."""

asleep: deque[str] = deque()
"""The less recently used half of the sessions that `open_idle` opened last, next to wake first."""

_GENERATOR = np.random.default_rng(0)


async def open_idle(address: str, sessions: int, locations: int = 0) -> dict[str, float]:
    """Open sessions, step each once and leave them open. Return rates and a state's bytes."""
    channel = connection(address)
    live.append(channel)
    request = pb.CreateSessionRequest(model=MODEL, locations=locations)
    begun = time.perf_counter()
    opened = await open_sessions(channel, sessions, request)
    stepping = time.perf_counter()
    call = channel.stream_stream(STEPS)()
    live.append(call)
    for first in range(0, sessions, 64):
        some = opened[first : first + 64]
        await call.write(message_of([step_of(session) for session in some]))
        answered = 0
        while answered < len(some):
            answered += len(outcomes_of(await call.read()))
    stepped = time.perf_counter()
    get = channel.unary_unary(
        "/ntm.v1.NtmService/GetSession", pb.GetSessionRequest.SerializeToString,
        pb.GetSessionResponse.FromString,
    )  # fmt: skip
    described = await get(pb.GetSessionRequest(session_id=opened[0]))
    asleep.clear()
    unused = opened[: len(opened) // 2]  # the least recently used
    asleep.extend(random.Random(0).sample(unused, len(unused)))  # noqa: S311 - no secret
    return {
        "state bytes": described.session.state_bytes,
        "opened/s": sessions / (stepping - begun),
        "first steps/s": sessions / (stepped - stepping),
    }


async def indexed(address: str, locations: int, steps: int, chunk: int) -> dict[str, float]:
    """
    Make steps of one session in chunks with an index, as the client library sends them.

    The session is synchronous. The server keeps its last outputs for a client that asks again.
    """
    request = pb.CreateSessionRequest(model=MODEL, locations=locations)
    request.durability.policy = pb.Durability.POLICY_SYNCHRONOUS
    async with connection(address) as channel, some_sessions(channel, 1, request) as (session,):
        call = channel.stream_stream(STEPS)()
        for first in range(0, steps, chunk):
            operation = step_of(session, min(chunk, steps - first))
            operation.step.first_step = first
            await call.write(message_of([operation]))
            outcomes_of(await call.read())
        return {"chunks": math.ceil(steps / chunk)}


async def open_streams(address: str, count: int) -> dict[str, float]:
    """Open streams, make one step of a session on each, and leave them open and silent."""
    channel = connection(address)
    live.append(channel)
    for session in await open_sessions(channel, count):
        call = channel.stream_stream(STEPS)()
        live.append(call)
        await call.write(message_of([step_of(session)]))
        outcomes_of(await call.read())
    return {"streams": count}


async def wakings(
    address: str, count: int, at_once: int = 1, rate: float = math.inf
) -> dict[str, float]:
    """
    Measure the time of a step of an idle session: each time the session that woke longest ago.

    At most `at_once` steps wait at a time, and at most `rate` begin in a second.
    """
    async with connection(address) as channel:
        seconds: list[float] = []
        begun = time.perf_counter()
        due = itertools.count()

        async def one_by_one() -> None:
            call = channel.stream_stream(STEPS)()
            while (number := next(due)) < count:
                await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
                session = asleep.popleft()
                asleep.append(session)
                started = time.perf_counter()
                await call.write(message_of([step_of(session)]))
                outcomes_of(await call.read())
                seconds.append(time.perf_counter() - started)

        await asyncio.gather(*(one_by_one() for _ in range(at_once)))
        return {**quantiles(seconds), "wakes/s": count / (time.perf_counter() - begun)}


async def steps_at_random(
    address: str, rate: float, count: int, exponent: float
) -> dict[str, float]:
    """
    Measure the time of steps of idle sessions, `rate` a second at random moments.

    The k-th session steps as often as 1 / k^exponent. The first half of the steps is a warm-up. A
    step's time starts when the step is due.
    """
    sessions = list(asleep)
    weights = np.arange(1, len(sessions) + 1) ** -exponent
    asked = _GENERATOR.choice(len(sessions), count, p=weights / weights.sum()).tolist()
    moments = np.cumsum(_GENERATOR.exponential(1 / rate, count))
    async with connection(address) as channel:
        call = channel.stream_stream(STEPS)()
        begun = time.perf_counter()

        async def send() -> None:
            for number, session in enumerate(asked):
                await asyncio.sleep(max(0.0, begun + moments[number] - time.perf_counter()))
                await call.write(message_of([step_of(sessions[session], tag=number)]))

        sending = asyncio.create_task(send())
        seconds = np.zeros(count)
        left = count
        while left:
            for outcome in outcomes_of(await call.read()):
                seconds[outcome.tag] = time.perf_counter() - begun - moments[outcome.tag]
                left -= 1
        await sending
        return quantiles(list(seconds[count // 2 :]))


async def all_at_once(address: str, count: int) -> dict[str, float]:
    """Ask `count` idle sessions for a step, all at once, and measure when each has made it."""
    async with connection(address) as channel:
        call = channel.stream_stream(STEPS)()
        begun = time.perf_counter()
        await call.write(message_of([step_of(asleep.popleft()) for _ in range(count)]))
        seconds: list[float] = []
        while len(seconds) < count:
            done = outcomes_of(await call.read())
            seconds += [time.perf_counter() - begun] * len(done)
        return {**quantiles(seconds), "last, us": 1e6 * seconds[-1]}
