"""The life of sessions: they open, sleep, wake, change and close, and belong to a caller."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Mapping
from operator import itemgetter
from types import MappingProxyType

import numpy as np

from service.engine.admission import Admission, Limits, state_values
from service.engine.checkpoint import Checkpoint
from service.engine.counts import Counts
from service.engine.durability import Durability, Durable, SessionView, Snapshot, Stored
from service.engine.effects import Ended, Outbox
from service.engine.replays import Replay, Replays
from service.engine.saving import Saving
from service.engine.scheduler import Scheduler
from service.engine.sessions import (
    Asleep,
    Session,
    SessionTable,
    closed_error,
    exists_error,
    new_session_id,
)
from service.engine.slots import Slots
from service.engine.work import Work
from service.errors import (
    CheckpointDamaged,
    Draining,
    InvalidRequest,
    NtmError,
    SessionDeleted,
    SessionExpired,
    SessionMoved,
    SessionUnknown,
)
from service.models.runtime import Network
from service.models.version import Version
from service.session_ref import SERVER, SessionRef
from service.settings import Settings
from service.spec import Array, ModelSpec
from service.telemetry.metrics import Metrics


class Lifecycle:
    """
    Holds every session, its state and its place in the queue.

    Callers name a session by a `SessionRef`. Methods that take a `Session` are for operations, and
    for the server itself, which got the session by such a reference.

    It belongs to one thread, the event loop's, and never waits.
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
        Hold sessions of these networks. A network may be added, or removed if no session uses it.

        Args:
            networks: the loaded networks by version; the caller may change the mapping.
            settings: the limits, and the sizes of batches.
            metrics: where sessions are counted.
            clock: gives seconds since any moment.
            wall_clock: gives Unix seconds.
            has_store: whether snapshots are stored; if not, sessions end with the server.
        """
        self.sessions = SessionTable()
        self.scheduler = Scheduler(settings.max_batch, settings.max_burst)
        self.slots = Slots(networks, settings.max_state_bytes)
        self.counts = Counts(metrics, self.slots)
        self.outbox = Outbox()
        self.saving = Saving(self.view, self.outbox)
        self.has_store = has_store
        self.limits = Limits.of(settings)
        self.is_draining = False
        """Whether new sessions and new work are refused."""
        self.now = clock
        self._wall_clock = wall_clock
        self._networks = networks
        self._admission = Admission(settings)
        self._max_replay_bytes = settings.max_replay_bytes
        self._opened = 0
        metrics.sessions_limit.set(settings.max_sessions)
        metrics.state_limit_bytes.set(settings.max_state_bytes)
        metrics.waiting_sessions.set_function(lambda: self.scheduler.waiting)
        metrics.undurable_steps.set_function(self.sessions.undurable_steps)

    def drain(self) -> None:
        """Refuse new sessions and new work from now on."""
        self.is_draining = True

    def view(self, session: Session) -> SessionView:
        """The session as it is now."""
        return session.view(self.now(), self._wall_clock())

    def seconds_to_deadline(self) -> float | None:
        """The time until `expire` may have something to do; None if there is no session."""
        deadline = self.sessions.next_deadline_seconds()
        return None if deadline is None else max(0.0, deadline - self.now())

    def open(
        self,
        version: Version,
        locations: int,
        idle_timeout_seconds: float | None,
        owner: str,
        start: Checkpoint | None = None,
        durability: Durability | None = None,
        given: Mapping[str, bytes] = MappingProxyType({}),
        *,
        session_id: str = "",
        is_begun: bool = True,
    ) -> SessionView:
        """
        Open a session of a loaded version; 0 locations and no timeout mean the defaults.

        If there is a checkpoint, the session starts from it, and its locations are the default. If
        not, it starts with the values `given` for tensors of its state. Without a durability it
        gets the server's; without an id it gets a random one. A session
        that is not begun stays awake until `fork` gives it a state.

        Raises:
            InvalidRequest, CapacityExceeded, Draining: nothing was changed.
            SessionExists: a session with that id was woken meanwhile.
        """
        if self.is_draining:
            raise draining_error()
        if session_id in self.sessions or self.sessions.sleeping(session_id):
            raise exists_error(session_id)
        network = self._networks[version]
        if start is not None:
            locations = locations or start.locations
            if given:
                raise InvalidRequest("a checkpoint has the whole state; give no initial values")
        locations = self._admission.locations(network.spec, locations)
        # A fork gets them with its state.
        may_lack = start is not None or not is_begun
        values = state_values(given, network.spec, locations, may_lack=may_lack)
        timeout = self._admission.idle_timeout_seconds(idle_timeout_seconds)
        durability = self._admission.durability(durability, has_store=self.has_store)
        new_bytes = _kept_bytes(network.spec, locations, values)
        self._admission.room(self.sessions.usage, self.sessions.usage_by(owner), new_bytes)
        slab, slot = self.slots.place(version, locations)
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
            used_seconds=self.now(),
            replays=Replays(self._max_replay_bytes),
            given=values,
            durable=Durable(durability) if self.has_store else None,
            is_begun=is_begun,
        )
        self._enter(session, start)
        if start is not None:
            self.sessions.give(session, _given_in(start, network.spec))
        elif values:
            slab.reset(slot, values)
        self.counts.opened(session)
        return self.view(session)

    def may_open_during_turns(self, version: Version, locations: int) -> bool:
        """
        Whether a session of a loaded version can be opened while turns are under way: it gets a
        slot that is free, and the state of others stays where it is. On a GPU it never can: its one
        thread is busy with the turns, and the event loop would wait for them.
        """
        network = self._networks[version]
        locations = self._admission.locations(network.spec, locations)
        return network.on_cpu and self.slots.has_free(version, locations)

    def adopt(self, session_id: str, epoch: int, stored: Stored) -> SessionView:
        """
        Continue a session from the store, as its owner in this epoch.

        Its version must be loaded.

        Raises:
            CapacityExceeded, CheckpointForeign, CheckpointDamaged: nothing was changed.
        """
        network, taken = self._networks[stored.version], stored.checkpoint
        spec = network.spec
        asleep = self.sessions.sleeping(session_id)
        replays = _replays_of(stored, spec)
        try:
            given = state_values(stored.given, spec, taken.locations, may_lack=True)
        except InvalidRequest as error:
            raise CheckpointDamaged(
                f"the stored session does not fit the model: {error}"
            ) from error
        if asleep is None:
            usage, usage_by_owner = self.sessions.usage, self.sessions.usage_by(stored.owner)
            new_bytes = _kept_bytes(spec, taken.locations, given)
            self._admission.room(usage, usage_by_owner, new_bytes)
            self._opened += 1
        slab, slot = self.slots.place(stored.version, taken.locations)
        session = Session(
            id=session_id,
            number=asleep.view.number if asleep else self._opened,
            owner=stored.owner,
            model=stored.version.model,
            slab=slab,
            slot=slot,
            idle_timeout_seconds=stored.idle_timeout_seconds,
            created_unix_seconds=stored.created_unix_seconds,
            used_seconds=self.now(),
            replays=Replays(self._max_replay_bytes, replays),
            given=given,
            durable=Durable(
                stored.durability, epoch, taken.next_step, stored_version=0, may_be_stored=True
            ),
        )
        self._enter(session, taken)
        self.counts.woken(session, was_here=asleep is not None)
        return self.view(session)

    def _enter(self, session: Session, start: Checkpoint | None) -> None:
        """Enter a session into the table, at the checkpoint's step, or give its slot back."""
        try:
            if start is not None:
                self.slots.restore(session, start)
                session.next_step = start.next_step
        except NtmError:
            self.slots.leave(session)
            raise
        self.sessions.add(session)

    def sleepers(self, count: int, idle_seconds: float = 0.0) -> list[Session]:
        """At most `count` sessions that can sleep, the longest unused first."""
        until = self.now() - idle_seconds
        able = (s for s in self.sessions if s.can_sleep and s.used_seconds <= until)
        return heapq.nsmallest(count, able, key=lambda session: session.used_seconds)

    def unsaved(self) -> list[Session]:
        """The sessions that are in no turn and whose present state the store does not have."""
        return [
            session
            for session in self.sessions
            if session.durable
            and not session.durable.is_covered
            and not session.waiting
            # The client of an unfinished fork asks for it again, elsewhere.
            and session.is_begun
        ]

    def put_to_sleep(self, session: Session) -> None:
        """Take a session out of its slab. The store must have its present state."""
        assert session.durable is not None
        self.sessions.sleep(session, self.view(session))
        self.slots.leave(session)
        self.counts.slept(session)

    def stored(self, snapshot: Snapshot, *, is_kept: bool) -> None:
        """
        Note that the store has kept a snapshot, or has refused it because another replica owns the
        session.
        """
        session = self.sessions.of_snapshot(snapshot)
        if not is_kept:
            if session is not None:
                self.passed_over(session)
            return
        self.saving.saved(snapshot)
        snapshot.durable.stored_seconds = self.now()
        if session is None or not snapshot.puts_to_sleep:
            return
        # It may have gone on since the snapshot was taken.
        if snapshot.durable.is_clean and session.can_sleep:
            self.put_to_sleep(session)

    def entered(self, snapshot: Snapshot, epoch: int) -> None:
        """Note that the store has kept a new session, which this replica owns in this epoch."""
        snapshot.durable.epoch = epoch
        self.stored(snapshot, is_kept=True)

    def lost(self, session_id: str) -> None:
        """Note that the store has no session with this id."""
        if asleep := self.sessions.sleeping(session_id):
            self._expire_asleep(asleep)
        self.sessions.forget_moved(session_id)

    def describe(self, ref: SessionRef) -> SessionView:
        """The view of a session now, or of when it went to sleep. Raises the errors of `awake`."""
        asleep = self.sessions.sleeping(ref.id)
        if asleep and ref.may_use(asleep.owner) and ref.epoch <= asleep.view.epoch:
            return asleep.view
        return self.view(self.awake(ref))

    def awake(self, ref: SessionRef) -> Session:
        """
        The session that is awake, if the caller may use it.

        Raises the errors of `SessionTable.get`. It raises SessionMoved if the caller's epoch is
        later than this replica's: another replica has taken the session over, and the copy here is
        closed. A fork is unknown until it has its state.
        """
        session = self.sessions.get(ref)
        if not session.is_begun:
            raise closed_error(SessionUnknown, ref.id)
        if session.durable is not None and ref.epoch > session.durable.epoch:
            self.passed_over(session)
            raise closed_error(SessionMoved, ref.id)
        return session

    def may_be_stored(self, ref: SessionRef) -> bool:
        """Whether a session that is not awake may be in the store, to be woken for the caller."""
        return self.has_store and self.sessions.may_be_stored(ref)

    def may_be_elsewhere(self, session_id: str) -> bool:
        """
        Whether another replica may have a session. It cannot if the session was never in the store.
        """
        if session_id not in self.sessions:
            return True
        durable = self.sessions.get(SessionRef(session_id, SERVER, 0)).durable
        return durable is not None and durable.may_be_stored

    def has_work(self, session_id: str) -> bool:
        """Whether work of a session waits or runs."""
        return session_id in self.sessions and bool(
            self.sessions.get(SessionRef(session_id, SERVER, 0)).waiting
        )

    def drop(self, session_id: str) -> None:
        """Close a fork that did not get its state. Its id may be used again."""
        if session_id in self.sessions:
            self.close(self.sessions.get(SessionRef(session_id, SERVER, 0)), SessionMoved)

    def passed_over(self, session: Session) -> None:
        """Close a session that another replica has taken over, once its turn is committed."""
        if session.waiting and session not in self.scheduler:
            session.is_moved = True
        else:
            self.close(session, SessionMoved)

    def owned(self, owner: str, after: int, limit: int) -> list[SessionView]:
        """At most `limit` sessions of the owner with a number above `after`, in order."""
        found: list[tuple[int, Session | SessionView]] = [
            (each.number, each)
            for each in self.sessions
            if each.owner == owner and each.number > after
        ]
        found += [
            (asleep.view.number, asleep.view)
            for asleep in self.sessions.asleep
            if asleep.owner == owner and asleep.view.number > after
        ]
        page = heapq.nsmallest(limit, found, key=itemgetter(0))
        return [self.view(each) if isinstance(each, Session) else each for _, each in page]

    def delete(self, ref: SessionRef) -> None:
        """Close a session now; its work fails with SessionDeleted. Raises the errors of `awake`."""
        self.close(self.awake(ref))

    def reset(self, session: Session) -> SessionView:
        """Set a session to the initial state and step 0."""
        session.slab.reset(session.slot, session.given)
        return self._set_back(session, 0)

    def restore(self, session: Session, taken: Checkpoint) -> SessionView:
        """Set a session to a checkpoint. Raises the errors of `Slots.restore`."""
        self.slots.restore(session, taken)
        return self._set_back(session, taken.next_step)

    def fork(self, session: Session, fork: SessionRef) -> SessionView:
        """
        Set a new session, which was opened for this, to the state and the step of a session.

        Raises:
            SessionUnknown, ...: as `SessionTable.get`, if the new session is closed already.
            CapacityExceeded: there is no memory for the copying; drop the new session.
        """
        new = self.sessions.get(fork)
        self.slots.copy(session, new)
        new.is_begun = True
        self.sessions.give(new, session.given)
        return self._set_back(new, session.next_step)

    def checkpoint(self, session: Session) -> tuple[SessionView, Checkpoint]:
        """
        The view of a session, and a checkpoint of it. Raises CapacityExceeded if there is no memory
        for the reading.
        """
        return self.view(session), self.slots.checkpoints([session])[0]

    def read(self, session: Session) -> tuple[SessionView, dict[str, Array]]:
        """The view of a session, and a copy of its state by name. Raises as `checkpoint`."""
        return self.view(session), self.slots.state(session)

    def expire(self) -> None:
        """Close the sessions that were not used for their idle timeout."""
        for session in self.sessions.idle(self.now()):
            if isinstance(session, Session):
                self.close(session, SessionExpired)
            else:
                self._expire_asleep(session)

    def close(self, session: Session, why: type[NtmError] = SessionDeleted) -> None:
        """Close a session that is awake; the work that waits for it fails with that error."""
        self.scheduler.remove(session)
        self.sessions.close(session, why)
        self.slots.leave(session)
        durable = session.durable
        # The store's copy is this replica's to delete, unless another one owns it now.
        if durable and durable.may_be_stored and why is not SessionMoved:
            ended = Ended(session.id, durable.epoch, session.idle_timeout_seconds)
            self.outbox.ended.append(ended)
        self.saving.close(session, why)
        self.fail(session.waiting)
        lived = self._wall_clock() - session.created_unix_seconds
        self.counts.closed(session, why, self.now(), lived)

    def fail(self, works: deque[Work]) -> None:
        """Answer all work of a session that is closed with the reason; empties the queue."""
        while works:
            work = works.popleft()
            work.error = self.sessions.gone_error(work.ref)
            self.outbox.finished.append(work)

    def check_integrity(self) -> None:
        """Raise RuntimeError unless slots, sessions and state bytes add up."""
        self.slots.check_integrity()
        self.sessions.check_integrity()
        used = sum(slab.used for slab in self.slots)
        places = {(session.slab, session.slot) for session in self.sessions}
        if not used == len(self.sessions) == len(places):
            raise RuntimeError(
                f"sessions {len(self.sessions)}, their places {len(places)}, slots used {used}"
            )

    def _set_back(self, session: Session, next_step: int) -> SessionView:
        """Let a session go on at another step, without the replays of the steps that it made."""
        if session.durable:
            session.durable.version += 1
            session.durable.step = min(session.durable.step, next_step)
        session.next_step = next_step
        session.replays.clear()
        session.used_seconds = self.now()
        return self.view(session)

    def _expire_asleep(self, asleep: Asleep) -> None:
        self.sessions.close_asleep(asleep, SessionExpired)
        view = asleep.view
        self.outbox.ended.append(Ended(view.id, view.epoch, view.idle_timeout_seconds))
        self.counts.expired(asleep, self._wall_clock() - view.created_unix_seconds)


