"""One StreamSteps call: reads operations, and writes each outcome when it is ready."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import grpc.aio

from ntm.v1 import ntm_pb2
from service import codec
from service.auth.principal import Principal
from service.engine.sessions import Operation
from service.engine.work import Chunk, Work
from service.errors import Cancelled, Draining, InvalidRequest, SessionDeleted
from service.rpc import status
from service.rpc.calls import Calls
from service.session_ref import SessionRef
from service.settings import Settings

MAX_UNANSWERED_OPERATIONS = 1024
"""The largest number of unanswered operations. At this number the stream is not read."""

_MAX_OUTCOMES = 1024
"""The largest number of outcomes in one message."""

_LARGE_MESSAGE_BYTES = 256 << 10
"""A message takes no more outcomes once it is this large, so that other calls get their turn."""

_MAX_BEGUN = 128
"""
The number of operations that begin before other calls get their turn. A message has room for a
million.
"""

_MAX_UNSENT_MESSAGES = 2
"""Reading stops while unsent replies would fill this many messages of the largest size."""

_ENVELOPE_BYTES = 128
"""
An upper bound for the bytes of an outcome besides its outputs and traces, or its error; and for
those of a trace besides its values and its name.
"""


class Stream:
    """
    Reads operations and writes outcomes; no session's outcomes wait for another's.

    Outcomes that are ready together leave in one message. Reading stops while too many operations
    are unanswered, or their replies are too large together, so a client that reads slowly is slowed
    down and costs a bounded memory.
    """

    def __init__(
        self,
        calls: Calls,
        context: grpc.aio.ServicerContext[Any, Any],
        principal: Principal,
        settings: Settings,
    ) -> None:
        """Prepare to serve the call of `context`."""
        self._calls = calls
        self._context = context
        self._principal = principal
        self._caller = principal.caller
        self._settings = settings
        self._metrics = calls.metrics
        self._steps_received = self._metrics.operations.labels("step")
        self._max_unsent_bytes = _MAX_UNSENT_MESSAGES * settings.max_message_bytes
        self._parent = calls.spans.parent()
        self._pending: set[Work] = set()
        self._opening: set[asyncio.Task[ntm_pb2.Session]] = set()
        self._deleting: set[asyncio.Task[None]] = set()
        self._behind: dict[str, list[Work | ntm_pb2.Outcome]] = {}
        """
        For each session that the store has yet to delete, the outcomes behind that of its close.
        """
        self._ready: deque[Work | ntm_pb2.Outcome] = deque()
        self._unanswered = 0
        self._unsent_bytes = 0
        """
        The bytes of large replies that are not sent yet, whether they are made already or not.
        """
        self._replica = calls.replica
        """The name of this server, for the first message; empty once it is sent."""
        self._is_reading = False
        self._is_writing = False
        self._has_ended = False
        """Whether nothing more is read."""
        self._end_error: Exception | None = None
        """What the call fails with once every outcome is written."""
        self._changed = asyncio.Event()
        """Set when there may be something to do for a hand that has nothing to do."""

    def end(self) -> None:
        """Stop reading; `run` then writes what is ready and fails the call as draining."""
        self._stop_reading(Draining("this server is stopping; open a stream to another replica"))

    async def run(self) -> None:
        """
        Serve until the client ends the stream or `end` is called; then answer what is left.

        Two hands do this. One of them reads. It begins the operations of a message and, when their
        outcomes are ready by then, writes these at once, while the other reads on.
        """
        hands = [asyncio.create_task(self._serve()) for _ in range(2)]
        try:
            ended, _ = await asyncio.wait(hands, return_when=asyncio.FIRST_COMPLETED)
            for hand in ended:
                hand.result()
            if self._end_error:
                raise self._end_error
        finally:
            for task in (*hands, *self._opening, *self._deleting):
                task.cancel()
            for work in self._pending:
                work.cancelled = True

    async def _serve(self) -> None:
        """Write what is ready, or else read, until no more comes and every outcome is written."""
        while self._unanswered or not self._has_ended:
            if self._ready and not self._is_writing:
                await self._write()
            elif not (self._is_reading or self._has_ended or self._is_full):
                await self._read()
            else:
                await self._change()

    @property
    def _is_full(self) -> bool:
        """Whether so much is unanswered that no more operations are begun."""
        return (
            self._unanswered >= MAX_UNANSWERED_OPERATIONS
            or self._unsent_bytes >= self._max_unsent_bytes
        )

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _stop_reading(self, error: Exception | None) -> None:
        """Read no more. The call fails with the error, if there is one and no earlier end."""
        if not self._has_ended:
            self._has_ended, self._end_error = True, error
            self._changed.set()

    async def _read(self) -> None:
        """Read a message and begin its operations."""
        self._is_reading = True
        content = await self._context.read()
        if isinstance(content, bytes):
            try:
                await self._begin(content)
            except InvalidRequest as error:
                self._stop_reading(error)
        else:
            self._stop_reading(None)
        self._is_reading = False

    async def _begin(self, content: bytes) -> None:
        operations = codec.request(ntm_pb2.StreamStepsRequest.FromString, content).operations
        first = 0
        while first < len(operations):
            while self._is_full:
                await self._change()
            room = min(MAX_UNANSWERED_OPERATIONS - self._unanswered, _MAX_BEGUN)
            taken = self._start(operations[first : first + room])
            first += taken
            self._unanswered += taken
            if taken == _MAX_BEGUN:
                await asyncio.sleep(0)

    def _start(self, operations: Sequence[ntm_pb2.Operation]) -> int:
        """
        Begin operations of one message, up to the first with traces; returns how many.

        Their chunks enter the engine's queue together, so that one turn can step all of them.
        Traces make replies large, so that the limit on unsent bytes is looked at after each.
        """
        works: list[Work] = []
        chunks: list[Chunk] = []
        received = begun = 0
        for operation in operations:
            begun += 1
            kind = operation.WhichOneof("kind")
            work: Work
            if kind == "step":
                work = chunk = codec.chunk(operation.step, self._caller)
                chunks.append(chunk)
                received += chunk.inputs.nbytes
                if self._parent:
                    chunk.runs = []
            else:
                self._metrics.operations.labels(kind or "none").inc()
                if kind != "close":
                    self._start_alone(operation, kind, works)
                    continue
                ref = SessionRef(operation.close, self._caller, operation.epoch)
                work = self._calls.closing(ref)
            work.tag = operation.tag
            work.answered = self._finish
            works.append(work)
            if chunks and chunks[-1].selection.names:
                break
        self._pending.update(works)
        self._calls.worker.submit(works)
        self._unsent_bytes += sum(chunk.reply_bytes for chunk in chunks)
        self._metrics.received_bytes.inc(received)
        self._steps_received.inc(len(chunks))
        return begun

    def _start_alone(
        self, operation: ntm_pb2.Operation, kind: str | None, begun: Iterable[Work]
    ) -> None:
        """Begin an operation that is no work of a session; `begun` came before it."""
        if kind == "cancel":
            for work in (*self._pending, *begun):
                if work.tag == operation.cancel and isinstance(work, Chunk):
                    work.cancelled = True
            self._put(ntm_pb2.Outcome(tag=operation.tag, cancelled=operation.cancel))
        elif kind == "open":
            opening = asyncio.ensure_future(self._calls.open(operation.open, self._principal))
            self._opening.add(opening)
            opening.add_done_callback(partial(self._opened, operation.tag))
        else:
            error = InvalidRequest(
                "the operation asks for nothing; set open, step, close or cancel"
            )
            self._put(self._failure(operation.tag, error))

    def _opened(self, tag: int, opening: asyncio.Task[ntm_pb2.Session]) -> None:
        self._opening.discard(opening)
        if opening.cancelled():
            return  # the stream is gone
        error = opening.exception()
        if error is None:
            self._put(ntm_pb2.Outcome(tag=tag, opened=opening.result()))
        else:
            self._put(self._failure(tag, error))

    def _finish(self, work: Work) -> None:
        self._pending.discard(work)
        if self._parent and isinstance(work, Chunk):
            self._calls.spans.record(work, self._parent)
        session_id = work.ref.id
        if session_id in self._behind:
            self._behind[session_id].append(self._outcome(work))
        elif (
            isinstance(work, Operation)
            and isinstance(work.error, SessionDeleted | None)
            and self._calls.is_deleting(session_id)
        ):
            self._behind[session_id] = []
            deleting = asyncio.ensure_future(self._calls.deleted(session_id))
            self._deleting.add(deleting)
            deleting.add_done_callback(partial(self._deleted, work))
        else:
            self._put(self._outcome(work))

    def _deleted(self, closing: Work, deleting: asyncio.Task[None]) -> None:
        """Give the outcome of a close, now that the store has answered or does not."""
        self._deleting.discard(deleting)
        if deleting.cancelled():
            return  # the stream is gone
        closing.error = deleting.exception()
        self._put(self._outcome(closing))
        for outcome in self._behind.pop(closing.ref.id):
            self._put(outcome)

    def _outcome(self, work: Work) -> Work | ntm_pb2.Outcome:
        """What is sent for work that is done: a chunk's reply is made only when it is sent."""
        if isinstance(work, Chunk) and work.error is None and work.outcome is None:
            work.error = Cancelled(f"the chunk was cancelled after {work.done} of its steps")
        if work.error is None:
            return work
        if isinstance(work, Chunk):
            self._unsent_bytes -= work.reply_bytes
        return self._failure(work.tag, work.error)

    def _failure(self, tag: int, error: BaseException) -> ntm_pb2.Outcome:
        known = status.known(error)
        self._metrics.errors.labels(known.reason).inc()
        return ntm_pb2.Outcome(tag=tag, error=status.message(known))

    def _put(self, outcome: Work | ntm_pb2.Outcome) -> None:
        self._ready.append(outcome)
        self._changed.set()

    async def _write(self) -> None:
        """Write the outcomes that are ready, and those that become ready meanwhile."""
        self._is_writing = True
        while self._ready:
            response = ntm_pb2.StreamStepsResponse(replica=self._replica)
            self._replica = ""
            chunks, sent = self._fill(response)
            await self._context.write(response)
            self._calls.replied(chunks, sent)
            self._unanswered -= len(response.outcomes)
            self._changed.set()
        self._is_writing = False

    def _fill(self, response: ntm_pb2.StreamStepsResponse) -> tuple[list[Chunk], int]:
        """
        Move outcomes that are ready into a message: at least one, and as many as fit.

        Returns the chunks among them, and the bytes of their outputs and traces.
        """
        chunks: list[Chunk] = []
        outcomes = response.outcomes
        room = min(_LARGE_MESSAGE_BYTES, self._settings.max_message_bytes)
        sent = 0
        while self._ready and len(outcomes) < _MAX_OUTCOMES:
            ready = self._ready[0]
            room -= _size(ready)
            if room < 0 and outcomes:
                break
            self._ready.popleft()
            if isinstance(ready, ntm_pb2.Outcome):
                outcomes.append(ready)
                continue
            outcome = outcomes.add(tag=ready.tag)
            if isinstance(ready, Chunk):
                sent += codec.write_reply(ready, outcome.reply)
                chunks.append(ready)
                self._unsent_bytes -= ready.reply_bytes
            else:
                outcome.closed = ready.ref.id
        return chunks, sent


def _size(outcome: Work | ntm_pb2.Outcome) -> int:
    """An upper bound for the bytes of an outcome in a message."""
    if isinstance(outcome, ntm_pb2.Outcome):
        return outcome.ByteSize() + _ENVELOPE_BYTES
    if not isinstance(outcome, Chunk):
        return _ENVELOPE_BYTES
    size: int = _ENVELOPE_BYTES + outcome.outcome.nbytes
    for rows in outcome.outcome.traces:
        size += _ENVELOPE_BYTES + len(rows.name)
    return size
