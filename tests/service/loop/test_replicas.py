"""Two replicas and a store, turned by hand: whatever happens, each step is made and told once."""

from __future__ import annotations

from functools import partial

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from prometheus_client import CollectorRegistry

from service import codec
from service.engine.checkpoint import Checkpoint
from service.engine.durability import Durability, Policy, SessionView, Snapshot
from service.engine.engine import Engine
from service.engine.lifecycle import Lifecycle
from service.engine.sessions import Operation
from service.engine.work import Work
from service.errors import NotStored, NtmError, SessionDeleted, SessionMoved
from service.loop.keeper import GRACE_SECONDS
from service.models.runtime import Network
from service.session_ref import SessionRef
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.conftest import Clock
from tests.support import driving
from tests.support.driving import LEDGER, OWNER
from tests.support.memory_store import MemoryStore
from tests.support.tiny_models import ledger
from tests.support.turned import LOCATIONS, Client, Replica

NUMBERS = st.integers(0, 5)
WHICH = st.integers(0, 1)
THEN = st.sampled_from(["settle", "settle", "begin", "leave"])
POLICIES = st.sampled_from([*[Policy.ASYNCHRONOUS] * 2, Policy.SYNCHRONOUS, Policy.NONE])
MAX_CLIENTS = 3


def named(view: SessionView) -> SessionRef:
    """A session that was just opened, as its owner names it."""
    return SessionRef(view.id, OWNER, view.epoch)


