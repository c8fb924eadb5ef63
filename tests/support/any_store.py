"""Helpers for tests of every store: the kinds of stores, opening them, ids, and waiting."""

from __future__ import annotations

import asyncio
import time
import uuid

from service.settings import Settings
from service.stores.base import Store
from service.stores.opening import open_store

KINDS = ["directory", "redis"]
"""What settings of stores begin with: a store that needs no server is added here alone."""

LONG = 60.0


def opened(setting: str) -> Store:
    """The store of a setting, which need not outlive a loss of power."""
    store = open_store(Settings(store=setting, store_sync="no", store_timeout_seconds=20.0))
    assert store is not None
    return store


def fresh() -> str:
    """The id of a session that no other test has."""
    return uuid.uuid4().hex


async def until_forgotten(store: Store, session: str) -> None:
    """Wait until a session's time, or that of its deletion, is over."""
    deadline = time.monotonic() + 10
    while await store.epoch(session):
        assert time.monotonic() < deadline, "the record outlives its time"
        await asyncio.sleep(0.01)
