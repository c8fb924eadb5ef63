"""Sessions, their deadlines, and a record of recently closed ones."""

from __future__ import annotations

import heapq
import re
import secrets
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from service.engine.durability import Durability, Durable, Policy, SessionView, Snapshot
from service.engine.replays import Replays
from service.engine.work import Chunk, Work
from service.errors import (
    InvalidRequest,
    NtmError,
    SessionDeleted,
    SessionExists,
    SessionExpired,
    SessionFailed,
    SessionMoved,
    SessionUnknown,
)
from service.models.slab import Slab
from service.models.version import Version
from service.session_ref import SessionRef
from service.spec import Array

MAX_CLOSED_REMEMBERED = 100_000
"""How many closed sessions are remembered; the oldest become unknown first."""

_SESSION_ID = re.compile(r"[0-9a-f]{32}")

_GONE: dict[type[NtmError], str] = {
    SessionExpired: "expired: it made no step for its idle timeout; create a new one",
    SessionDeleted: "was deleted; create a new one",
    SessionFailed: "was closed because a run of the network failed; create a new one",
    SessionMoved: "was taken over by another replica; go on there",
}


@dataclass(eq=False, slots=True)
class Session:
    """One client's sequence in progress: its slot, its step counter, its deadline, its work."""

    id: str
    number: int
    """Sessions are numbered in order of creation."""
    owner: str
    model: str
    slab: Slab
    slot: int
    idle_timeout_seconds: float
    created_unix_seconds: float
    used_seconds: float
    """When it was last used, by the engine's clock."""
    replays: Replays
    """The outcomes of its last chunks."""
    given: Mapping[str, Array] = field(default_factory=dict)
    """The values of state tensors that its client gave, by name; a reset sets them again."""
    durable: Durable | None = None
    """What is stored of it; None if there is no store, and once the session is closed."""
    next_step: int = 0
    waiting: deque[Work] = field(default_factory=deque)
    waiting_steps: int = 0
    is_open: bool = True
    is_begun: bool = True
    """Whether it has its own state. A fork gets its slot first and its state later."""
    is_moved: bool = False
    """Whether another replica has taken it over; it is closed once its turn is committed."""
    ticket: int = 0
    """The scheduler's number for its place in the queue."""

    @property
    def version(self) -> Version:
        """The version of the model that it runs on, from its opening to its end."""
        return Version(self.model, self.slab.network.content_hash)

    @property
    def locations(self) -> int:
        """The number of memory locations."""
        return self.slab.locations

    @property
    def kept_bytes(self) -> int:
        """The bytes that are kept of it while it is awake: its state, and the values given."""
        return self.slab.slot_bytes + sum(value.nbytes for value in self.given.values())

    @property
    def deadline_seconds(self) -> float:
        """When it expires unless it is used, by the engine's clock."""
        return self.used_seconds + self.idle_timeout_seconds

    @property
    def can_sleep(self) -> bool:
        """Whether it could leave its slab: it is in no turn, and there is a store."""
        durable = self.durable
        if durable is None or not self.is_begun:
            return False
        return durable.under_way is None and not self.waiting

    @property
    def chunk(self) -> Chunk:
        """The chunk being stepped: the first of its work, for a session that is scheduled."""
        chunk = self.waiting[0]
        assert isinstance(chunk, Chunk), "operations never stay at the head"
        return chunk

    def view(self, now_seconds: float, now_unix_seconds: float) -> SessionView:
        """The view of the session now, by the engine's clock and by the calendar."""
        durable = self.durable
        return SessionView(
            id=self.id,
            number=self.number,
            model=self.model,
            content_hash=self.slab.network.content_hash,
            locations=self.locations,
            idle_timeout_seconds=self.idle_timeout_seconds,
            next_step=self.next_step,
            state_bytes=self.slab.slot_bytes,
            created_unix_seconds=self.created_unix_seconds,
            expires_unix_seconds=now_unix_seconds + self.deadline_seconds - now_seconds,
            durability=durable.durability if durable else Durability(),
            durable_step=durable.step if durable else 0,
            epoch=durable.epoch if durable else 0,
        )


@dataclass(eq=False)
class Operation(Work):
    """A single action on a session, which waits for the work before it in the queue."""

    action: Callable[[Session], Any]
    """The function to call; its result is the outcome."""


@dataclass(frozen=True, slots=True)
class Asleep:
    """A session that is in the store and in no slab."""

    view: SessionView
    """The session as it was when it went to sleep."""
    owner: str
    deadline_seconds: float
    """When it expires unless it is woken, by the engine's clock."""

    @property
    def version(self) -> Version:
        """The version of the model that it runs on."""
        return Version(self.view.model, self.view.content_hash)


class _Closed(NamedTuple):
    """A session that is no longer open here."""

    why: type[NtmError]
    owner: str
    epoch: int
    """The epoch in which this replica owned the session."""


_NEVER_OPENED = _Closed(SessionUnknown, "", 0)
_ELSEWHERE = _Closed(SessionMoved, "", 0)


