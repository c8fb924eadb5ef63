"""A real server to send anything to, and a session beside it that nothing may disturb."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import grpc.aio
import numpy as np
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ntm.v1 import ntm_pb2 as pb
from service.inference.v2 import inference_pb2
from service.rpc import status
from service.rpc.queue_loop import QueueLoop
from service.settings import Settings
from tests.conftest import Running, serving
from tests.e2e.calls import chunk, opened, raw
from tests.stress.fuzz.requests import INFER_STREAM, SESSIONS, STREAM, Call
from tests.support.served import MODELS
from tests.support.tiny_models import ledger

SECONDS = 20.0
"""No call may take longer, on the slowest machine; they take milliseconds."""

_ENDED_WHILE_WRITING = "Internal error from Core"
"""What grpc.aio's client says where a server ends a stream before all is written to it."""

_CANARY_STEPS = 256
_STEPS_A_LOOK = 4

_KNOWN = {(kind.reason, code.value[0]) for kind, code in status.CODES.items()}
"""The only errors that a client may see: reason and gRPC code."""


class Fuzzed:
    """A server with two models; a canary steps one of them, over the same channel."""

    def __init__(self, running: Running, canary: str) -> None:
        """Watch a session of copy-ntm-ff that has made no step."""
        self._running = running
        self._canary = canary
        self._inputs = np.random.default_rng(7).normal(size=(_CANARY_STEPS, 9)).astype(np.float32)
        self._expected = b""
        self._step = 0

    async def learn(self) -> None:
        """Find out, undisturbed, what the canary is to answer."""
        request = pb.StepRequest(chunk=chunk(self._canary, self._inputs))
        self._expected = (await self._running.stub.Step(request)).reply.outputs
        await self._reset()

    async def check(self, calls: Sequence[Call]) -> None:
        """Make the calls, and step the canary meanwhile; fail unless all is as documented."""
        running = self._running
        sessions = [await opened(running, model) for model in ("ledger", "copy-ntm-ff")]
        await asyncio.gather(*(self._call(call, sessions) for call in calls), self._look())
        await self._delete_all_but_the_canary()
        await self._look()
        health = health_pb2_grpc.HealthStub(running.channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        await running.server.check_integrity()
        assert running.metric("ntm_streams") == 0

    async def _call(self, call: Call, sessions: Sequence[str]) -> None:
        """Make a call, with the ids of open sessions in it, to its end."""
        messages = [_with_ids(message, sessions) for message in call.messages]
        method = raw(self._running, call.method)
        if call.method not in (STREAM, INFER_STREAM):
            await _known(method(messages[0], timeout=SECONDS))
            return
        stream = method(iter(messages), timeout=SECONDS)
        with contextlib.suppress(grpc.aio.AioRpcError):  # looked at below
            async for answer in stream:
                if call.method == INFER_STREAM:
                    inference_pb2.ModelStreamInferResponse.FromString(answer)
                    continue
                for outcome in pb.StreamStepsResponse.FromString(answer).outcomes:
                    if outcome.WhichOneof("kind") == "error":
                        assert (outcome.error.reason, outcome.error.code) in _KNOWN, outcome
        if await stream.details() != _ENDED_WHILE_WRITING:
            await _known(stream)

    async def _look(self) -> None:
        """Step the canary, and compare its outputs bit by bit with those it gave alone."""
        if self._step == _CANARY_STEPS:
            await self._reset()
        steps = slice(self._step, self._step + _STEPS_A_LOOK)
        message = chunk(self._canary, self._inputs[steps], self._step)
        step = self._running.stub.Step(pb.StepRequest(chunk=message), timeout=SECONDS)
        size = len(self._expected) // _CANARY_STEPS
        expected = self._expected[size * steps.start : size * steps.stop]
        assert (await step).reply.outputs == expected, "the canary was disturbed"
        self._step = steps.stop

    async def _reset(self) -> None:
        await self._running.stub.ResetSession(pb.ResetSessionRequest(session_id=self._canary))
        self._step = 0

    async def _delete_all_but_the_canary(self) -> None:
        async with asyncio.timeout(SECONDS):
            while self._sessions() > 1:
                page = await self._running.stub.ListSessions(pb.ListSessionsRequest(page_size=1000))
                for session in page.sessions:
                    if session.id != self._canary:
                        request = pb.DeleteSessionRequest(session_id=session.id)
                        await _known(self._running.stub.DeleteSession(request))

    def _sessions(self) -> float:
        models = ("ledger", "copy-ntm-ff")
        return sum(self._running.metric("ntm_sessions", model=name) for name in models)


async def _known(call: Any) -> None:
    """Fail unless the call ends with OK or with an error of `service.errors`, fully described."""
    code = await call.code()
    if code is grpc.StatusCode.OK:
        return
    text = f"{code}: {await call.details()}"
    trailing = dict(await call.trailing_metadata() or ())
    assert status.DETAILS_KEY in trailing, f"no details with {text}"
    told = status_pb2.Status.FromString(trailing[status.DETAILS_KEY])
    info = error_details_pb2.ErrorInfo()
    assert told.details[0].Unpack(info)
    assert told.code == code.value[0]
    assert (info.reason, told.code) in _KNOWN, text


def _with_ids(message: bytes, sessions: Sequence[str]) -> bytes:
    for placeholder, session in zip(SESSIONS, sessions, strict=True):
        message = message.replace(placeholder.encode(), session.encode())
    return message


@contextmanager
def fuzzed_server() -> Iterator[Callable[[Sequence[Call]], None]]:
    """Start a server, hand out what sends it calls and checks everything, and stop it."""
    with TemporaryDirectory() as folder, asyncio.Runner(loop_factory=QueueLoop) as runner:
        models_dir = Path(folder)
        (models_dir / "ledger").mkdir()
        (models_dir / "ledger" / "model.onnx").write_bytes(ledger())
        shutil.copytree(MODELS / "copy-ntm-ff", models_dir / "copy-ntm-ff")
        settings = Settings(
            models_dir=models_dir,
            models="copy-ntm-ff,ledger",
            device="cpu",
            port=0,
            metrics_port=0,
            max_batch=8,
            max_burst=2,
        )
        stack = AsyncExitStack()

        async def start() -> Fuzzed:
            running = await stack.enter_async_context(serving(settings))
            fuzzed = Fuzzed(running, await opened(running, "copy-ntm-ff"))
            await fuzzed.learn()
            return fuzzed

        fuzzed = runner.run(start())
        try:
            yield lambda calls: runner.run(fuzzed.check(calls))
        finally:
            runner.run(stack.aclose())
