"""How the scheduler shares turns among owners: by hand, and in any order of what can happen."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.engine.replays import Replays
from service.engine.scheduler import TICK_BYTES, Batch, Scheduler
from service.engine.sessions import Session
from service.engine.work import Chunk
from service.models.runtime import Network
from service.models.slab import Slab
from service.session_ref import SessionRef
from tests.conftest import Clock
from tests.support.driving import chunk, engine, opened, submitted
from tests.support.tiny_models import ledger

FOR_EVER = 1 << 30


@pytest.fixture
def slab(network: Network) -> Slab:
    """A slab of the ledger."""
    return Slab(network, 5)


def streaming(slab: Slab, owner: str, steps: int = FOR_EVER) -> Session:
    """A session of that owner with a chunk of so many steps, which nobody makes."""
    session = Session("", 0, owner, "ledger", slab, 0, 1.0, 0.0, 0.0, Replays(0))
    work = Chunk(SessionRef("", owner, 0), np.zeros((1, 2), np.float32), None)
    work.remaining = steps
    session.waiting.append(work)
    return session


def scheduled(batch_rows: int, slab: Slab, **sessions: int) -> Scheduler:
    """A scheduler with so many sessions of each owner waiting at the slab."""
    scheduler = Scheduler(batch_rows, max_burst=1)
    for owner, count in sessions.items():
        for _ in range(count):
            scheduler.add(streaming(slab, owner))
    return scheduler


def cost_bytes(batch: Batch) -> dict[str, int]:
    """What a turn costs each owner in it."""
    ticks, rows = batch.ticks, len(batch.sessions)
    row = ticks * (batch.slab.slot_bytes + TICK_BYTES // rows)
    return {owner: row * count for owner, count in rows_of(batch).items()}


def rows_of(batch: Batch) -> Counter[str]:
    """The rows of each owner."""
    return Counter(session.owner for session in batch.sessions)


def turned(scheduler: Scheduler, turns: int) -> list[Batch]:
    """So many turns, after each of which all its sessions wait again."""
    batches = []
    for _ in range(turns):
        batch = scheduler.next()
        assert batch is not None
        batches.append(batch)
        for session in batch.sessions:
            scheduler.add(session)
    return batches


def costs_in(batches: list[Batch]) -> Counter[str]:
    """What some turns cost each owner."""
    return sum((Counter(cost_bytes(batch)) for batch in batches), Counter[str]())


def rows_in(batches: list[Batch]) -> Counter[str]:
    """The rows of each owner in some turns."""
    return sum(map(rows_of, batches), Counter[str]())


def test_a_lone_session_is_in_every_turn(slab: Slab) -> None:
    """An owner's only session is in every turn, and the other owner gets the rest of each batch."""
    batches = turned(scheduled(8, slab, many=1000, one=1), 50)
    assert all(rows_of(batch) == {"one": 1, "many": 7} for batch in batches)


def test_owners_with_enough_sessions_get_equal_shares(slab: Slab) -> None:
    """Of 300 rows a third each, whether they have ten sessions or a hundred."""
    rows = rows_in(turned(scheduled(6, slab, a=100, b=10, c=40), 50))
    assert rows == {"a": 100, "b": 100, "c": 100}


def test_who_is_in_a_turn_comes_back_with_what_it_has_had(slab: Slab) -> None:
    """Owners whose only session is in each of their turns get no more than one that waits on."""
    rows = rows_in(turned(scheduled(1, slab, many=7, one=1, other=1), 90))
    assert rows == {"many": 30, "one": 30, "other": 30}


def test_what_one_cannot_use_goes_to_the_others_equally(slab: Slab) -> None:
    """One with a single session gets its row a turn, the others half of the rest each."""
    rows = rows_in(turned(scheduled(8, slab, a=100, b=100, c=1), 100))
    assert rows["c"] == 100
    assert rows["a"] + rows["b"] == 700
    assert abs(rows["a"] - rows["b"]) <= 8


def test_sessions_of_one_owner_advance_at_the_same_rate_beside_others(slab: Slab) -> None:
    """None of those of the crowded owner is more than a turn ahead of another."""
    scheduler = scheduled(8, slab, many=20, few=4)
    made = Counter(session for batch in turned(scheduler, 100) for session in batch.sessions)
    for owner in ("many", "few"):
        turns = [count for session, count in made.items() if session.owner == owner]
        assert max(turns) - min(turns) <= 1


def test_a_slot_of_more_bytes_costs_more(network: Network) -> None:
    """Of two owners at slabs of different sizes, each gets as much as the other by cost."""
    slabs = {"small": Slab(network, 5_000), "large": Slab(network, 50_000)}
    scheduler = Scheduler(max_batch=4, max_burst=4)
    for owner, its in slabs.items():
        for _ in range(10):
            scheduler.add(streaming(its, owner))
    batches = turned(scheduler, 1000)
    costs = costs_in(batches)
    assert costs["small"] == pytest.approx(costs["large"], rel=0.03)
    rows = rows_in(batches)
    assert rows["small"] / rows["large"] == pytest.approx(8.5, rel=0.03)


