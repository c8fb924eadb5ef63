"""The load generator: closed loops over one stream, on the bare stubs to cost little itself."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import grpc
import grpc.aio
import numpy as np

from bench.echo import METHOD
from service.pb import ntm_pb2 as pb
from service.pb import ntm_pb2_grpc
from service.runtime import Network
from service.slab import Slab


async def round_trip_microseconds(address: str, model: str, width: int, count: int) -> float:
    """Median time of one step of one session, one step a message."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = ntm_pb2_grpc.NtmServiceStub(channel).StreamSteps()
        (session,) = await _open(call, model, 1)
        request = pb.StreamStepsRequest(operations=[_step(session, width, 1)])
        return await _median_microseconds(call, request, count)


async def echo_microseconds(address: str, width: int, count: int) -> float:
    """Median time of an echo of a message as large as a step's."""
    request = pb.StreamStepsRequest(operations=[_step("0" * 32, width, 1)]).SerializeToString()
    async with grpc.aio.insecure_channel(address) as channel:
        return await _median_microseconds(channel.stream_stream(METHOD)(), request, count)


async def steps_a_second(
    address: str, model: str, width: int, sessions: int, steps: int, seconds: float
) -> float:
    """Throughput of sessions on one stream, each sending its next chunk when it gets a reply."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = ntm_pb2_grpc.NtmServiceStub(channel).StreamSteps()
        chunks = [
            _step(one, width, steps, tag)
            for tag, one in enumerate(await _open(call, model, sessions))
        ]
        await call.write(pb.StreamStepsRequest(operations=chunks))
        started, done = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            outcomes = (await call.read()).outcomes
            done += steps * len(outcomes)
            await call.write(
                pb.StreamStepsRequest(operations=[chunks[outcome.tag] for outcome in outcomes])
            )
        return done / (time.perf_counter() - started)


def bare_steps_a_second(network: Network, sessions: int, ticks: int) -> float:
    """Throughput of onnxruntime alone, on the same graph and batch, in this process."""
    slab = Slab(network, network.spec.default_locations)
    slots = [slab.acquire() for _ in range(sessions)]
    bound = slab.bind(sessions, frozenset())
    bound.slots[:] = (slots * len(bound.slots))[: len(bound.slots)]
    bound.inputs[:] = np.random.default_rng(0).integers(0, 2, bound.inputs.shape)
    bound.run()
    started = time.perf_counter()
    for _ in range(ticks):
        bound.run()
    return sessions * ticks / (time.perf_counter() - started)


async def _open(call: Any, model: str, count: int) -> list[str]:
    opening = pb.Operation(open=pb.CreateSessionRequest(model=model))
    await call.write(pb.StreamStepsRequest(operations=[opening] * count))
    sessions: list[str] = []
    while len(sessions) < count:
        sessions += [outcome.opened.id for outcome in (await call.read()).outcomes]
    return sessions


def _step(session: str, width: int, steps: int, tag: int = 0) -> pb.Operation:
    inputs = np.random.default_rng(0).integers(0, 2, (steps, width)).astype("<f4")
    return pb.Operation(tag=tag, step=pb.Chunk(session_id=session, inputs=inputs.tobytes()))


async def _median_microseconds(call: Any, request: object, count: int) -> float:
    times = []
    for _ in range(count):
        started = time.perf_counter()
        await call.write(request)
        await call.read()
        times.append(time.perf_counter() - started)
    return 1e6 * median(times)
