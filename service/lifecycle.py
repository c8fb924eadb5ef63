"""The life of sessions: how they open, what can be told and changed of them, how they close."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

from service.admission import Admission
from service.checkpoint import Checkpoint
from service.counts import Counts
from service.errors import Draining, NtmError, SessionDeleted, SessionExpired
from service.metrics import Metrics
from service.replays import Replays
from service.runtime import Network
from service.saving import Durability, Durable, Saving
from service.scheduler import Scheduler
from service.sessions import Session, SessionTable, new_session_id
from service.settings import Settings
from service.slabs import Slabs
from service.spec import Float32
from service.views import SessionView
from service.work import Work


class Lifecycle:
    """
    Holds every session and its state.

    Belongs to one thread (the event loop's), and waits for nothing.
    """

    def __init__(
        self,
        networks: Mapping[str, Network],
        settings: Settings,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        *,
        has_store: bool = False,
    ) -> None:
        """
        Serve the networks by name, to which more may be added; the clocks give seconds.

        Where there is a store, it takes the snapshots of `saving`.
        """
        self.draining = False
        self._networks = networks
        self._admission = Admission(settings)
        self._clock = clock
        self._wall_clock = wall_clock
        self._sessions = SessionTable()
        self._scheduler = Scheduler(settings.max_batch, settings.max_burst)
        self._slabs = Slabs(networks)
        self._most_replay_bytes = settings.max_replay_bytes
        self._counts = Counts(metrics, self._slabs)
        self._has_store = has_store
        self.saving = Saving(self._slabs, self._view, self._answer)
        """What is to be stored, and what waits for that."""
        self._opened = 0
        self._finished: list[Work] = []
        metrics.sessions_limit.set(settings.max_sessions)
        metrics.state_limit_bytes.set(settings.max_state_bytes)
        metrics.waiting_sessions.set_function(lambda: self._scheduler.waiting)

    def now(self) -> float:
        """The time by the engine's clock, in seconds."""
        return self._clock()

    def seconds_to_deadline(self) -> float | None:
        """How long until `expire` may have something to do; None while there is no session."""
        deadline = self._sessions.next_deadline_seconds()
        return None if deadline is None else max(0.0, deadline - self._clock())

    def open(
        self,
        model: str,
        locations: int,
        idle_timeout_seconds: float | None,
        owner: str,
        start: Checkpoint | None = None,
        durability: Durability | None = None,
    ) -> SessionView:
        """
        Open a session of a loaded network; 0 locations and no timeout mean the defaults.

        It starts from a checkpoint if there is one, whose locations then are the default. Without
        a durability it gets the server's.

        Raises:
            InvalidRequest, CapacityExceeded, Draining: nothing was changed.
        """
        if self.draining:
            raise draining()
        network = self._networks[model]
        if start is not None:
            locations = locations or start.locations
        locations = self._admission.locations(network.spec, locations)
        timeout = self._admission.idle_timeout_seconds(idle_timeout_seconds)
        durability = self._admission.durability(durability, has_store=self._has_store)
        new_bytes = network.spec.state_bytes(locations)
        self._admission.room(self._sessions.held, self._sessions.held_by(owner), new_bytes)
        slab, slot = self._slabs.place(model, locations)
        self._opened += 1
        session = Session(
            id=new_session_id(),
            number=self._opened,
            owner=owner,
            model=model,
            slab=slab,
            slot=slot,
            idle_timeout_seconds=timeout,
            created_unix_seconds=self._wall_clock(),
            used_seconds=self._clock(),
            replays=Replays(self._most_replay_bytes),
            durable=Durable(durability) if self._has_store else None,
        )
        if start is not None:
            try:
                self._slabs.restore(session, start)
            except NtmError:
                self._slabs.leave(session)
                raise
            session.next_step = start.next_step
        self._sessions.add(session)
        self._counts.opened(session)
        return self._view(session)

    def describe(self, session_id: str, caller: str = "") -> SessionView:
        """A session as it is now. Raises as `SessionTable.get`."""
        return self._view(self._sessions.get(session_id, caller))

    def owned(self, owner: str, after: int, limit: int) -> list[SessionView]:
        """At most `limit` sessions of the owner with a number above `after`, in order."""
        found: list[SessionView] = []
        for session in self._sessions:
            if session.owner == owner and session.number > after:
                if len(found) == limit:
                    break
                found.append(self._view(session))
        return found

    def delete(self, session_id: str, caller: str = "") -> None:
        """Close a session now; its work fails with SessionDeleted. Raises as `SessionTable.get`."""
        self._close(self._sessions.get(session_id, caller), SessionDeleted)

    def close(self, session: Session) -> None:
        """Close a session whose turn to be deleted has come; what waits behind fails."""
        self._close(session, SessionDeleted)

    def reset(self, session: Session) -> SessionView:
        """Set a session to the initial state and step 0."""
        session.slab.reset(session.slot)
        return self._moved(session, 0)

    def restore(self, session: Session, taken: Checkpoint) -> SessionView:
        """Set a session to a checkpoint. Raises as `Slabs.restore`."""
        self._slabs.restore(session, taken)
        return self._moved(session, taken.next_step)

    def fork(self, session: Session, fork_id: str) -> SessionView:
        """
        Set a new session to the state that this one has, and its step.

        Raises as `SessionTable.get` if it is closed already.
        """
        fork = self._sessions.get(fork_id)
        self._slabs.copy(session, fork)
        return self._moved(fork, session.next_step)

    def checkpoint(self, session: Session) -> tuple[SessionView, Checkpoint]:
        """A session and its state at its step."""
        return self._view(session), self._slabs.checkpoints([session])[0]

    def read(self, session: Session) -> tuple[SessionView, dict[str, Float32]]:
        """A session and a copy of its state by name."""
        return self._view(session), self._slabs.state(session)

    def expire(self) -> None:
        """Close the sessions that were not used for their idle timeout."""
        for session in self._sessions.idle(self._clock()):
            self._close(session, SessionExpired)

    def _moved(self, session: Session, next_step: int) -> SessionView:
        """Have a session go on at another step, as if it had never made those it made."""
        if session.durable:
            session.durable.version += 1
        session.next_step = next_step
        session.replays.clear()
        session.used_seconds = self._clock()
        return self._view(session)

    def _close(self, session: Session, why: type[NtmError]) -> None:
        self._scheduler.remove(session)
        self._sessions.close(session, why)
        self._slabs.leave(session)
        self.saving.close(session, lambda: self._sessions.gone(session.id))
        self._drop(session, session.waiting)
        lived = self._wall_clock() - session.created_unix_seconds
        self._counts.closed(session, why, self._clock(), lived)

    def _drop(self, session: Session, waiting: deque[Work]) -> None:
        """Tell those who wait for a closed session that it is gone."""
        while waiting:
            work = waiting.popleft()
            work.error = self._sessions.gone(session.id)
            self._finished.append(work)

    def _answer(self, work: Work) -> None:
        self._finished.append(work)

    def _view(self, session: Session) -> SessionView:
        return SessionView.of(session, self._clock(), self._wall_clock())


def draining() -> Draining:
    """What is told while the server stops."""
    return Draining("this server is stopping; connect to another replica")
