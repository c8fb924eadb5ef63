"""What tests of several packages share: the ledger, a clock to turn by hand, a running server."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from ntm.v1 import ntm_pb2_grpc
from ntm_client import Client
from service.models.runtime import Network
from service.rpc.queue_loop import QueueLoop
from service.server import Server
from service.settings import Settings
from tests.support.leftovers import lasting, nothing_left
from tests.support.served import MODELS, served
from tests.support.tiny_models import ledger


def pytest_configure() -> None:
    """
    Hear Ctrl-C, and have the programs that tests start hear it, where shells switch it off: they do
    so for what they run in the background.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """
    Collect no garbage while thousands of tests are found, of which none is garbage, nor look for it
    among them afterwards.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: at the end no process waits for another's long file."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], QueueLoop]]:
    """Asynchronous tests and fixtures run in the loop that a server needs."""
    return {"queue": QueueLoop}


@pytest.fixture(scope="session")
def lasting_poller() -> None:
    """What gRPC shares among all asynchronous channels and servers of a process."""
    with lasting():
        grpc.aio.init_grpc_aio()


@pytest.fixture(scope="module", autouse=True)
def leaves_nothing(lasting_poller: None) -> Iterator[None]:
    """A module that leaves sockets, processes or threads behind fails, with its last test."""
    with nothing_left():
        yield


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        """Start at 1,000 seconds."""
        self.seconds = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    """A clock to turn by hand."""
    return Clock()


@pytest.fixture(scope="session")
def network() -> Network:
    """The ledger, loaded on the CPU."""
    return Network(ledger(), "cpu")


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder that holds the ledger alone."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "ledger").mkdir()
    (folder / "ledger" / "model.onnx").write_bytes(ledger())
    return folder


class Running:
    """A server in this process, and a stub to reach it over a real channel."""

    def __init__(self, server: Server, channel: grpc.aio.Channel) -> None:
        """Take over both."""
        self.server = server
        self.channel = channel
        self.stub: Any = ntm_pb2_grpc.NtmServiceStub(channel)
        self.address = f"127.0.0.1:{server.port}"
        self._stopped = False

    async def stop(self) -> None:
        """Check that nothing leaked, and stop the server, once."""
        if not self._stopped:
            self._stopped = True
            await self.server.check_integrity()
            await self.server.stop()

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric now; 0 if it has not been counted yet."""
        return self.server.registry.get_sample_value(name, labels) or 0.0


Serve = Callable[..., AbstractAsyncContextManager[Running]]


@asynccontextmanager
async def serving(
    settings: Settings, credentials: grpc.ChannelCredentials | None = None
) -> AsyncIterator[Running]:
    """A server with these settings; its integrity is checked at the end."""
    switching = sys.getswitchinterval()
    server = Server(settings)
    await server.start()
    address = f"127.0.0.1:{server.port}"
    async with (
        grpc.aio.secure_channel(address, credentials)
        if credentials
        else grpc.aio.insecure_channel(address)
    ) as channel:
        running = Running(server, channel)
        try:
            yield running
        finally:
            await running.stop()
            sys.setswitchinterval(switching)  # the server's is the process's


@pytest.fixture
def serve(models_dir: Path) -> Serve:
    """
    Start a server with these settings, as an asynchronous context that checks integrity.

    Its channel has the credentials given, for TLS.
    """

    def start(
        credentials: grpc.ChannelCredentials | None = None, **changes: Any
    ) -> AbstractAsyncContextManager[Running]:
        defaults: dict[str, Any] = {
            "models_dir": models_dir,
            "device": "cpu",
            "port": 0,
            "metrics_port": 0,
            "drain_seconds": 2.0,
        }
        return serving(Settings(**{**defaults, **changes}), credentials)

    return start


@pytest.fixture
async def running(serve: Serve) -> AsyncIterator[Running]:
    """A server with the default limits."""
    async with serve() as running:
        yield running


@pytest.fixture(scope="session")
def shipping() -> Iterator[str]:
    """The address of a server of the models that ship."""
    with ExitStack() as stack:
        with lasting():
            client = stack.enter_context(served(MODELS))
            client.models()  # the channel has its threads and its socket
        yield client.target


@pytest.fixture(scope="module")
def shipped(shipping: str) -> Iterator[Client]:
    """A client of the server of the models that ship."""
    with Client(shipping) as client:
        yield client
