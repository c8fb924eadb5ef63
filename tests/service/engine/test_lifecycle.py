"""What is done to a session between its chunks, turned by hand."""

from __future__ import annotations

from functools import partial

import pytest

from service.engine.engine import Engine
from service.engine.sessions import Operation
from service.models.runtime import Network
from tests.conftest import Clock
from tests.support.driving import chunk, engine, opened, outputs, run, stepped, submitted


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
