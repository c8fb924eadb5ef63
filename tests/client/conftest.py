"""A fake server for each test, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import pytest

from ntm_client import AsyncClient, Client
from tests.client.fake_server import FakeServer, serve
from tests.support.ports import free_port


@dataclass
class Running:
    """A fake that answers at an address."""

    fake: FakeServer
    address: str
    _stop: Callable[[], None]

    def stop(self) -> None:
        """Answer no more."""
        self.fake.released.set()
        self.fake.let_go()
        self._stop()

    def restart(self) -> None:
        """Answer again, at the same address."""
        self._stop = serve(self.fake, self.address)


@pytest.fixture
def running() -> Iterator[Running]:
    """A fake server that runs during the test."""
    fake = FakeServer("replica")
    address = f"127.0.0.1:{free_port()}"
    running = Running(fake, address, serve(fake, address))
    yield running
    running.stop()


@pytest.fixture
def fake(running: Running) -> FakeServer:
    """What the running server saw, and how it shall answer."""
    return running.fake


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    """A blocking client of the fake."""
    with Client(running.address, timeout_seconds=20) as client:
        yield client


@pytest.fixture
async def async_client(running: Running) -> AsyncIterator[AsyncClient]:
    """An asynchronous client of the fake."""
    async with AsyncClient(running.address, timeout_seconds=20) as client:
        yield client


@pytest.fixture
def trying_once(running: Running) -> Iterator[Client]:
    """A blocking client of the fake that fails when the first attempt does."""
    with Client(running.address, timeout_seconds=20, resume=None) as client:
        yield client


@pytest.fixture
async def async_trying_once(running: Running) -> AsyncIterator[AsyncClient]:
    """An asynchronous client of the fake that fails when the first attempt does."""
    async with AsyncClient(running.address, timeout_seconds=20, resume=None) as client:
        yield client
