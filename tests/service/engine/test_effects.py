"""What the engine leaves for the loop around it: each effect is handed over once."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from service.engine.durability import Durability, Policy
from service.engine.effects import Effects, Ended
from service.engine.engine import Engine
from service.engine.lifecycle import Lifecycle
from service.errors import SessionDeleted
from service.models.runtime import Network
from service.session_ref import SessionRef
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.conftest import Clock
from tests.support.driving import LEDGER, OWNER, chunk

NONE = Effects([], [], [], [])


@pytest.fixture
def storing(network: Network, clock: Clock) -> Engine:
    """An engine whose sessions have a store."""
    settings, metrics = Settings(), Metrics(CollectorRegistry())
    lifecycle = Lifecycle({LEDGER: network}, settings, metrics, clock, clock, has_store=True)
    return Engine(lifecycle, settings)


def opened(storing: Engine) -> SessionRef:
    """A session of which every chunk is stored before it is answered."""
    durability = Durability(Policy.SYNCHRONOUS)
    view = storing.lifecycle.open(LEDGER, 5, None, OWNER, None, durability)
    return SessionRef(view.id, OWNER, 0)


def stepped(storing: Engine) -> None:
    """Make one turn, and leave its effects where they are."""
    turn = storing.schedule()
    assert turn is not None
    turn.run()
    storing.commit(turn)


def test_a_snapshot_is_handed_over_before_the_answer_that_waits_for_it(storing: Engine) -> None:
    """An answer that waits becomes an effect only when its snapshot has been stored."""
    session = opened(storing)
    work = chunk(session, [[1, 2]])
    storing.submit(work)
    stepped(storing)
    finished, absent, (snapshot,), ended = storing.take_effects()
    again = storing.take_effects()
    storing.lifecycle.stored(snapshot, is_kept=True)

    assert (finished, absent, ended) == ([], [], [])
    assert snapshot.view.next_step == 1
    assert again == NONE
    assert storing.take_effects() == Effects([work], [], [], [])


def test_work_for_a_session_that_is_not_here_is_absent(storing: Engine) -> None:
    """The store may have it; an id that no session can have is answered at once."""
    elsewhere = chunk(SessionRef("ab" * 16, OWNER, 0), [[1, 1]])
    nowhere = chunk(SessionRef("no id", OWNER, 0), [[1, 1]])
    storing.submit(elsewhere)
    storing.submit(nowhere)

    assert storing.take_effects() == Effects([nowhere], [elsewhere], [], [])


def test_a_deleted_session_is_deleted_from_the_store_and_its_work_fails(storing: Engine) -> None:
    """A deleted session is in `ended` with its epoch, and its work fails."""
    session = opened(storing)
    first, second = chunk(session, [[1, 1]]), chunk(session, [[1, 1]])
    storing.submit(first)
    stepped(storing)
    storing.take_effects()
    storing.submit(second)
    storing.lifecycle.delete(session)
    finished, _, snapshots, ended = storing.take_effects()

    assert (finished, snapshots) == ([first, second], [])
    assert {type(work.error) for work in finished} == {SessionDeleted}
    timeout = Settings().default_idle_timeout_seconds
    assert ended == [Ended(session.id, 1, timeout)]
