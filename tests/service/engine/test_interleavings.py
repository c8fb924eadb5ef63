"""Sessions never see each other, whatever the order of what happens to them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from service.engine.sessions import Operation
from service.engine.turn import Turn
from service.engine.work import Chunk, Work
from service.errors import (
    NtmError,
    SessionDeleted,
    SessionExpired,
    SessionUnknown,
    StepIndexMismatch,
)
from service.models.runtime import Network
from service.session_ref import SessionRef
from service.spec import Float32
from tests.conftest import Clock
from tests.support import driving
from tests.support.tiny_models import ledger

TIMEOUT_SECONDS = 10.0
MAX_TURNS = 3
OWNERS = ("alice", "bob")


def inputs(seed: int, first_step: int, steps: int) -> Float32:
    """The inputs that a session of that seed gets at those steps: small whole numbers."""
    index = np.arange(first_step, first_step + steps)
    return np.stack([(seed * 7 + index * 3) % 50, (seed * 5 + index) % 40], 1).astype(np.float32)


@dataclass
class Expected:
    """What a test knows of one session."""

    ref: SessionRef
    """As its owner names it."""
    seed: int
    planned: int = 0
    """Index after the steps submitted so far, if none is cancelled."""
    pending: list[Work] = field(default_factory=list)
    gone: type[NtmError] | None = None
    cancelled: bool = False
    """Whether work was cancelled since the steps were last planned."""


class Interleavings(RuleBasedStateMachine):
    """Open, step, trace, cancel, reset, delete, intrude, expire and turn in any order."""

    sessions: Bundle[Expected] = Bundle("sessions")
    network: Network

    @initialize(burst=st.integers(1, 4))
    def start(self, burst: int) -> None:
        """Start an engine that runs one to four ticks a turn."""
        self.clock = Clock()
        self.engine = driving.engine(
            self.network, self.clock, MAX_TURNS, max_batch=8, max_burst=burst
        )
        self.under_way: list[Turn] = []
        self.opened = 0
        self.all: list[Expected] = []

    @rule(target=sessions, count=st.integers(1, 4), locations=st.sampled_from([3, 5, 8]))
    def open(self, count: int, locations: int) -> MultipleResults[Expected]:
        """Open some sessions."""
        self.end()
        opened = []
        for _ in range(count):
            self.opened += 1
            owner = OWNERS[self.opened % 2]
            ref = driving.opened(self.engine, locations, TIMEOUT_SECONDS, owner)
            opened.append(Expected(ref, self.opened))
        self.all += opened
        return multiple(*opened)

    @rule(
        stepped=st.lists(sessions, min_size=1, max_size=4),
        steps=st.integers(1, 6),
        traced=st.booleans(),
        begun=st.booleans(),
    )
    def step(self, stepped: list[Expected], steps: int, traced: bool, begun: bool) -> None:
        """Submit the next chunk of some sessions, and perhaps begin a turn after each."""
        for session in stepped:
            work = driving.chunk(
                session.ref,
                inputs(session.seed, session.planned, steps),
                session.planned,
                ("write_weighting",) if traced else (),
            )
            session.planned += steps
            session.pending.append(work)
            self.engine.submit(work)
            if begun:
                self.begin()

    @rule(session=sessions)
    def reset(self, session: Expected) -> None:
        """Queue a reset."""
        work = Operation(session.ref, self.engine.lifecycle.reset)
        session.planned = 0
        session.pending.append(work)
        self.engine.submit(work)

    @rule(session=sessions, resets=st.booleans())
    def intrude(self, session: Expected, resets: bool) -> None:
        """Let the other principal try: it learns nothing, and nothing changes."""
        self.check(self.engine.take_effects().finished)
        intruder = session.ref._replace(caller=OWNERS[session.ref.caller == OWNERS[0]])
        work: Work = (
            Operation(intruder, self.engine.lifecycle.reset)
            if resets
            else driving.chunk(intruder, inputs(session.seed, session.planned, 2))
        )
        self.engine.submit(work)
        assert self.engine.take_effects().finished == [work]
        assert type(work.error) is SessionUnknown
        for action in (self.engine.lifecycle.describe, self.engine.lifecycle.delete):
            with pytest.raises(SessionUnknown):
                action(intruder)

    @rule(session=sessions, which=st.integers(0, 5))
    def cancel(self, session: Expected, which: int) -> None:
        """Cancel some pending work."""
        if which < len(session.pending):
            session.pending.pop(which).cancelled = True
            session.cancelled = True

    @rule(session=consumes(sessions))
    def delete(self, session: Expected) -> None:
        """Delete a session."""
        self.end()
        if session.gone is None:
            self.engine.lifecycle.delete(session.ref)
            session.gone = SessionDeleted

    @rule(seconds=st.sampled_from([1.0, 6.0, TIMEOUT_SECONDS]))
    def wait(self, seconds: float) -> None:
        """Let time pass; sessions expire unless they have work."""
        self.clock.seconds += seconds
        self.engine.lifecycle.expire()
        self.check(self.engine.take_effects().finished)
        for session in self.all:
            if session.gone is None:
                try:
                    self.engine.lifecycle.describe(session.ref)
                except SessionExpired:
                    assert all(work.outcome or work.error for work in session.pending)
                    session.gone = SessionExpired

    @precondition(lambda self: self.engine.busy)
    @rule()
    def turn(self) -> None:
        """Run a turn and check all that it finishes."""
        self.end()
        self.check(self.engine.turn())

    @precondition(lambda self: self.engine.busy)
    @rule()
    def begin(self) -> None:
        """Begin a turn and leave it under way; there may be three."""
        assert self.engine.can_schedule == (len(self.under_way) < MAX_TURNS)
        if self.engine.can_schedule and (turn := self.engine.schedule()):
            self.under_way.append(turn)

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, MAX_TURNS - 1))
    def commit(self, which: int) -> None:
        """Run one of the turns under way, and commit it."""
        turn = self.under_way.pop(which % len(self.under_way))
        turn.run()
        self.engine.commit(turn)
        self.check(self.engine.take_effects().finished)

    def end(self) -> None:
        """Commit all turns under way."""
        while self.under_way:
            self.commit(0)
        self.check(self.engine.take_effects().finished)

    @precondition(lambda self: any(session.pending for session in self.all))
    @rule()
    def finish(self) -> None:
        """Run until nothing is left; then no work may be pending."""
        self.end()
        while self.engine.busy:
            self.check(self.engine.turn())
        for session in self.all:
            assert session.pending == []
            session.cancelled = False
            if session.gone is None:
                session.planned = self.engine.lifecycle.describe(session.ref).next_step

    @invariant()
    def adds_up(self) -> None:
        """No slot leaks and no two sessions share one."""
        if hasattr(self, "engine"):
            self.engine.lifecycle.check_integrity()

    def check(self, finished: list[Work]) -> None:
        """Each finished chunk has exactly the running sums of its own session."""
        for work in finished:
            session = next(one for one in self.all if one.ref == work.ref)
            if work.cancelled:
                continue
            assert work is session.pending.pop(0), "finished in order"
            if work.error is not None:
                if isinstance(work.error, StepIndexMismatch):
                    assert session.cancelled
                else:
                    assert type(work.error) is session.gone
            elif isinstance(work, Chunk):
                first, steps = work.outcome.first_step, len(work.inputs)
                sums = np.cumsum(inputs(session.seed, 0, first + steps), axis=0)[first:]
                np.testing.assert_array_equal(sums, work.outcome.outputs)

    def teardown(self) -> None:
        """End with nothing left to do."""
        if hasattr(self, "engine"):
            self.finish()


@pytest.mark.slow
def test_sessions_are_isolated_under_any_interleaving() -> None:
    """Outputs are each session's own sums, in order, and nothing stays pending or leaks."""
    Interleavings.network = Network(ledger(), "cpu")
    Interleavings.TestCase.settings = settings(
        max_examples=300, stateful_step_count=60, deadline=None
    )
    Interleavings.TestCase().runTest()
