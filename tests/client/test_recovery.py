"""Whatever happens to servers, a session's user sees each step once and in order."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import pytest
from google.protobuf.message import Message
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ntm.v1 import ntm_pb2 as pb
from ntm_client import NotResumable, NtmClientError, Resume, TimedOut, Unavailable, procedures
from ntm_client.chunks import OwnLimits
from ntm_client.failures import outcome_error
from ntm_client.procedures import Ahead, Attempt, BaseSession, Procedure
from ntm_client.recovery import Recovery
from ntm_client.retries import Retries
from ntm_client.values import Durability, Float32, Policy
from tests.client.fake_server import NOT_FOUND, UNAVAILABLE, FakeServer, Lost, Refused, refuse
from tests.conftest import Clock

T = TypeVar("T")

FAULTS = ("", "before", "after", "late", "die", "die after", "drain", "move", "not stored")


class Wire:
    """Drives procedures against a fake, and has each call meet the next of some faults."""

    def __init__(self, resume: Resume, policy: Policy = "none", every: int = 0) -> None:
        """A session of that durability on a server that is well."""
        self.clock = Clock()
        self.fake = FakeServer()
        self.faults: deque[str] = deque()
        self.delayed: list[Message] = []
        """Requests that have yet to arrive once more."""
        self.attempts: list[Attempt] = []
        self.ahead: deque[tuple[Message, Message | NtmClientError]] = deque()
        """What was sent ahead, and what it led to."""
        self.retries = Retries(resume, self.clock, lambda: 0.5)
        opening = procedures.create_session(
            self.retries.ask, "sums", None, timedelta(90), None, Durability(policy, every), "", {}
        )
        self.session = BaseSession(*self.run(opening))
        self.recovery = Recovery(self.session, self.retries, OwnLimits(chunk_steps=5))

    def step(self, inputs: Float32, chunk_steps: int = 5) -> Float32:
        """The outputs of these steps."""
        limits = OwnLimits(chunk_steps=chunk_steps)
        stepping = procedures.step(self.recovery.ask, self.session, inputs, (), 0, limits)
        outputs: Float32 = self.run(stepping).array
        return outputs

    def run(self, procedure: Procedure[T]) -> T:
        """Make the calls of a procedure, each in no time."""
        try:
            wanted = next(procedure)
            while True:
                try:
                    response = self.attempt(wanted)
                except NtmClientError as error:
                    wanted = procedure.throw(error)
                else:
                    wanted = procedure.send(response)
        except StopIteration as returned:
            result: T = returned.value
            return result

    def attempt(self, wanted: Message | Attempt | Ahead) -> Message | None:
        """What one attempt leads to. What is sent ahead meets its fault when it is sent."""
        if isinstance(wanted, Ahead):
            if self.ahead and self.ahead[0][0] is not wanted.requests[0]:
                self.ahead.clear()
            for request in wanted.requests[len(self.ahead) :]:
                try:
                    self.ahead.append((request, self.send(request)))
                except NtmClientError as error:
                    self.ahead.append((request, error))
            return None
        if self.ahead and self.ahead[0][0] is wanted:
            met = self.ahead.popleft()[1]
            if isinstance(met, NtmClientError):
                raise met
            return met
        if isinstance(wanted, Attempt | pb.StepRequest):
            self.ahead.clear()
        if isinstance(wanted, Attempt):
            self.attempts.append(wanted)
            self.clock.seconds += wanted.delay_seconds
            wanted = wanted.request
        return self.send(wanted)

    def send(self, wanted: Message) -> Message:
        """The answer of the server, or what the next fault makes of it."""
        fault = self.faults.popleft() if self.faults else ""
        try:
            return self.meet(fault, wanted)
        except Lost:
            raise Unavailable("the connection was lost") from None
        except Refused as refused:
            raise outcome_error(refused.error) from None

    def meet(self, fault: str, request: Message) -> Message:
        """The answer to a request that meets that fault."""
        match fault:
            case "before":
                raise Lost
            case "late":
                self.delayed.append(request)
                raise TimedOut("no answer in time")
            case "die":
                self.fake.lose()
                raise Lost
            case "drain":
                raise refuse(UNAVAILABLE, "DRAINING")
            case "move":
                self.fake.lose()
                raise refuse(NOT_FOUND, "SESSION_MOVED")
        response = self.fake.answer(request)
        if fault == "die after":
            self.fake.lose()
        if fault == "not stored":
            raise refuse(UNAVAILABLE, "NOT_STORED")
        if fault:
            raise Lost
        return response


class Survival(RuleBasedStateMachine):
    """Steps, and operations that need the session at its step, between faults of all kinds."""

    @initialize(every=st.integers(1, 12), synchronous=st.booleans())
    def open(self, every: int, synchronous: bool) -> None:
        """Open a session that is durable every so many steps, or at each."""
        policy: Policy = "synchronous" if synchronous else "asynchronous"
        self.wire = Wire(Resume(seconds=1e6), policy, 0 if synchronous else every)
        self.given: list[Float32] = []

    @rule(steps=st.integers(1, 12), size=st.integers(1, 6), seed=st.integers(0, 9))
    def step(self, steps: int, size: int, seed: int) -> None:
        """Each output is the sum of all inputs given so far, each once."""
        inputs = np.random.default_rng(seed).integers(-9, 9, (steps, 3)).astype(np.float32)
        before = np.sum(self.given, 0) if self.given else np.zeros(3)
        outputs = self.wire.step(inputs, size)
        self.given += list(inputs)
        assert np.array_equal(before + inputs.cumsum(0), outputs)

    @rule(faults=st.lists(st.sampled_from(FAULTS), max_size=6))
    def break_things(self, faults: list[str]) -> None:
        """Have the next calls meet these faults."""
        self.wire.faults.extend(faults)

    @rule()
    def lose(self) -> None:
        """A replica dies between calls."""
        self.wire.fake.lose()

    @rule()
    def arrive(self) -> None:
        """Requests that were given up arrive after all; what they lead to nobody learns."""
        for request in self.wire.delayed:
            if isinstance(request, pb.StepRequest):
                with suppress(Refused):
                    self.wire.fake.answer(request)
        self.wire.delayed.clear()

    @rule()
    def look(self) -> None:
        """Checkpoints, memories and descriptions are those of the session's own step."""
        wire = self.wire
        step = len(self.given)
        checkpoint = wire.run(procedures.checkpoint(wire.recovery.ask, wire.session))
        assert checkpoint == str(step).encode()
        memory = wire.run(procedures.read_memory(wire.recovery.ask, wire.session))
        assert memory.next_step == step
        assert wire.run(procedures.describe(wire.recovery.ask, wire.session)).next_step == step

    @rule()
    def reset(self) -> None:
        """Start over."""
        wire = self.wire
        wire.delayed.clear()  # one that comes after a reset would be made, and be noticed later
        wire.run(procedures.reset(wire.recovery.ask, wire.session))
        wire.delayed.clear()
        self.given.clear()

    @invariant()
    def is_where_its_user_thinks(self) -> None:
        """The session's next step is the one after those that its user has given."""
        if hasattr(self, "given"):
            assert self.wire.session.next_step == len(self.given)


