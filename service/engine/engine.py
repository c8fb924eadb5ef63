"""The engine: owns sessions, slabs and schedule, and steps them; single-threaded, without I/O."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np

from service.engine.lifecycle import Lifecycle, draining
from service.engine.saving import Snapshot
from service.engine.sessions import Session
from service.engine.turn import Turn
from service.engine.work import Chunk, Operation, Run, Work
from service.errors import NtmError, SessionFailed, SessionMoved, StepIndexMismatch
from service.models.runtime import Network
from service.models.version import Version
from service.settings import Settings
from service.spec import Float32
from service.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

SHORT_TURN_BYTES = 384 << 10
"""A turn that steps no more state than this takes no longer than to wake a thread for it."""


class Engine(Lifecycle):
    """
    Holds every session and steps those that have work.

    What takes long is a turn's run, which another thread may do between `schedule` and `commit`.
    """

    def __init__(
        self,
        networks: Mapping[Version, Network],
        settings: Settings,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        most_turns: int = 2,
        *,
        has_store: bool = False,
    ) -> None:
        """As `Lifecycle`; at most `most_turns` may be scheduled and not committed."""
        super().__init__(networks, settings, metrics, clock, wall_clock, has_store=has_store)
        self._buffers = list(range(most_turns))
        self._absent: list[Work] = []

    @property
    def busy(self) -> bool:
        """Whether `turn` has something to do now."""
        return bool(self._scheduler) or bool(self._finished)

    @property
    def can_schedule(self) -> bool:
        """Whether one more turn may be scheduled before one is committed."""
        return bool(self._buffers)

    def submit(self, work: Work) -> None:
        """
        Queue work behind the session's other work; a turn returns it when it is finished.

        Work that is refused, here or before (it then has an error already), is finished with its
        error in its place among the session's other work.
        """
        try:
            session = self.awake_for(work.session_id, work.caller, work.known_epoch)
        except NtmError as error:
            if self.may_be_stored(work.session_id, work.caller, work.known_epoch):
                self._absent.append(work)
                return
            work.error = error
            self._finished.append(work)
            return
        try:
            if self.draining:
                raise draining()
            if isinstance(work, Chunk) and work.error is None:
                self._admission.chunk(session, work)
                work.submitted_seconds = self._clock()
                self._counts.admitted(session, work)
                session.waiting_steps += work.remaining
        except NtmError as error:
            work.error = error
        session.waiting.append(work)
        if len(session.waiting) == 1:
            self._settle(session)

    def may_be_stored(self, session_id: str, caller: str, known_epoch: int) -> bool:
        """Whether a session that is not awake may be in the store, to be woken for the caller."""
        return self._has_store and self._sessions.may_be_stored(session_id, caller, known_epoch)

    def absent(self) -> list[Work]:
        """Hand out the work for sessions that may be in the store, to be submitted once awake."""
        absent, self._absent = self._absent, []
        return absent

    def stored(self, snapshot: Snapshot, *, is_kept: bool) -> None:
        """The store has a snapshot; or it has refused it, and the session is another replica's."""
        session = snapshot.session
        if not is_kept:
            if session.is_open:
                self.passed_over(session)
            return
        self.saving.saved(snapshot)
        snapshot.durable.stored_seconds = self._clock()
        unchanged = session.durable is not None and session.durable.is_clean
        if snapshot.puts_to_sleep and unchanged and session.can_sleep:
            self.put_to_sleep(session)

    def turn(self) -> list[Work]:
        """Schedule, run and commit one batch; the work finished since it was last asked for."""
        turn = self.schedule()
        if turn is not None:
            turn.run()
            self.commit(turn)
        return self.finished()

    def schedule(self) -> Turn | None:
        """
        Take the batch that steps next, ready to run; None when nobody waits.

        Until it is committed, work may be submitted, sessions may expire, other turns may be
        committed and, while `can_schedule`, scheduled, and nothing else.
        """
        batch = self._scheduler.next()
        if batch is None:
            return None
        rows, ticks = len(batch.sessions), batch.ticks
        chunks = [session.chunk for session in batch.sessions]
        now = self._clock()
        waited = []
        for chunk in chunks:
            if not chunk.done:
                chunk.begun_seconds = now
                waited.append(now - chunk.submitted_seconds)
        self._counts.begun(batch.sessions[0], waited)
        traced = [tensor.output for chunk in chunks if chunk.traces for tensor, _ in chunk.traces]
        buffers = self._buffers.pop()
        bound = batch.slab.bind(rows, frozenset(traced), ticks, buffers)
        stepped_bytes = rows * ticks * batch.slab.slot_bytes
        short = stepped_bytes <= SHORT_TURN_BYTES and batch.slab.network.on_cpu
        return Turn(batch.sessions, bound, ticks, buffers, short=short)

    def commit(self, turn: Turn) -> None:
        """Let the sessions take over the results of a run; finish chunks; queue who has more."""
        self._buffers.append(turn.buffers)
        if turn.failed:
            self._fail(turn.sessions)
            return
        now, ticks = self._clock(), turn.ticks
        unsound = _unsound(turn.outputs)
        finished: list[Chunk] = []
        traced = 0
        for row, session in enumerate(turn.sessions):
            if session.is_moved:
                self._close(session, SessionMoved)
                continue
            if row in unsound:
                self._close(session, SessionFailed)
                continue
            chunk = session.chunk
            chunk.advance(turn.outputs[:, row], turn.traces, row)
            session.next_step += ticks
            session.waiting_steps -= ticks
            session.used_seconds = now
            if chunk.traces:
                traced += ticks
            if chunk.runs is not None:
                run = Run(turn.started_seconds, turn.seconds, ticks, len(turn.sessions))
                chunk.runs.append(run)
            if not chunk.remaining:
                chunk.finish(now)
                if chunk.is_indexed:
                    session.replays.add(chunk)
                finished.append(chunk)
        if self._has_store:
            self._save_due(turn.sessions)
        for session in turn.sessions:
            if session.waiting and not session.chunk.remaining:
                self.saving.finish(session, session.waiting.popleft())
            self._settle(session)
        self._counts.committed(turn, finished, traced)

    def finished(self) -> list[Work]:
        """Hand out the work finished since it was last asked for, in the order of finishing."""
        finished, self._finished = self._finished, []
        return finished

    def check_integrity(self) -> None:
        """Raise RuntimeError unless slots, sessions and state bytes add up."""
        self._slabs.check_integrity()
        self._sessions.check_integrity()
        used = sum(slab.used for slab in self._slabs)
        places = {(session.slab, session.slot) for session in self._sessions}
        if not used == len(self._sessions) == len(places):
            raise RuntimeError(
                f"sessions {len(self._sessions)}, their places {len(places)}, slots used {used}"
            )

    def _fail(self, sessions: list[Session]) -> None:
        """Close the sessions of a run that failed: some of their rows may have been written."""
        self._counts.failed(sessions[0].model)
        for session in sessions:
            self._close(session, SessionMoved if session.is_moved else SessionFailed)

    def _settle(self, session: Session) -> None:
        """Do the operations at the head of the session's work and schedule the chunk after them."""
        while session.waiting:
            work = session.waiting[0]
            # One that has begun and may be sent again is made to its end, so that it is kept.
            dropped = work.error is not None or (
                work.cancelled and not (isinstance(work, Chunk) and work.done and work.is_indexed)
            )
            if isinstance(work, Chunk) and not dropped and self._begun(session, work):
                self._scheduler.add(session)
                return
            session.waiting.popleft()
            if isinstance(work, Operation) and not dropped:
                self._operate(session, work)
                continue
            if isinstance(work, Chunk):
                session.waiting_steps -= work.remaining
            self.saving.finish(session, work)

    def _save_due(self, sessions: list[Session]) -> None:
        """Take snapshots of the sessions of a turn whose policy wants it, all in one go."""
        due, now = [], self._clock()
        for session in sessions:
            if session.durable is not None:
                session.durable.version += 1
                if session.durable.is_due(session.next_step, session.chunk.remaining, now):
                    due.append(session)
        if due:
            self.saving.take(due)

    def _begun(self, session: Session, chunk: Chunk) -> bool:
        """Begin a chunk whose turn has come, unless it was made before or has another index."""
        if chunk.done:
            return True
        if chunk.is_indexed and chunk.first_step != session.next_step:
            chunk.outcome = session.replays.find(chunk)
            if chunk.outcome is not None:
                chunk.model, chunk.finished_seconds = session.model, self._clock()
                self._counts.replayed(session)
                return False
            chunk.error = StepIndexMismatch(
                f"the chunk starts at step {chunk.first_step}; session {session.id!r} is at step "
                f"{session.next_step}",
                expected=session.next_step,
                actual=chunk.first_step,
            )
            return False
        chunk.begin(session)
        return True

    def _operate(self, session: Session, operation: Operation) -> None:
        # Closing the session must not finish what waits behind before the operation itself.
        behind, session.waiting = session.waiting, deque()
        version = session.durable.version if session.durable else 0
        try:
            operation.outcome = operation.action(session)
        except NtmError as error:
            operation.error = error
        except Exception:
            log.exception("operation failed")
            self._close(session, SessionFailed)
            operation.error = self._sessions.gone(session.id)
        set_back = session.durable is not None and session.durable.version != version
        self.saving.finish(session, operation, set_back=set_back)
        if session.is_open:
            session.waiting = behind
        else:
            self._drop(session, behind)


def _unsound(outputs: Float32) -> set[int]:
    """Which rows of outputs [ticks, batch, Y] hold a value that is not finite."""
    if math.isfinite(outputs.sum()):
        return set()  # the quick way, which is nearly always the end of it
    return set(np.flatnonzero(~np.isfinite(outputs).all(axis=(0, 2))).tolist())
