"""The life of sessions: how they open, what can be told and changed of them, how they close."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Mapping

from service.engine import replays
from service.engine.admission import Admission
from service.engine.checkpoint import Checkpoint
from service.engine.counts import Counts
from service.engine.replays import Replays
from service.engine.saving import Durability, Durable, Saving
from service.engine.scheduler import Scheduler
from service.engine.sessions import (
    Asleep,
    Forgotten,
    Session,
    SessionTable,
    moved,
    new_session_id,
)
from service.engine.slabs import Slabs
from service.engine.views import SessionView
from service.engine.work import Work
from service.errors import Draining, NtmError, SessionDeleted, SessionExpired, SessionMoved
from service.models.runtime import Network
from service.models.version import Version
from service.record import Stored
from service.settings import Settings
from service.spec import Float32
from service.telemetry.metrics import Metrics


class Lifecycle:
    """
    Holds every session and its state.

    Belongs to one thread (the event loop's), and waits for nothing.
    """

    def __init__(
        self,
        networks: Mapping[Version, Network],
        settings: Settings,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        *,
        has_store: bool = False,
    ) -> None:
        """
        Serve the networks, which may come, and go while `uses` denies them; clocks give seconds.

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
        self._counts = Counts(metrics, self._slabs)
        self._has_store = has_store
        self._forgotten: list[Forgotten] = []
        self.saving = Saving(self._slabs, self._view, self._answer)
        """What is to be stored, and what waits for that."""
        self._opened = 0
        self._finished: list[Work] = []
        metrics.sessions_limit.set(settings.max_sessions)
        metrics.state_limit_bytes.set(settings.max_state_bytes)
        metrics.waiting_sessions.set_function(lambda: self._scheduler.waiting)
        metrics.undurable_steps.set_function(self._sessions.undurable_steps)

    def now(self) -> float:
        """The time by the engine's clock, in seconds."""
        return self._clock()

    def seconds_to_deadline(self) -> float | None:
        """How long until `expire` may have something to do; None while there is no session."""
        deadline = self._sessions.next_deadline_seconds()
        return None if deadline is None else max(0.0, deadline - self._clock())

    def open(
        self,
        version: Version,
        locations: int,
        idle_timeout_seconds: float | None,
        owner: str,
        start: Checkpoint | None = None,
        durability: Durability | None = None,
        *,
        session_id: str = "",
        is_begun: bool = True,
    ) -> SessionView:
        """
        Open a session of a loaded version; 0 locations and no timeout mean the defaults.

        It starts from a checkpoint if there is one, whose locations then are the default. Without
        a durability it gets the server's, without an id one of its own. One that is not begun stays
        awake until it is a `fork`.

        Raises:
            InvalidRequest, CapacityExceeded, Draining: nothing was changed.
        """
        if self.draining:
            raise draining()
        network = self._networks[version]
        if start is not None:
            locations = locations or start.locations
        locations = self._admission.locations(network.spec, locations)
        timeout = self._admission.idle_timeout_seconds(idle_timeout_seconds)
        durability = self._admission.durability(durability, has_store=self._has_store)
        new_bytes = network.spec.state_bytes(locations)
        self._admission.room(self._sessions.held, self._sessions.held_by(owner), new_bytes)
        slab, slot = self._slabs.place(version, locations)
        self._opened += 1
        session = Session(
            id=session_id or new_session_id(),
            number=self._opened,
            owner=owner,
            model=version.model,
            slab=slab,
            slot=slot,
            idle_timeout_seconds=timeout,
            created_unix_seconds=self._wall_clock(),
            used_seconds=self._clock(),
            replays=Replays(replays.MAX_REPLAY_BYTES),
            durable=Durable(durability) if self._has_store else None,
            is_begun=is_begun,
        )
        self._enter(session, start)
        self._counts.opened(session)
        return self._view(session)

    def adopt(self, session_id: str, epoch: int, stored: Stored) -> SessionView:
        """
        Go on with a session that the store had, as its owner of that epoch.

        Its version is loaded. Raises as `open`; nothing was changed.
        """
        network, taken = self._networks[stored.version], stored.checkpoint
        spec = network.spec
        asleep = self._sessions.sleeping(session_id)
        held, held_by = self._sessions.held, self._sessions.held_by(stored.owner)
        if asleep is None:
            self._admission.room(held, held_by, spec.state_bytes(taken.locations))
            self._opened += 1
        slab, slot = self._slabs.place(stored.version, taken.locations)
        session = Session(
            id=session_id,
            number=asleep.view.number if asleep else self._opened,
            owner=stored.owner,
            model=stored.version.model,
            slab=slab,
            slot=slot,
            idle_timeout_seconds=stored.idle_timeout_seconds,
            created_unix_seconds=stored.created_unix_seconds,
            used_seconds=self._clock(),
            replays=Replays(replays.MAX_REPLAY_BYTES, stored.replays(spec)),
            durable=Durable(
                stored.durability, epoch, taken.next_step, stored_version=0, may_be_stored=True
            ),
        )
        self._enter(session, taken)
        self._counts.woken(session, was_here=asleep is not None)
        return self._view(session)

    def _enter(self, session: Session, start: Checkpoint | None) -> None:
        """Let a session begin where the checkpoint says, or give its slot back."""
        try:
            if start is not None:
                self._slabs.restore(session, start)
                session.next_step = start.next_step
        except NtmError:
            self._slabs.leave(session)
            raise
        self._sessions.add(session)

    def sleepers(self, count: int, idle_seconds: float = 0.0) -> list[Session]:
        """At most so many sessions that could sleep, the longest unused first."""
        until = self._clock() - idle_seconds
        able = (s for s in self._sessions if s.can_sleep and s.used_seconds <= until)
        return heapq.nsmallest(count, able, key=lambda session: session.used_seconds)

    @property
    def awake(self) -> int:
        """How many sessions are in slabs."""
        return len(self._sessions)

    def unsaved(self) -> list[Session]:
        """The sessions that the store does not have as they are, and that are in no turn."""
        return [
            session
            for session in self._sessions
            if session.durable and not session.durable.is_covered and not session.waiting
        ]

    def put_to_sleep(self, session: Session) -> None:
        """Take a session out of its slab; the store has it as it is."""
        assert session.durable is not None
        self._sessions.sleep(session, self._view(session))
        self._slabs.leave(session)
        self._counts.slept(session)

    def forgotten(self) -> list[Forgotten]:
        """Hand out the sessions that the store need not keep any longer."""
        forgotten, self._forgotten = self._forgotten, []
        return forgotten

    def session(self, session_id: str) -> Session:
        """The session of that id that is awake. Raises as `SessionTable.get`."""
        return self._sessions.get(session_id)

    def is_awake(self, session_id: str) -> bool:
        """Whether there is a session of that id in a slab."""
        return session_id in self._sessions

    def uses(self, version: Version) -> bool:
        """Whether a session that is open here, awake or asleep, is on that version."""
        return self._sessions.are_of(version)

    def unknown(self, session_id: str) -> NtmError:
        """Why there is no session of that id."""
        return self._sessions.gone(session_id)

    def has(self, session_id: str, caller: str) -> bool:
        """Whether the caller has a session of that id open. Raises as `SessionTable.has`."""
        return self._sessions.has(session_id, caller)

    def lost(self, session_id: str) -> None:
        """The store has no session of that id."""
        if asleep := self._sessions.sleeping(session_id):
            self._forget(asleep)
        self._sessions.lost(session_id)

    def describe(self, session_id: str, caller: str = "", known_epoch: int = 0) -> SessionView:
        """A session as it is now, or went to sleep. Raises as `awake_for`."""
        asleep = self._sessions.sleeping(session_id)
        if asleep and caller in ("", asleep.owner) and known_epoch <= asleep.view.epoch:
            return asleep.view
        return self._view(self.awake_for(session_id, caller, known_epoch))

    def awake_for(self, session_id: str, caller: str, known_epoch: int) -> Session:
        """
        The session of that id that is awake, for a caller who was told that epoch.

        Raises as `SessionTable.get`, and SessionMoved if this replica was passed over: another one
        has owned the session in the epoch that the caller knows. It is then closed here.
        """
        session = self._sessions.get(session_id, caller)
        if session.durable is not None and known_epoch > session.durable.epoch:
            self.passed_over(session)
            raise moved(session_id)
        return session

    def may_be_elsewhere(self, session_id: str) -> bool:
        """Whether another replica could have a session: not if it was never in the store."""
        if session_id not in self._sessions:
            return True
        durable = self._sessions.get(session_id).durable
        return durable is not None and durable.may_be_stored

    def passed_over(self, session: Session) -> None:
        """Another replica has taken a session over: close it, once its turn is committed."""
        if session.waiting and session not in self._scheduler:
            session.is_moved = True
        else:
            self._close(session, SessionMoved)

    def owned(self, owner: str, after: int, limit: int) -> list[SessionView]:
        """At most `limit` sessions of the owner with a number above `after`, in order."""
        found = [self._view(s) for s in self._sessions if s.owner == owner and s.number > after]
        found += [
            asleep.view
            for asleep in self._sessions.asleep
            if asleep.owner == owner and asleep.view.number > after
        ]
        return heapq.nsmallest(limit, found, key=lambda view: view.number)

    def delete(self, session_id: str, caller: str = "", known_epoch: int = 0) -> None:
        """Close a session now; its work fails with SessionDeleted. Raises as `awake_for`."""
        self._close(self.awake_for(session_id, caller, known_epoch), SessionDeleted)

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
        fork.is_begun = True
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
            if isinstance(session, Session):
                self._close(session, SessionExpired)
            else:
                self._forget(session)

    def _moved(self, session: Session, next_step: int) -> SessionView:
        """Have a session go on at another step, as if it had never made those it made."""
        if session.durable:
            session.durable.version += 1
            session.durable.step = min(session.durable.step, next_step)
        session.next_step = next_step
        session.replays.clear()
        session.used_seconds = self._clock()
        return self._view(session)

    def _close(self, session: Session, why: type[NtmError]) -> None:
        self._scheduler.remove(session)
        self._sessions.close(session, why)
        self._slabs.leave(session)
        if session.durable and session.durable.may_be_stored and why is not SessionMoved:
            self._forgotten.append(
                Forgotten(session.id, session.durable.epoch, session.idle_timeout_seconds)
            )
        self.saving.close(session, lambda: self._sessions.gone(session.id))
        self._drop(session, session.waiting)
        lived = self._wall_clock() - session.created_unix_seconds
        self._counts.closed(session, why, self._clock(), lived)

    def _forget(self, asleep: Asleep) -> None:
        self._sessions.forget(asleep, SessionExpired)
        view = asleep.view
        self._forgotten.append(Forgotten(view.id, view.epoch, view.idle_timeout_seconds))
        self._counts.expired(asleep, self._wall_clock() - asleep.view.created_unix_seconds)

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
