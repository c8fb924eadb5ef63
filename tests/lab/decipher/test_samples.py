"""Sequences that run through a served network, several at once."""

from __future__ import annotations

from threading import Barrier, Event

import pytest

from ntm_client.blocking import Client
from ntm_lab.decipher.samples import SESSIONS_AT_ONCE, ServedNetwork


def test_once_an_item_fails_no_other_is_begun() -> None:
    """A server that is gone is waited for once, though the first item fails later than others."""
    together = Barrier(SESSIONS_AT_ONCE, timeout=60)
    another = Event()

    def work(item: int) -> None:
        if item >= SESSIONS_AT_ONCE:
            another.set()
            return
        together.wait()
        if item == 0:
            another.wait(timeout=0.5)  # long enough for the other threads to begin one
        raise ConnectionError(item)

    with Client("localhost:1") as client, pytest.raises(ConnectionError, match=r"^0$"):
        ServedNetwork(client, "copy").each(work, range(10 * SESSIONS_AT_ONCE))

    assert not another.is_set()
