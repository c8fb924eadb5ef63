"""Sessions: one client's sequence in progress each, with expiry and a memory of the closed."""

from __future__ import annotations

import heapq
import secrets
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from service.errors import NtmError, SessionDeleted, SessionExpired, SessionFailed, SessionUnknown
from service.slab import Slab
from service.work import Chunk, Work

MOST_CLOSED_REMEMBERED = 100_000
"""How many closed sessions are told apart from unknown ones; the oldest are forgotten first."""

_GONE: dict[type[NtmError], str] = {
    SessionExpired: "expired: it made no step for its idle timeout; create a new one",
    SessionDeleted: "was deleted; create a new one",
    SessionFailed: "was closed because a run of the network failed; create a new one",
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
    next_step: int = 0
    waiting: deque[Work] = field(default_factory=deque)
    waiting_steps: int = 0
    ticket: int = 0
    """Its place in the scheduler's queue."""

    @property
    def locations(self) -> int:
        """Memory locations."""
        return self.slab.locations

    @property
    def deadline_seconds(self) -> float:
        """When it expires unless used, by the engine's clock."""
        return self.used_seconds + self.idle_timeout_seconds

    @property
    def chunk(self) -> Chunk:
        """The chunk being stepped: the first of its work, for a session that is scheduled."""
        chunk = self.waiting[0]
        assert isinstance(chunk, Chunk), "operations never stay at the head"
        return chunk


@dataclass(slots=True)
class Held:
    """How many sessions are open, and the bytes of their state."""

    sessions: int = 0
    state_bytes: int = 0

    def count(self, session: Session, sign: int) -> None:
        """Add a session, or take it away."""
        self.sessions += sign
        self.state_bytes += sign * session.slab.slot_bytes


class SessionTable:
    """The open sessions by id, and why recently closed ones were closed."""

    def __init__(self) -> None:
        """Start empty."""
        self._sessions: dict[str, Session] = {}
        self._closed: OrderedDict[str, tuple[type[NtmError], str]] = OrderedDict()
        """Why, and whose they were."""
        self.held = Held()
        """All that is open."""
        self._held_by: dict[str, Held] = {}
        self._deadlines: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        """In order of creation."""
        return iter(self._sessions.values())

    def add(self, session: Session) -> None:
        """Enter a new session."""
        self._sessions[session.id] = session
        self.held.count(session, 1)
        self._held_by.setdefault(session.owner, Held()).count(session, 1)
        heapq.heappush(self._deadlines, (session.deadline_seconds, session.id))

    def held_by(self, owner: str) -> Held:
        """What an owner has open."""
        return self._held_by.get(owner) or Held()

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
        kind, owner = self._closed.get(session_id, (SessionUnknown, ""))
        if caller and owner != caller:
            kind = SessionUnknown
        told = _GONE.get(kind, "is unknown here: it was never opened, or closed long ago")
        return kind(f"session {session_id[:64]!r} {told}", session=session_id[:64])

    def close(self, session: Session, why: type[NtmError]) -> None:
        """Remove a session and remember why."""
        del self._sessions[session.id]
        self.held.count(session, -1)
        held = self._held_by[session.owner]
        held.count(session, -1)
        if not held.sessions:
            del self._held_by[session.owner]
        self._closed[session.id] = why, session.owner
        if len(self._closed) > MOST_CLOSED_REMEMBERED:
            self._closed.popitem(last=False)

    def idle(self, now_seconds: float) -> list[Session]:
        """The sessions whose deadline has passed and that have nothing to do. Closes none."""
        found = []
        while self._deadlines and self._deadlines[0][0] <= now_seconds:
            _, session_id = heapq.heappop(self._deadlines)
            session = self._sessions.get(session_id)
            if session is None:
                continue
            if session.waiting:
                heapq.heappush(
                    self._deadlines, (now_seconds + session.idle_timeout_seconds, session_id)
                )
            elif session.deadline_seconds > now_seconds:
                heapq.heappush(self._deadlines, (session.deadline_seconds, session_id))
            else:
                found.append(session)
        return found

    def check_integrity(self) -> None:
        """Raise RuntimeError unless what is counted, in all and by owner, is what there is."""
        held, by_owner = Held(), dict[str, Held]()
        for session in self:
            held.count(session, 1)
            by_owner.setdefault(session.owner, Held()).count(session, 1)
        if held != self.held or by_owner != self._held_by:
            raise RuntimeError(
                f"open: {held}, by owner {by_owner}; counted: {self.held}, {self._held_by}"
            )

    def next_deadline_seconds(self) -> float | None:
        """When `idle` should be asked again, or None if there is no session."""
        return self._deadlines[0][0] if self._deadlines else None


def new_session_id() -> str:
    """128 random bits in hexadecimal: not to be guessed."""
    return secrets.token_hex(16)
