"""What is stored when, and what waits for it, turned by hand."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from service.engine.durability import RENEW_SECONDS, Durability, Policy, Snapshot
from service.engine.effects import Ended
from service.engine.engine import Engine
from service.engine.lifecycle import Lifecycle
from service.engine.sessions import Operation
from service.engine.work import Work
from service.errors import NotStored, SessionDeleted, SessionMoved, StepIndexMismatch
from service.models.runtime import Network
from service.session_ref import SessionRef
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.conftest import Clock
from tests.support.devices import READ, scarce_network
from tests.support.driving import LEDGER, OWNER, chunk, outputs

ONES = [[1, 1]]


class Storing:
    """An engine with a store that does what the test says."""

    def __init__(self, network: Network, clock: Clock) -> None:
        """Turns make at most two ticks."""
        networks, metrics = {LEDGER: network}, Metrics(CollectorRegistry())
        settings = Settings(max_burst=2)
        self.lifecycle = Lifecycle(networks, settings, metrics, clock, clock, has_store=True)
        self.engine = Engine(self.lifecycle, settings)
        self.snapshots: list[Snapshot] = []
        self.absent: list[Work] = []
        self.ended: list[Ended] = []

    def opened(self, policy: Policy, every_steps: int = 4) -> SessionRef:
        """A session that is stored as it is."""
        session = self.new(Durability(policy, every_steps))
        self.snapshots += self.lifecycle.saving.take([self.lifecycle.awake(session)])
        self.run()
        self.store()
        return session

    def new(self, durability: Durability) -> SessionRef:
        """A session that the store knows nothing of."""
        view = self.lifecycle.open(LEDGER, 5, None, OWNER, None, durability)
        return SessionRef(view.id, OWNER, 0)

    def send(self) -> list[Work]:
        """Send the engine's effects on their way; the answers among them."""
        effects = self.engine.take_effects()
        self.snapshots += effects.snapshots
        self.absent += effects.absent
        self.ended += effects.ended
        return effects.finished

    def run(self, *works: Work) -> list[Work]:
        """Submit work and turn until nothing is left; what was answered."""
        for work in works:
            self.engine.submit(work)
        answered = []
        while self.engine.busy:
            answered += self.engine.turn()
        return answered + self.send()

    def store(self, *, is_kept: bool = True) -> list[Work]:
        """Let what is on its way to the store arrive; what was answered then."""
        answered = []
        while self.snapshots:
            self.lifecycle.stored(self.snapshots.pop(0), is_kept=is_kept)
            answered += self.send()
        return answered + self.run()

    def lose(self) -> list[Work]:
        """Let the store not answer; what was answered then."""
        for snapshot in self.snapshots:
            self.lifecycle.saving.not_saved(snapshot, "it is down")
        self.snapshots.clear()
        return self.run()


@pytest.fixture
def storing(network: Network, clock: Clock) -> Storing:
    """An engine with nothing to do yet."""
    return Storing(network, clock)


def test_a_synchronous_answer_waits_for_the_store(storing: Storing) -> None:
    """
    A synchronous session's answer waits for the store, and its durable step includes its steps.
    """
    session = storing.opened(Policy.SYNCHRONOUS)
    work = chunk(session, ONES * 3)
    assert storing.run(work) == []
    assert storing.store() == [work]
    assert (outputs(work)[-1], work.durable_step) == ([3, 3], 3)


def test_answers_keep_their_order_where_one_waits(storing: Storing) -> None:
    """A refused chunk behind a waiting answer is answered after it."""
    session = storing.opened(Policy.SYNCHRONOUS)
    first, refused = chunk(session, ONES), chunk(session, [[float("nan"), 0]])
    assert storing.run(first, refused) == []
    assert storing.store() == [first, refused]


def test_a_store_that_does_not_answer_costs_the_answer_not_the_steps(storing: Storing) -> None:
    """The same chunk sent again is stored then, and answered with what it led to."""
    session = storing.opened(Policy.SYNCHRONOUS)
    work, again = chunk(session, ONES * 3, 0), chunk(session, ONES * 3, 0)
    storing.run(work)
    assert storing.lose() == [work]
    assert isinstance(work.error, NotStored)
    assert storing.run(again) == []
    assert storing.store() == [again]
    assert outputs(again) == [[1, 1], [2, 2], [3, 3]]
    assert storing.lifecycle.describe(session).next_step == 3


