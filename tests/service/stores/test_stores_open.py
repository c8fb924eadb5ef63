"""Opening a session in a store: it is known under its id at most once; asked of every store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from service.stores.base import Saved, Store
from tests.support.any_store import KINDS, LONG, fresh, until_forgotten

pytestmark = pytest.mark.parametrize("setting", KINDS, indirect=True)


async def test_who_opens_an_unknown_session_owns_it_with_its_record(
    another: Callable[[], Store],
) -> None:
    """It is kept as it was given, for its time, and its owner goes on saving."""
    store, session = another(), fresh()
    opened = await store.open(Saved(session, 1, b"first", LONG))
    assert opened is not None

    epoch, record = opened
    assert (record, await store.epoch(session)) == (b"first", epoch)
    assert await store.save([Saved(session, epoch, b"second", 0.2)]) == [True]
    await until_forgotten(store, session)
    again = await store.open(Saved(session, 1, b"third", LONG))
    assert again is not None
    assert (again[0] > epoch, again[1]) == (True, b"third")


async def test_who_opens_a_session_that_is_there_claims_it(another: Callable[[], Store]) -> None:
    """Opening an existing session claims it: the record stays, and the earlier owner is refused."""
    first, second, session = another(), another(), fresh()
    opened = await first.open(Saved(session, 1, b"first", LONG))
    assert opened is not None
    await first.save([Saved(session, opened[0], b"later", LONG)])

    claimed = await second.open(Saved(session, 1, b"second", LONG))
    assert claimed is not None
    assert (claimed[0] > opened[0], claimed[1]) == (True, b"later")
    assert await first.save([Saved(session, opened[0], b"late", LONG)]) == [False]


async def test_of_many_who_open_a_session_one_has_its_record_kept(
    another: Callable[[], Store],
) -> None:
    """All are told the same record, each an epoch of its own."""
    stores, session = [another() for _ in range(4)], fresh()
    told = await asyncio.gather(
        *(store.open(Saved(session, 1, bytes([n]), LONG)) for n, store in enumerate(stores * 4))
    )

    assert len({each[0] for each in told if each}) == 16
    assert len({each[1] for each in told if each}) == 1


async def test_a_deleted_session_is_not_opened(another: Callable[[], Store]) -> None:
    """As long as its deletion is remembered."""
    store, session = another(), fresh()
    await store.save([Saved(session, 1, b"record", LONG)])
    await store.delete(session, 1, LONG)

    assert await store.open(Saved(session, 1, b"again", LONG)) is None
    assert await store.claim(session) is None
