"""Which sessions step next: plain data, without a clock, a thread or a device."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from service.sessions import Session
from service.slab import Slab

MOST_TURN_BYTES = 48 << 20
"""A turn steps about so much state at most, some 45 ms on a CPU, so that others wait no longer."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Sessions of one slab, and how many ticks all of them have steps for."""

    slab: Slab
    sessions: list[Session]
    ticks: int


class Scheduler:
    """
    Sessions with a chunk to step, oldest first.

    Each turn goes to the slab whose first session has waited longest, and takes the oldest of that
    slab. A session that still has steps afterwards goes to the end of the queue, so that with more
    sessions than a batch holds all advance at the same rate. Ticks are a power of two, for a
    network has a graph for each such number.
    """

    def __init__(self, max_batch: int, max_burst: int) -> None:
        """Batches hold at most `max_batch` sessions and run at most `max_burst` ticks."""
        self._max_batch = max_batch
        self._max_burst = max_burst
        self._queues: dict[Slab, dict[Session, None]] = {}
        self._tickets = 0

    def __bool__(self) -> bool:
        """Whether any session has a chunk to step."""
        return bool(self._queues)

    def __contains__(self, session: Session) -> bool:
        """Whether a session waits for its turn, and is in none."""
        return session in self._queues.get(session.slab, ())

    @property
    def waiting(self) -> int:
        """How many sessions have a chunk to step. Any thread may ask."""
        return sum(map(len, list(self._queues.values())))

    def add(self, session: Session) -> None:
        """Put a session at the end of the queue; it must not be in it."""
        self._tickets += 1
        session.ticket = self._tickets
        queue = self._queues.get(session.slab)
        if queue is None:
            queue = self._queues[session.slab] = {}
        queue[session] = None

    def remove(self, session: Session) -> None:
        """Take a session out of the queue if it is in it."""
        queue = self._queues.get(session.slab)
        if queue is not None and session in queue:
            del queue[session]
            if not queue:
                del self._queues[session.slab]

    def next(self) -> Batch | None:
        """Take the sessions that step next out of the queue; None when nobody waits."""
        if not self._queues:
            return None
        slab = min(self._queues, key=lambda slab: next(iter(self._queues[slab])).ticket)
        queue = self._queues[slab]
        steps = max(1, MOST_TURN_BYTES // max(1, slab.slot_bytes))
        rows = min(self._max_batch, steps)
        if len(queue) <= rows:
            sessions = list(queue)
            del self._queues[slab]
        else:
            sessions = list(islice(queue, rows))
            for session in sessions:
                del queue[session]
        most = min(
            self._max_burst,
            steps // len(sessions),
            *[session.chunk.remaining for session in sessions],
        )
        return Batch(slab, sessions, 1 << most.bit_length() - 1)
