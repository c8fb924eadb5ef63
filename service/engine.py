"""The engine: owns sessions, slabs and schedule, and steps them; single-threaded, without I/O."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from service.admission import Admission
from service.counts import Counts
from service.errors import (
    Draining,
    NtmError,
    SessionDeleted,
    SessionExpired,
    SessionFailed,
    StepIndexMismatch,
)
from service.metrics import Metrics
from service.runtime import Network
from service.scheduler import Scheduler
from service.sessions import Session, SessionTable, new_session_id
from service.settings import Settings
from service.slab import Slab
from service.spec import Float32
from service.turn import Turn
from service.work import Chunk, Operation, Run, Work

log = logging.getLogger(__name__)

SHORT_TURN_BYTES = 384 << 10
"""A turn that steps no more state than this takes no longer than to wake a thread for it."""


@dataclass(frozen=True, slots=True)
class SessionView:
    """What can be told of a session, at one moment."""

    id: str
    number: int
    model: str
    content_hash: str
    locations: int
    idle_timeout_seconds: float
    next_step: int
    state_bytes: int
    created_unix_seconds: float
    expires_unix_seconds: float


class Engine:
    """
    Holds every session and steps those that have work.

    Belongs to one thread (the event loop's), and waits for nothing: what takes long is a turn's
    run, which another thread may do between `schedule` and `commit`.
    """

    def __init__(
        self,
        networks: Mapping[str, Network],
        settings: Settings,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        most_turns: int = 2,
    ) -> None:
        """
        Serve the networks by name, to which more may be added.

        The clocks give seconds. At most `most_turns` may be scheduled and not committed.
        """
        self.draining = False
        self._networks = networks
        self._admission = Admission(settings)
        self._clock = clock
        self._wall_clock = wall_clock
        self._sessions = SessionTable()
        self._scheduler = Scheduler(settings.max_batch, settings.max_burst)
        self._slabs: dict[tuple[str, int], Slab] = {}
        self._counts = Counts(metrics, self._slabs)
        self._state_bytes = 0
        self._opened = 0
        self._buffers = list(range(most_turns))
        self._finished: list[Work] = []
        metrics.sessions_limit.set(settings.max_sessions)
        metrics.state_limit_bytes.set(settings.max_state_bytes)
        metrics.waiting_sessions.set_function(lambda: self._scheduler.waiting)

    def now(self) -> float:
        """The time by the engine's clock, in seconds."""
        return self._clock()

    @property
    def busy(self) -> bool:
        """Whether `turn` has something to do now."""
        return bool(self._scheduler) or bool(self._finished)

    @property
    def can_schedule(self) -> bool:
        """Whether one more turn may be scheduled before one is committed."""
        return bool(self._buffers)

    def seconds_to_deadline(self) -> float | None:
        """How long until `expire` may have something to do; None while there is no session."""
        deadline = self._sessions.next_deadline_seconds()
        return None if deadline is None else max(0.0, deadline - self._clock())

    def open(
        self, model: str, locations: int, idle_timeout_seconds: float | None, owner: str
    ) -> SessionView:
        """
        Open a session of a loaded network; 0 locations and no timeout mean the defaults.

        Raises:
            InvalidRequest, CapacityExceeded, Draining: nothing was changed.
        """
        if self.draining:
            raise _draining()
        network = self._networks[model]
        locations = self._admission.locations(network.spec, locations)
        timeout = self._admission.idle_timeout_seconds(idle_timeout_seconds)
        new_bytes = network.spec.state_bytes(locations)
        self._admission.room(len(self._sessions), self._state_bytes, new_bytes)
        slab = self._slabs.get((model, locations))
        if slab is None:
            slab = self._slabs[model, locations] = Slab(network, locations)
        self._opened += 1
        session = Session(
            id=new_session_id(),
            number=self._opened,
            owner=owner,
            model=model,
            slab=slab,
            slot=slab.acquire(),
            idle_timeout_seconds=timeout,
            created_unix_seconds=self._wall_clock(),
            used_seconds=self._clock(),
        )
        self._sessions.add(session)
        self._state_bytes += slab.slot_bytes
        self._counts.opened(session)
        return self._view(session)

    def describe(self, session_id: str) -> SessionView:
        """A session as it is now. Raises as `SessionTable.get`."""
        return self._view(self._sessions.get(session_id))

    def owned(self, owner: str, after: int, limit: int) -> list[SessionView]:
        """At most `limit` sessions of the owner with a number above `after`, in order."""
        found: list[SessionView] = []
        for session in self._sessions:
            if session.owner == owner and session.number > after:
                if len(found) == limit:
                    break
                found.append(self._view(session))
        return found

    def delete(self, session_id: str) -> None:
        """Close a session now; its work fails with SessionDeleted. Raises as `SessionTable.get`."""
        self._close(self._sessions.get(session_id), SessionDeleted)

    def close(self, session: Session) -> None:
        """Close a session whose turn to be deleted has come; what waits behind fails."""
        self._close(session, SessionDeleted)

    def reset(self, session: Session) -> SessionView:
        """Set a session to the initial state and step 0."""
        session.slab.reset(session.slot)
        session.next_step = 0
        session.used_seconds = self._clock()
        return self._view(session)

    def read(self, session: Session) -> tuple[SessionView, dict[str, Float32]]:
        """A session and a copy of its state by name."""
        return self._view(session), session.slab.read(session.slot)

    def submit(self, work: Work) -> None:
        """
        Queue work behind the session's other work; a turn returns it when it is finished.

        Work that is refused, here or before (it then has an error already), is finished with its
        error in its place among the session's other work.
        """
        try:
            session = self._sessions.get(work.session_id)
        except NtmError as error:
            work.error = error
            self._finished.append(work)
            return
        try:
            if self.draining:
                raise _draining()
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

    def expire(self) -> None:
        """Close the sessions that were not used for their idle timeout."""
        for session in self._sessions.idle(self._clock()):
            self._close(session, SessionExpired)

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
                finished.append(chunk)
                self._finished.append(session.waiting.popleft())
            self._settle(session)
        self._counts.committed(turn, finished, traced)

    def finished(self) -> list[Work]:
        """Hand out the work finished since it was last asked for, in the order of finishing."""
        finished, self._finished = self._finished, []
        return finished

    def check_integrity(self) -> None:
        """Raise RuntimeError unless slots, sessions and state bytes add up."""
        for slab in self._slabs.values():
            slab.check_integrity()
        used = sum(slab.used for slab in self._slabs.values())
        places = {(session.slab, session.slot) for session in self._sessions}
        held = sum(session.slab.slot_bytes for session in self._sessions)
        if not used == len(self._sessions) == len(places) or held != self._state_bytes:
            raise RuntimeError(
                f"sessions {len(self._sessions)}, their places {len(places)}, slots used {used}, "
                f"state bytes {held}, counted {self._state_bytes}"
            )

    def _fail(self, sessions: list[Session]) -> None:
        """Close the sessions of a run that failed: some of their rows may have been written."""
        self._counts.failed(sessions[0].model)
        for session in sessions:
            self._close(session, SessionFailed)

    def _settle(self, session: Session) -> None:
        """Do the operations at the head of the session's work and schedule the chunk after them."""
        while session.waiting:
            work = session.waiting[0]
            dropped = work.cancelled or work.error is not None
            if isinstance(work, Chunk) and not dropped and self._begun(session, work):
                self._scheduler.add(session)
                return
            session.waiting.popleft()
            # Before the operation: closing the session finishes the work behind it.
            self._finished.append(work)
            if isinstance(work, Chunk):
                session.waiting_steps -= work.remaining
            elif isinstance(work, Operation) and not dropped:
                self._operate(session, work)

    def _begun(self, session: Session, chunk: Chunk) -> bool:
        """Begin a chunk whose turn has come, unless it asks for another index."""
        if chunk.done:
            return True
        if chunk.first_step not in (None, session.next_step):
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
        try:
            operation.outcome = operation.action(session)
        except NtmError as error:
            operation.error = error
        except Exception:
            log.exception("operation failed")
            self._close(session, SessionFailed)
            operation.error = self._sessions.gone(session.id)

    def _close(self, session: Session, why: type[NtmError]) -> None:
        self._scheduler.remove(session)
        self._sessions.close(session, why)
        session.slab.release(session.slot)
        self._state_bytes -= session.slab.slot_bytes
        while session.waiting:
            work = session.waiting.popleft()
            work.error = self._sessions.gone(session.id)
            self._finished.append(work)
        if not session.slab.used:
            del self._slabs[session.model, session.locations]
        lived = self._wall_clock() - session.created_unix_seconds
        self._counts.closed(session, why, self._clock(), lived)

    def _view(self, session: Session) -> SessionView:
        left = session.deadline_seconds - self._clock()
        return SessionView(
            id=session.id,
            number=session.number,
            model=session.model,
            content_hash=session.slab.network.content_hash,
            locations=session.locations,
            idle_timeout_seconds=session.idle_timeout_seconds,
            next_step=session.next_step,
            state_bytes=session.slab.slot_bytes,
            created_unix_seconds=session.created_unix_seconds,
            expires_unix_seconds=self._wall_clock() + left,
        )


def _draining() -> Draining:
    return Draining("this server is stopping; connect to another replica")


def _unsound(outputs: Float32) -> set[int]:
    """Which rows of outputs [ticks, batch, Y] hold a value that is not finite."""
    if math.isfinite(outputs.sum()):
        return set()  # the quick way, which is nearly always the end of it
    return set(np.flatnonzero(~np.isfinite(outputs).all(axis=(0, 2))).tolist())
