"""Short ways to say what the end-to-end tests send and get, on the bare stubs."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import grpc.aio
import numpy as np
from google.rpc import error_details_pb2, status_pb2

from ntm.v1 import ntm_pb2 as pb
from service.spec import Float32
from service.telemetry.logs import JsonFormatter
from tests.conftest import Running

Values = Sequence[Sequence[float]] | Float32


async def until(condition: Callable[[], object]) -> None:
    """
    Wait until a condition holds; ten seconds at most.

    It is for effects that a server has after its client has the answer, such as to count the call.
    """
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - of the server's, which tells no event
            await asyncio.sleep(0.005)


def packed(inputs: Values) -> bytes:
    """Inputs [steps, X] as they travel."""
    return np.asarray(inputs, "<f4").tobytes()


def chunk(session: str, inputs: Values, first_step: int | None = None, **traces: Any) -> pb.Chunk:
    """A chunk; `names` and `top_k` select traces."""
    selection = pb.TraceSelection(**traces)
    return pb.Chunk(
        session_id=session, inputs=packed(inputs), first_step=first_step, traces=selection
    )


def outputs(reply: pb.Reply) -> Float32:
    """The outputs of a reply, [steps, Y]."""
    steps = reply.next_step - reply.first_step
    return np.frombuffer(reply.outputs, np.float32).reshape(steps, -1)


async def opened(running: Running, model: str = "ledger", locations: int = 0) -> str:
    """The id of a new session."""
    request = pb.CreateSessionRequest(model=model, locations=locations)
    return str((await running.stub.CreateSession(request)).session.id)


async def stepped(running: Running, session: str, inputs: Values, **more: Any) -> Float32:
    """The outputs of a chunk sent by the unary call."""
    response = await running.stub.Step(pb.StepRequest(chunk=chunk(session, inputs, **more)))
    return outputs(response.reply)


def raw(running: Running, method: str) -> Any:
    """A method, of our service if it is no path, that takes and gives the bytes of messages."""
    channel = running.channel
    kind = channel.stream_stream if "Stream" in method else channel.unary_unary
    return kind(method if method.startswith("/") else f"/ntm.v1.NtmService/{method}")


def reason(error: grpc.aio.AioRpcError) -> str:
    """The reason in a failed call's details."""
    return str(info(error).reason)


def info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    """The ErrorInfo in a failed call's details."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            assert isinstance(value, bytes)
            found = error_details_pb2.ErrorInfo()
            assert status_pb2.Status.FromString(value).details[0].Unpack(found)
            return found
    raise AssertionError(f"no details in {error}")


class Lines(logging.Handler):
    """The access log's lines, formatted as they are on standard error."""

    def __init__(self) -> None:
        """Collect them."""
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.fields: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Format a line while the call's fields are still set."""
        self.fields.append(json.loads(self.format(record)))

    async def written(self, count: int) -> list[dict[str, Any]]:
        """The lines, once there are `count`; a call is logged after it is answered."""
        await until(lambda: len(self.fields) >= count)
        return self.fields


class Stream:
    """A StreamSteps call of a test: sends operations, takes outcomes one by one."""

    def __init__(self, running: Running) -> None:
        """Open the call."""
        self.call = running.stub.StreamSteps()
        self._outcomes: list[pb.Outcome] = []
        self.messages = 0
        self.replica = ""
        """The replica that the last message names."""

    async def send(self, *operations: pb.Operation) -> None:
        """Send operations in one message."""
        await self.call.write(pb.StreamStepsRequest(operations=operations))

    async def next(self) -> pb.Outcome | None:
        """The next outcome, or None at the end of the stream."""
        while not self._outcomes:
            response = await self.call.read()
            if response is grpc.aio.EOF:
                return None
            self.messages += 1
            self.replica = response.replica
            self._outcomes = list(response.outcomes)
        return self._outcomes.pop(0)

    async def rest(self) -> list[pb.Outcome]:
        """End the sending side, and take everything that still comes."""
        await self.call.done_writing()
        found = []
        while (outcome := await self.next()) is not None:
            found.append(outcome)
        return found

    async def opened(self, model: str = "ledger", locations: int = 0) -> str:
        """The id of a session opened on the stream; no other outcome may be due."""
        request = pb.CreateSessionRequest(model=model, locations=locations)
        await self.send(pb.Operation(open=request))
        outcome = await self.next()
        assert outcome is not None
        return outcome.opened.id
