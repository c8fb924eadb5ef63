"""Which sessions step next: plain data, without a clock, a thread or a device."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace
from itertools import islice
from operator import itemgetter

from service.engine.sessions import Session
from service.models.slab import Slab

MAX_TURN_BYTES = 48 << 20
"""State that a turn steps at most, about 45 ms on a CPU: sessions in no turn wait that long."""

TICK_BYTES = 64 << 10
"""Fixed cost of a tick, as the bytes of state that could be stepped in the same time."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Sessions of one slab, and a number of ticks that all of them have steps for."""

    slab: Slab
    sessions: list[Session]
    ticks: int


class _Owner:
    """An owner of sessions, among whom turns are shared."""

    __slots__ = ("had_bytes", "name", "place", "queues", "share", "slab")

    def __init__(self, name: str, had_bytes: int) -> None:
        self.name = name
        self.had_bytes = had_bytes
        """The cost of its steps so far, on top of its starting value."""
        self.queues: dict[Slab, dict[Session, None]] = {}
        """Its waiting sessions by slab, oldest first; no queue is empty."""
        self.slab: Slab | None = None
        """The slab of its oldest session."""
        self.place: _Place | None = None
        """Its place in the line of that slab."""
        self.share = 0
        """Its rows of the batch that is being filled."""


_Place = tuple[int, int, _Owner]
"""The cost of an owner's steps; the ticket of its oldest session, so that no two are equal; it."""


class _Line:
    """The owners whose oldest session waits at one slab, by the cost of their steps."""

    __slots__ = ("owners", "places")

    def __init__(self) -> None:
        self.owners = 0
        self.places: list[_Place] = []
        """
        A heap of their places.

        An owner that leaves the line sets its own place to None. Its entry stays in the heap, since
        a heap gives up only its least entry, and is skipped when it comes up.
        """


