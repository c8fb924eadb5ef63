"""One StreamSteps call: reads operations, and writes each outcome when it is ready."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from ntm.v1 import ntm_pb2
from service import codec, decoding
from service.auth.principal import Principal
from service.engine.sessions import Operation
from service.engine.work import Chunk, Work
from service.errors import Cancelled, Draining, InvalidRequest, SessionDeleted
from service.rpc import status
from service.rpc.calls import Calls
from service.rpc.transport import Call
from service.session_ref import SessionRef
from service.settings import Settings
from service.telemetry.logs import call_fields, session_tag

MAX_UNANSWERED_OPERATIONS = 1024
"""The largest number of unanswered operations. At this number the stream is not read."""

_MAX_OUTCOMES = 1024
"""The largest number of outcomes in one message."""

_LARGE_MESSAGE_BYTES = 256 << 10
"""A message takes no more outcomes once it is this large, so that other calls get their turn."""

_MAX_BEGUN = 128
"""
The number of operations that begin before other calls get their turn. A message can have many
thousands.
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
        context: Call,
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
        self._fields = call_fields.get()
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
        self._left: Sequence[ntm_pb2.Operation] = ()
        """The operations of the last message; none once all are begun."""
        self._next = 0
        """The first of them that is not begun yet: to copy the rest of millions would take long."""
        self._replica = calls.replica
        """What the next message says of the replica: the first one names it."""
        self._is_begin_due = False
        self._is_writing = False
        self._is_write_due = False
        self._has_ended = False
        """Whether nothing more is read."""
        self._end_error: Exception | None = None
        """What the call fails with once every outcome is written."""
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()

    def end(self) -> None:
        """Stop reading; `run` then writes what is ready and fails the call as draining."""
        self._stop_reading(Draining("this server is stopping; open a stream to another replica"))

    async def run(self) -> None:
        """
        Serve until the client ends the stream or `end` is called; then answer what is left.

        This only waits: what comes is begun and what is ready is written by callbacks, because a
        task that wakes up for each message costs as much as gRPC itself.
        """
        self._read()
        try:
            await self._ended
        finally:
            self._ended.cancel()
            for task in (*self._opening, *self._deleting):
                task.cancel()
            for work in self._pending:
                work.cancelled = True

    def _do(self, action: Callable[..., None], *arguments: Any) -> None:
        """Call a method, unless the call is over. Its error is the call's."""
        if self._ended.done():
            return
        try:
            action(*arguments)
        except Exception as error:  # as if `run` had raised it
            self._ended.set_exception(error)

    def _read(self) -> None:
        if not self._has_ended:
            self._context.receive(partial(self._do, self._take))

    def _take(self, content: bytes | None) -> None:
        """Begin the operations of a message; None is the end of the stream."""
        if self._has_ended:
            return
        if content is None:
            self._stop_reading(None)
            return
        try:
            request = decoding.request(ntm_pb2.StreamStepsRequest, content)
        except InvalidRequest as error:
            self._stop_reading(error)
            return
        self._left, self._next = request.operations, 0
        self._begin()

    def _begin(self) -> None:
        """Begin operations while there is room, then read on, and write what is ready by now."""
        left, first = self._left, self._next
        taken = 0
        while first < len(left) and not self._is_full and taken < _MAX_BEGUN:
            room = min(MAX_UNANSWERED_OPERATIONS - self._unanswered, _MAX_BEGUN)
            taken = self._start(left[first : first + room])
            first += taken
            self._unanswered += taken
        self._left, self._next = (left, first) if first < len(left) else ((), 0)
        if not self._left:
            self._read()
        elif not self._is_full:
            self._begin_in_turn()
        if self._ready and not self._is_writing:
            self._write()

    def _begin_in_turn(self) -> None:
        """Begin more of a message's operations after other calls had their turn."""
        if not self._is_begin_due:
            self._is_begin_due = True
            self._context.call_in_turn(self._do, self._begin_due)

    def _begin_due(self) -> None:
        self._is_begin_due = False
        if self._left and not self._is_full:
            self._begin()

    @property
    def _is_full(self) -> bool:
        """Whether so much is unanswered that no more operations are begun."""
        return (
            self._unanswered >= MAX_UNANSWERED_OPERATIONS
            or self._unsent_bytes >= self._max_unsent_bytes
        )

    def _stop_reading(self, error: Exception | None) -> None:
        """Read no more. The call fails with the error, if there is one and no earlier end."""
        if not self._has_ended:
            self._has_ended, self._end_error = True, error
            self._end_if_answered()

    def _end_if_answered(self) -> None:
        if self._has_ended and not (self._unanswered or self._left or self._ended.done()):
            if self._end_error:
                self._ended.set_exception(self._end_error)
            else:
                self._ended.set_result(None)

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
                received += len(operation.step.inputs)
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
            self._put(self._failure(operation.tag, error, ""))

    def _opened(self, tag: int, opening: asyncio.Task[ntm_pb2.Session]) -> None:
        self._opening.discard(opening)
        if opening.cancelled():
            return  # the stream is gone
        error = opening.exception()
        if error is None:
            self._put(ntm_pb2.Outcome(tag=tag, opened=opening.result()))
        else:
            self._put(self._failure(tag, error, ""))

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
        return self._failure(work.tag, work.error, work.ref.id)

    def _failure(self, tag: int, error: BaseException, session_id: str) -> ntm_pb2.Outcome:
        """The outcome of an operation that failed, which is logged as a failed call is."""
        known = status.known(error)
        self._metrics.errors.labels(known.reason).inc()
        self._calls.access_log.note(
            status.code(known).name,
            lambda: {
                **self._fields.by_name(),
                "method": "StreamSteps, an operation",
                "session": session_tag(session_id) if session_id else "",
                "reason": known.reason,
                "peer": self._context.peer(),
            },
        )
        return ntm_pb2.Outcome(tag=tag, error=status.message(known))

    def _put(self, outcome: Work | ntm_pb2.Outcome) -> None:
        """Have an outcome written, together with those that become ready with it."""
        self._ready.append(outcome)
        if not (self._is_writing or self._is_write_due):
            self._is_write_due = True
            self._calls.worker.once_answered(partial(self._do, self._write_due))

    def _write_due(self) -> None:
        self._is_write_due = False
        if self._ready and not self._is_writing:
            self._write()

    def _write(self) -> None:
        """Write outcomes that are ready; those that become ready meanwhile follow."""
        response = ntm_pb2.StreamStepsResponse(replica=self._replica)
        self._replica = ""
        chunks, sent = self._fill(response)
        self._is_writing = True
        written = partial(self._do, self._written, chunks, sent, len(response.outcomes))
        self._context.send(response, written)

    def _written(self, chunks: Sequence[Chunk], sent: int, outcomes: int) -> None:
        self._is_writing = False
        self._calls.replied(chunks, sent)
        self._unanswered -= outcomes
        if self._left and not self._is_full:
            self._begin_in_turn()
        if self._ready and not self._is_writing:
            self._write()
        self._end_if_answered()

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
