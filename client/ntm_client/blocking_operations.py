"""One StreamSteps call for threads: operations go out together, and each gets its own outcome."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from queue import Empty, SimpleQueue

import grpc
from google.protobuf.message import Message

from ntm.v1 import ntm_pb2 as pb
from ntm.v1.ntm_pb2_grpc import NtmServiceStub
from ntm_client.errors import NtmClientError, StreamClosed, TimedOut, Unavailable
from ntm_client.failures import call_error, no_answer, outcome_error, stream_broken
from ntm_client.operations import (
    CLOSE_SECONDS,
    IDLE_SECONDS,
    LENGTH_BYTES,
    SAFE_MESSAGE_BYTES,
    response_of,
)


class Pending:
    """An operation that has no outcome yet."""

    __slots__ = ("answered", "error", "is_given_up", "response", "stream", "tag")

    def __init__(self, stream: Operations, tag: int) -> None:
        self.stream = stream
        self.tag = tag
        self.response: Message | None = None
        self.error: NtmClientError | None = None
        self.is_given_up = False
        self.answered = threading.Lock()
        """Held until there is a response or an error."""
        self.answered.acquire()


class Operations:
    """
    The operations of one call, until it breaks, is closed, or has been idle for `IDLE_SECONDS`.

    Any threads may begin operations. What they begin while a message is being written is sent in
    the next one; a lone operation leaves at once.
    """

    def __init__(
        self, stub: NtmServiceStub, metadata: tuple[tuple[str, str], ...], target: str
    ) -> None:
        self.broken: NtmClientError | None = None
        """The error that ended the call; None while it goes on."""
        self.replica = ""
        """The replica that answers; empty until the first answer, and where it is too old."""
        self.message_bytes = SAFE_MESSAGE_BYTES
        """The largest size of a message, but for one of a single operation."""
        self._target = target
        self._tags = itertools.count(1)
        self._pending: dict[int, Pending] = {}
        self._outbox: SimpleQueue[pb.Operation | None] = SimpleQueue()
        """Operations to send; None ends the call."""
        self._lock = threading.Lock()
        """Held to begin an operation and to end the call, so that none begins after the end."""
        self._call = stub.StreamSteps(self._messages(), metadata=metadata)
        self._receiver = threading.Thread(target=self._receive, name="ntm-stream", daemon=True)
        self._receiver.start()

    def begin(self, operation: pb.Operation) -> Pending:
        """Send an operation without waiting for it. Raises StreamBroken if the call is over."""
        operation.tag = next(self._tags)
        pending = Pending(self, operation.tag)
        with self._lock:
            if self.broken is not None:
                raise stream_broken(self.broken)
            self._pending[operation.tag] = pending
            self._outbox.put(operation)
        return pending

    def answer(self, pending: Pending, timeout_seconds: float) -> Message:
        """Wait for the outcome of an operation. It is cancelled if it takes longer."""
        try:
            is_answered = pending.answered.acquire(timeout=timeout_seconds)
        except BaseException:  # an interrupt, after which nobody waits any more
            self.cancel(pending)
            raise
        if not is_answered:
            self.cancel(pending)
            raise TimedOut(no_answer(self._target, f"{timeout_seconds:g} s"))
        if pending.error is not None:
            raise pending.error
        assert pending.response is not None
        return pending.response

    def cancel(self, pending: Pending) -> None:
        """Give a chunk up. The server drops it if it has not begun."""
        pending.is_given_up = True
        with self._lock:
            if self.broken is None and pending.tag in self._pending:
                self._outbox.put(pb.Operation(tag=next(self._tags), cancel=pending.tag))

    def end(self) -> None:
        """End the call once everything that was begun is answered; nothing more can be begun."""
        with self._lock:
            self.broken = self.broken or StreamClosed("the stream was closed")
            self._outbox.put(None)

    def close(self) -> None:
        """End the call. Operations that are still pending fail."""
        self.end()
        if not self._pending:
            self._receiver.join(CLOSE_SECONDS)
        self._call.cancel()
        self._receiver.join()

    def _messages(self) -> Iterator[pb.StreamStepsRequest]:
        """The messages of the call; gRPC waits for each on a thread of its own."""
        operation: pb.Operation | None = None
        is_over = False
        while not is_over:
            if operation is None:
                try:
                    operation = self._outbox.get(timeout=IDLE_SECONDS)
                except Empty:
                    if self._is_idle():
                        return
                    continue
            message = pb.StreamStepsRequest()
            room = self.message_bytes
            while True:
                if operation is None:
                    is_over = True
                    break
                room -= operation.ByteSize() + LENGTH_BYTES
                if room < 0 and message.operations:
                    break
                if not self._is_given_up(operation):
                    message.operations.append(operation)
                try:
                    operation = self._outbox.get_nowait()
                except Empty:
                    operation = None
                    break
            if message.operations:
                yield message

    def _is_idle(self) -> bool:
        """Whether nothing was asked for a while; nothing can be begun from then on."""
        with self._lock:
            if self._pending or not self._outbox.empty():
                return False
            self.broken = self.broken or StreamClosed("the stream was idle")
            return True

    def _is_given_up(self, operation: pb.Operation) -> bool:
        pending = self._pending.get(operation.tag)
        if pending is None or not pending.is_given_up:
            return False
        self._pending.pop(operation.tag, None)
        return True

    def _receive(self) -> None:
        cause: NtmClientError = Unavailable("the server ended the stream")
        try:
            for response in self._call:
                self.replica = self.replica or response.replica
                for outcome in response.outcomes:
                    self._settle(outcome)
        except grpc.RpcError as error:
            cause = call_error(error, self._target)
        finally:
            self._break(cause)

    def _settle(self, outcome: pb.Outcome) -> None:
        pending = self._pending.pop(outcome.tag, None)
        if pending is None:
            return  # of a cancellation
        if outcome.HasField("error"):
            pending.error = outcome_error(outcome.error)
        else:
            pending.response = response_of(outcome, self.replica)
        pending.answered.release()

    def _break(self, cause: NtmClientError) -> None:
        with self._lock:
            self.broken = self.broken or cause
            pending, self._pending = list(self._pending.values()), {}
            self._outbox.put(None)  # gRPC's thread may wait for another message
        for each in pending:
            each.error = stream_broken(cause)
            each.answered.release()
