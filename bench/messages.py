"""Messages of the load generator, serialised once and sent as bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import numpy as np

from ntm.v1 import ntm_pb2 as pb

STEPS = "/ntm.v1.NtmService/StreamSteps"
STEP = "/ntm.v1.NtmService/Step"
CREATE = "/ntm.v1.NtmService/CreateSession"
DELETE = "/ntm.v1.NtmService/DeleteSession"
MODEL = "copy-ntm-lstm"
INPUT_WIDTH, BITS = 9, 8
"""A step of the copy task has eight random bits and a delimiter."""

_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]

_REQUEST = pb.CreateSessionRequest(model=MODEL)


def outcomes_of(message: bytes) -> list[pb.Outcome]:
    """Return the outcomes in a message. Raises RuntimeError if a step failed."""
    outcomes = list(pb.StreamStepsResponse.FromString(message).outcomes)
    for outcome in outcomes:
        if outcome.WhichOneof("kind") != "reply":
            raise RuntimeError(f"a step failed: {outcome}")
    return outcomes


@asynccontextmanager
async def some_sessions(
    channel: Any, count: int, request: pb.CreateSessionRequest = _REQUEST
) -> AsyncIterator[list[str]]:
    """Create sessions, and close them on exit."""
    sessions = await open_sessions(channel, count, request)
    yield sessions
    call = channel.stream_stream(STEPS)()
    await call.write(message_of([pb.Operation(close=session) for session in sessions]))
    while count:
        count -= len(pb.StreamStepsResponse.FromString(await call.read()).outcomes)


async def open_sessions(
    channel: Any, count: int, request: pb.CreateSessionRequest = _REQUEST
) -> list[str]:
    """Create `count` sessions and return their ids. Raises RuntimeError if one was refused."""
    call = channel.stream_stream(STEPS)()
    sessions: list[str] = []
    while len(sessions) < count:
        some = min(256, count - len(sessions))
        await call.write(message_of([pb.Operation(open=request)] * some))
        while some:
            outcomes = pb.StreamStepsResponse.FromString(await call.read()).outcomes
            sessions += [outcome.opened.id for outcome in outcomes]
            some -= len(outcomes)
    if not all(sessions):
        raise RuntimeError("the server refused to create some of the sessions")
    return sessions


def connection(address: str, token: str = "") -> Any:
    """
    Open a channel, with a token if any. The type is Any because grpc's types lack calls of bytes.
    """
    interceptors = [_Authorized(token)] if token else []
    return grpc.aio.insecure_channel(address, options=_OPTIONS, interceptors=interceptors)


class _Authorized(grpc.aio.StreamStreamClientInterceptor):
    """Adds a token to every stream."""

    def __init__(self, token: str) -> None:
        self._metadata = (("authorization", f"Bearer {token}"),)

    async def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        details = client_call_details._replace(metadata=self._metadata)
        return await continuation(details, request_iterator)


def message_of(operations: list[pb.Operation]) -> bytes:
    """Serialise operations into one message."""
    return pb.StreamStepsRequest(operations=operations).SerializeToString()


def step_of(
    session: str, steps: int = 1, tag: int = 0, traces: tuple[str, ...] = ()
) -> pb.Operation:
    """Return a chunk of steps of the copy task. Equal tags give equal inputs."""
    inputs = np.zeros((steps, INPUT_WIDTH), "<f4")
    inputs[:, :BITS] = np.random.default_rng(tag).integers(0, 2, (steps, BITS))
    chunk = pb.Chunk(session_id=session, inputs=inputs.tobytes())
    if traces:
        chunk.traces.names.extend(traces)
    return pb.Operation(tag=tag, step=chunk)
