"""The engine: steps the sessions of a lifecycle, on one thread and without I/O."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Sequence

import numpy as np

from service.engine.admission import Admission
from service.engine.effects import Effects
from service.engine.lifecycle import Lifecycle, draining_error
from service.engine.scheduler import Batch
from service.engine.sessions import Operation, Session, closed_error
from service.engine.turn import Turn
from service.engine.work import Chunk, NetworkRun, Work
from service.errors import (
    CapacityExceeded,
    InvalidRequest,
    NtmError,
    SessionFailed,
    SessionMoved,
    StepIndexMismatch,
)
from service.settings import Settings
from service.spec import Array, StepTensor, parts

log = logging.getLogger(__name__)

SHORT_TURN_BYTES = 384 << 10
"""A turn that steps at most this much state takes no longer than waking a thread for it."""


class Engine:
    """
    Steps the sessions that have work, by turns: schedule, run, commit.

    The network's run is the only slow part of a turn. Another thread may run it between
    `schedule` and `commit`.
    """

    def __init__(self, lifecycle: Lifecycle, settings: Settings, max_turns: int = 2) -> None:
        """At most `max_turns` turns may be scheduled and not yet committed."""
        self.lifecycle = lifecycle
        self._admission = Admission(settings)
        self._scheduler = lifecycle.scheduler
        self._saving = lifecycle.saving
        self._counts = lifecycle.counts
        self._outbox = lifecycle.outbox
        self._now = lifecycle.now
        self._buffers = list(range(max_turns))
        self._apart: deque[Session] = deque()
        """Sessions of runs that failed: each makes one step alone, to find which it was."""

    @property
    def busy(self) -> bool:
        """Whether `turn` has something to do now."""
        return bool(self._scheduler) or bool(self._outbox.finished) or bool(self._apart)

    @property
    def can_schedule(self) -> bool:
        """Whether one more turn may be scheduled before one is committed."""
        return bool(self._buffers)

    def submit(self, work: Work) -> None:
        """
        Queue work behind the session's other work; its answer is among later effects.

        Work may be refused here, or may have an error already. It is then answered with the error,
        in its place among the session's other work.
        """
        lifecycle = self.lifecycle
        try:
            session = lifecycle.awake(work.ref)
        except NtmError as error:
            if lifecycle.may_be_stored(work.ref):
                self._outbox.absent.append(work)
                return
            work.error = error
            self._outbox.finished.append(work)
            return
        try:
            if lifecycle.is_draining:
                raise draining_error()
            if isinstance(work, Chunk) and work.error is None:
                self._admission.chunk(session, work)
                work.submitted_seconds = self._now()
                self._counts.admitted(session, work)
                session.waiting_steps += work.remaining
        except NtmError as error:
            work.error = error
        session.waiting.append(work)
        if len(session.waiting) == 1:
            self._settle(session)

    def take_effects(self) -> Effects:
        """Return what is to be done outside the engine since the last call."""
        return self._outbox.take()

    def turn(self) -> list[Work]:
        """
        Schedule, run and commit one batch, and return the finished work. This is for a single
        thread.
        """
        turn = self.schedule()
        if turn is not None:
            turn.run()
            self.commit(turn)
        finished, self._outbox.finished = self._outbox.finished, []
        return finished

    def schedule(self) -> Turn | None:
        """
        Take the batch that steps next, ready to run; None if no session waits.

        Until the turn is committed, only these may happen: work is submitted, sessions expire,
        other turns are committed and, while `can_schedule`, scheduled.
        """
        batch = self._next_apart() if self._apart else None
        batch = batch or self._scheduler.next()
        if batch is None:
            return None
        rows, ticks = len(batch.sessions), batch.ticks
        chunks = [session.chunk for session in batch.sessions]
        traced = [tensor.output for chunk in chunks if chunk.traces for tensor, _ in chunk.traces]
        buffers = self._buffers[-1]
        try:
            bound = batch.slab.bind(rows, frozenset(traced), ticks, buffers)
        except CapacityExceeded as error:
            for session in batch.sessions:
                self._refuse_for_memory(session, error)
            return None
        self._buffers.pop()
        now = self._now()
        waited = []
        for chunk in chunks:
            if not chunk.done:
                chunk.begun_seconds = now
                waited.append(now - chunk.submitted_seconds)
        self._counts.begun(batch.sessions[0], waited)
        stepped_bytes = rows * ticks * batch.slab.slot_bytes
        short = stepped_bytes <= SHORT_TURN_BYTES and batch.slab.network.on_cpu
        return Turn(batch.sessions, bound, ticks, buffers, short=short)

    def commit(self, turn: Turn) -> None:
        """Give each session its results, finish chunks, and queue the sessions that have more."""
        self._buffers.append(turn.buffers)
        if turn.error is not None:
            self._fail(turn, turn.error)
            return
        now, ticks = self._now(), turn.ticks
        slab = turn.sessions[0].slab
        spec = slab.network.spec
        unsound = _unsound(turn.outputs, spec.outputs)
        if spec.unseen:
            try:
                unsound |= slab.unsound([session.slot for session in turn.sessions])
            except CapacityExceeded as error:
                log.exception("states not read", extra={"sessions": len(turn.sessions)})
                self._fail(turn, error)
                return
        finished: list[Chunk] = []
        traced = 0
        for row, session in enumerate(turn.sessions):
            if session.is_moved:
                self.lifecycle.close(session, SessionMoved)
                continue
            if row in unsound:
                self.lifecycle.close(session, SessionFailed)
                continue
            chunk = session.chunk
            chunk.advance(turn.outputs[:, row], turn.traces, row)
            session.next_step += ticks
            session.waiting_steps -= ticks
            session.used_seconds = now
            if chunk.traces:
                traced += ticks
            if chunk.runs is not None:
                run = NetworkRun(turn.started_seconds, turn.seconds, ticks, len(turn.sessions))
                chunk.runs.append(run)
            if not chunk.remaining:
                chunk.finish(now)
                if chunk.first_step is not None:
                    session.replays.add(chunk)
                finished.append(chunk)
        if self.lifecycle.has_store:
            self._save_due(turn.sessions)
        for session in turn.sessions:
            if session.waiting and not session.chunk.remaining:
                self._saving.finish(session, session.waiting.popleft())
            self._settle(session)
        self._counts.committed(turn, finished, traced)

    def _next_apart(self) -> Batch | None:
        """One step of the next session that runs alone; None if those that wait were closed."""
        while self._apart:
            session = self._apart.popleft()
            if session.is_open:
                return Batch(session.slab, [session], ticks=1)
        return None

    def _fail(self, turn: Turn, error: Exception) -> None:
        """
        End what a run that failed was for.

        All sessions are closed if some of their rows may have been written. If not, every state is
        as it was. Then only the session whose step cannot be made gets an error, and goes on; to
        find the step, each session makes one alone. If memory was missing, all get that error.
        """
        self._counts.failed(turn.sessions[0].model)
        for session in turn.sessions:
            if session.is_moved:
                self.lifecycle.close(session, SessionMoved)
            elif turn.may_be_written:
                self.lifecycle.close(session, SessionFailed)
            elif isinstance(error, CapacityExceeded):
                self._refuse_for_memory(session, error)
            elif len(turn.sessions) > 1 or turn.ticks > 1:
                self._apart.append(session)
            else:
                self._refuse_step(session)

    def _refuse_step(self, session: Session) -> None:
        """Answer the chunk whose next step cannot be made with an error; the session goes on."""
        chunk = session.chunk
        error = InvalidRequest(
            f"the network cannot be run on step {chunk.done} of the chunk; is a whole number out "
            f"of its range? The session goes on at step {session.next_step}",
            step=chunk.done,
            next_step=session.next_step,
        )
        self._refuse(session, error)

    def _refuse_for_memory(self, session: Session, error: CapacityExceeded) -> None:
        """The same for a chunk whose next step there is no memory for."""
        next_step = session.next_step
        sentence = f"{error.message}. The session goes on at step {next_step}"
        self._refuse(session, CapacityExceeded(sentence, limit="memory", next_step=next_step))

    def _refuse(self, session: Session, error: NtmError) -> None:
        chunk = session.chunk
        chunk.error = error
        session.waiting_steps -= chunk.remaining
        self._saving.finish(session, session.waiting.popleft())
        self._settle(session)

    def _settle(self, session: Session) -> None:
        """Do the operations at the head of the session's queue; schedule the chunk after them."""
        while session.waiting:
            work = session.waiting[0]
            # A chunk that has begun and can be sent again is finished even if cancelled: the
            # client that sends it again then finds the replay.
            dropped = work.error is not None or (
                work.cancelled
                and not (isinstance(work, Chunk) and work.done and work.first_step is not None)
            )
            if isinstance(work, Chunk) and not dropped and self._begin_chunk(session, work):
                self._scheduler.add(session)
                return
            session.waiting.popleft()
            if isinstance(work, Operation) and not dropped:
                self._operate(session, work)
                continue
            if isinstance(work, Chunk):
                session.waiting_steps -= work.remaining
            self._saving.finish(session, work)

    def _save_due(self, sessions: list[Session]) -> None:
        """Take snapshots of the sessions of a turn that are due, with one copy per slab."""
        due, now = [], self._now()
        for session in sessions:
            if session.durable is not None:
                session.durable.version += 1
                if session.durable.is_due(session.next_step, session.chunk.remaining, now):
                    due.append(session)
        if due:
            try:
                self._outbox.snapshots += self._saving.take(due)
            except CapacityExceeded as error:  # they are due again after their next chunk
                log.warning("no snapshots", extra={"sessions": len(due), "why": error.message})

    def _begin_chunk(self, session: Session, chunk: Chunk) -> bool:
        """Begin a chunk; False if its steps were made before, or if it starts at another step."""
        if chunk.done:
            return True
        if chunk.first_step is not None and chunk.first_step != session.next_step:
            chunk.outcome = session.replays.find(chunk)
            if chunk.outcome is not None:
                chunk.model, chunk.finished_seconds = session.model, self._now()
                self._counts.replayed(session)
                return False
            chunk.error = StepIndexMismatch(
                f"the chunk starts at step {chunk.first_step}; session {session.id!r} is at step "
                f"{session.next_step}",
                expected=session.next_step,
                actual=chunk.first_step,
            )
            return False
        spec = session.slab.network.spec
        chunk.begin(session.next_step, session.model, spec, session.locations)
        return True

    def _operate(self, session: Session, operation: Operation) -> None:
        # An operation that closes the session fails the work in the queue. The work behind is set
        # aside, so that it is answered after the operation.
        behind, session.waiting = session.waiting, deque()
        version = session.durable.version if session.durable else 0
        try:
            operation.outcome = operation.action(session)
        except NtmError as error:
            operation.error = error
        except Exception:
            log.exception("operation failed")
            self.lifecycle.close(session, SessionFailed)
            operation.error = closed_error(SessionFailed, session.id)
        set_back = session.durable is not None and session.durable.version != version
        self._saving.finish(session, operation, set_back=set_back)
        if session.is_open:
            session.waiting = behind
        else:
            self.lifecycle.fail(behind)


def _unsound(outputs: Array, tensors: Sequence[StepTensor]) -> set[int]:
    """The rows of outputs [ticks, batch, ...] with a value that is infinite or NaN."""
    rows: set[int] = set()
    for tensor, values in zip(tensors, parts(outputs, tensors), strict=True):
        if not tensor.is_floating:
            continue
        # Nearly always; a sum is much faster than looking at each value. One of float16 could
        # become infinite by itself.
        if tensor.type == "float32" and math.isfinite(np.add.reduce(values, axis=None)):
            continue
        other_axes = (0, *range(2, values.ndim))
        rows |= set(np.flatnonzero(~np.isfinite(values).all(axis=other_axes)).tolist())
    return rows
