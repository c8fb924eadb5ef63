"""One StreamSteps call for threads: operations go out together, and each gets its own outcome."""

from __future__ import annotations

import itertools
import math
import secrets
import threading
import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue

import grpc
from google.protobuf.message import Message

from ntm.v1 import ntm_pb2 as pb
from ntm.v1.ntm_pb2_grpc import NtmServiceStub
from ntm_client.errors import (
    NtmClientError,
    StreamBroken,
    StreamClosed,
    TimedOut,
    Unavailable,
)
from ntm_client.failures import call_error, no_answer, outcome_error, stream_broken
from ntm_client.operations import (
    CLOSE_SECONDS,
    IDLE_SECONDS,
    LENGTH_BYTES,
    REQUEST_HEADER,
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

    One thread at a time reads: the first that waits for an answer, so that a lone thread waits for
    no other one. If answers are outstanding when it has its own, the call's own thread reads on. It
    also ends the call when the thread that reads has waited for too long. An interrupt of the
    thread that reads ends the call too.
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
        self._request_id = secrets.token_hex(8)
        """Under which the server logs the call, and what fails in it."""
        self._tags = itertools.count(1)
        self._pending: dict[int, Pending] = {}
        self._outbox: SimpleQueue[pb.Operation | None] = SimpleQueue()
        """Operations to send; None ends the call."""
        self._lock = threading.RLock()
        """
        Held to begin an operation and to end the call, so that none begins after the end. A client
        that is collected as garbage ends the call in whatever thread, which may hold it.
        """
        self._reading = threading.Lock()
        """Held by the thread that reads, and by none while nobody waits."""
        self._changed = threading.Condition(self._lock)
        self._is_handed_over = False
        """Whether the call's own thread has to read."""
        self._deadline = self._wakes_at = math.inf
        """Until when another thread may read, and when the call's own thread looks at that."""
        self._call = stub.StreamSteps(
            self._messages(), metadata=(*metadata, (REQUEST_HEADER, self._request_id))
        )
        self._own = threading.Thread(target=self._assist, name="ntm-stream", daemon=True)
        self._own.start()

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
        deadline = time.monotonic() + timeout_seconds
        try:
            if self._reading.acquire(blocking=False):
                self._read_until(pending, deadline)
            left = max(0.0, deadline - time.monotonic())
            is_answered = pending.answered.acquire(timeout=left)
        except BaseException:  # an interrupt, after which nobody waits any more
            self.cancel(pending)
            raise
        is_cut = isinstance(pending.error, StreamBroken) and time.monotonic() >= deadline
        if not is_answered or is_cut:
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
            if pending.tag in self._pending:
                self._outbox.put(pb.Operation(tag=next(self._tags), cancel=pending.tag))
        self._drop_unwanted()

    def end(self) -> None:
        """End the call once everything that was begun is answered; nothing more can be begun."""
        with self._lock:
            self._end(StreamClosed("the stream was closed"))
        self._drop_unwanted()

    def close(self) -> None:
        """End the call. Operations that are still pending fail."""
        self.end()
        if not self._pending:
            self._own.join(CLOSE_SECONDS)
        self._call.cancel()
        self._own.join()

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
            if self._pending:
                self._hand_over()  # their threads may have been interrupted
                return False
            self._end(StreamClosed("the stream was idle"))
            return True

    def _end(self, why: NtmClientError) -> None:
        """Let nothing more begin, and have the call's own thread read the rest. Needs the lock."""
        self.broken = self.broken or why
        self._hand_over()

    def _hand_over(self) -> None:
        """Have the call's own thread read if no thread does. Needs the lock."""
        if self._reading.acquire(blocking=False):
            self._is_handed_over = True
            self._changed.notify()

    def _end_messages(self) -> None:
        """Write nothing more once all is answered; until then, what is pending can be cancelled."""
        if self.broken is not None and not self._pending:
            self._outbox.put(None)

    def _drop_unwanted(self) -> None:
        """
        Cancel the call if nothing more begins and nobody waits for what is left. On a dead
        connection it would never be answered.
        """
        left = list(self._pending.values())
        if self.broken is not None and left and all(pending.is_given_up for pending in left):
            self._call.cancel()

    def _is_given_up(self, operation: pb.Operation) -> bool:
        pending = self._pending.get(operation.tag)
        if pending is None or not pending.is_given_up:
            return False
        self._pending.pop(operation.tag, None)
        self._end_messages()
        return True

    def _read_until(self, pending: Pending, deadline: float) -> None:
        """Read, as the only thread, until an operation has its outcome."""
        try:
            self._deadline = deadline
            if deadline < self._wakes_at:
                with self._lock:
                    self._changed.notify()
            while pending.answered.locked() and self._read():
                pass
        finally:
            self._deadline = math.inf
            with self._lock:
                if self._pending or self.broken is not None:
                    self._is_handed_over = True
                    self._changed.notify()
                else:
                    self._reading.release()

    def _assist(self) -> None:
        """Read what no other thread reads, until the call is over."""
        while True:
            with self._lock:
                is_late = not self._is_handed_over and not self._wait()
                self._is_handed_over = False
            if is_late:
                self._call.cancel()
                continue
            is_free = False
            while not is_free:
                self._end_messages()
                if not self._read():
                    return
                with self._lock:
                    is_free = not self._pending and self.broken is None
                    if is_free:
                        self._reading.release()

    def _wait(self) -> bool:
        """
        Wait until the call's own thread has to read; False if the thread that reads is late. Needs
        the lock.
        """
        while not self._is_handed_over:
            # In this order, so that a deadline that is set meanwhile is seen here or by its thread.
            self._wakes_at = math.inf
            self._wakes_at = self._deadline
            left = self._wakes_at - time.monotonic()
            if left <= 0:
                self._deadline = math.inf
                return False
            self._changed.wait(None if left == math.inf else left)
        return True

    def _read(self) -> bool:
        """Read one message, as the only thread; False if the call is over."""
        try:
            response = next(self._call)
            self.replica = self.replica or response.replica
            for outcome in response.outcomes:
                self._settle(outcome)
        except StopIteration:
            self._break(Unavailable("the server ended the stream"))
            return False
        except grpc.RpcError as error:
            self._break(call_error(error, self._target))
            return False
        except BaseException:
            # An interrupt, after which gRPC lets no other thread read. Outcomes may be lost too.
            self._call.cancel()
            raise
        return True

    def _settle(self, outcome: pb.Outcome) -> None:
        pending = self._pending.pop(outcome.tag, None)
        if pending is None:
            return  # of a cancellation
        if outcome.HasField("error"):
            pending.error = outcome_error(outcome.error, self._request_id)
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
