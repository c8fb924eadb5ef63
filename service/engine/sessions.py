"""Sessions: one client's sequence in progress each, with expiry and a memory of the closed."""

from __future__ import annotations

import heapq
import re
import secrets
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from service.engine.replays import Replays
from service.engine.saving import Durable, Policy
from service.engine.views import SessionView
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

MOST_CLOSED_REMEMBERED = 100_000
"""How many closed sessions are told apart from unknown ones; the oldest are forgotten first."""

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
    """Outcomes of its last chunks."""
    durable: Durable | None = None
    """What of it is stored; None where there is no store."""
    next_step: int = 0
    waiting: deque[Work] = field(default_factory=deque)
    waiting_steps: int = 0
    is_open: bool = True
    is_begun: bool = True
    """Whether it has a state of its own: a fork has none until it is one."""
    is_moved: bool = False
    """Whether another replica has taken it over; it is closed once its turn is committed."""
    ticket: int = 0
    """Its place in the scheduler's queue."""

    @property
    def version(self) -> Version:
        """The version of the model that it runs on, from its opening to its end."""
        return Version(self.model, self.slab.network.content_hash)

    @property
    def locations(self) -> int:
        """Memory locations."""
        return self.slab.locations

    @property
    def deadline_seconds(self) -> float:
        """When it expires unless used, by the engine's clock."""
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


@dataclass(frozen=True, slots=True)
class Asleep:
    """A session that is in the store and in no slab."""

    view: SessionView
    """As it was when it went to sleep."""
    owner: str
    deadline_seconds: float
    """When it expires unless it is woken, by the engine's clock."""

    @property
    def version(self) -> Version:
        """The version of the model that it goes on with."""
        return Version(self.view.model, self.view.content_hash)


class Forgotten(NamedTuple):
    """A session that ended here, and that the store need not keep any longer."""

    session_id: str
    epoch: int
    """Of this replica's ownership."""
    idle_timeout_seconds: float


@dataclass(slots=True)
class Held:
    """How many sessions are open, awake or asleep, and the bytes of state of those awake."""

    sessions: int = 0
    state_bytes: int = 0

    def count(self, sessions: int, state_bytes: int) -> None:
        """Add so many, or take them away."""
        self.sessions += sessions
        self.state_bytes += state_bytes