def draining_error() -> Draining:
    """The error for everything that is refused because the server is stopping."""
    return Draining("this server is stopping; connect to another replica")


def _given_in(start: Checkpoint, spec: ModelSpec) -> dict[str, Array]:
    """The tensors in a checkpoint for which the model itself has no initial value."""
    return {
        # A copy, since a view would keep the whole checkpoint.
        tensor.name: start.state[tensor.name].reshape(tensor.shape_at(start.locations)).copy()
        for tensor in spec.state
        if tensor.is_given
    }


def _kept_bytes(spec: ModelSpec, locations: int, given: Mapping[str, Array]) -> int:
    """
    The bytes that will be kept of a session: its state, and the values that are given to it now
    or with its state.
    """
    needed = sum(
        tensor.bytes_at(locations)
        for tensor in spec.state
        if tensor.is_given and tensor.name not in given
    )
    return spec.state_bytes(locations) + needed + sum(value.nbytes for value in given.values())


def _replays_of(stored: Stored, spec: ModelSpec) -> list[Replay]:
    """The stored replays, with outputs of the model's type. Raises CheckpointDamaged."""
    sizes = {outcome.outputs.shape[1] for _, outcome in stored.replays}
    if sizes - {spec.output_record.itemsize}:
        raise CheckpointDamaged(
            f"the stored chunks do not fit the model: outputs of a step are {max(sizes)} bytes, "
            f"the model's {spec.output_record.itemsize}"
        )
    return [
        (asked, outcome._replace(outputs=np.frombuffer(outcome.outputs, spec.output_record)))
        for asked, outcome in stored.replays
    ]
