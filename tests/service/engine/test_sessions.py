"""The session table: deadlines and the memory of closed sessions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from service.engine import sessions
from service.engine.replays import Replays
from service.engine.sessions import Session, SessionTable, Usage, new_session_id
from service.errors import SessionDeleted, SessionExpired, SessionUnknown
from service.models.runtime import Network
from service.models.slab import Slab
from service.session_ref import ANYBODY, SERVER, SessionRef


def session(
    network: Network, name: str, used: float = 0.0, timeout: float = 10.0, owner: str = ""
) -> Session:
    """A session that was last used at that time."""
    slab = Slab(network, 5)
    return Session(name, 0, owner, "ledger", slab, 0, timeout, 0.0, used, Replays(0))


def ref(name: str) -> SessionRef:
    """A session as the server itself names it."""
    return SessionRef(name, SERVER, 0)


def test_the_next_deadline_is_the_earliest(network: Network) -> None:
    """A session with a short timeout that came later is due first."""
    table = SessionTable()
    assert table.next_deadline_seconds() is None
    table.add(session(network, "long", timeout=100.0))
    table.add(session(network, "short", timeout=1.0))
    assert table.next_deadline_seconds() == 1.0
    assert table.idle(1.0) == [table.get(ref("short"))]
    assert table.next_deadline_seconds() == 100.0


def test_use_moves_the_deadline(network: Network) -> None:
    """A session used meanwhile is not idle and is asked about again at its new deadline."""
    table = SessionTable()
    used = session(network, "used")
    table.add(used)
    used.used_seconds = 5.0
    assert table.idle(10.0) == []
    assert table.next_deadline_seconds() == 15.0
    assert table.idle(15.0) == [used]


def test_a_session_that_slept_often_is_idle_once(network: Network) -> None:
    """A session has one entry in the deadlines, however often it slept and woke."""
    table = SessionTable()
    one = session(network, "one")
    view = one.view(0.0, 0.0)
    for _ in range(3):
        table.add(one)
        table.sleep(one, view)
    asleep = table.sleeping("one")
    assert asleep is not None
    assert table.idle(10.0) == [asleep]
    table.close_asleep(asleep, SessionExpired)
    assert table.next_deadline_seconds() is None


def test_closed_sessions_are_remembered_up_to_a_bound(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest closed session becomes unknown, so that memory stays bounded."""
    monkeypatch.setattr(sessions, "MAX_CLOSED_REMEMBERED", 2)
    table = SessionTable()
    for name in "abc":
        one = session(network, name)
        table.add(one)
        table.close(one, SessionDeleted)
    assert [type(table.gone_error(ref(name))) for name in "abc"] == [
        SessionUnknown,
        SessionDeleted,
        SessionDeleted,
    ]


def test_what_is_held_is_counted_by_owner(network: Network) -> None:
    """An owner without a session is forgotten."""
    table = SessionTable()
    mine, other = session(network, "a", owner="alice"), session(network, "b", owner="bob")
    table.add(mine)
    table.add(other)
    size = mine.slab.slot_bytes
    assert (table.usage, table.usage_by("alice")) == (Usage(2, 2 * size), Usage(1, size))
    table.close(mine, SessionDeleted)
    assert (table.usage, table.usage_by("alice")) == (Usage(1, size), Usage())
    table.check_integrity()


@pytest.mark.parametrize(
    "miscount",
    [
        lambda table: table.usage_by("alice").add(1, 0),
        lambda table: table.usage.add(0, -1),
        lambda table: setattr(next(iter(table)), "owner", "bob"),
        lambda table: setattr(next(iter(table)), "model", "other"),
    ],
)
def test_a_miscount_is_found(network: Network, miscount: Callable[[SessionTable], None]) -> None:
    """A wrong count by owner, by version or in total is found."""
    table = SessionTable()
    table.add(session(network, "a", owner="alice"))
    table.check_integrity()
    miscount(table)
    with pytest.raises(RuntimeError, match=r"open: Usage.*counted: Usage"):
        table.check_integrity()


def test_a_closed_session_is_unknown_to_all_but_its_owner(network: Network) -> None:
    """
    Only its owner gets the reason of a closed session; without authentication every caller does.
    """
    table = SessionTable()
    one = session(network, "a", owner="alice")
    table.add(one)
    table.close(one, SessionDeleted)
    callers = ("alice", "bob", ANYBODY, SERVER)
    told = [type(table.gone_error(SessionRef("a", each, 0))) for each in callers]
    assert told == [SessionDeleted, SessionUnknown, SessionDeleted, SessionDeleted]


def test_an_absurdly_long_id_is_not_repeated_in_full() -> None:
    """An error for a huge id stays small."""
    error = SessionTable().gone_error(ref("x" * 1_000_000))
    assert len(error.message) < 300


def test_ids_are_not_repeated() -> None:
    """128 random bits in hexadecimal."""
    ids = {new_session_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert {len(one) for one in ids} == {32}
