"""One StreamSteps call for asyncio: operations go out together, and each gets its own outcome."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections import deque

import grpc
from google.protobuf.message import Message

from ntm.v1 import ntm_pb2 as pb
from ntm.v1.ntm_pb2_grpc import NtmServiceStub
from ntm_client.errors import NtmClientError, StreamClosed, TimedOut, Unavailable
from ntm_client.failures import call_error, no_answer, outcome_error, stream_broken
from ntm_client.operations import (
    CLOSE_SECONDS,
    LENGTH_BYTES,
    REQUEST_HEADER,
    SAFE_MESSAGE_BYTES,
    response_of,
)
from ntm_client.retries import IDENTITY

_LOST = "Internal error from Core"
"""What grpc.aio says where a message cannot be written."""


class AsyncPending:
    """An operation that has no outcome yet."""

    __slots__ = ("deadline", "future", "kind", "stream", "tag", "timeout_seconds")

    def __init__(self, stream: AsyncOperations, operation: pb.Operation) -> None:
        self.stream = stream
        self.tag = operation.tag
        self.kind = operation.WhichOneof("kind")
        self.timeout_seconds = self.deadline = 0.0
        """Set once a task waits for it; the deadline is by the loop's clock."""
        self.future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        """Gets the response that the unary call of the same kind would give, or the error."""


