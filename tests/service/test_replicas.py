"""Two replicas and a store, turned by hand: whatever happens, each step is made and told once."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, precondition, rule
from prometheus_client import CollectorRegistry

from service import record
from service.engine import Engine
from service.errors import NotStored, SessionMoved, StepIndexMismatch
from service.metrics import Metrics
from service.runtime import Network
from service.saving import Durability, Policy, Snapshot
from service.settings import Settings
from service.spec import Float32
from service.work import Chunk
from tests.conftest import Clock
from tests.service.driving import LEDGER, OWNER, outputs
from tests.tiny_models import ledger


def inputs(seed: int, first_step: int, steps: int) -> Float32:
    """Whole numbers, so that sums are exact: [steps, 2]."""
    return np.array([[seed, step + 1] for step in range(first_step, first_step + steps)], "f4")


@dataclass(eq=False)
class Client:
    """A client that knows the outputs before step `known`, and asks again until it is answered."""

    id: str
    seed: int
    durability: Durability
    known: int = 0
    durable: int = 0
    steps: int = 0
    """How many it wants now; 0 when it has all that it wanted."""
    replayed: int = 0
    """Where it has to begin again, below `known` if the session was set back."""
    asked: Chunk | None = None

    def chunk(self) -> Chunk:
        """What it asks for: the same as before until it has an answer, if need be after others."""
        steps = self.steps if self.replayed == self.known else 1
        values = inputs(self.seed, self.replayed, steps).reshape(-1)
        self.asked = Chunk(self.id, values, self.replayed)
        return self.asked


@dataclass
class Replica:
    """A server: an engine, and what is on its way from it to the store."""

    engine: Engine
    saving: list[Snapshot] = field(default_factory=list)


class Replicas(RuleBasedStateMachine):
    """Sessions go from one replica to the other, and their steps from memory to the store."""

    network: Network
    clients: Bundle[Client] = Bundle("clients")

    @initialize()
    def start(self) -> None:
        """Two replicas and an empty store."""
        self.store: dict[str, tuple[int, bytes]] = {}
        self.replicas = [self.replica(), self.replica()]
        self.opened = 0

    def replica(self) -> Replica:
        """A server that has just started."""
        clock, networks = Clock(), {LEDGER: self.network}
        metrics = Metrics(CollectorRegistry())
        engine = Engine(
            networks, Settings(max_burst=2), metrics, clock, clock, most_turns=3, has_store=True
        )
        return Replica(engine)

    @rule(
        target=clients,
        which=st.integers(0, 1),
        policy=st.sampled_from([Policy.ASYNCHRONOUS, Policy.SYNCHRONOUS]),
    )
    def open(self, which: int, policy: Policy) -> Client:
        """A client opens a session, which is stored before it is told."""
        replica = self.replicas[which]
        durability = Durability(policy, 3 if policy is Policy.ASYNCHRONOUS else 0)
        view = replica.engine.open(LEDGER, 5, None, OWNER, None, durability)
        replica.engine.saving.take([replica.engine.session(view.id)])
        self.send(replica)
        self.arrive(which, len(replica.saving) - 1, "stored")
        self.opened += 1
        return Client(view.id, self.opened, durability)

    @rule(client=clients, which=st.integers(0, 1), steps=st.integers(1, 5))
    def ask(self, client: Client, which: int, steps: int) -> None:
        """A client asks for steps, or again for those it has no answer for."""
        client.steps = client.steps or steps
        replica = self.replicas[which]
        replica.engine.submit(client.chunk())
        for work in replica.engine.absent():
            epoch, data = self.store[client.id]
            self.store[client.id] = (epoch + 1, data)
            replica.engine.adopt(client.id, epoch + 1, record.decode(data))
            replica.engine.submit(work)
        self.hear(replica)

    @rule(which=st.integers(0, 1))
    def turn(self, which: int) -> None:
        """A replica makes a turn."""
        replica = self.replicas[which]
        turn = replica.engine.schedule()
        if turn:
            turn.run()
            replica.engine.commit(turn)
        self.hear(replica)

    @precondition(lambda self: any(replica.saving for replica in self.replicas))
    @rule(
        which=st.integers(0, 1),
        place=st.integers(0, 5),
        fate=st.sampled_from(["stored", "stored", "stored", "lost", "unanswered"]),
    )
    def arrive(self, which: int, place: int, fate: str) -> None:
        """What is on its way to the store arrives, in any order; or not, or nobody hears of it."""
        replica = self.replicas[which]
        if not replica.saving:
            return
        snapshot = replica.saving.pop(place % len(replica.saving))
        epoch, _ = self.store.get(snapshot.view.id, (snapshot.durable.epoch, b""))
        is_kept = epoch == snapshot.durable.epoch
        if is_kept and fate != "lost":
            self.store[snapshot.view.id] = (epoch, record.encode(snapshot))
        if fate == "stored":
            replica.engine.stored(snapshot, is_kept=is_kept)
        else:
            replica.engine.saving.not_saved(snapshot, "no answer")
        self.hear(replica)

    @rule(which=st.integers(0, 1))
    def sleep(self, which: int) -> None:
        """A replica puts to sleep whoever can."""
        replica = self.replicas[which]
        sleepers = replica.engine.sleepers(10)
        for session in sleepers:
            if session.durable and session.durable.is_clean:
                replica.engine.put_to_sleep(session)
        awake = [session for session in sleepers if session.is_open]
        replica.engine.saving.take(awake, puts_to_sleep=True)
        self.hear(replica)

    @rule(which=st.integers(0, 1))
    def crash(self, which: int) -> None:
        """A replica dies, with all that was under way, and another one starts."""
        self.replicas[which] = self.replica()

    @rule(client=clients)
    def finish(self, client: Client) -> None:
        """With replicas and a store that work, every client gets its answer."""
        for _ in range(30):
            if not client.steps:
                return
            self.ask(client, 0, 1)
            while self.replicas[0].engine.busy or self.replicas[0].saving:
                self.turn(0)
                while self.replicas[0].saving:
                    self.arrive(0, 0, "stored")
        raise AssertionError("a client was never answered")

    def send(self, replica: Replica) -> None:
        """What the engine wants stored is on its way."""
        replica.saving += replica.engine.saving.wanted()

    def hear(self, replica: Replica) -> None:
        """Clients get their answers."""
        self.send(replica)
        for work in replica.engine.finished():
            assert isinstance(work, Chunk)
            client = next(each for each in self.all_clients() if each.id == work.session_id)
            if client.asked is work:
                self.answer(client, work)
        replica.engine.check_integrity()

    def all_clients(self) -> list[Client]:
        """Every client so far."""
        return [value for value in self.names_to_values.values() if isinstance(value, Client)]

    def answer(self, client: Client, chunk: Chunk) -> None:
        """What a client makes of an answer; wrong outputs fail the test."""
        if isinstance(chunk.error, StepIndexMismatch):
            expected = int(chunk.error.metadata["expected"])
            assert client.durable <= expected, "durable steps are never lost"
            assert expected <= client.known, "a lost answer is always given again"
            client.replayed = expected
            return
        if chunk.error is not None:
            assert isinstance(chunk.error, (NotStored, SessionMoved)), chunk.error
            return
        first, made = chunk.outcome.first_step, len(chunk.outcome.outputs)
        sums = np.cumsum(inputs(client.seed, 0, first + made), axis=0)
        assert outputs(chunk) == sums[first:].tolist()
        if client.durability.policy is Policy.SYNCHRONOUS:
            _, data = self.store[client.id]
            assert record.decode(data).checkpoint.next_step >= first + made
            assert chunk.durable_step >= first + made
        client.durable = max(client.durable, chunk.durable_step)
        client.replayed = first + made
        if client.replayed > client.known:
            client.known, client.steps = client.replayed, 0


def test_steps_are_neither_lost_nor_repeated_nor_told_wrongly() -> None:
    """With crashes, lost answers, stores that do not answer, sleeping, and going to and fro."""
    Replicas.network = Network(ledger(), "cpu")
    Replicas.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
    Replicas.TestCase().runTest()
