"""Attacks through gRPC's own client: too much, too large, wrong, or never read."""

from __future__ import annotations

import asyncio
from itertools import cycle
from typing import Any

import grpc.aio
import numpy as np
from google.protobuf.duration_pb2 import Duration

from ntm.v1 import ntm_pb2 as pb
from ntm.v1 import ntm_pb2_grpc
from tests.stress.flood.tally import Tally, Target, repeat

MODEL = "copy-ntm-ff"
_WIDTH = 9
_IDLE = Duration(seconds=10)


def channel(target: Target) -> grpc.aio.Channel:
    """A channel with a connection of its own, and no limit to what it sends."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    return grpc.aio.insecure_channel(f"{target.host}:{target.port}", options)


def stub(target: Target) -> Any:
    """A stub with a connection of its own."""
    return ntm_pb2_grpc.NtmServiceStub(channel(target))


async def opened(stub: Any, tally: Tally, locations: int = 0) -> str:
    """
    The id of a session that soon expires. It is asked for again where others take all the room, and
    each time counts as an attempt.
    """
    request = pb.CreateSessionRequest(model=MODEL, locations=locations, idle_timeout=_IDLE)
    while True:
        tally.attempts += 1
        try:
            session_id = str((await stub.CreateSession(request)).session.id)
        except grpc.aio.AioRpcError as error:
            tally.refuse(error)
            await asyncio.sleep(0.05)
        else:
            tally.answered += 1
            return session_id


def _inputs(size: int) -> bytes:
    return b"\0" * (size // (4 * _WIDTH) * (4 * _WIDTH))


async def huge_messages(target: Target, tally: Tally) -> None:
    """Send chunks of twice the size that a message may have."""
    stubs = cycle([stub(target) for _ in range(8)])
    chunk = pb.Chunk(session_id="0" * 32, inputs=_inputs(2 * target.max_message_bytes))
    request = pb.StepRequest(chunk=chunk)
    await repeat(16, lambda: tally.count(next(stubs).Step(request)))


async def large_messages(target: Target, tally: Tally) -> None:
    """Send chunks of nearly the size that a message may have, for a session that is open."""
    stubs = [stub(target) for _ in range(8)]
    chunk = pb.Chunk(
        session_id=await opened(stubs[0], tally), inputs=_inputs(target.max_message_bytes - 256)
    )
    request = pb.StepRequest(chunk=chunk)
    turns = cycle(stubs)
    await repeat(16, lambda: tally.count(next(turns).Step(request)))


async def many_names(target: Target, tally: Tally) -> None:
    """Select the same trace as often as a message has room for."""
    stubs = [stub(target) for _ in range(4)]
    name = "read_weighting"
    chunk = pb.Chunk(session_id=await opened(stubs[0], tally), inputs=_inputs(36))
    chunk.traces.names.extend([name] * (target.max_message_bytes // (len(name) + 2) - 32))
    request = pb.StepRequest(chunk=chunk)
    turns = cycle(stubs)
    await repeat(8, lambda: tally.count(next(turns).Step(request)))


async def tiny_operations(target: Target, tally: Tally) -> None:
    """
    Send messages of operations that ask for nothing: as many as are taken, and as have room.
    """
    requests = cycle(
        pb.StreamStepsRequest(operations=[pb.Operation()] * number)
        for number in (65_536, target.max_message_bytes // 2 - 16)
    )

    async def attempt() -> None:
        stream = stub(target).StreamSteps()
        tally.attempts += 1
        try:
            await stream.write(next(requests))
            while isinstance(answer := await stream.read(), pb.StreamStepsResponse):
                for outcome in answer.outcomes:
                    tally.refused[outcome.error.reason] += 1
        except grpc.aio.AioRpcError as error:
            tally.refuse(error)

    await repeat(4, attempt)


async def large_headers(target: Target, tally: Tally) -> None:
    """Send metadata of 7 KiB, 64 KiB, and in a thousand pieces."""
    stubs = cycle([stub(target) for _ in range(8)])
    kinds = cycle(
        [
            (("x-large", "v" * 7_000),),
            (("x-larger", "v" * 65_536),),
            tuple((f"x-{number}", "v" * 60) for number in range(1_000)),
        ]
    )
    request = pb.ListModelsRequest()
    await repeat(32, lambda: tally.count(next(stubs).ListModels(request, metadata=next(kinds))))


async def many_streams(target: Target, tally: Tally) -> None:
    """Open streams, and hold every one."""
    stubs = cycle([stub(target) for _ in range(16)])
    held: list[Any] = []

    async def attempt() -> None:
        if len(held) > 20_000:
            await asyncio.sleep(1)
            return
        stream = next(stubs).StreamSteps()
        held.append(stream)
        tally.attempts += 1
        try:
            await stream.read()
        except grpc.aio.AioRpcError as error:
            tally.refuse(error)

    await repeat(8_000, attempt)


async def many_sessions(target: Target, tally: Tally) -> None:
    """Open sessions, each with another number of locations, until refused and on."""
    stubs = cycle([stub(target) for _ in range(4)])
    numbers = cycle(range(3, 16_384))

    def request() -> pb.CreateSessionRequest:
        return pb.CreateSessionRequest(model=MODEL, locations=next(numbers), idle_timeout=_IDLE)

    await repeat(16, lambda: tally.count(next(stubs).CreateSession(request())))


async def slow_readers(target: Target, tally: Tally) -> None:
    """Ask for many traces on streams, and never read one."""

    async def attempt() -> None:
        own = stub(target)
        chunk = pb.Chunk(session_id=await opened(own, tally, 4_000), inputs=_inputs(36 * 20))
        chunk.traces.names.extend(["read_weighting", "write_weighting"])
        operations = [pb.Operation(tag=tag, step=chunk) for tag in range(64)]
        stream = own.StreamSteps()
        while True:
            tally.attempts += len(operations)
            await stream.write(pb.StreamStepsRequest(operations=operations))

    await repeat(32, attempt)


async def invalid_requests(target: Target, tally: Tally) -> None:
    """Ask for what cannot be: unknown sessions and models, values and bytes that are none."""
    channels = [channel(target) for _ in range(4)]
    stubs = [ntm_pb2_grpc.NtmServiceStub(each) for each in channels]
    session = await opened(stubs[0], tally)
    nan = np.full(_WIDTH, np.nan, np.float32).tobytes()
    wrong = cycle(
        [
            ("Step", pb.StepRequest(chunk=pb.Chunk(session_id="0" * 32, inputs=nan))),
            ("Step", pb.StepRequest(chunk=pb.Chunk(session_id=session, inputs=nan))),
            ("Step", pb.StepRequest(chunk=pb.Chunk(session_id=session, first_step=99, inputs=nan))),
            ("CreateSession", pb.CreateSessionRequest(model="nothing")),
            ("ListSessions", pb.ListSessionsRequest(page_token="x")),
            ("GetModel", None),
        ]
    )
    turns = cycle(channels)

    async def attempt() -> None:
        method, request = next(wrong)
        call: Any = next(turns).unary_unary(f"/ntm.v1.NtmService/{method}")
        await tally.count(call(b"\xff" if request is None else request.SerializeToString()))

    await repeat(32, attempt)


async def costly_reads(target: Target, tally: Tally) -> None:
    """Ask for what takes long to answer: full pages of sessions, all models, a large memory."""
    stubs = [stub(target) for _ in range(4)]
    opening = pb.CreateSessionRequest(model=MODEL, idle_timeout=_IDLE)
    for _ in range(10):
        calls = (tally.count(stubs[0].CreateSession(opening)) for _ in range(100))
        await asyncio.gather(*calls)
    large = await opened(stubs[0], tally, 8_000)
    turns = cycle(stubs)
    kinds = cycle(
        [
            ("ListSessions", pb.ListSessionsRequest(page_size=1_000)),
            ("ListModels", pb.ListModelsRequest()),
            ("ReadMemory", pb.ReadMemoryRequest(session_id=large)),
        ]
    )

    async def attempt() -> None:
        method, request = next(kinds)
        await tally.count(getattr(next(turns), method)(request))

    await repeat(16, attempt)
