"""Which sessions step next: plain data, without a clock, a thread or a device."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace
from itertools import islice
from operator import itemgetter

from service.engine.sessions import Session
from service.models.slab import Slab

MOST_TURN_BYTES = 48 << 20
"""A turn steps about so much state at most, some 45 ms on a CPU, so that others wait no longer."""

TICK_BYTES = 64 << 10
"""What a tick costs besides its rows, as bytes of state that could be stepped meanwhile."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Sessions of one slab, and how many ticks all of them have steps for."""

    slab: Slab
    sessions: list[Session]
    ticks: int


class _Owner:
    """One of those among whom turns are shared."""

    __slots__ = ("had_bytes", "name", "place", "queues", "share", "slab")

    def __init__(self, name: str, had_bytes: int) -> None:
        self.name = name
        self.had_bytes = had_bytes
        """What its steps have cost, above what it was entered with."""
        self.queues: dict[Slab, dict[Session, None]] = {}
        """Its sessions that wait, by slab, oldest first; no queue is empty."""
        self.slab: Slab | None = None
        """That of its oldest session."""
        self.place: Place | None = None
        """Its place in the line there."""
        self.share = 0
        """Rows that it gets of the batch that is being filled."""


Place = tuple[int, int, _Owner]
"""What an owner has had; a number, so that no two are equal, less for who has waited longer; who"""


class _Line:
    """The owners whose oldest session waits at a slab, by what they have had."""

    __slots__ = ("owners", "places")

    def __init__(self) -> None:
        self.owners = 0
        self.places: list[Place] = []
        """A heap of their places, and of some that were left."""


class Scheduler:
    """
    Sessions with a chunk to step, the oldest of each owner first.

    Each turn goes to the owner that has had least of those that wait, to the slab of its oldest
    session. The batch is filled from all owners whose oldest session waits at that slab, one
    session after another of whoever has had least by then. So an owner with many sessions gets no
    more than one with few, if these can use as much. Steps are counted by what they cost, in bytes
    of state. A session that still has steps afterwards goes to the end of its owner's queue, so
    that these all advance at the same rate.

    Who is more than a full turn ahead of the least is not taken along. Who begins to wait counts as
    having had what the least has had, or more if it was ahead: having been idle is neither a credit
    nor a debt (start-time fair queueing; Goyal, Vin and Cheng, 1996). So two owners that have
    sessions waiting all the while get the same, within four full turns.

    Ticks are a power of two, for a network has a graph for each such number.
    """

    def __init__(self, max_batch: int, max_burst: int) -> None:
        """Batches hold at most `max_batch` sessions and run at most `max_burst` ticks."""
        self._max_batch = max_batch
        self._max_burst = max_burst
        self._owners: dict[str, _Owner] = {}
        """Those with sessions waiting, and those that have had more than the least of these."""
        self._heap: list[Place] = []
        """Each of them once, by what it has had, or had had before."""
        self._least_bytes = 0
        """What the least of those that wait has had."""
        self._lines: dict[Slab, _Line] = {}
        self._tickets = 0

    def __bool__(self) -> bool:
        """Whether any session has a chunk to step."""
        return bool(self._lines)

    def __contains__(self, session: Session) -> bool:
        """Whether a session waits for its turn, and is in none."""
        owner = self._owners.get(session.owner)
        return owner is not None and session in owner.queues.get(session.slab, ())

    @property
    def waiting(self) -> int:
        """How many sessions have a chunk to step. Any thread may ask."""
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
        """Take the sessions that step next out of the queue; None when nobody waits."""
        least = self._least()
        if least is None:
            return None
        slab = least.slab
        assert slab is not None, "it waits"
        steps = max(1, MOST_TURN_BYTES // max(1, slab.slot_bytes))
        rows = min(self._max_batch, steps)
        shared: list[_Owner] = []
        if len(self._owners) > 1:
            ticks = min(self._max_burst, steps // rows)
            shared = self._share(slab, rows, _row_bytes(slab, rows, ticks))
            sessions = []
            for owner in shared:
                sessions += _take(owner, slab, owner.share)
        else:  # nobody to share with, so there is nothing to count
            sessions = _take(least, slab, rows)
            if len(least.queues) > 1 or slab not in least.queues:
                self._leave(least)
                self._line_up(least)
        most = min(
            self._max_burst,
            steps // len(sessions),
            *[session.chunk.remaining for session in sessions],
        )
        ticks = 1 << most.bit_length() - 1
        if shared:
            self._charge(shared, _row_bytes(slab, len(sessions), ticks))
        return Batch(slab, sessions, ticks)

    def _add_first(self, session: Session) -> None:
        """Let an owner wait that does not wait at that slab yet."""
        owner = self._owners.get(session.owner)
        if owner is None:
            owner = self._owners[session.owner] = _Owner(session.owner, self._least_bytes)
            heappush(self._heap, (owner.had_bytes, session.ticket, owner))
        owner.queues[session.slab] = {session: None}
        if owner.place is None:
            self._line_up(owner)

    def _line_up(self, owner: _Owner) -> None:
        """Put an owner that is in no line into that where its oldest session waits, if any does."""
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
        """Take an owner out of its line; whoever finds its place there drops it."""
        slab, owner.slab, owner.place = owner.slab, None, None
        assert slab is not None, "it is in a line"
        line = self._lines[slab]
        line.owners -= 1
        if not line.owners:
            del self._lines[slab]

    def _least(self) -> _Owner | None:
        """The owner that has had least of those that wait; forget idle ones that have had less."""
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
        """Share out a batch, at so much a row; who gets some of it is taken out of the line."""
        line = self._lines[slab].places
        most_bytes = self._least_bytes + rows * row_bytes
        shared: list[_Owner] = []
        again: list[Place] = []  # those that have a share already and could use more
        while rows:
            while line and line[0][2].place is not line[0]:
                heappop(line)
            heap = again if again and not (line and line[0] < again[0]) else line
            if not heap or heap[0][0] > most_bytes:
                break
            had_bytes, number, owner = heappop(heap)
            if heap is line:
                self._leave(owner)
                owner.share = 0
                shared.append(owner)
            count, left = 1, len(owner.queues[slab]) - owner.share
            if not (line or again):
                count = min(rows, left, (most_bytes - had_bytes) // row_bytes + 1)
            owner.share += count
            rows -= count
            if count < left:
                heappush(again, (had_bytes + count * row_bytes, number, owner))
        return shared

    def _charge(self, shared: list[_Owner], row_bytes: int) -> None:
        """Note what each share has cost, at so much a row; who has more waiting lines up again."""
        for owner in shared:
            owner.had_bytes += owner.share * row_bytes
            self._line_up(owner)
        self._least()


def _take(owner: _Owner, slab: Slab, count: int) -> list[Session]:
    """Take so many of an owner's oldest sessions at a slab out of its queue, or all."""
    queue = owner.queues[slab]
    if count >= len(queue):
        del owner.queues[slab]
        return list(queue)
    sessions = list(islice(queue, count))
    for session in sessions:
        del queue[session]
    return sessions


def _row_bytes(slab: Slab, rows: int, ticks: int) -> int:
    """What each row of a turn costs, with its part of what the ticks cost by themselves."""
    return ticks * (slab.slot_bytes + TICK_BYTES // rows)
