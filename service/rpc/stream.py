"""One StreamSteps call: reads operations, and writes each outcome when it is ready."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial

from ntm.v1 import ntm_pb2
from service import codec
from service.auth.principal import Principal
from service.engine.sessions import Operation
from service.engine.work import Chunk, Work
from service.errors import Cancelled, InvalidRequest, SessionDeleted
from service.rpc import bidirectional, status
from service.rpc.bidirectional import BidirectionalStream
from service.rpc.calls import Calls
from service.rpc.transport import Call
from service.session_ref import SessionRef
from service.settings import Settings

_MAX_OUTCOMES = 1024
"""The largest number of outcomes in one message."""

_LARGE_MESSAGE_BYTES = 256 << 10
"""A message takes no more outcomes once it is this large, so that other calls get their turn."""

_MAX_BEGUN = 128
"""
The number of operations that begin before other calls get their turn. A message can have many
thousands.
"""

_ENVELOPE_BYTES = 128
"""
An upper bound for the bytes of an outcome besides its outputs and traces, or its error; and for
those of a trace besides its values and its name.
"""


class Stream(BidirectionalStream[ntm_pb2.StreamStepsRequest, "Work | ntm_pb2.Outcome"]):
    """
    Reads operations and writes outcomes; no session's outcomes wait for another's.

    Outcomes that are ready together leave in one message.
    """

    def __init__(
        self, calls: Calls, context: Call, principal: Principal, settings: Settings
    ) -> None:
        """Prepare to serve the call of `context`."""
        what = "StreamSteps, an operation"
        super().__init__(calls, context, ntm_pb2.StreamStepsRequest, settings, what)
        self._principal = principal
        self._caller = principal.caller
        self._settings = settings
        self._steps_received = self._metrics.operations.labels("step")
        self._behind: dict[str, list[Work | ntm_pb2.Outcome]] = {}
        """
        For each session that the store has yet to delete, the outcomes behind that of its close.
        """
        self._left: Sequence[ntm_pb2.Operation] = ()
        """The operations of the last message; none once all are begun."""
        self._next = 0
        """The first of them that is not begun yet: to copy the rest of millions would take long."""
        self._replica = calls.replica
        """What the next message says of the replica: the first one names it."""
        self._is_begin_due = False

    @property
    def _is_answered(self) -> bool:
        return not (self._unanswered or self._left)

    def _begin(self, request: ntm_pb2.StreamStepsRequest) -> None:
        self._left, self._next = request.operations, 0
        self._begin_left()

    def _begin_left(self) -> None:
        """Begin operations while there is room, then read on, and write what is ready by now."""
        left, first = self._left, self._next
        taken = 0
        while first < len(left) and not self._is_full and taken < _MAX_BEGUN:
            room = min(bidirectional.MAX_UNANSWERED - self._unanswered, _MAX_BEGUN)
            taken = self._start(left[first : first + room])
            first += taken
            self._unanswered += taken
        self._left, self._next = (left, first) if first < len(left) else ((), 0)
        if not self._left:
            self._read()
        elif not self._is_full:
            self._begin_in_turn()
        self._write_ready()

    def _begin_in_turn(self) -> None:
        """Begin more of a message's operations after other calls had their turn."""
        if not self._is_begin_due:
            self._is_begin_due = True
            self._context.call_in_turn(self._do, self._begin_due)

    def _begin_due(self) -> None:
        self._is_begin_due = False
        if self._left and not self._is_full:
            self._begin_left()

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
            self._tasks.add(opening)
            opening.add_done_callback(partial(self._opened, operation.tag))
        else:
            error = InvalidRequest(
                "the operation asks for nothing; set open, step, close or cancel"
            )
            self._put(self._failure(operation.tag, error, ""))

    def _opened(self, tag: int, opening: asyncio.Task[ntm_pb2.Session]) -> None:
        self._tasks.discard(opening)
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
            self._tasks.add(deleting)
            deleting.add_done_callback(partial(self._deleted, work))
        else:
            self._put(self._outcome(work))

    def _deleted(self, closing: Work, deleting: asyncio.Task[None]) -> None:
        """Give the outcome of a close, now that the store has answered or does not."""
        self._tasks.discard(deleting)
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
        self._note(known, session_id)
        return ntm_pb2.Outcome(tag=tag, error=status.message(known))

    def _write(self) -> None:
        response = ntm_pb2.StreamStepsResponse(replica=self._replica)
        self._replica = ""
        chunks, sent = self._fill(response)
        written = partial(self._do, self._written, chunks, sent, len(response.outcomes))
        self._context.send(response.SerializeToString(), written)

    def _written(self, chunks: Sequence[Chunk], sent: int, outcomes: int) -> None:
        self._is_writing = False
        self._calls.replied(chunks, sent)
        self._unanswered -= outcomes
        if not self._left:
            self._read()
        elif not self._is_full:
            self._begin_in_turn()
        self._write_ready()
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