class Scheduler:
    """
    Sessions with a chunk to step, the oldest of each owner first.

    Each turn goes to the slab of the least-served owner's oldest session. The batch is filled from
    all owners whose oldest session waits at that slab, one session after another, each from the
    owner that is least served by then. So an owner with many sessions gets no more than an owner
    with few, if the latter can use as much. Service is counted in bytes of state stepped. A session
    that has steps left goes to the end of its owner's queue, so that all of an owner's sessions
    advance at the same rate.

    An owner more than one full turn ahead of the least-served owner is left out of the batch. An
    owner that begins to wait starts at the service of the least-served one, or at its own if that
    is more: having been idle is neither a credit nor a debt (start-time fair queueing; Goyal, Vin
    and Cheng, 1996). So two owners that always have sessions waiting get the same service, within
    four full turns.

    The number of ticks is a power of two, for a network has one graph for each such number.
    """

    def __init__(self, max_batch: int, max_burst: int) -> None:
        """Batches hold at most `max_batch` sessions and run at most `max_burst` ticks."""
        self._max_batch = max_batch
        self._max_burst = max_burst
        self._owners: dict[str, _Owner] = {}
        """Owners with waiting sessions, and idle owners that had more than the least-served one."""
        self._heap: list[_Place] = []
        """A place for each of these owners, sorted by the bytes it had now or earlier."""
        self._least_bytes = 0
        """The service of the least-served owner that waits."""
        self._lines: dict[Slab, _Line] = {}
        self._tickets = 0

    def __bool__(self) -> bool:
        """Whether any session has a chunk to step."""
        return bool(self._lines)

    def __contains__(self, session: Session) -> bool:
        """Whether a session is in the queue; one that is in a turn is not."""
        owner = self._owners.get(session.owner)
        return owner is not None and session in owner.queues.get(session.slab, ())

    @property
    def waiting(self) -> int:
        """Sessions in the queue. Safe from any thread."""
        owners = list(self._owners.values())
        return sum(len(queue) for owner in owners for queue in list(owner.queues.values()))

    def add(self, session: Session) -> None:
        """Put a session at the end of the queue; it must not be in it."""
        self._tickets += 1
        session.ticket = self._tickets
        try:
            self._owners[session.owner].queues[session.slab][session] = None
        except KeyError:
            self._add_first(session)

    def remove(self, session: Session) -> None:
        """Take a session out of the queue if it is in it."""
        owner = self._owners.get(session.owner)
        queue = owner.queues.get(session.slab) if owner else None
        if owner and queue and session in queue:
            del queue[session]
            if not queue:
                del owner.queues[session.slab]
            self._leave(owner)
            self._line_up(owner)

    def next(self) -> Batch | None:
        """Take the sessions that step next out of the queue; None if it is empty."""
        least = self._least()
        if least is None:
            return None
        slab = least.slab
        assert slab is not None, "an owner that waits has a slab"
        steps = max(1, MAX_TURN_BYTES // max(1, slab.slot_bytes))
        rows = min(self._max_batch, steps) if slab.network.batched else 1
        shared: list[_Owner] = []
        if len(self._owners) > 1:
            ticks = min(self._max_burst, steps // rows)
            shared = self._share(slab, rows, _row_bytes(slab, rows, ticks))
            sessions = []
            for owner in shared:
                sessions += _take(owner, slab, owner.share)
        else:  # one owner alone: its service is compared with none, and need not be counted
            sessions = _take(least, slab, rows)
            if len(least.queues) > 1 or slab not in least.queues:
                self._leave(least)
                self._line_up(least)
        maximum = min(
            self._max_burst,
            steps // len(sessions),
            *[session.chunk.remaining for session in sessions],
        )
        ticks = 1 << maximum.bit_length() - 1
        if shared:
            self._charge(shared, _row_bytes(slab, len(sessions), ticks))
        return Batch(slab, sessions, ticks)

    def _add_first(self, session: Session) -> None:
        """Add a session whose owner has none waiting at that slab."""
        owner = self._owners.get(session.owner)
        if owner is None:
            owner = self._owners[session.owner] = _Owner(session.owner, self._least_bytes)
            heappush(self._heap, (owner.had_bytes, session.ticket, owner))
        owner.queues[session.slab] = {session: None}
        if owner.place is None:
            self._line_up(owner)

    def _line_up(self, owner: _Owner) -> None:
        """Put an owner that is in no line into the line of its oldest waiting session, if any."""
        queues = owner.queues
        if not queues:
            return
        ticket, slab = min(
            ((next(iter(queue)).ticket, its) for its, queue in queues.items()), key=itemgetter(0)
        )
        owner.slab, owner.place = slab, (owner.had_bytes, ticket, owner)
        line = self._lines.get(slab)
        if line is None:
            line = self._lines[slab] = _Line()
        line.owners += 1
        heappush(line.places, owner.place)

    def _leave(self, owner: _Owner) -> None:
        """Take an owner out of its line; its entry in the heap is dropped later."""
        slab, owner.slab, owner.place = owner.slab, None, None
        assert slab is not None, "it is in a line"
        line = self._lines[slab]
        line.owners -= 1
        if not line.owners:
            del self._lines[slab]

    def _least(self) -> _Owner | None:
        """
        The least-served owner that waits; idle owners with less service are forgotten.

        An entry may be older than its owner's service, which only grows: such an entry goes back
        into the heap with the service now. So the first entry that is current is the least.
        """
        heap = self._heap
        while heap:
            had_bytes, number, owner = heap[0]
            if had_bytes < owner.had_bytes:
                heapreplace(heap, owner.place or (owner.had_bytes, number, owner))
            elif owner.place is None:
                heappop(heap)
                del self._owners[owner.name]
            else:
                self._least_bytes = had_bytes
                return owner
        self._least_bytes = 0
        return None

    def _share(self, slab: Slab, rows: int, row_bytes: int) -> list[_Owner]:
        """
        Share out the rows of a batch; returns the owners that got some, out of their line.

        `row_bytes` is the cost of a row, as far as it is known before the ticks are. The ticks
        depend on the sessions taken; `_charge` counts the true cost.
        """
        line = self._lines[slab].places
        max_bytes = self._least_bytes + rows * row_bytes
        shared: list[_Owner] = []
        again: list[_Place] = []  # owners with a share that could use more
        while rows:
            while line and line[0][2].place is not line[0]:
                heappop(line)
            heap = again if again and not (line and line[0] < again[0]) else line
            if not heap or heap[0][0] > max_bytes:
                break
            had_bytes, number, owner = heappop(heap)
            if heap is line:
                self._leave(owner)
                owner.share = 0
                shared.append(owner)
            count, left = 1, len(owner.queues[slab]) - owner.share
            if not (line or again):  # no other owner to alternate with: take the rest at once
                count = min(rows, left, (max_bytes - had_bytes) // row_bytes + 1)
            owner.share += count
            rows -= count
            if count < left:
                heappush(again, (had_bytes + count * row_bytes, number, owner))
        return shared

    def _charge(self, shared: list[_Owner], row_bytes: int) -> None:
        """Add the cost of each share to its owner's service, and line up owners that still wait."""
        for owner in shared:
            owner.had_bytes += owner.share * row_bytes
            self._line_up(owner)
        self._least()  # so that owners that begin to wait now start at the service as it is


def _take(owner: _Owner, slab: Slab, count: int) -> list[Session]:
    """Take an owner's oldest sessions at a slab out of its queue, at most `count`."""
    queue = owner.queues[slab]
    if count >= len(queue):
        del owner.queues[slab]
        return list(queue)
    sessions = list(islice(queue, count))
    for session in sessions:
        del queue[session]
    return sessions


def _row_bytes(slab: Slab, rows: int, ticks: int) -> int:
    """The cost of each row of a turn, with its part of the fixed cost of the ticks."""
    return ticks * (slab.slot_bytes + TICK_BYTES // rows)
