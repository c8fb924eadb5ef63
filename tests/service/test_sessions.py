"""The session table: deadlines and the memory of closed sessions."""

from __future__ import annotations

import pytest

from service import sessions
from service.errors import SessionDeleted, SessionUnknown
from service.replays import Replays
from service.runtime import Network
from service.sessions import Session, SessionTable, new_session_id
from service.slab import Slab


def session(network: Network, name: str, used: float = 0.0, timeout: float = 10.0) -> Session:
    """A session that was last used at that time."""
    return Session(name, 0, "", "ledger", Slab(network, 5), 0, timeout, 0.0, used, Replays(0))


def test_the_next_deadline_is_the_earliest(network: Network) -> None:
    """A session with a short timeout that came later is due first."""
    table = SessionTable()
    assert table.next_deadline_seconds() is None
    table.add(session(network, "long", timeout=100.0))
    table.add(session(network, "short", timeout=1.0))
    assert table.next_deadline_seconds() == 1.0
    assert table.idle(1.0) == [table.get("short")]
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


def test_closed_sessions_are_remembered_up_to_a_bound(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest closed session becomes unknown, so that memory stays bounded."""
    monkeypatch.setattr(sessions, "MOST_CLOSED_REMEMBERED", 2)
    table = SessionTable()
    for name in "abc":
        one = session(network, name)
        table.add(one)
        table.close(one, SessionDeleted)
    assert [type(table.gone(name)) for name in "abc"] == [
        SessionUnknown,
        SessionDeleted,
        SessionDeleted,
    ]


def test_an_absurdly_long_id_is_not_repeated_in_full() -> None:
    """An error for a huge id stays small."""
    error = SessionTable().gone("x" * 1_000_000)
    assert len(error.message) < 300


def test_ids_are_not_repeated() -> None:
    """128 random bits in hexadecimal."""
    ids = {new_session_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert {len(one) for one in ids} == {32}