# As many examples as take a few seconds.
Survival.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
test_survival = Survival.TestCase

INPUTS = np.arange(60, dtype=np.float32).reshape(20, 3)
SUMS = INPUTS.cumsum(0)


def test_pauses_double_up_to_the_largest() -> None:
    """Each pause is the drawn share of one that doubles, up to the largest; then it ends."""
    resume = Resume(seconds=10, first_backoff_seconds=0.5, largest_backoff_seconds=3)
    wire = Wire(resume)
    wire.faults.extend(["before"] * 100)
    began = wire.clock.seconds
    with pytest.raises(Unavailable) as raised:
        wire.step(INPUTS)

    assert [0.25, 0.5, 1, *[1.5] * 5] == [one.delay_seconds for one in wire.attempts]
    assert wire.clock.seconds - began <= 10
    assert raised.value.__notes__ == ["gave up after 9 attempts in 9.2 s"]
    assert [one.max_seconds for one in wire.attempts[:2]] == [9.75, 9.25]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_pauses_are_drawn_from_nothing_to_the_longest(share: float) -> None:
    """A pause lies between nothing and the longest, however many failures there were."""
    resume = Resume(first_backoff_seconds=0.1, largest_backoff_seconds=2)

    assert resume.backoff_seconds(1, share) == pytest.approx(share * 0.1)
    assert resume.backoff_seconds(3, share) == pytest.approx(share * 0.4)
    assert resume.backoff_seconds(10_000, share) == share * 2


