"""One stream that carries the steps of many sessions, so that a message can hold many of them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from datetime import timedelta
from typing import Self

import grpc
from google.protobuf.message import Message

from client import procedures
from client.async_session import AsyncSession, Caller, run
from client.chunks import MESSAGE_OVERHEAD_BYTES
from client.connection import Authorization
from client.errors import NtmClientError, StreamBroken, TimedOut, Unavailable
from client.failures import from_call, from_outcome
from client.records import Model
from service.pb import ntm_pb2 as pb
from service.pb.ntm_pb2_grpc import NtmServiceStub

CLOSE_SECONDS = 5.0
"""How long the server may take to end a stream on which nothing is pending."""


class Stream:
    """
    Sessions that are stepped together. Made by `AsyncClient.stream`, used in `async with`.

    Any number of tasks use it at once. Operations that tasks begin in one turn of the event loop,
    or while a message is being written, go out in one message; nothing waits for company. When
    the stream breaks, every operation not answered yet fails with `StreamBroken`, and so does
    each later one; sessions outlive it and can be continued on another.
    """

    def __init__(
        self,
        client: Caller,
        stub: NtmServiceStub,
        authorization: Authorization,
        target: str,
        timeout_seconds: float,
        models: dict[str, Model],
    ) -> None:
        """The stream begins when its `async with` block is entered."""
        self.limits = client.limits
        self._client = client
        self._stub = stub
        self._authorization = authorization
        self._target = target
        self._timeout_seconds = timeout_seconds
        self._models = models
        self._tags = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Message]] = {}
        self._outbox: deque[pb.Operation] = deque()
        self._waiting = asyncio.Event()
        self._broken: NtmClientError | None = Unavailable("the stream was not entered")

    async def open(
        self,
        model: str,
        locations: int | None = None,
        idle_timeout: timedelta | None = None,
    ) -> AsyncSession:
        """Open a session as `AsyncClient.create_session` does, and step it on this stream."""
        opening = procedures.create_session(model, locations, idle_timeout, self._models)
        return AsyncSession(self, *await run(self, opening))

    async def session(self, session_id: str) -> AsyncSession:
        """The session of that id, wherever it was opened, to be stepped on this stream."""
        finding = procedures.find_session(session_id, self._models)
        return AsyncSession(self, *await run(self, finding))

    async def call(self, request: Message, timeout_seconds: float | None = None) -> Message:
        """Open, step and close on the stream; any other request travels as a call of its own."""
        match request:
            case pb.CreateSessionRequest():
                return await self._perform(pb.Operation(open=request), timeout_seconds)
            case pb.StepRequest():
                return await self._perform(pb.Operation(step=request.chunk), timeout_seconds)
            case pb.DeleteSessionRequest():
                return await self._perform(pb.Operation(close=request.session_id), timeout_seconds)
            case _:
                return await self._client.call(request, timeout_seconds)

    async def close(self) -> None:
        """End the stream; operations still pending fail. Closes no session."""
        if not self._pending:
            with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
                await self._call.done_writing()
            await asyncio.wait({self._receiver}, timeout=CLOSE_SECONDS)
        self._break(Unavailable("the stream was closed"))
        self._sender.cancel()
        self._receiver.cancel()
        await asyncio.gather(self._sender, self._receiver, return_exceptions=True)

    async def __aenter__(self) -> Self:
        self._call = self._stub.StreamSteps(metadata=self._authorization.metadata())
        self._broken = None
        self._sender = asyncio.create_task(self._send())
        self._receiver = asyncio.create_task(self._receive())
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def _perform(self, operation: pb.Operation, timeout_seconds: float | None) -> Message:
        if self._broken is not None:
            raise _broken_by(self._broken)
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        operation.tag = next(self._tags)
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._pending[operation.tag] = future
        self._queue(operation)
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            raise TimedOut(
                f"the stream to {self._target} gave no answer in {seconds:g} s"
            ) from None

    def _queue(self, operation: pb.Operation) -> None:
        self._outbox.append(operation)
        self._waiting.set()

    async def _send(self) -> None:
        try:
            while await self._waiting.wait():
                self._waiting.clear()
                while operations := self._take():
                    await self._call.write(pb.StreamStepsRequest(operations=operations))
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass  # the stream is over, and the receiver learns why
        finally:
            self._call.cancel()

    def _take(self) -> list[pb.Operation]:
        """The operations for one message: all that wait, as far as they fit."""
        operations: list[pb.Operation] = []
        room = self.limits.max_message_bytes - MESSAGE_OVERHEAD_BYTES
        while self._outbox:
            operation = self._outbox[0]
            room -= operation.ByteSize() + 8  # its tag and length in the message
            if room < 0 and operations:
                break
            self._outbox.popleft()
            if self._is_abandoned(operation.tag):
                del self._pending[operation.tag]
            else:
                operations.append(operation)
        return operations

    def _is_abandoned(self, tag: int) -> bool:
        return tag in self._pending and self._pending[tag].done()

    async def _receive(self) -> None:
        cause: NtmClientError = Unavailable("the server ended the stream")
        try:
            async for response in self._call:
                for outcome in response.outcomes:
                    self._settle(outcome)
        except grpc.RpcError as error:
            cause = from_call(error, self._target)
        finally:
            self._break(cause)

    def _settle(self, outcome: pb.Outcome) -> None:
        future = self._pending.pop(outcome.tag, None)
        if future is None or future.done():
            if outcome.WhichOneof("kind") == "opened":
                # Whoever asked for it was cancelled, and nobody else knows its id.
                self._queue(pb.Operation(tag=next(self._tags), close=outcome.opened.id))
        elif outcome.HasField("error"):
            future.set_exception(from_outcome(outcome.error))
        else:
            future.set_result(_response_of(outcome))

    def _break(self, cause: NtmClientError) -> None:
        self._broken = self._broken or cause
        for future in self._pending.values():
            if not future.done():
                future.set_exception(_broken_by(self._broken))
        self._pending.clear()


def _response_of(outcome: pb.Outcome) -> Message:
    """What the unary call would have answered."""
    match outcome.WhichOneof("kind"):
        case "opened":
            return pb.CreateSessionResponse(session=outcome.opened)
        case "reply":
            return pb.StepResponse(reply=outcome.reply)
        case _:
            return pb.DeleteSessionResponse()


def _broken_by(cause: NtmClientError) -> StreamBroken:
    return StreamBroken(
        f"the stream broke before this was answered: {cause.message}",
        code=cause.code,
        reason=cause.reason,
        metadata=cause.metadata,
        retry_delay_seconds=cause.retry_delay_seconds,
    )
