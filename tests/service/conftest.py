"""The stores that tests ask for by the parameter `setting`, one of `any_store.KINDS`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from service.stores.base import Store
from tests.support.any_store import opened
from tests.support.valkey import Valkey


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server for all tests here; their sessions have names of their own."""
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    yield server
    server.stop()


@pytest.fixture
def setting(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The setting of a store of the kind that the test asks for."""
    if request.param != "redis":
        return f"{request.param}:{tmp_path / 'store'}"
    server: Valkey = request.getfixturevalue("valkey")
    return server.url


@pytest.fixture
async def another(setting: str) -> AsyncIterator[Callable[[], Store]]:
    """Opens one more store on the same records, as one more replica does."""
    stores: list[Store] = []

    def another() -> Store:
        stores.append(opened(setting))
        return stores[-1]

    yield another
    for store in stores:
        await store.close()
