"""The scheduler: who steps next, fed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from service.engine.replays import Replays
from service.engine.scheduler import Scheduler
from service.engine.sessions import Session
from service.engine.work import Chunk
from service.models.runtime import Network
from service.models.slab import Slab
from service.session_ref import SessionRef


@pytest.fixture
def slabs(network: Network) -> tuple[Slab, Slab]:
    """Two slabs of the ledger."""
    return Slab(network, 5), Slab(network, 8)


def waiting(slab: Slab, name: str, steps: int = 1) -> Session:
    """A session with a chunk of that many steps."""
    session = Session(name, 0, "", "ledger", slab, 0, 1.0, 0.0, 0.0, Replays(0))
    chunk = Chunk(SessionRef(name, "", 0), np.zeros((steps, 2), np.float32), None)
    chunk.remaining = steps
    session.waiting.append(chunk)
    return session


def ids(scheduler: Scheduler) -> list[str]:
    """The ids of the next batch."""
    batch = scheduler.next()
    assert batch is not None
    return [session.id for session in batch.sessions]


def test_a_turn_steps_no_more_state_than_others_can_wait_for(network: Network) -> None:
    """At many locations a turn has fewer ticks, and then fewer sessions, than it may."""
    slab = Slab(network, 300_000)
    assert slab.slot_bytes == 4_800_008
    scheduler = Scheduler(max_batch=16, max_burst=8)
    for name in "abcdefghijklm":
        scheduler.add(waiting(slab, name, steps=8))
    batch = scheduler.next()
    assert batch is not None
    assert (len(batch.sessions), batch.ticks) == (10, 1)
    batch = scheduler.next()
    assert batch is not None
    assert (len(batch.sessions), batch.ticks) == (3, 2)


def test_the_oldest_come_first(slabs: tuple[Slab, Slab]) -> None:
    """A batch takes sessions in the order in which they came, up to its size."""
    scheduler = Scheduler(max_batch=2, max_burst=1)
    for name in "cab":
        scheduler.add(waiting(slabs[0], name))
    assert [ids(scheduler), ids(scheduler)] == [["c", "a"], ["b"]]
    assert scheduler.next() is None
    assert not scheduler


def test_slabs_take_turns_by_the_age_of_their_first_session(slabs: tuple[Slab, Slab]) -> None:
    """A busy slab does not starve another."""
    scheduler = Scheduler(max_batch=2, max_burst=1)
    small, large = slabs
    for slab, name in ((small, "s1"), (small, "s2"), (large, "l1"), (small, "s3"), (large, "l2")):
        scheduler.add(waiting(slab, name))
    assert [ids(scheduler) for _ in range(3)] == [["s1", "s2"], ["l1", "l2"], ["s3"]]


def test_a_session_put_back_goes_behind_those_that_wait(slabs: tuple[Slab, Slab]) -> None:
    """Round robin among more sessions than fit."""
    scheduler = Scheduler(max_batch=1, max_burst=1)
    first, second = waiting(slabs[0], "first"), waiting(slabs[0], "second")
    scheduler.add(first)
    scheduler.add(second)
    assert ids(scheduler) == ["first"]
    scheduler.add(first)
    assert [ids(scheduler), ids(scheduler)] == [["second"], ["first"]]


@pytest.mark.parametrize(("steps", "ticks"), [((9, 5), 4), ((9, 3), 2), ((1, 9), 1)])
def test_a_burst_lasts_while_all_have_steps(
    slabs: tuple[Slab, Slab], steps: tuple[int, int], ticks: int
) -> None:
    """The largest power of two of ticks that all have steps for, at most the limit of four."""
    scheduler = Scheduler(max_batch=8, max_burst=4)
    for number, count in enumerate(steps):
        scheduler.add(waiting(slabs[0], str(number), count))
    batch = scheduler.next()
    assert batch is not None
    assert batch.ticks == ticks


def test_a_removed_session_does_not_step(slabs: tuple[Slab, Slab]) -> None:
    """Removing twice, or one that never waited, is no error."""
    scheduler = Scheduler(max_batch=8, max_burst=1)
    session = waiting(slabs[0], "gone")
    scheduler.remove(session)
    scheduler.add(session)
    assert session in scheduler
    scheduler.remove(session)
    scheduler.remove(session)
    assert not scheduler
    assert session not in scheduler


def test_a_session_in_a_turn_does_not_wait(slabs: tuple[Slab, Slab]) -> None:
    """A session in a turn is not in the queue; the sessions that wait are."""
    scheduler = Scheduler(max_batch=1, max_burst=1)
    first, second = waiting(slabs[0], "first"), waiting(slabs[0], "second")
    scheduler.add(first)
    scheduler.add(second)
    assert ids(scheduler) == ["first"]
    assert first not in scheduler
    assert second in scheduler
