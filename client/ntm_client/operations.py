"""One StreamSteps call: operations go out together, and each gets its own outcome."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque

import grpc
from google.protobuf.message import Message

from ntm.v1 import ntm_pb2 as pb
from ntm.v1.ntm_pb2_grpc import NtmServiceStub
from ntm_client.errors import NtmClientError, StreamBroken, StreamClosed, TimedOut, Unavailable
from ntm_client.failures import call_error, outcome_error

MAX_MESSAGE_BYTES = 65_536
"""Every server takes messages of this size; a larger one could break the stream."""

CLOSE_SECONDS = 5.0
"""The time in which the server must end a stream on which no operation is pending."""


_TAG_BYTES, _LENGTH_BYTES = 11, 8
"""Upper bounds for the bytes of an operation's tag, and of its length in the message."""


class Operations:
    """
    The operations of one call, until it breaks or is closed.

    Operations that begin in one turn of the event loop, or while a message is being written, are
    sent in one message. No operation waits for others.
    """

    def __init__(
        self,
        stub: NtmServiceStub,
        metadata: tuple[tuple[str, str], ...],
        target: str,
    ) -> None:
        self.broken: NtmClientError | None = None
        """The error that ended the call; None while it goes on."""
        self._target = target
        self._tags = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Message]] = {}
        self._late: set[int] = set()
        """
        Tags of operations to open a session that timed out. They may have been sent again, so a
        late outcome does not close the session.
        """
        self._outbox: deque[pb.Operation] = deque()
        self._waiting = asyncio.Event()
        self._call = stub.StreamSteps(metadata=metadata)
        self._sender = asyncio.create_task(self._send())
        self._receiver = asyncio.create_task(self._receive())

    async def perform(self, operation: pb.Operation, timeout_seconds: float) -> Message:
        """
        Send an operation, and return the response that the unary call of the same kind would give.
        """
        if self.broken is not None:
            raise _stream_broken_error(self.broken)
        operation.tag = next(self._tags)
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._pending[operation.tag] = future
        self._queue(operation)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await future
        except TimeoutError:
            if operation.HasField("open"):
                self._late.add(operation.tag)
            raise TimedOut(
                f"the stream to {self._target} gave no answer in {timeout_seconds:g} s"
            ) from None

    async def close(self) -> None:
        """End the call. Operations that are still pending fail."""
        if not self._pending:
            with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
                await self._call.done_writing()
            await asyncio.wait({self._receiver}, timeout=CLOSE_SECONDS)
        self._break(StreamClosed("the stream was closed"))
        self._sender.cancel()
        self._receiver.cancel()
        await asyncio.gather(self._sender, self._receiver, return_exceptions=True)

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
        """Take the operations for one message: all that wait and fit into it."""
        operations: list[pb.Operation] = []
        room = MAX_MESSAGE_BYTES
        while self._outbox:
            operation = self._outbox[0]
            room -= operation.ByteSize() + _LENGTH_BYTES
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
            cause = call_error(error, self._target)
        finally:
            self._break(cause)
            self._sender.cancel()

    def _settle(self, outcome: pb.Outcome) -> None:
        future = self._pending.pop(outcome.tag, None)
        if future is None or future.done():
            if outcome.tag in self._late:
                self._late.discard(outcome.tag)
            elif outcome.WhichOneof("kind") == "opened":
                # The task that asked for the session was cancelled, and no other code has the
                # session's id.
                self._queue(pb.Operation(tag=next(self._tags), close=outcome.opened.id))
        elif outcome.HasField("error"):
            future.set_exception(outcome_error(outcome.error))
        else:
            future.set_result(_response_of(outcome))

    def _break(self, cause: NtmClientError) -> None:
        self.broken = self.broken or cause
        for future in self._pending.values():
            if not future.done():
                future.set_exception(_stream_broken_error(self.broken))
        self._pending.clear()


def fits(operation: pb.Operation) -> bool:
    """Whether an operation, once it has a tag, is certain to fit into a message."""
    return operation.ByteSize() + _TAG_BYTES + _LENGTH_BYTES <= MAX_MESSAGE_BYTES


def _response_of(outcome: pb.Outcome) -> Message:
    """The response that the unary call would have given."""
    match outcome.WhichOneof("kind"):
        case "opened":
            return pb.CreateSessionResponse(session=outcome.opened)
        case "reply":
            return pb.StepResponse(reply=outcome.reply)
        case _:
            return pb.DeleteSessionResponse()


def _stream_broken_error(cause: NtmClientError) -> StreamBroken:
    kind = StreamClosed if isinstance(cause, StreamClosed) else StreamBroken
    error = kind(
        f"the stream broke before this was answered: {cause.message}",
        code=cause.code,
        reason=cause.reason,
        metadata=cause.metadata,
        retry_delay_seconds=cause.retry_delay_seconds,
    )
    error.__cause__ = cause
    return error