def test_the_server_may_ask_for_a_longer_pause() -> None:
    """A retry delay of the server's is waited for."""
    wire = Wire(Resume())
    refused = refuse(UNAVAILABLE, "DRAINING")
    refused.error.retry_delay.FromSeconds(7)
    wire.fake.failures.append(refused)

    assert np.array_equal(SUMS, wire.step(INPUTS, 20))
    assert [one.delay_seconds for one in wire.attempts] == [7]


def test_lost_steps_are_made_again_in_large_chunks() -> None:
    """A session that stepped one by one gets back in as few chunks as possible."""
    wire = Wire(Resume(), "asynchronous", 4)
    for index in range(15):
        wire.step(INPUTS[index])
    wire.fake.chunks.clear()
    wire.fake.lose()

    assert np.array_equal(SUMS[15:], wire.step(INPUTS[15:], 5))
    made = [(chunk.first_step, len(chunk.inputs) // 12) for chunk in wire.fake.chunks]
    assert made == [(15, 5), (12, 3), (15, 5)]
    assert (wire.session.resumptions, wire.session.replayed_steps) == (1, 3)
    assert (wire.session.durable_step, wire.session.next_step) == (20, 20)


def test_steps_lost_while_they_are_made_again() -> None:
    """A server that dies under the steps made again has them all made once more."""
    wire = Wire(Resume(), "asynchronous", 16)
    wire.step(INPUTS[:15])
    wire.fake.lose()
    wire.fake.chunks.clear()
    wire.faults.extend(["", "", "die"])

    assert np.array_equal(SUMS[15:], wire.step(INPUTS[15:]))
    assert [chunk.first_step for chunk in wire.fake.chunks] == [15, 0, 5, 0, 5, 10, 15]
    assert wire.session.replayed_steps == 20


def test_what_is_durable_is_kept_no_longer(caplog: pytest.LogCaptureFixture) -> None:
    """Room for the steps since the last durable one is enough, however long a session gets."""
    wire = Wire(Resume(max_kept_bytes=12 * 4), "asynchronous", 1)
    for index in range(19):
        stepping = procedures.step(
            wire.recovery.ask, wire.session, INPUTS[index], (), 0, OwnLimits()
        )
        next(stepping)
        reply = pb.Reply(first_step=index, next_step=index + 1, durable_step=max(index - 2, 0))
        reply.outputs = SUMS[index].tobytes()
        with pytest.raises(StopIteration):
            stepping.send(pb.StepResponse(reply=reply))

    assert wire.session.durable_step == 16
    assert "max_kept_bytes" not in caplog.text


def test_nothing_is_kept_of_a_session_without_durability() -> None:
    """Without durability, a loss raises an error with both steps and the setting to change."""
    wire = Wire(Resume())
    wire.step(INPUTS[:5])
    wire.fake.lose()
    with pytest.raises(NotResumable, match="its durability is none; open sessions with") as raised:
        wire.step(INPUTS[5:])

    assert (raised.value.expected, raised.value.next_step) == (0, 5)


def test_what_exceeds_the_bound_is_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    """
    The oldest inputs are dropped. This is logged once, and is an error only when they are needed.
    """
    wire = Wire(Resume(max_kept_bytes=12 * 8), "asynchronous", 16)
    for index in range(15):
        wire.step(INPUTS[index])
    assert len([one for one in caplog.records if "max_kept_bytes" in one.message]) == 1
    wire.fake.lose()

    with pytest.raises(NotResumable, match=r"from step 7 on only: .*max_kept_bytes \(96\)"):
        wire.step(INPUTS[15:])
    assert wire.run(procedures.describe(wire.recovery.ask, wire.session)).next_step == 0
    assert np.array_equal(SUMS, wire.step(INPUTS))


def test_lost_steps_are_made_again_within_the_limits_of_the_next_server() -> None:
    """A server that takes smaller chunks gets the lost steps, and the rest, in smaller chunks."""
    wire = Wire(Resume(), "asynchronous", 100)
    assert np.array_equal(wire.step(INPUTS[:10]), SUMS[:10])
    wire.fake.lose()
    wire.fake.max_chunk_steps = 3
    made = len(wire.fake.chunks)
    assert np.array_equal(wire.step(INPUTS[10:]), SUMS[10:])
    assert wire.session.replayed_steps == 10
    sizes = [len(chunk.inputs) // 12 for chunk in wire.fake.chunks[made:]]
    # The first fails for its index, the second for its size.
    assert sizes == [5, 5, 3, 3, 3, 1, 5, 3, 3, 3, 1]


def test_steps_of_before_the_client_came_are_not_kept() -> None:
    """A session taken up by its id can fall back to before that; the error says so."""
    wire = Wire(Resume(), "asynchronous", 16)
    wire.step(INPUTS[:5])
    found = procedures.find_session(wire.retries.ask, wire.session.id, {})
    session = BaseSession(*wire.run(found))
    wire.fake.lose()
    recovery = Recovery(session, wire.retries, OwnLimits())
    stepping = procedures.step(recovery.ask, session, INPUTS[5:], (), 0, OwnLimits())
    with pytest.raises(NotResumable, match="before this client took the session up"):
        wire.run(stepping)


def test_an_answer_that_the_server_has_no_more() -> None:
    """If the answer to a chunk cannot be had again, the error says so."""
    wire = Wire(Resume())
    wire.fake.window = 0
    wire.faults.append("after")
    with pytest.raises(NotResumable, match="answer to the steps from 0 on was lost") as raised:
        wire.step(INPUTS[:5])

    assert (raised.value.expected, raised.value.next_step) == (5, 0)


@pytest.mark.parametrize("check", [True, False])
def test_steps_made_again_must_give_the_same_bits(check: bool) -> None:
    """Other outputs than the first time are an error, also later, unless they are accepted."""
    wire = Wire(Resume(check=check), "asynchronous", 16)
    wire.step(INPUTS[:10])
    wire.fake.lose()
    wire.fake.sessions[wire.session.id].inputs = [INPUTS[1], INPUTS[0], INPUTS[9]]
    if check:
        for _ in range(2):
            with pytest.raises(NtmClientError, match="step 3 gave other outputs") as raised:
                wire.step(INPUTS[10:])
        assert raised.value.reason == "DIVERGED"
        wire.run(procedures.reset(wire.recovery.ask, wire.session))
        assert np.array_equal(SUMS, wire.step(INPUTS))
    else:
        assert len(wire.step(INPUTS[10:])) == 10


def test_a_full_server_is_waited_for_by_those_that_were_interrupted() -> None:
    """Sessions of a lost replica try again while the other replicas are full."""
    wire = Wire(Resume())
    wire.fake.failures.extend([refuse(UNAVAILABLE, "DRAINING"), refuse(8, "CAPACITY_EXCEEDED")])

    assert np.array_equal(SUMS, wire.step(INPUTS))
    assert wire.session.last_interruption is not None
    assert wire.session.last_interruption.reason == "CAPACITY_EXCEEDED"


def test_a_fork_is_made_at_the_right_step() -> None:
    """A fork of a session that fell back is deleted, and made again once the session is back."""
    wire = Wire(Resume(), "asynchronous", 16)
    wire.step(INPUTS[:10])
    wire.fake.lose()
    info = wire.run(procedures.fork(wire.recovery.ask, wire.session))

    assert info.next_step == 10
    assert set(wire.fake.sessions) == {wire.session.id, info.id}


def test_a_fork_whose_answer_is_lost_is_made_once() -> None:
    """The request is repeated under the same id."""
    wire = Wire(Resume())
    wire.step(INPUTS[:10])
    wire.faults.append("after")
    info = wire.run(procedures.fork(wire.recovery.ask, wire.session))

    assert info.next_step == 10
    assert set(wire.fake.sessions) == {wire.session.id, info.id}


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_fork_with_steps_that_its_session_has_lost_is_replaced(is_closed: bool) -> None:
    """
    The answer is lost, and then the session falls back: the fork is deleted, if it still is there,
    and another one is made once the session is back.
    """
    wire = Wire(Resume(), "asynchronous", 16)
    wire.step(INPUTS[:10])
    found: list[str] = []
    lose = wire.fake.lose

    def losing() -> None:
        lose()
        found.extend(set(wire.fake.sessions) - {wire.session.id})
        if is_closed:
            wire.fake.close(found[0])

    wire.fake.lose = losing  # type: ignore[method-assign]
    wire.faults.append("die after")
    info = wire.run(procedures.fork(wire.recovery.ask, wire.session))
    assert info.next_step == 10
    assert set(wire.fake.sessions) == {wire.session.id, info.id}
    assert found[0] in wire.fake.deleted


@pytest.mark.parametrize("reason", ["SESSION_DELETED", "SESSION_EXPIRED", "SESSION_UNKNOWN"])
def test_a_session_that_is_gone_after_a_lost_answer_counts_as_deleted(reason: str) -> None:
    """A replica on which the session slept says that it expired; without a loss that is told."""
    gone = outcome_error(refuse(NOT_FOUND, reason).error)
    wire = Wire(Resume(seconds=30))
    deleting = procedures.delete(wire.recovery.ask, wire.session)
    next(deleting)
    with pytest.raises(type(gone)):
        deleting.throw(gone)

    deleting = procedures.delete(wire.recovery.ask, wire.session)
    next(deleting)
    deleting.throw(Unavailable("the connection was lost"))
    with pytest.raises(StopIteration):
        deleting.throw(gone)


def test_a_refused_restore_keeps_what_is_kept() -> None:
    """A refused checkpoint leaves the kept steps as they are; an accepted one drops them."""
    wire = Wire(Resume(), "asynchronous", 16)
    wire.step(INPUTS[:10])
    with pytest.raises(NtmClientError, match="damaged"):
        wire.run(procedures.restore(wire.recovery.ask, wire.session, b""))
    wire.fake.lose()
    assert np.array_equal(SUMS[10:15], wire.step(INPUTS[10:15]))
    wire.run(procedures.restore(wire.recovery.ask, wire.session, b"4"))
    wire.faults.append("die")

    assert np.array_equal(SUMS[4:], wire.step(INPUTS[4:]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"first_backoff_seconds": 0},
        {"largest_backoff_seconds": 0.01},
        {"seconds": -1},
        {"max_kept_bytes": -1},
    ],
)
def test_senseless_bounds_are_refused(wrong: dict[str, Any]) -> None:
    """The error has the values."""
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        Resume(**wrong)


def test_chunks_made_for_another_replica_are_made_anew() -> None:
    """A replica with smaller limits that took over in between gets no chunk of the old size."""
    wire = Wire(Resume(), "asynchronous", 100)
    wire.fake.replica = "one"
    wire.run(procedures.describe(wire.recovery.ask, wire.session))

    def move() -> None:
        wire.fake.replica, wire.fake.max_chunk_steps = "two", 3

    made = wire.fake._step

    def making(chunk: pb.Chunk) -> pb.Reply:
        reply = made(chunk)
        move()
        return reply

    wire.fake._step = making  # type: ignore[method-assign]
    wire.faults.extend(["", "before", "before", "before"])
    assert np.array_equal(wire.step(INPUTS), SUMS)