def test_having_been_idle_is_no_credit(slab: Slab) -> None:
    """An owner that comes after a hundred turns of another gets half of each turn from then on."""
    scheduler = scheduled(8, slab, early=30)
    turned(scheduler, 100)
    for _ in range(30):
        scheduler.add(streaming(slab, "late"))
    assert rows_in(turned(scheduler, 3)) == {"early": 12, "late": 12}


def test_who_used_what_others_left_is_not_made_to_wait(slab: Slab) -> None:
    """
    A newcomer has no more credit than waiting owners, and these have no debt from turns alone.
    """
    scheduler = scheduled(8, slab, lone=1, early=30)
    assert rows_in(turned(scheduler, 100)) == {"lone": 100, "early": 700}
    for _ in range(30):
        scheduler.add(streaming(slab, "late"))
    rows = rows_in(turned(scheduler, 10))
    assert rows["lone"] == 10
    assert abs(rows["early"] - rows["late"]) <= 8


def test_nobody_is_taken_along_further_than_a_turn(network: Network) -> None:
    """By cost, one session at each of two slabs gets what thirty at one of them do."""
    scheduler = Scheduler(max_batch=8, max_burst=1)
    slabs = Slab(network, 5_000), Slab(network, 5_001)
    for slab in slabs:
        scheduler.add(streaming(slab, "apart"))
    for _ in range(30):
        scheduler.add(streaming(slabs[0], "together"))
    costs = costs_in(turned(scheduler, 400))
    assert costs["apart"] == pytest.approx(costs["together"], rel=0.03)


def test_every_session_of_an_owner_has_its_turn(network: Network) -> None:
    """Also one at a slab where nobody else is, while the others are taken along elsewhere."""
    scheduler = Scheduler(max_batch=8, max_burst=1)
    here, there = Slab(network, 5), Slab(network, 8)
    apart = streaming(there, "a")
    scheduler.add(apart)
    for slab, owner in ((here, "a"), (here, "b")):
        for _ in range(20):
            scheduler.add(streaming(slab, owner))
    batches = turned(scheduler, 70)
    assert sum(apart in batch.sessions for batch in batches) >= 10


def test_a_slab_is_forgotten_with_its_last_session(network: Network) -> None:
    """Its memory is not kept for a place in a line, while others wait at another slab."""
    slab = Slab(network, 8)
    scheduler = scheduled(2, Slab(network, 5), a=1, b=1)
    leaving = streaming(slab, "a")
    scheduler.add(leaving)
    scheduler.remove(leaving)
    gone = weakref.ref(slab)
    del slab, leaving
    gc.collect()
    assert gone() is None
    assert scheduler.waiting == 2


def test_one_session_keeps_its_rate_beside_another_owners_64(
    network: Network, clock: Clock
) -> None:
    """It makes a burst each turn, as it did alone; among sessions of one owner, one in nine."""
    for owner, bursts in (("another", 45), ("the same", 5)):
        ledgers = engine(network, clock, max_batch=8, max_burst=4)
        one = opened(ledgers, owner="the same")
        many = [opened(ledgers, owner=owner) for _ in range(64)]
        inputs = np.ones((400, 2), np.float32)
        submitted(ledgers, *(chunk(session, inputs) for session in [*many, one]))
        for _ in range(45):
            ledgers.turn()
        made = [ledgers.lifecycle.describe(session).next_step for session in many]
        assert abs(ledgers.lifecycle.describe(one).next_step - 4 * bursts) <= 4
        assert sum(made) + ledgers.lifecycle.describe(one).next_step == 45 * 8 * 4
        assert max(made) - min(made) <= 4


def test_with_a_turn_always_under_way_one_session_is_in_every_other(
    network: Network, clock: Clock
) -> None:
    """As the worker schedules: a turn is committed when the next one is scheduled already."""
    ledgers = engine(network, clock, max_batch=8, max_burst=4)
    one = opened(ledgers, owner="one")
    many = [opened(ledgers, owner="many") for _ in range(64)]
    submitted(ledgers, *(chunk(session, np.ones((400, 2), np.float32)) for session in [*many, one]))
    running = ledgers.schedule()
    for _ in range(40):
        following = ledgers.schedule()
        assert running is not None
        running.run()
        ledgers.commit(running)
        running = following
    assert ledgers.lifecycle.describe(one).next_step == 4 * 20