class AsyncOperations:
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
        idle_seconds: float | None = None,
    ) -> None:
        """Begin the call. It ends by itself after `idle_seconds` without an operation."""
        self.broken: NtmClientError | None = None
        """The error that ended the call; None while it goes on."""
        self.replica = ""
        """The replica that answers; empty until the first answer, and where it is too old."""
        self.message_bytes = SAFE_MESSAGE_BYTES
        """The largest size of a message, but for one of a single operation."""
        self._target = target
        self._request_id = secrets.token_hex(8)
        """Under which the server logs the call, and what fails in it."""
        self._loop = asyncio.get_running_loop()
        self._tags = itertools.count(1)
        self._pending: dict[int, AsyncPending] = {}
        self._late: set[int] = set()
        """
        Tags of operations to open a session that timed out. They may have been sent again, so a
        late outcome does not close the session.
        """
        self._outbox: deque[pb.Operation] = deque()
        self._waiting = asyncio.Event()
        self._is_ending = False
        self._stub = stub
        self._metadata = (*metadata, (REQUEST_HEADER, self._request_id))
        self._call = stub.StreamSteps(metadata=self._metadata)
        self._sender = asyncio.create_task(self._send())
        self._receiver = asyncio.create_task(self._receive())
        self._idle_seconds = idle_seconds
        self._used = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        if idle_seconds is not None:
            self._look_at(self._used + idle_seconds)

    def begin(self, operation: pb.Operation) -> AsyncPending:
        """Send an operation without waiting for it. Raises StreamBroken if the call is over."""
        if self.broken is not None:
            raise stream_broken(self.broken)
        operation.tag = next(self._tags)
        pending = self._pending[operation.tag] = AsyncPending(self, operation)
        self._queue(operation)
        return pending

    async def answer(self, pending: AsyncPending, timeout_seconds: float) -> Message:
        """
        Wait for the outcome of an operation. It is cancelled if it takes longer, or if the task is
        cancelled.
        """
        pending.timeout_seconds = timeout_seconds
        pending.deadline = self._loop.time() + timeout_seconds
        self._look_at(pending.deadline)
        try:
            return await pending.future
        except asyncio.CancelledError:
            self.cancel(pending)
            raise

    def cancel(self, pending: AsyncPending) -> None:
        """Give an operation up. The server drops a chunk that has not begun."""
        if pending.future.done():
            if not pending.future.cancelled():
                pending.future.exception()  # else asyncio would log that nobody looked at it
        else:
            pending.future.cancel()
        if pending.kind == "step" and pending.tag in self._pending:
            self._queue(pb.Operation(tag=next(self._tags), cancel=pending.tag))
        self._drop_unwanted()

    def end(self) -> None:
        """End the call once everything that was begun is answered; nothing more can be begun."""
        self.broken = self.broken or StreamClosed("the stream was closed")
        self._is_ending = True
        self._waiting.set()
        self._drop_unwanted()

    async def close(self) -> None:
        """End the call. Operations that are still pending fail."""
        if not self._pending:
            self.end()
            await asyncio.wait({self._receiver}, timeout=CLOSE_SECONDS)
        self._break(StreamClosed("the stream was closed"))
        self._sender.cancel()
        self._receiver.cancel()
        await asyncio.gather(self._sender, self._receiver, return_exceptions=True)

    def _drop_unwanted(self) -> None:
        """
        Cancel the call if nothing more begins and nobody waits for what is left. On a dead
        connection it would never be answered.
        """
        left = self._pending.values()
        if self.broken is not None and left and all(pending.future.done() for pending in left):
            self._call.cancel()

    def _queue(self, operation: pb.Operation) -> None:
        self._outbox.append(operation)
        self._waiting.set()

    def _look_at(self, moment: float) -> None:
        """Look for what has timed out at this moment of the loop's clock, or before."""
        # One timer for all operations, because nearly none of them times out.
        if self._timer is None or moment < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(moment, self._look)

    def _look(self) -> None:
        """Fail what has timed out, and end the stream if it is idle."""
        self._timer = None
        now = self._loop.time()
        awaited = [each for each in self._pending.values() if each.deadline]
        for pending in awaited:
            if pending.deadline <= now:
                self._time_out(pending)
            else:
                self._look_at(pending.deadline)
        if self._idle_seconds is None or self.broken is not None:
            return
        if not self._pending and now >= self._used + self._idle_seconds:
            self.end()
        else:
            self._look_at(max(self._used, now) + self._idle_seconds)

    def _time_out(self, pending: AsyncPending) -> None:
        if pending.future.done():
            return
        if pending.kind == "open":
            self._late.add(pending.tag)
        seconds = f"{pending.timeout_seconds:g} s"
        pending.future.set_exception(TimedOut(no_answer(self._target, seconds)))
        self.cancel(pending)

    async def _send(self) -> None:
        try:
            while await self._waiting.wait():
                self._waiting.clear()
                while operations := self._take():
                    await self._call.write(pb.StreamStepsRequest(operations=operations))
                if self._is_ending and not self._pending:
                    await self._call.done_writing()
                    return
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass  # the stream is over, and the receiver learns why
        except asyncio.CancelledError:
            self._call.cancel()
            raise

    def _take(self) -> list[pb.Operation]:
        """Take the operations for one message: all that wait and fit into it."""
        operations: list[pb.Operation] = []
        room = self.message_bytes
        while self._outbox:
            operation = self._outbox[0]
            room -= operation.ByteSize() + LENGTH_BYTES
            if room < 0 and operations:
                break
            self._outbox.popleft()
            pending = self._pending.get(operation.tag)
            if pending is not None and pending.future.done():
                del self._pending[operation.tag]  # given up before it was sent
            else:
                operations.append(operation)
        return operations

    async def _receive(self) -> None:
        cause: NtmClientError = Unavailable("the server ended the stream")
        try:
            async for response in self._call:
                self.replica = self.replica or response.replica
                self._used = self._loop.time()
                for outcome in response.outcomes:
                    self._settle(outcome)
                if self._is_ending:
                    self._waiting.set()
        except grpc.RpcError as error:
            cause = call_error(await self._found(error), self._target)
        finally:
            self._break(cause)
            self._sender.cancel()

    async def _found(self, error: grpc.RpcError) -> grpc.RpcError:
        """
        The error that ended the call.

        grpc.aio loses the error of a call that ends while a message is written. So a caller that is
        not let in asks for a step of no session, whose refusal says why.
        """
        if error.details() == _LOST:
            try:
                request = pb.StepRequest()
                await self._stub.Step(request, metadata=self._metadata, timeout=CLOSE_SECONDS)
            except grpc.RpcError as refused:
                if refused.code() in IDENTITY:
                    return refused
        return error

    def _settle(self, outcome: pb.Outcome) -> None:
        pending = self._pending.pop(outcome.tag, None)
        if pending is None or pending.future.done():
            if outcome.tag in self._late:
                self._late.discard(outcome.tag)
            elif outcome.WhichOneof("kind") == "opened":
                # The task that asked for the session was cancelled, and no other code has the
                # session's id.
                self._queue(pb.Operation(tag=next(self._tags), close=outcome.opened.id))
        elif outcome.HasField("error"):
            pending.future.set_exception(outcome_error(outcome.error, self._request_id))
        else:
            pending.future.set_result(response_of(outcome, self.replica))

    def _break(self, cause: NtmClientError) -> None:
        self.broken = self.broken or cause
        if self._timer is not None:
            self._timer.cancel()
        for pending in self._pending.values():
            if not pending.future.done():
                pending.future.set_exception(stream_broken(cause))
        self._pending.clear()
