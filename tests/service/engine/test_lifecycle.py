"""What is done to a session between its chunks, turned by hand."""

from __future__ import annotations

from functools import partial

import pytest
from prometheus_client import CollectorRegistry

from service.engine.engine import Engine
from service.engine.lifecycle import Lifecycle
from service.engine.sessions import Operation
from service.errors import SessionExists, SessionUnknown
from service.models.runtime import Network
from service.session_ref import ANYBODY, SessionRef
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.conftest import Clock
from tests.support.driving import (
    LEDGER,
    OWNER,
    chunk,
    engine,
    opened,
    outputs,
    run,
    stepped,
    submitted,
)


@pytest.fixture
def ledgers(network: Network, clock: Clock) -> Engine:
    """An engine with the default limits."""
    return engine(network, clock)


def test_a_checkpoint_and_a_restore_wait_for_their_turn(ledgers: Engine) -> None:
    """Each finds the session as the chunks before it left it, and the chunks after it go on."""
    session = opened(ledgers)
    inputs = [[1, 1]] * 9
    take = Operation(session, ledgers.lifecycle.checkpoint)
    before, between, after = (chunk(session, inputs) for _ in range(3))
    submitted(ledgers, before, take, between)
    run(ledgers)
    taken = take.outcome[1]
    submitted(ledgers, Operation(session, partial(ledgers.lifecycle.restore, taken=taken)), after)
    run(ledgers)

    assert taken.next_step == 9
    assert outputs(between)[-1] == [18, 18]
    assert outputs(after)[-1] == [18, 18]
    assert ledgers.lifecycle.describe(session).next_step == 18


def test_a_session_opens_during_a_turn_where_a_slot_is_free(ledgers: Engine) -> None:
    """Neither session changes the other; a full slab has to grow first, between two turns."""
    lifecycle = ledgers.lifecycle
    assert not lifecycle.may_open_during_turns(LEDGER, 0), "there is no slab yet"
    session = opened(ledgers)
    first = chunk(session, [[1, 1]])
    ledgers.submit(first)
    turn = ledgers.schedule()
    assert turn is not None
    others = []
    while lifecycle.may_open_during_turns(LEDGER, 0):
        others.append(opened(ledgers))
    turn.run()
    ledgers.commit(turn)

    assert len(others) == 7
    assert outputs(first) == [[1, 1]]
    works = [chunk(each, [[2, 2]]) for each in (session, *others)]
    assert stepped(ledgers, *works) == [[[3, 3]], *[[[2, 2]]] * 7]


def test_a_fork_takes_the_state_of_its_turn(ledgers: Engine) -> None:
    """After the chunks that were there before it, not those that came behind it."""
    session, fork = opened(ledgers), opened(ledgers)
    first, second = chunk(session, [[1, 1]] * 9), chunk(session, [[1, 1]])
    submitted(
        ledgers, first, Operation(session, partial(ledgers.lifecycle.fork, fork=fork)), second
    )
    run(ledgers)

    assert ledgers.lifecycle.describe(fork).next_step == 9
    assert stepped(ledgers, chunk(fork, [[5, 5]])) == [[[14, 14]]]
    assert outputs(second) == [[10, 10]]


def test_a_fork_without_its_state_is_not_there_yet(network: Network, clock: Clock) -> None:
    """Until its session's turn it is unknown, does not expire and is not stored at a drain."""
    metrics = Metrics(CollectorRegistry())
    lifecycle = Lifecycle({LEDGER: network}, Settings(), metrics, clock, clock, has_store=True)
    fork_id = "ab" * 16
    lifecycle.open(LEDGER, 8, 5.0, OWNER, session_id=fork_id, is_begun=False)
    clock.seconds += 6
    lifecycle.expire()
    assert fork_id in lifecycle.sessions
    assert lifecycle.unsaved() == []
    with pytest.raises(SessionUnknown):
        lifecycle.awake(SessionRef(fork_id, ANYBODY, 0))
    lifecycle.drop(fork_id)
    assert not lifecycle.sessions.has(SessionRef(fork_id, ANYBODY, 0)), "the id is free"


def test_no_session_is_opened_in_the_place_of_another(ledgers: Engine) -> None:
    """An id that was free when its session was asked for may be woken before it is opened."""
    session = opened(ledgers)
    with pytest.raises(SessionExists):
        ledgers.lifecycle.open(LEDGER, 8, None, OWNER, session_id=session.id)
    ledgers.lifecycle.check_integrity()
