"""A session is its owner's: whatever method names it, another caller finds nothing."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, get_type_hints

import pytest
from prometheus_client import CollectorRegistry

from service.engine.engine import Engine
from service.engine.lifecycle import Lifecycle
from service.engine.sessions import Operation, Session, SessionTable
from service.engine.work import Chunk, Work
from service.errors import NtmError, SessionExists, SessionUnknown
from service.models.runtime import Network
from service.session_ref import ANYBODY, SERVER, SessionRef
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.conftest import Clock
from tests.support.driving import LEDGER, chunk, engine, opened, run

ALICE, BOB = "alice", "bob"

NAMES_A_FORK = "fork"
"""Takes two sessions: the reference names the new one."""


@dataclass(frozen=True)
class Named:
    """A public method of the engine with a parameter that names a session."""

    holder: type
    name: str
    parameter: str

    def __str__(self) -> str:
        """The test's name."""
        return f"{self.holder.__name__}.{self.name}"

    def call(self, ledgers: Engine, ref: SessionRef) -> object:
        """The outcome for a caller: what is returned, or the class of the error."""
        holders = {
            Engine: ledgers,
            Lifecycle: ledgers.lifecycle,
            SessionTable: ledgers.lifecycle.sessions,
        }
        method = getattr(holders[self.holder], self.name)
        arguments: tuple[Any, ...] = (ref,)
        if self.holder is Engine:
            arguments = (chunk(ref, [[1, 1]]),)
        elif self.name == NAMES_A_FORK:
            source = opened(ledgers, owner=BOB)
            arguments = (ledgers.lifecycle.awake(source), ref)
        try:
            outcome = method(*arguments)
        except NtmError as error:
            return type(error)
        if isinstance(outcome, NtmError):
            return type(outcome)
        if self.holder is Engine:
            run(ledgers)
            work = arguments[0]
            return type(work.error) if work.error else work.outcome
        return outcome


def named() -> list[Named]:
    """Every public method that takes a reference to a session, or work, which has one."""
    found = []
    for holder in (Engine, Lifecycle, SessionTable):
        for name, method in inspect.getmembers(holder, inspect.isfunction):
            if name.startswith("_"):
                continue
            hints = get_type_hints(method)
            for parameter, kind in hints.items():
                if parameter != "return" and kind in (SessionRef, Work):
                    found.append(Named(holder, name, parameter))
    return found


NAMED = named()

EXPECTED: dict[str, object] = {
    # It may open a session, but not of this id: so it is told that the id is taken.
    "SessionTable.has": SessionExists,
    # Of a session that is awake here, the store holds nothing for any caller.
    "Lifecycle.may_be_stored": False,
    "SessionTable.may_be_stored": False,
    # It learns no version, and makes nothing forgotten.
    "SessionTable.version": None,
    "SessionTable.forget_closed": None,
}
"""The outcome for another caller where it is not SessionUnknown."""


@pytest.fixture
def ledgers(network: Network, clock: Clock) -> Engine:
    """An engine with the default limits."""
    return engine(network, clock)


def test_every_method_that_names_a_session_is_tried() -> None:
    """Those that take an id without a caller are for the server itself."""
    assert {str(each) for each in NAMED} == {
        "Engine.submit",
        "Lifecycle.awake",
        "Lifecycle.delete",
        "Lifecycle.describe",
        "Lifecycle.fork",
        "Lifecycle.may_be_stored",
        "SessionTable.forget_closed",
        "SessionTable.get",
        "SessionTable.gone_error",
        "SessionTable.has",
        "SessionTable.may_be_stored",
        "SessionTable.version",
    }
    callers = [
        (holder.__name__, name)
        for holder in (Engine, Lifecycle, SessionTable)
        for name, method in inspect.getmembers(holder, inspect.isfunction)
        if "caller" in inspect.signature(method).parameters
    ]
    assert callers == []


@pytest.mark.parametrize("method", NAMED, ids=str)
def test_another_caller_finds_nothing(ledgers: Engine, method: Named) -> None:
    """The outcome is that for a session that never was, and the session is untouched."""
    session = opened(ledgers, owner=ALICE)
    outcome = method.call(ledgers, session._replace(caller=BOB))
    assert outcome == EXPECTED.get(str(method), SessionUnknown)
    assert ledgers.lifecycle.describe(session).next_step == 0


@pytest.mark.parametrize(
    "method", [each for each in NAMED if each.name != "may_be_stored"], ids=str
)
def test_without_the_check_another_caller_would_be_served(
    ledgers: Engine, method: Named, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the test above shows the check of each method."""
    session = opened(ledgers, owner=ALICE)
    if method.name == "gone_error":
        ledgers.lifecycle.delete(session)
    monkeypatch.setattr(SessionRef, "may_use", lambda ref, owner: True)
    outcome = method.call(ledgers, session._replace(caller=BOB))
    assert outcome not in (SessionUnknown, SessionExists)


def test_a_session_asleep_is_its_owners_as_well(
    network: Network, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another caller neither sees it nor wakes it, unless the check is left out."""
    settings, metrics = Settings(), Metrics(CollectorRegistry())
    lifecycle = Lifecycle({LEDGER: network}, settings, metrics, clock, clock, has_store=True)
    ledgers = Engine(lifecycle, settings)
    session = opened(ledgers, owner=ALICE)
    lifecycle.put_to_sleep(lifecycle.awake(session))
    others = session._replace(caller=BOB)

    assert lifecycle.describe(session).id == session.id
    assert lifecycle.may_be_stored(session)
    with pytest.raises(SessionUnknown):
        lifecycle.describe(others)
    assert not lifecycle.may_be_stored(others)
    work = chunk(others, [[1, 1]])
    ledgers.submit(work)
    assert ledgers.take_effects()[:2] == ([work], [])
    monkeypatch.setattr(SessionRef, "may_use", lambda ref, owner: True)
    assert lifecycle.describe(others).id == session.id
    ledgers.submit(work)
    assert ledgers.take_effects()[:2] == ([], [work])


def test_the_named_callers_use_a_session_of_any_owner(ledgers: Engine) -> None:
    """A caller of a server that authenticates nobody, and the server; an empty name does not."""
    session = opened(ledgers, owner=ALICE)
    for caller in (ALICE, ANYBODY, SERVER):
        assert ledgers.lifecycle.describe(session._replace(caller=caller)).id == session.id
    for other in ("", BOB, "anybody", "server"):
        with pytest.raises(SessionUnknown):
            ledgers.lifecycle.describe(session._replace(caller=other))


@pytest.mark.parametrize(
    "made",
    [
        partial(SessionRef, "0" * 32),
        partial(SessionRef, "0" * 32, ALICE),
        partial(Operation, action=Session.__hash__),
        partial(Chunk, first_step=None),
    ],
)
def test_work_without_a_caller_cannot_be_made(made: Callable[..., object]) -> None:
    """No part of a reference has a default, and no work can be made without a reference."""
    with pytest.raises(TypeError, match="required"):
        made()
