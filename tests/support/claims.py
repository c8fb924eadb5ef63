"""Claims of sessions that tests make, whatever epoch the time gives them."""

from __future__ import annotations

from service.stores.base import Store


async def record_of(store: Store, session_id: str) -> bytes | None:
    """The record that a claim gives, having checked that its epoch is later; None without one."""
    before = await store.epoch(session_id)
    claimed = await store.claim(session_id)
    if claimed is None:
        return None
    epoch, record = claimed
    assert epoch > before
    assert await store.epoch(session_id) == epoch
    return record


async def claimed(store: Store, session_id: str) -> tuple[int, bytes]:
    """The epoch and the record of a session that is there to be claimed."""
    found = await store.claim(session_id)
    assert found is not None
    return found