@dataclass
class Received:
    """What an owner was given, and what it had been given when it last began to wait."""

    bytes: int = 0
    rivals: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Of each that has waited as long as it: what it and the other had at the beginning."""


class Shares(RuleBasedStateMachine):
    """Sessions come, step, come back and go in any order, with up to three turns under way."""

    network: Network

    @initialize(batch=st.integers(1, 5), burst=st.integers(1, 4))
    def start(self, batch: int, burst: int) -> None:
        """Start with an empty queue."""
        self.slabs = [Slab(self.network, locations) for locations in (5, 300, 5_000)]
        self.scheduler = Scheduler(batch, burst)
        self.rows = batch
        self.full_turn_bytes = burst * (batch * self.slabs[-1].slot_bytes + TICK_BYTES)
        self.waiting: dict[Session, None] = {}
        self.under_way: list[list[Session]] = []
        self.received: dict[str, Received] = {owner: Received() for owner in "abcd"}

    @rule(
        owner=st.sampled_from("abcd"),
        slab=st.integers(0, 2),
        count=st.integers(1, 12),
        steps=st.sampled_from([1, 3, FOR_EVER]),
    )
    def come(self, owner: str, slab: int, count: int, steps: int) -> None:
        """Some sessions of an owner come to a slab."""
        for _ in range(count):
            self.wait(streaming(self.slabs[slab], owner, steps))

    @precondition(lambda self: len(self.under_way) < 3)
    @rule(turns=st.integers(1, 3))
    def turn(self, turns: int) -> None:
        """Some turns begin."""
        for _ in range(turns):
            self.begin()

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 2), stay=st.integers(0, 5))
    def come_back(self, which: int, stay: int) -> None:
        """A turn ends; some of its sessions have no more steps."""
        for session in self.under_way.pop(which % len(self.under_way))[stay:]:
            self.wait(session)

    @rule(turns=st.integers(1, 40))
    def stream(self, turns: int) -> None:
        """Sessions have more and more steps: turn after turn, all come back."""
        for _ in range(turns):
            self.begin()
            while self.under_way:
                self.come_back(0, 0)
                self.is_fair()

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 1000))
    def close(self, which: int) -> None:
        """A session that waits is closed."""
        session = list(self.waiting)[which % len(self.waiting)]
        self.scheduler.remove(session)
        self.scheduler.remove(session)
        del self.waiting[session]
        self.note_who_waits()

    @rule()
    def nobody_starves(self) -> None:
        """Each waiting session has its turn, even if all others come back at once."""
        unserved = set(self.waiting)
        maximum = 8 * len(unserved) * len(self.received) * self.full_turn_bytes // TICK_BYTES
        for _ in range(maximum):
            if not unserved:
                break
            self.begin()
            for sessions in self.under_way:
                unserved -= set(sessions)
            while self.under_way:
                self.come_back(0, 0)
        assert not unserved

    @invariant()
    def is_fair(self) -> None:
        """Two that have waited all the while differ by four full turns at most."""
        for mine in getattr(self, "received", {}).values():
            for rival, (at_first, rivals_at_first) in mine.rivals.items():
                given, rivals = mine.bytes, self.received[rival].bytes
                ahead = (given - at_first) - (rivals - rivals_at_first)
                assert ahead <= 4 * self.full_turn_bytes

    @invariant()
    def adds_up(self) -> None:
        """The scheduler has exactly the sessions that wait."""
        if hasattr(self, "scheduler"):
            assert self.scheduler.waiting == len(self.waiting)
            assert bool(self.scheduler) == bool(self.waiting)

    def begin(self) -> None:
        """Take a batch and look at it: those who waited longest, of one slab."""
        batch = self.scheduler.next()
        assert (batch is None) == (not self.waiting)
        if batch is None:
            return
        assert 1 <= len(batch.sessions) <= self.rows
        assert len(set(batch.sessions)) == len(batch.sessions)
        for owner, count in rows_of(batch).items():
            its = [s for s in self.waiting if s.slab is batch.slab and s.owner == owner]
            assert [s for s in batch.sessions if s.owner == owner] == its[:count]
        if len({session.owner for session in self.waiting}) == 1:
            there = sum(session.slab is batch.slab for session in self.waiting)
            assert len(batch.sessions) == min(self.rows, there), "all is for who waits alone"
        for session in batch.sessions:
            del self.waiting[session]
        self.under_way.append(batch.sessions)
        for owner, cost in cost_bytes(batch).items():
            self.received[owner].bytes += cost
        self.note_who_waits()

    def wait(self, session: Session) -> None:
        """Let a session wait."""
        self.scheduler.add(session)
        self.waiting[session] = None
        self.note_who_waits()

    def note_who_waits(self) -> None:
        """Compare those that wait from now on; no longer those that do not."""
        waiting = {session.owner for session in self.waiting}
        for owner, mine in self.received.items():
            mine.rivals = {
                rival: mine.rivals.get(rival, (mine.bytes, self.received[rival].bytes))
                for rival in waiting
                if owner in waiting and rival != owner
            }


@pytest.mark.slow
def test_shares_are_fair_whatever_happens() -> None:
    """Nobody starves, nobody is far ahead, and each owner's sessions step in their order."""
    Shares.network = Network(ledger(), "cpu")
    Shares.TestCase.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)
    Shares.TestCase().runTest()