def test_asynchronous_sessions_are_stored_between_chunks(storing: Storing) -> None:
    """After at least four steps, never inside a chunk, and their answers wait for nothing."""
    session = storing.opened(Policy.ASYNCHRONOUS)
    long = chunk(session, ONES * 7)
    assert storing.run(long) == [long]
    assert [snapshot.checkpoint.next_step for snapshot in storing.snapshots] == [7]
    storing.store()
    storing.run(chunk(session, ONES * 3))
    assert storing.snapshots == []
    storing.run(chunk(session, ONES))
    assert [snapshot.checkpoint.next_step for snapshot in storing.snapshots] == [11]


def test_a_slow_session_is_stored_before_the_store_forgets_it(
    storing: Storing, clock: Clock
) -> None:
    """With its first step half a minute after it was stored, however few it has made."""
    session = storing.opened(Policy.ASYNCHRONOUS, every_steps=1000)
    clock.seconds += RENEW_SECONDS - 1
    storing.run(chunk(session, ONES))
    assert storing.snapshots == []
    clock.seconds += 1
    storing.run(chunk(session, ONES))
    assert [snapshot.checkpoint.next_step for snapshot in storing.snapshots] == [2]
    storing.store()
    storing.run(chunk(session, ONES))
    assert storing.snapshots == []


@pytest.mark.parametrize("policy", [Policy.ASYNCHRONOUS, Policy.SYNCHRONOUS])
def test_a_reset_is_stored_before_it_is_told(storing: Storing, policy: Policy) -> None:
    """A reset is answered once it is stored; otherwise the earlier state could come back."""
    session = storing.opened(policy)
    storing.run(chunk(session, ONES))
    storing.store()
    reset = Operation(session, storing.lifecycle.reset)
    assert storing.run(reset) == []
    assert [snapshot.checkpoint.next_step for snapshot in storing.snapshots] == [0]
    assert storing.store() == [reset]
    assert reset.outcome.durable_step == 0


def test_a_read_changes_nothing_and_waits_for_nothing(storing: Storing) -> None:
    """A read of a stored session makes no snapshot and is answered at once."""
    session = storing.opened(Policy.SYNCHRONOUS)
    read = Operation(session, storing.lifecycle.read)
    assert storing.run(read) == [read]


def test_a_mismatch_is_told_once_the_session_is_known_to_be_ours(storing: Storing) -> None:
    """
    A step mismatch is answered after a save; if another replica owns the session, it has moved.
    """
    ours, theirs = storing.opened(Policy.ASYNCHRONOUS), storing.opened(Policy.ASYNCHRONOUS)
    gap = chunk(ours, ONES, 9)
    assert storing.run(gap) == []
    assert storing.store() == [gap]
    assert isinstance(gap.error, StepIndexMismatch)
    gap = chunk(theirs, ONES, 9)
    storing.run(gap)
    assert storing.store(is_kept=False) == [gap]
    assert isinstance(gap.error, SessionMoved)
    assert theirs.id not in storing.lifecycle.sessions


def test_a_session_taken_over_in_its_turn_is_closed_after_it(storing: Storing) -> None:
    """Its slot belongs to the run until then; the run's steps are nobody's."""
    session, other = storing.opened(Policy.ASYNCHRONOUS), storing.opened(Policy.ASYNCHRONOUS)
    storing.run(chunk(session, ONES * 4))
    work, behind, others = chunk(session, ONES * 2), chunk(session, ONES), chunk(other, ONES * 2)
    for each in (work, behind, others):
        storing.engine.submit(each)
    turn = storing.engine.schedule()
    assert turn is not None
    storing.lifecycle.stored(storing.snapshots.pop(), is_kept=False)
    storing.lifecycle.check_integrity()
    turn.run()
    storing.engine.commit(turn)
    storing.lifecycle.check_integrity()

    assert set(storing.run()) == {work, behind, others}
    assert isinstance(work.error, SessionMoved)
    assert isinstance(behind.error, SessionMoved)
    assert outputs(others)[-1] == [2, 2]
    assert session.id not in storing.lifecycle.sessions


