"""The session that a flood must not disturb, and the newcomers that it must not keep out."""

from __future__ import annotations

import asyncio
import math
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ntm.v1 import ntm_pb2 as pb
from tests.stress.flood.calls import MODEL, channel, stub
from tests.stress.flood.tally import Target

STEPS_PER_SECOND = 50
_WIDTH = 9
_STEPS_AT_ONCE = 1_000
_PATIENCE_SECONDS = 30.0


@dataclass
class Latencies:
    """Seconds from when each step was due to its answer, by the second in which it was due."""

    due_seconds: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    wrong: int = 0
    """Answers that were refusals, or outputs that differ in any bit."""

    def between(self, start: float, end: float) -> Sequence[float]:
        """Those of the steps that were due from start to end, in order of size."""
        pairs = zip(self.due_seconds, self.seconds, strict=True)
        return sorted(seconds for due, seconds in pairs if start <= due < end)


class Victim:
    """Steps one session at a steady rate, whether answers come or not."""

    def __init__(self, target: Target, steps: int) -> None:
        """Prepare so many steps."""
        self._stub = stub(target)
        self._inputs = np.random.default_rng(5).normal(size=(steps, _WIDTH)).astype("<f4")
        self._expected = b""

    async def learn(self) -> None:
        """Find out what the answers are to be, from a session that steps undisturbed."""
        session = await self._opened()
        for first in range(0, len(self._inputs), _STEPS_AT_ONCE):
            part = self._inputs[first : first + _STEPS_AT_ONCE].tobytes()
            request = pb.StepRequest(chunk=pb.Chunk(session_id=session, inputs=part))
            self._expected += (await self._stub.Step(request)).reply.outputs
        await self._stub.DeleteSession(pb.DeleteSessionRequest(session_id=session))

    async def run(self, latencies: Latencies) -> None:
        """Make every step when it is due, in a session of a stream."""
        session = await self._opened()
        stream = self._stub.StreamSteps()
        started = time.perf_counter()
        sending = asyncio.create_task(self._send(stream, session, started))
        size = len(self._expected) // len(self._inputs)
        try:
            while isinstance(answer := await stream.read(), pb.StreamStepsResponse):
                now = time.perf_counter() - started
                for outcome in answer.outcomes:
                    due = outcome.tag / STEPS_PER_SECOND
                    latencies.due_seconds.append(due)
                    latencies.seconds.append(now - due)
                    right = self._expected[size * outcome.tag : size * (outcome.tag + 1)]
                    latencies.wrong += outcome.reply.outputs != right
        except grpc.aio.AioRpcError:
            pass  # seen below
        await sending
        latencies.wrong += len(self._inputs) - len(latencies.seconds)

    async def _opened(self) -> str:
        request = pb.CreateSessionRequest(model=MODEL)
        return str((await self._stub.CreateSession(request)).session.id)

    async def _send(self, stream: Any, session: str, started: float) -> None:
        with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):  # the stream has ended
            for number, values in enumerate(self._inputs):
                due = started + number / STEPS_PER_SECOND
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                chunk = pb.Chunk(session_id=session, inputs=values.tobytes(), first_step=number)
                await stream.write(
                    pb.StreamStepsRequest(operations=[pb.Operation(tag=number, step=chunk)])
                )
            await stream.done_writing()


@dataclass
class Newcomers:
    """The longest that it took to connect anew and be told that the server is well; or never."""

    grpc_seconds: float = 0.0
    http_seconds: float = 0.0

    async def run(self, target: Target) -> None:
        """Come once a second, for ever, over gRPC and over HTTP."""
        url = f"http://{target.host}:{target.metrics_port}/healthz"
        while True:
            next_second = asyncio.create_task(asyncio.sleep(1))
            started = time.perf_counter()
            try:
                async with channel(target) as new:
                    check = health_pb2_grpc.HealthStub(new).Check(
                        health_pb2.HealthCheckRequest(), timeout=_PATIENCE_SECONDS
                    )
                    if await check.code() is not grpc.StatusCode.OK:
                        self.grpc_seconds = math.inf
            finally:  # whoever still waits at the end has waited long
                self.grpc_seconds = max(self.grpc_seconds, time.perf_counter() - started)
            seconds = await asyncio.to_thread(_seconds_to_fetch, url)
            self.http_seconds = max(self.http_seconds, seconds)
            await next_second


def _seconds_to_fetch(url: str) -> float:
    started = time.perf_counter()
    try:
        _fetch(url)
    except OSError:
        return math.inf
    return time.perf_counter() - started


def _fetch(url: str) -> None:
    with urllib.request.urlopen(url, timeout=_PATIENCE_SECONDS) as response:  # noqa: S310 - it is http
        response.read()