@dataclass(slots=True)
class Usage:
    """
    The number of open sessions, awake or asleep, and the bytes of state of those awake, with the
    values that clients gave.
    """

    sessions: int = 0
    state_bytes: int = 0

    def add(self, sessions: int, state_bytes: int) -> None:
        """Add to both numbers; negative numbers subtract."""
        self.sessions += sessions
        self.state_bytes += state_bytes


class SessionTable:
    """The open sessions by id, and the reasons why recently closed ones were closed."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._asleep: dict[str, Asleep] = {}
        self._closed: OrderedDict[str, _Closed] = OrderedDict()
        self.usage = Usage()
        """The usage of all open sessions."""
        self._usage_by: dict[str, Usage] = {}
        self._of_version: Counter[Version] = Counter()
        self._deadlines: list[tuple[float, str]] = []
        self._timed: set[str] = set()
        """
        The sessions in the list of deadlines, which has one entry for each, however often it
        sleeps.
        """

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, session_id: str) -> bool:
        """Whether a session of that id is awake."""
        return session_id in self._sessions

    def undurable_steps(self) -> int:
        """
        The number of steps that are to be stored and are not stored yet. Safe from any thread.
        """
        return sum(
            max(0, session.next_step - session.durable.step)
            for session in list(self._sessions.values())
            if session.durable and session.durable.durability.policy is not Policy.NONE
        )

    def __iter__(self) -> Iterator[Session]:
        """The sessions that are awake, in the order in which they were opened or woken."""
        return iter(self._sessions.values())

    @property
    def asleep(self) -> Iterable[Asleep]:
        """The sessions that are asleep."""
        return self._asleep.values()

    def add(self, session: Session) -> None:
        """Enter a session that is new, or awake again."""
        woken = self._asleep.pop(session.id, None)
        self._sessions[session.id] = session
        self._count(session, 0 if woken else 1, session.kept_bytes)
        if session.id not in self._timed:
            self._look_at(session.id, session.deadline_seconds)

    def give(self, session: Session, given: Mapping[str, Array]) -> None:
        """Set the values to which a reset sets a session's state, and count them."""
        before = session.kept_bytes
        session.given = given
        self._count(session, 0, session.kept_bytes - before)

    def usage_by(self, owner: str) -> Usage:
        """The usage of one owner's open sessions."""
        return self._usage_by.get(owner) or Usage()

    def are_of(self, version: Version) -> bool:
        """Whether any session, awake or asleep, is on that version."""
        return version in self._of_version

    def sleep(self, session: Session, view: SessionView) -> None:
        """Enter a session that is awake as one that is asleep."""
        session.is_open = False
        del self._sessions[session.id]
        self._asleep[session.id] = Asleep(view, session.owner, session.deadline_seconds)
        self._count(session, 0, -session.kept_bytes)

    def close_asleep(self, asleep: Asleep, why: type[NtmError]) -> None:
        """Remove a session that is asleep and remember why."""
        del self._asleep[asleep.view.id]
        self._count(asleep, -1, 0)
        self._remember(asleep.view.id, asleep.owner, why, asleep.view.epoch)

    def sleeping(self, session_id: str) -> Asleep | None:
        """The session with this id if it is asleep, else None."""
        return self._asleep.get(session_id)

    def may_be_stored(self, ref: SessionRef) -> bool:
        """
        Whether the store may hold this session for the caller. False if the session is awake here.

        The local reason for closing does not apply if the caller's epoch is later: another replica
        has owned the session since.
        """
        if ref.id in self._sessions or not _SESSION_ID.fullmatch(ref.id):
            return False
        if asleep := self._asleep.get(ref.id):
            return ref.may_use(asleep.owner)
        closed = self._closed.get(ref.id, _ELSEWHERE)
        return closed.why is SessionMoved or ref.epoch > closed.epoch

    def of_snapshot(self, snapshot: Snapshot) -> Session | None:
        """The session that a snapshot was taken of, unless it has closed or gone to sleep since."""
        session = self._sessions.get(snapshot.view.id)
        return session if session and session.durable is snapshot.durable else None

    def get(self, ref: SessionRef) -> Session:
        """
        The session that is awake, if the caller may use it.

        Raises:
            SessionUnknown, SessionExpired, SessionDeleted, SessionFailed, SessionMoved: no such
                session is awake, or it is another caller's.
        """
        session = self._sessions.get(ref.id)
        if session is None or not ref.may_use(session.owner):
            raise self.gone_error(ref)
        return session

    def gone_error(self, ref: SessionRef) -> NtmError:
        """
        The error for a caller that has no open session with this id. Another caller's session is
        treated as one that never existed.
        """
        closed = self._closed.get(ref.id, _NEVER_OPENED)
        return closed_error(closed.why if ref.may_use(closed.owner) else SessionUnknown, ref.id)

    def has(self, ref: SessionRef) -> bool:
        """
        Whether the caller has this session open, awake or asleep. If not, the caller may open it.

        Raises:
            SessionExists: another caller has or had it.
            SessionExpired, SessionDeleted, SessionFailed: the session is closed for this reason.
        """
        there = self._sessions.get(ref.id) or self._asleep.get(ref.id)
        closed = self._closed.get(ref.id, _ELSEWHERE)
        if there is None and closed.why is SessionMoved:
            return False
        if not ref.may_use(there.owner if there else closed.owner):
            raise exists_error(ref.id)
        if there is None:
            raise closed_error(closed.why, ref.id)
        return True

    def close(self, session: Session, why: type[NtmError]) -> None:
        """Remove a session and remember why."""
        session.is_open = False
        del self._sessions[session.id]
        self._count(session, -1, -session.kept_bytes)
        epoch = session.durable.epoch if session.durable else 0
        self._remember(session.id, session.owner, why, epoch)

    def forget_closed(self, ref: SessionRef) -> None:
        """Forget that the caller's session was closed, so that it can be opened again."""
        closed = self._closed.get(ref.id)
        if closed is not None and ref.may_use(closed.owner):
            del self._closed[ref.id]

    def version(self, ref: SessionRef) -> Version | None:
        """The version that the caller's session is on; None if it is not open here."""
        there = self._sessions.get(ref.id) or self._asleep.get(ref.id)
        return there.version if there and ref.may_use(there.owner) else None

    def forget_moved(self, session_id: str) -> None:
        """
        Forget that a session moved. The store does not have it, so its last replica has ended it.
        """
        if self._closed.get(session_id, _NEVER_OPENED).why is SessionMoved:
            del self._closed[session_id]

    def idle(self, now_seconds: float) -> list[Session | Asleep]:
        """The sessions past their deadline that have no work. They stay open."""
        found: list[Session | Asleep] = []
        while self._deadlines and self._deadlines[0][0] <= now_seconds:
            _, session_id = heapq.heappop(self._deadlines)
            self._timed.discard(session_id)
            session = self._sessions.get(session_id) or self._asleep.get(session_id)
            if session is None:
                continue
            if isinstance(session, Session) and (session.waiting or not session.is_begun):
                self._look_at(session_id, now_seconds + session.idle_timeout_seconds)
            elif session.deadline_seconds > now_seconds:
                self._look_at(session_id, session.deadline_seconds)
            else:
                found.append(session)
        return found

    def _look_at(self, session_id: str, deadline_seconds: float) -> None:
        self._timed.add(session_id)
        heapq.heappush(self._deadlines, (deadline_seconds, session_id))

    def check_integrity(self) -> None:
        """
        Raise RuntimeError unless the counts of all sessions, by owner and by version are right.
        """
        usage, by_owner = Usage(), dict[str, Usage]()
        of_version: Counter[Version] = Counter()
        places: list[tuple[Session | Asleep, int]]
        places = [(session, session.kept_bytes) for session in self]
        places += [(asleep, 0) for asleep in self.asleep]
        for session, state_bytes in places:
            usage.add(1, state_bytes)
            by_owner.setdefault(session.owner, Usage()).add(1, state_bytes)
            of_version[session.version] += 1
        found, counted = (by_owner, of_version), (self._usage_by, self._of_version)
        if usage != self.usage or found != counted:
            raise RuntimeError(f"open: {usage}, of which {found}; counted: {self.usage}, {counted}")

    def _count(self, session: Session | Asleep, sessions: int, state_bytes: int) -> None:
        self.usage.add(sessions, state_bytes)
        usage = self._usage_by.setdefault(session.owner, Usage())
        usage.add(sessions, state_bytes)
        if not usage.sessions:
            del self._usage_by[session.owner]
        if sessions:
            self._of_version[session.version] += sessions
            if not self._of_version[session.version]:
                del self._of_version[session.version]

    def _remember(self, session_id: str, owner: str, why: type[NtmError], epoch: int) -> None:
        self._closed[session_id] = _Closed(why, owner, epoch)
        if len(self._closed) > MAX_CLOSED_REMEMBERED:
            self._closed.popitem(last=False)

    def next_deadline_seconds(self) -> float | None:
        """When `idle` should be asked again, or None if there is no session."""
        return self._deadlines[0][0] if self._deadlines else None


_UNKNOWN = (
    "is unknown here: it was never opened, or closed long ago, or it was in a server without a "
    "store that has been restarted"
)


def closed_error(why: type[NtmError], session_id: str) -> NtmError:
    """The error for a session that is not open here, in the words for that reason."""
    sentence = _GONE.get(why, _UNKNOWN)
    session_id = session_id[:64]
    return why(f"session {session_id!r} {sentence}", session=session_id)


def exists_error(session_id: str) -> NtmError:
    """
    The error for an id that a new session cannot have. It does not depend on the other session's
    owner.
    """
    return SessionExists(
        f"session {session_id!r} is there already, and is not a new one as this request asks for; "
        "draw another session_id",
        session=session_id,
    )


def check_session_id(session_id: str) -> None:
    """Raise InvalidRequest unless this is a valid id for a new session."""
    if not _SESSION_ID.fullmatch(session_id):
        raise InvalidRequest(
            f"session_id is {session_id[:64]!r}; it must be 128 random bits as 32 hexadecimal "
            "digits in lower case"
        )


def new_session_id() -> str:
    """128 random bits in hexadecimal, which nobody can guess."""
    return secrets.token_hex(16)