def test_a_later_epoch_closes_an_old_copy(storing: Storing) -> None:
    """Work with a later epoch closes the old copy, and waits until the session is claimed."""
    session = storing.opened(Policy.ASYNCHRONOUS)
    known, unknown = chunk(session._replace(epoch=2), ONES), chunk(session, ONES)
    assert storing.run(known, unknown) == []
    assert storing.absent == [known, unknown]
    assert session.id not in storing.lifecycle.sessions
    with pytest.raises(SessionMoved):
        storing.lifecycle.describe(session)


def test_a_session_of_no_durability_that_was_stored_is_stored_when_it_is_reset(
    storing: Storing,
) -> None:
    """Or it could come back as it slept; one that never was in the store cannot."""
    slept, new = (
        storing.opened(Policy.NONE),
        storing.new(Durability(Policy.NONE)),
    )
    reset = Operation(slept, storing.lifecycle.reset)
    assert storing.run(reset) == []
    assert storing.store() == [reset]
    reset = Operation(new, storing.lifecycle.reset)
    assert storing.run(reset) == [reset]


def test_the_store_is_told_only_of_sessions_that_it_may_have(storing: Storing) -> None:
    """Only sessions that the store may have are deleted from it, with their epoch."""
    stored = storing.opened(Policy.NONE)
    new = storing.new(Durability(Policy.NONE))
    storing.lifecycle.delete(stored)
    storing.lifecycle.delete(new)
    storing.run()
    assert [each[:2] for each in storing.ended] == [(stored.id, 1)]


def test_what_waits_for_the_store_fails_with_its_session(storing: Storing) -> None:
    """A deleted session's answers do not come later as if it were durable."""
    session = storing.opened(Policy.SYNCHRONOUS)
    work = chunk(session, ONES)
    storing.run(work)
    storing.lifecycle.delete(session)
    assert storing.run() == [work]
    assert isinstance(work.error, SessionDeleted)
    assert storing.store() == []


def test_a_session_that_went_on_stays_awake(storing: Storing) -> None:
    """What was stored to put it to sleep is no longer what it is."""
    busy, idle = storing.opened(Policy.NONE), storing.opened(Policy.NONE)
    for session in (busy, idle):
        storing.run(chunk(session, ONES))
    sessions = [storing.lifecycle.awake(each) for each in (busy, idle)]
    storing.snapshots += storing.lifecycle.saving.take(sessions, puts_to_sleep=True)
    storing.run(chunk(busy, ONES))
    storing.store()
    assert busy.id in storing.lifecycle.sessions
    assert idle.id not in storing.lifecycle.sessions
    storing.lifecycle.check_integrity()


def test_an_indexed_chunk_that_is_cancelled_while_it_runs_is_made_to_its_end(
    storing: Storing,
) -> None:
    """A cancelled chunk with an index is finished and kept for a retry; one without stops early."""
    session, other = storing.opened(Policy.NONE), storing.opened(Policy.NONE)
    indexed, plain = chunk(session, ONES * 6, 0), chunk(other, ONES * 6)
    for work in (indexed, plain):
        storing.engine.submit(work)
    storing.engine.turn()
    indexed.cancelled = plain.cancelled = True
    storing.run()
    again = chunk(session, ONES * 6, 0)
    storing.run(again)

    assert outputs(again)[-1] == [6, 6]
    assert storing.lifecycle.describe(session).next_step == 6
    assert storing.lifecycle.describe(other).next_step < 6


def test_a_session_that_there_is_no_memory_to_read_is_stored_later(clock: Clock) -> None:
    """A synchronous chunk is answered with NOT_STORED; asked for again, it is stored."""
    network, device = scarce_network()
    storing = Storing(network, clock)
    asynchronous = storing.opened(Policy.ASYNCHRONOUS, every_steps=1)
    session = storing.opened(Policy.SYNCHRONOUS)
    device.full_for = {READ}
    free, work = chunk(asynchronous, ONES), chunk(session, ONES, first_step=0)
    assert storing.run(free, work) == [free, work]
    assert free.error is None
    assert isinstance(work.error, NotStored)
    assert "the memory of the server has no room" in work.error.message
    assert storing.snapshots == []
    device.full_for = set()
    again = chunk(session, ONES, first_step=0)
    assert storing.run(chunk(asynchronous, ONES), again) != []
    assert again in storing.store()
    assert again.durable_step == 1