class SessionTable:
    """The open sessions by id, and why recently closed ones were closed."""

    def __init__(self) -> None:
        """Start empty."""
        self._sessions: dict[str, Session] = {}
        self._asleep: dict[str, Asleep] = {}
        self._closed: OrderedDict[str, tuple[type[NtmError], str, int]] = OrderedDict()
        """Why, whose they were, and in which epoch."""
        self.held = Held()
        """All that is open."""
        self._held_by: dict[str, Held] = {}
        self._of_version: Counter[Version] = Counter()
        self._deadlines: list[tuple[float, str]] = []
        self._timed: set[str] = set()
        """Sessions with a deadline in the list: once each, however often they sleep and wake."""

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, session_id: str) -> bool:
        """Whether a session of that id is awake."""
        return session_id in self._sessions

    def undurable_steps(self) -> int:
        """Steps that are to be in the store and are not yet. Any thread may ask."""
        return sum(
            max(0, session.next_step - session.durable.step)
            for session in list(self._sessions.values())
            if session.durable and session.durable.durability.policy is not Policy.NONE
        )

    def __iter__(self) -> Iterator[Session]:
        """Those that are awake, in the order in which they were opened or woken."""
        return iter(self._sessions.values())

    @property
    def asleep(self) -> Iterable[Asleep]:
        """Those that are asleep."""
        return self._asleep.values()

    def add(self, session: Session) -> None:
        """Enter a session that is new, or awake again."""
        woken = self._asleep.pop(session.id, None)
        self._sessions[session.id] = session
        self._count(session, 0 if woken else 1, session.slab.slot_bytes)
        if session.id not in self._timed:
            self._look_at(session.id, session.deadline_seconds)

    def held_by(self, owner: str) -> Held:
        """What an owner has open."""
        return self._held_by.get(owner) or Held()

    def are_of(self, version: Version) -> bool:
        """Whether any session, awake or asleep, is on that version."""
        return version in self._of_version

    def sleep(self, session: Session, view: SessionView) -> None:
        """Enter a session that is awake as one that is asleep."""
        session.is_open = False
        del self._sessions[session.id]
        self._asleep[session.id] = Asleep(view, session.owner, session.deadline_seconds)
        self._count(session, 0, -session.slab.slot_bytes)

    def forget(self, asleep: Asleep, why: type[NtmError]) -> None:
        """Remove a session that is asleep and remember why."""
        del self._asleep[asleep.view.id]
        self._count(asleep, -1, 0)
        self._remember(asleep.view.id, asleep.owner, why, asleep.view.epoch)

    def sleeping(self, session_id: str) -> Asleep | None:
        """The session of that id if it is asleep."""
        return self._asleep.get(session_id)

    def may_be_stored(self, session_id: str, caller: str, known_epoch: int) -> bool:
        """
        Whether the caller may have a session of that id in the store, for all we know.

        Why it was closed here says nothing to who knows that another replica has had it since.
        """
        if session_id in self._sessions or not _SESSION_ID.fullmatch(session_id):
            return False
        if asleep := self._asleep.get(session_id):
            return caller in ("", asleep.owner)
        kind, _, epoch = self._closed.get(session_id, (SessionMoved, "", 0))
        return kind is SessionMoved or known_epoch > epoch

    def get(self, session_id: str, caller: str = "") -> Session:
        """
        The open session of that id, if it is the caller's; anybody's for an empty caller.

        Raises:
            SessionUnknown, SessionExpired, SessionDeleted, SessionFailed: there is none, and why.
        """
        session = self._sessions.get(session_id)
        if session is None or (caller and session.owner != caller):
            raise self.gone(session_id, caller)
        return session

    def gone(self, session_id: str, caller: str = "") -> NtmError:
        """Why the caller has no open session of that id; another's is as if it had never been."""
        kind, owner, _ = self._closed.get(session_id, (SessionUnknown, "", 0))
        if caller and owner != caller:
            kind = SessionUnknown
        return _gone(kind, session_id[:64])

    def has(self, session_id: str, caller: str) -> bool:
        """
        Whether the caller has a session of that id open, awake or asleep; else it may open one.

        Raises:
            SessionExists: somebody else has or had it.
            SessionExpired, SessionDeleted, SessionFailed: it is closed, and why.
        """
        there = self._sessions.get(session_id) or self._asleep.get(session_id)
        kind, owner, _ = self._closed.get(session_id, (SessionMoved, "", 0))
        if there is None and kind is SessionMoved:
            return False
        if caller not in ("", there.owner if there else owner):
            raise taken(session_id)
        if there is None:
            raise _gone(kind, session_id)
        return True

    def close(self, session: Session, why: type[NtmError]) -> None:
        """Remove a session and remember why."""
        session.is_open = False
        del self._sessions[session.id]
        self._count(session, -1, -session.slab.slot_bytes)
        epoch = session.durable.epoch if session.durable else 0
        self._remember(session.id, session.owner, why, epoch)

    def lost(self, session_id: str) -> None:
        """The store has no session of that id: whoever has taken it over has ended it since."""
        kind, *_ = self._closed.get(session_id, (SessionUnknown,))
        if kind is SessionMoved:
            del self._closed[session_id]

    def idle(self, now_seconds: float) -> list[Session | Asleep]:
        """The sessions whose deadline has passed and that have nothing to do. Closes none."""
        found: list[Session | Asleep] = []
        while self._deadlines and self._deadlines[0][0] <= now_seconds:
            _, session_id = heapq.heappop(self._deadlines)
            self._timed.discard(session_id)
            session = self._sessions.get(session_id) or self._asleep.get(session_id)
            if session is None:
                continue
            if isinstance(session, Session) and session.waiting:
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
        """Raise RuntimeError unless what is counted in all, by owner, by version is what is."""
        held, by_owner = Held(), dict[str, Held]()
        of_version: Counter[Version] = Counter()
        places: list[tuple[Session | Asleep, int]]
        places = [(session, session.slab.slot_bytes) for session in self]
        places += [(asleep, 0) for asleep in self.asleep]
        for session, state_bytes in places:
            held.count(1, state_bytes)
            by_owner.setdefault(session.owner, Held()).count(1, state_bytes)
            of_version[session.version] += 1
        found, counted = (by_owner, of_version), (self._held_by, self._of_version)
        if held != self.held or found != counted:
            raise RuntimeError(f"open: {held}, of which {found}; counted: {self.held}, {counted}")

    def _count(self, session: Session | Asleep, sessions: int, state_bytes: int) -> None:
        self.held.count(sessions, state_bytes)
        held = self._held_by.setdefault(session.owner, Held())
        held.count(sessions, state_bytes)
        if not held.sessions:
            del self._held_by[session.owner]
        if sessions:
            self._of_version[session.version] += sessions
            if not self._of_version[session.version]:
                del self._of_version[session.version]

    def _remember(self, session_id: str, owner: str, why: type[NtmError], epoch: int) -> None:
        self._closed[session_id] = why, owner, epoch
        if len(self._closed) > MOST_CLOSED_REMEMBERED:
            self._closed.popitem(last=False)

    def next_deadline_seconds(self) -> float | None:
        """When `idle` should be asked again, or None if there is no session."""
        return self._deadlines[0][0] if self._deadlines else None


def moved(session_id: str) -> NtmError:
    """What is told of a session that another replica has taken over."""
    return _gone(SessionMoved, session_id)


def deleted(session_id: str) -> NtmError:
    """What is told of a session that was deleted, wherever that was."""
    return _gone(SessionDeleted, session_id)


def taken(session_id: str) -> NtmError:
    """What is told of an id that a new session cannot have; the same whoever has it."""
    return SessionExists(
        f"session {session_id!r} is there already, and is not a new one as this request asks for; "
        "draw another session_id",
        session=session_id,
    )


def _gone(kind: type[NtmError], session_id: str) -> NtmError:
    told = _GONE.get(kind, "is unknown here: it was never opened, or closed long ago")
    return kind(f"session {session_id!r} {told}", session=session_id)


def check_session_id(session_id: str) -> None:
    """Raise InvalidRequest unless a client may have drawn it as the id of a new session."""
    if not _SESSION_ID.fullmatch(session_id):
        raise InvalidRequest(
            f"session_id is {session_id[:64]!r}; it must be 128 random bits as 32 hexadecimal "
            "digits in lower case"
        )


def new_session_id() -> str:
    """128 random bits in hexadecimal: not to be guessed."""
    return secrets.token_hex(16)
