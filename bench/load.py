"""
The load generator, `python -m bench.load`. It reads work and writes results as lines of JSON.

It shares the machine with the server, so it uses little processor time: messages are serialised
once and sent as bytes. It treats the echo exactly like the server: write bytes, read bytes, parse
and check them.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc

from bench import sleepers
from bench.echo import METHOD as ECHO
from bench.echo import UNARY_METHOD as ECHO_ONE
from bench.messages import (
    BITS,
    CREATE,
    DELETE,
    INPUT_WIDTH,
    MODEL,
    STEP,
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

WARM_UP_SECONDS = 0.5
SESSION_STEPS = 10
"""Steps of a session that is opened, stepped and closed."""


async def round_trips(address: str, count: int) -> dict[str, float]:
    """Measure the time of single steps of one session, one step a message."""
    async with connection(address) as channel, some_sessions(channel, 1) as (session,):
        call = channel.stream_stream(STEPS)()
        return await _timed(STEPS, call, message_of([step_of(session)]), count)


async def echo_round_trips(address: str, count: int) -> dict[str, float]:
    """Measure the same with an echo of the same message."""
    async with connection(address) as channel:
        call = channel.stream_stream(ECHO)()
        return await _timed(ECHO, call, message_of([step_of("0" * 32)]), count)


async def short(address: str, count: int) -> dict[str, float]:
    """
    Measure how many sessions a second are opened, stepped ten times and closed, one after another.

    Calls open and close them; the steps go over one stream, one step a message.
    """
    async with connection(address) as channel:
        create, delete = channel.unary_unary(CREATE), channel.unary_unary(DELETE)
        call = channel.stream_stream(STEPS)()
        for number in range(count + count // 4):
            if number == count // 4:
                started = time.perf_counter()
            opened = await create(pb.CreateSessionRequest(model=MODEL).SerializeToString())
            session = pb.CreateSessionResponse.FromString(opened).session.id
            message = message_of([step_of(session)])
            for _ in range(SESSION_STEPS):
                await call.write(message)
                _look_at(STEPS, await call.read())
            await delete(pb.DeleteSessionRequest(session_id=session).SerializeToString())
        seconds = time.perf_counter() - started
        return {"sessions/s": count / seconds, "steps/s": SESSION_STEPS * count / seconds}


async def streams(address: str, sessions: int, seconds: float) -> dict[str, float]:
    """Measure the throughput of sessions with a stream each, one step a message."""
    async with connection(address) as channel, some_sessions(channel, sessions) as opened:
        return await _streamed(channel, STEPS, opened, seconds)


async def echo_streams(address: str, sessions: int, seconds: float) -> dict[str, float]:
    """Measure the same with an echo of the same messages."""
    async with connection(address) as channel:
        return await _streamed(channel, ECHO, ["0" * 32] * sessions, seconds)


async def unary(address: str, sessions: int, seconds: float) -> dict[str, float]:
    """Measure the throughput of sessions that each make one unary call of one step at a time."""
    async with connection(address) as channel, some_sessions(channel, sessions) as opened:
        return await _called(channel, STEP, opened, seconds)


async def echo_unary(address: str, sessions: int, seconds: float) -> dict[str, float]:
    """Measure the same with a unary echo of the same requests."""
    async with connection(address) as channel:
        return await _called(channel, ECHO_ONE, ["0" * 32] * sessions, seconds)


async def multiplexed(
    address: str,
    sessions: int,
    steps: int,
    seconds: float,
    locations: int = 0,
    traces: tuple[str, ...] = (),
    policy: str = "POLICY_UNSPECIFIED",
    token: str = "",
) -> dict[str, float]:
    """
    Measure the throughput of sessions on one stream, in chunks of `steps` steps.

    Every session first gets a chunk, 64 chunks a message. Each reply is then followed by a message
    with the next chunks of the sessions in that reply.
    """
    request = pb.CreateSessionRequest(model=MODEL, locations=locations)
    request.durability.policy = getattr(pb.Durability, policy)
    async with (
        connection(address, token) as channel,
        some_sessions(channel, sessions, request) as opened,
    ):
        chunks = [message_of([step_of(one, steps, tag, traces)]) for tag, one in enumerate(opened)]
        call = channel.stream_stream(STEPS)()
        for first in range(0, sessions, 64):  # messages joined are one message of all operations
            await call.write(b"".join(chunks[first : first + 64]))
        begun = started = time.perf_counter()
        done = 0
        while (now := time.perf_counter()) - begun < WARM_UP_SECONDS + seconds:
            if started == begun and now - begun > WARM_UP_SECONDS:
                started, done = now, 0
            outcomes = outcomes_of(await call.read())
            done += steps * len(outcomes)
            await call.write(b"".join([chunks[outcome.tag] for outcome in outcomes]))
        seconds = time.perf_counter() - started
        call.cancel()
        return {"steps/s": done / seconds, "steps": done}


async def among_wakings(
    address: str, rate: float, other: str, **arguments: Any
) -> dict[str, float]:
    """
    Run some work while `rate` idle sessions a second make a step, and return the work's results.
    """
    waking = asyncio.create_task(sleepers.wakings(address, sys.maxsize, at_once=4, rate=rate))
    try:
        return await WORK[other](address=address, **arguments)
    finally:
        if waking.done():
            waking.result()  # it failed
        waking.cancel()


async def once_a_second(
    address: str, sessions: int, seconds: float, others: int, chunk: int
) -> dict[str, float]:
    """
    Measure the step time of sessions that each step once a second, at different moments.

    Meanwhile, `others` sessions stream chunks as fast as possible on one stream.
    """
    async with connection(address) as channel, some_sessions(channel, sessions) as opened:
        busy = []
        if others:
            busy = [asyncio.create_task(multiplexed(address, others, chunk, seconds + 2))]
            await asyncio.sleep(1)
        times: list[float] = []

        async def steps(session: str, start: float) -> None:
            call, message = channel.stream_stream(STEPS)(), message_of([step_of(session)])
            for number in range(int(seconds)):
                await asyncio.sleep(start + number - time.perf_counter())
                sent = time.perf_counter()
                await call.write(message)
                outcomes_of(await call.read())
                times.append(time.perf_counter() - sent)

        start = time.perf_counter() + 0.1
        starts = (start + index / sessions for index in range(sessions))
        await asyncio.gather(*map(steps, opened, starts))
        await asyncio.gather(*busy)
        return quantiles(times)


async def lone(
    address: str, seconds: float, others: int, chunk: int, token: str, others_token: str
) -> dict[str, float]:
    """
    Measure the step time of one session that pauses for 20 ms after each step.

    Meanwhile, `others` sessions of another principal stream chunks as fast as possible.
    """
    async with connection(address, token) as channel, some_sessions(channel, 1) as (session,):
        busy = []
        if others:
            streaming = multiplexed(address, others, chunk, seconds + 2, token=others_token)
            busy = [asyncio.create_task(streaming)]
            await asyncio.sleep(2)
        call, message = channel.stream_stream(STEPS)(), message_of([step_of(session)])
        times: list[float] = []
        end = time.perf_counter() + seconds
        while (sent := time.perf_counter()) < end:
            await call.write(message)
            outcomes_of(await call.read())
            times.append(time.perf_counter() - sent)
            await asyncio.sleep(0.02)
        await asyncio.gather(*busy)
        return quantiles(times)


async def open_loop(address: str, sessions: int, rate: float, seconds: float) -> dict[str, float]:
    """
    Measure the step time at a rate of steps that does not depend on the server.

    A step's time starts when the step is due, not when it is sent. So a stall of the server counts
    for every step that was due during it (no coordinated omission). Sessions have a stream each and
    step at random moments.
    """
    async with connection(address) as channel:
        opened = await open_sessions(channel, sessions)
        times: list[float] = []
        generator = random.Random(0)  # noqa: S311 - no secret

        async def one(session: str) -> None:
            call, message = channel.stream_stream(STEPS)(), message_of([step_of(session)])
            due: list[float] = []
            answered = asyncio.create_task(receive(call, due))
            moment = time.perf_counter()
            end = moment + seconds
            while (moment := moment + generator.expovariate(rate / sessions)) < end:
                await asyncio.sleep(max(0.0, moment - time.perf_counter()))
                due.append(moment)
                await call.write(message)
            await call.done_writing()
            await answered

        async def receive(call: Any, due: list[float]) -> None:
            number = 0
            while (reply := await call.read()) is not grpc.aio.EOF:
                for _ in outcomes_of(reply):
                    times.append(time.perf_counter() - due[number])
                    number += 1

        await asyncio.gather(*map(one, opened))
        return {**quantiles(times), "steps/s": len(times) / seconds}


async def _streamed(
    channel: Any, method: str, sessions: list[str], seconds: float
) -> dict[str, float]:
    def stepping(session: str) -> Callable[[], Awaitable[None]]:
        call, message = channel.stream_stream(method)(), message_of([step_of(session)])

        async def step() -> None:
            await call.write(message)
            _look_at(method, await call.read())

        return step

    return await _counted(map(stepping, sessions), seconds)


async def _called(
    channel: Any, method: str, sessions: list[str], seconds: float
) -> dict[str, float]:
    call = channel.unary_unary(method)

    def stepping(session: str) -> Callable[[], Awaitable[None]]:
        request = pb.StepRequest(chunk=step_of(session).step).SerializeToString()

        async def step() -> None:
            answer = await call(request)
            if method == STEP:
                assert len(pb.StepResponse.FromString(answer).reply.outputs) == 4 * BITS
            else:
                assert len(pb.StepRequest.FromString(answer).chunk.inputs) == 4 * INPUT_WIDTH

        return step

    return await _counted(map(stepping, sessions), seconds)


async def _counted(
    steps: Iterable[Callable[[], Awaitable[None]]], seconds: float
) -> dict[str, float]:
    """Repeat all steps beside each other, and count them after a warm-up."""
    end = time.perf_counter() + WARM_UP_SECONDS + seconds
    done = 0

    async def repeat(step: Callable[[], Awaitable[None]]) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await step()
            done += 1

    tasks = [asyncio.create_task(repeat(step)) for step in steps]
    await asyncio.sleep(WARM_UP_SECONDS)
    warm, started = done, time.perf_counter()
    await asyncio.gather(*tasks)
    made = done - warm
    return {"steps/s": made / (time.perf_counter() - started), "steps": made}


async def _timed(method: str, call: Any, message: bytes, count: int) -> dict[str, float]:
    times = []
    for _ in range(count + count // 4):
        started = time.perf_counter()
        await call.write(message)
        reply = await call.read()
        times.append(time.perf_counter() - started)
        _look_at(method, reply)
    counted = times[count // 4 :]
    return {**quantiles(counted), "steps/s": count / sum(counted)}


def _look_at(method: str, message: bytes) -> None:
    """Parse an answer and check it."""
    if method == ECHO:
        assert len(pb.StreamStepsRequest.FromString(message).operations) == 1
    else:
        assert len(outcomes_of(message)) == 1


WORK: dict[str, Callable[..., Awaitable[dict[str, float]]]] = {
    work.__name__: work
    for work in (
        round_trips,
        echo_round_trips,
        short,
        streams,
        echo_streams,
        unary,
        echo_unary,
        multiplexed,
        sleepers.open_idle,
        sleepers.indexed,
        sleepers.open_streams,
        sleepers.wakings,
        among_wakings,
        sleepers.steps_at_random,
        sleepers.all_at_once,
        once_a_second,
        lone,
        open_loop,
    )
}


async def _main() -> None:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        asked = json.loads(line)
        measured = await WORK[asked.pop("work")](**asked)
        print(json.dumps(measured), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
