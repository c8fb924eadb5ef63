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


class SessionTable:
    """The open sessions by id, and why recently closed ones were closed."""

    def __init__(self) -> None:
        """Start empty."""
        self._sessions: dict[str, Session] = {}
        self._closed: OrderedDict[str, type[NtmError]] = OrderedDict()
        self._deadlines: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        """In order of creation."""
        return iter(self._sessions.values())

    def add(self, session: Session) -> None:
        """Enter a new session."""
        self._sessions[session.id] = session
        heapq.heappush(self._deadlines, (session.deadline_seconds, session.id))

    def get(self, session_id: str) -> Session:
        """
        The open session of that id.

        Raises:
            SessionUnknown, SessionExpired, SessionDeleted, SessionFailed: there is none, and why.
        """
        session = self._sessions.get(session_id)
        if session is None:
            raise self.gone(session_id)
        return session

    def gone(self, session_id: str) -> NtmError:
        """Why there is no open session of that id."""
        kind = self._closed.get(session_id, SessionUnknown)
        told = _GONE.get(kind, "is unknown here: it was never opened, or closed long ago")
        return kind(f"session {session_id[:64]!r} {told}", session=session_id[:64])

    def close(self, session: Session, why: type[NtmError]) -> None:
        """Remove a session and remember why."""
        del self._sessions[session.id]
        self._closed[session.id] = why
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

    def next_deadline_seconds(self) -> float | None:
        """When `idle` should be asked again, or None if there is no session."""
        return self._deadlines[0][0] if self._deadlines else None


def new_session_id() -> str:
    """128 random bits in hexadecimal: not to be guessed."""
    return secrets.token_hex(16)