class Replicas(RuleBasedStateMachine):
    """Sessions go from one replica to the other, and their steps from memory to the store."""

    network: Network
    blank: Checkpoint

    @initialize()
    def start(self) -> None:
        """Two replicas and an empty store."""
        self.clock = Clock()
        self.store = MemoryStore(self.clock)
        self.replicas = [self.replica(), self.replica()]
        self.all: list[Client] = []
        self.deleted: set[str] = set()
        """Sessions that the store was told of while they were their deleter's."""
        self.set_back_to = self.outage = 0

    def replica(self) -> Replica:
        """A server that has just started."""
        networks = {LEDGER: self.network}
        metrics, options = Metrics(CollectorRegistry()), Settings(max_burst=2)
        clock = self.clock
        lifecycle = Lifecycle(networks, options, metrics, clock, clock, has_store=True)
        return Replica(Engine(lifecycle, options, max_turns=3))

    @precondition(lambda self: self.has_room)
    @rule(which=WHICH, policy=POLICIES)
    def open(self, which: int, policy: Policy) -> None:
        """A client opens a session, which is stored before it is told, if it is to be durable."""
        replica = self.replicas[which]
        self.end(replica)
        durability = Durability(policy, 3 if policy is Policy.ASYNCHRONOUS else 0)
        view = replica.engine.lifecycle.open(LEDGER, LOCATIONS, None, OWNER, None, durability)
        self.keep(replica, view, policy)
        client = Client(view.id, len(self.all) + 1, durability, view.epoch)
        self.all.append(client)

    @rule(number=NUMBERS, which=WHICH, steps=st.integers(1, 5), then=THEN)
    def step(self, number: int, which: int, steps: int, then: str) -> None:
        """A client asks for steps, or again for what it has no answer to."""
        client = self.client(number)
        if client.setting_back is None:
            client.steps = client.steps or steps
        self.ask(client, which, then)

    @rule(number=NUMBERS, which=WHICH, is_reset=st.booleans(), then=THEN)
    def set_back(self, number: int, which: int, is_reset: bool, then: str) -> None:
        """A client that has its answers asks for another state, perhaps at the same step."""
        client = self.client(number)
        if client.has_answers:
            self.set_back_to += 100
            total = np.array([0, 0] if is_reset else [self.set_back_to, 7], np.float32)
            state = {**self.blank.state, "total": total}
            at = 0 if is_reset else client.known
            client.setting_back = Checkpoint(self.blank.content_hash, LOCATIONS, at, state)
            self.ask(client, which, then)

    @rule(number=NUMBERS, which=WHICH)
    def read(self, number: int, which: int) -> None:
        """What a client that has its answers reads is the state that it knows."""
        client, replica = self.client(number), self.replicas[which]
        if client.has_answers:
            operation = Operation(client.ref, replica.engine.lifecycle.read)
            self.operate(which, client, operation)
            if operation.outcome is not None:
                view, state = operation.outcome
                assert view.next_step <= client.known
                if view.next_step == client.known:
                    assert state["total"].tolist() == client.total()

    @precondition(lambda self: self.has_room)
    @rule(number=NUMBERS, which=WHICH)
    def fork(self, number: int, which: int) -> None:
        """A fork goes on from what its client knows, and is stored before it is told."""
        client, replica = self.client(number), self.replicas[which]
        if not client.has_answers:
            return
        self.end(replica)
        durability, policy = client.durability, client.durability.policy
        fork = replica.engine.lifecycle.open(LEDGER, LOCATIONS, None, OWNER, None, durability)
        operation = Operation(client.ref, partial(replica.engine.lifecycle.fork, fork=named(fork)))
        self.operate(which, client, operation)
        at = client.known
        if operation.outcome is None or operation.outcome.next_step != at:
            replica.engine.lifecycle.delete(named(fork))
            self.hear(replica)
            return
        self.keep(replica, fork, policy)
        other = Client(fork.id, client.seed, durability, fork.epoch, known=at, durable=at)
        other.replayed, other.start, other.sums = at, client.start, client.sums
        self.all.append(other)

    @rule(number=NUMBERS, which=WHICH)
    def delete(self, number: int, which: int) -> None:
        """A client deletes its session, wherever it is."""
        client, replica = self.client(number), self.replicas[which]
        self.end(replica)
        if self.wake(replica, client.ref) is None:
            try:
                replica.engine.lifecycle.delete(client.ref)
                client.gone = SessionDeleted
            except SessionMoved:
                pass
            self.hear(replica)  # what waited for the session is answered in both cases

    @rule(which=WHICH)
    def begin(self, which: int) -> None:
        """A replica begins a turn, and leaves it under way."""
        replica = self.replicas[which]
        if replica.engine.can_schedule and (turn := replica.engine.schedule()):
            replica.turns.append(turn)

    @rule(which=WHICH, fails=st.sampled_from([False] * 19 + [True]))
    def turn(self, which: int, fails: bool) -> None:
        """A replica makes a turn, or ends the first one that it has begun."""
        replica = self.replicas[which]
        if not replica.turns:
            self.begin(which)
        if replica.turns:
            self.commit(replica, fails=fails)

    @precondition(lambda self: any(replica.saving for replica in self.replicas))
    @rule(
        which=WHICH,
        place=st.integers(0, 5),
        fate=st.sampled_from(["stored", "stored", "stored", "lost", "unanswered"]),
    )
    def arrive(self, which: int, place: int, fate: str) -> None:
        """What is on its way to the store arrives, in any order; or not, or nobody hears of it."""
        replica = self.replicas[which]
        if not replica.saving:
            return
        snapshot = replica.saving.pop(place % len(replica.saving))
        is_lost = fate == "lost" or self.store.is_down
        is_kept = not is_lost and self.saved(snapshot)
        if fate == "stored" and not is_lost:
            replica.engine.lifecycle.stored(snapshot, is_kept=is_kept)
        else:
            replica.engine.lifecycle.saving.not_saved(snapshot, "no answer")
        self.hear(replica)

    @rule(which=WHICH)
    def tell_deletions(self, which: int) -> None:
        """The store hears of the sessions that have ended, if it is up."""
        replica = self.replicas[which]
        while replica.deleting and not self.store.is_down:
            ended = replica.deleting.pop()
            seconds = ended.idle_timeout_seconds + GRACE_SECONDS
            if self.store.epoch(ended.session_id) <= ended.epoch:
                self.deleted.add(ended.session_id)
            self.store.delete(ended.session_id, ended.epoch, seconds)

    @rule(events=st.integers(1, 4))
    def break_the_store(self, events: int) -> None:
        """It answers nothing until so many more things have happened."""
        self.store.is_down, self.outage = True, events

    @invariant()
    def an_outage_ends(self) -> None:
        """Each thing that happens brings its end nearer."""
        if hasattr(self, "store") and self.store.is_down:
            self.store.is_down, self.outage = self.outage > 0, self.outage - 1

    @rule(seconds=st.sampled_from([20.0, 20.0, 100.0, 100.0, 400.0]))
    def wait(self, seconds: float) -> None:
        """Time goes by: sessions that nobody uses expire, here and in the store."""
        for which, replica in enumerate(self.replicas):
            # What is asked is done in seconds, and what is not answered in seconds is given up.
            self.make_turns(which)
            while replica.saving:
                self.arrive(which, 0, "lost")
        self.clock.seconds += seconds
        for replica in self.replicas:
            replica.engine.lifecycle.expire()
            self.hear(replica)

    @rule(which=WHICH)
    def sleep(self, which: int) -> None:
        """A replica puts to sleep whoever can."""
        replica = self.replicas[which]
        self.end(replica)
        sleepers = replica.engine.lifecycle.sleepers(10)
        for session in sleepers:
            if session.durable and session.durable.is_clean:
                replica.engine.lifecycle.put_to_sleep(session)
        awake = [session for session in sleepers if session.is_open]
        replica.saving += replica.engine.lifecycle.saving.take(awake, puts_to_sleep=True)
        self.hear(replica)

    @rule(which=WHICH)
    def crash(self, which: int) -> None:
        """A replica dies, with all that was under way, and another one starts."""
        self.replicas[which] = self.replica()

    @rule(number=NUMBERS, which=WHICH)
    def finish(self, number: int, which: int) -> None:
        """With replicas and a store that work, every client gets its answer."""
        client = self.client(number)
        self.store.is_down = False
        for _ in range(30):
            if client.gone or client.has_answers:
                return
            self.ask(client, which, "settle")
        raise AssertionError("a client was never answered")

    @invariant()
    def what_is_deleted_stays_so(self) -> None:
        """Whatever is saved late, by whom."""
        for session_id in getattr(self, "deleted", ()):
            assert self.store.record(session_id) is None

    def client(self, number: int) -> Client:
        """One of those that still ask; a new one where none does."""
        if all(client.gone for client in self.all):
            self.open(number % 2, Policy.ASYNCHRONOUS)
        left = [client for client in self.all if not client.gone]
        return left[number % len(left)]

    @property
    def has_room(self) -> bool:
        """Whether one more client makes the run no worse to understand."""
        return sum(not client.gone for client in self.all) < MAX_CLIENTS

    def ask(self, client: Client, which: int, then: str) -> None:
        """A client asks for what it wants, which may be begun or ended at once."""
        replica = self.replicas[which]
        client.asked = client.work(replica.engine)
        self.submit(replica, client.asked)
        if then == "begin":
            self.begin(which)
        elif then == "settle":
            self.settle(which)

    def settle(self, which: int) -> None:
        """A replica ends all that it has to do, and the store, if it is up, gets all of it."""
        replica = self.replicas[which]
        while replica.engine.busy or replica.turns or replica.saving:
            self.make_turns(which)
            if replica.saving:
                self.arrive(which, 0, "stored")

    def make_turns(self, which: int) -> None:
        """A replica makes all turns that it can, and its clients hear of them."""
        replica = self.replicas[which]
        while replica.engine.busy or replica.turns:
            self.turn(which, fails=False)
            self.hear(replica)  # answers also come without a turn

    def submit(self, replica: Replica, work: Work) -> None:
        """A replica gets work, for which it may have to claim the session."""
        replica.engine.submit(work)
        self.hear(replica)
        absent, replica.absent = replica.absent, []
        for waiting in absent:
            error = self.wake(replica, waiting.ref)
            if error is None:
                waiting.ref = waiting.ref._replace(epoch=0)
                replica.engine.submit(waiting)
            else:
                waiting.error = error
                self.tell(waiting)
        self.hear(replica)

    def wake(self, replica: Replica, ref: SessionRef) -> NtmError | None:
        """A replica claims a session; why it could not."""
        lifecycle = replica.engine.lifecycle
        if ref.id in lifecycle.sessions:
            return None
        if not lifecycle.may_be_stored(ref):
            return lifecycle.sessions.gone_error(ref)
        if self.store.is_down:
            return NotStored("it is down")
        self.end(replica)
        found = self.store.claim(ref.id, replica)
        if found is None:
            lifecycle.lost(ref.id)
            return lifecycle.sessions.gone_error(ref)
        lifecycle.adopt(ref.id, found[0], codec.decode_record(found[1]))
        return None

    def operate(self, which: int, client: Client, operation: Operation) -> None:
        """An operation is asked for, and given up unless it is done at once."""
        self.submit(self.replicas[which], operation)
        self.settle(which)
        operation.cancelled = True

    def keep(self, replica: Replica, view: SessionView, policy: Policy) -> None:
        """A new session is in the store before its client hears of it."""
        if policy is not Policy.NONE:
            lifecycle = replica.engine.lifecycle
            (snapshot,) = lifecycle.saving.take([lifecycle.awake(named(view))])
            assert self.saved(snapshot)
            lifecycle.stored(snapshot, is_kept=True)
        self.hear(replica)

    def saved(self, snapshot: Snapshot) -> bool:
        """The store gets a snapshot; whether it keeps it."""
        view = snapshot.view
        seconds = view.idle_timeout_seconds + GRACE_SECONDS
        return self.store.save(
            view.id, snapshot.durable.epoch, codec.encode_record(snapshot), seconds
        )

    def commit(self, replica: Replica, *, fails: bool = False) -> None:
        """End the first of a replica's turns."""
        turn = replica.turns.pop(0)
        turn.run()
        if fails:
            turn.error = RuntimeError("made to fail")
        replica.engine.commit(turn)
        self.hear(replica)

    def end(self, replica: Replica) -> None:
        """End all turns of a replica."""
        while replica.turns:
            self.commit(replica)

    def hear(self, replica: Replica) -> None:
        """Clients get their answers, and the rest of the effects is on its way."""
        effects = replica.engine.take_effects()
        replica.saving += effects.snapshots
        replica.deleting += effects.ended
        replica.absent += effects.absent
        for work in effects.finished:
            self.tell(work)
        replica.engine.lifecycle.check_integrity()

    def tell(self, work: Work) -> None:
        """Whoever waits for this answer gets it."""
        for client in self.all:
            if client.asked is work and not client.gone:
                client.answer(work, self.store)


def test_steps_are_neither_lost_nor_repeated_nor_told_wrongly() -> None:
    """With crashes, lost answers, stores that do not answer, sleeping, and going to and fro."""
    Replicas.network = Network(ledger(), "cpu")
    engine = driving.engine(Replicas.network, Clock())
    session = engine.lifecycle.awake(driving.opened(engine, LOCATIONS))
    Replicas.blank = engine.lifecycle.checkpoint(session)[1]
    Replicas.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
    Replicas.TestCase().runTest()
