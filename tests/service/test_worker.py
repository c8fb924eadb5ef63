"""The worker: every future gets an answer, whatever happens."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from service.engine import Engine
from service.errors import Draining, SessionExpired, SessionUnknown
from service.metrics import Metrics
from service.runtime import Network
from service.sessions import Session
from service.settings import Settings
from service.work import Operation
from service.worker import Worker
from tests.conftest import Clock
from tests.service.driving import OWNER, chunk, engine


class Fixture:
    """A worker and its engine."""

    def __init__(self, network: Network) -> None:
        """Start the worker."""
        self.engine = engine(network, Clock(), max_burst=1)
        self.worker = Worker(self.engine)
        self.worker.start()

    async def opened(self) -> str:
        """The id of a new session."""
        return (await self.worker.call(self.engine.open, "ledger", 8, None, OWNER)).id


@pytest.fixture
async def fixture(network: Network) -> AsyncIterator[Fixture]:
    """A running worker."""
    fixture = Fixture(network)
    yield fixture
    await fixture.worker.stop()


class Gate:
    """An operation that holds the engine's thread until it is let go."""

    def __init__(self) -> None:
        """Closed."""
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, _: Session) -> str:
        """Wait for the opening."""
        self.entered.set()
        assert self.opened.wait(10)
        return "through"


async def test_calls_and_work_come_back(fixture: Fixture) -> None:
    """A call gives its result, work its outcome, and errors are raised where they are awaited."""
    session = await fixture.opened()
    outcome = await fixture.worker.submit(chunk(session, [[1, 2], [3, 4]]))
    assert outcome.outputs.tolist() == [[1, 2], [4, 6]]
    with pytest.raises(SessionUnknown):
        await fixture.worker.call(fixture.engine.describe, "nobody")
    with pytest.raises(SessionUnknown):
        await fixture.worker.submit(chunk("nobody", [[1, 2]]))


async def test_the_event_loop_runs_while_the_engine_works(fixture: Fixture) -> None:
    """A long operation blocks the engine's thread and nothing else."""
    gate = Gate()
    blocked = fixture.worker.submit(Operation(await fixture.opened(), gate))
    await asyncio.to_thread(gate.entered.wait)
    assert not blocked.done()
    gate.opened.set()
    assert await blocked == "through"


async def test_a_cancelled_chunk_leaves_no_other_pending(fixture: Fixture) -> None:
    """Of three chunks that run together the second is cancelled; the others get their results."""
    gate = Gate()
    sessions = [await fixture.opened() for _ in range(4)]
    holder = fixture.worker.submit(Operation(sessions[3], gate))
    await asyncio.to_thread(gate.entered.wait)
    futures = [fixture.worker.submit(chunk(session, [[1, 1]])) for session in sessions[:3]]
    futures[1].cancel()
    await asyncio.sleep(0)  # lets the cancellation be noted, before the engine goes on
    gate.opened.set()
    await holder
    first, third = await asyncio.wait_for(asyncio.gather(futures[0], futures[2]), 10)
    assert first.outputs.tolist() == third.outputs.tolist() == [[1, 1]]
    assert (await fixture.worker.call(fixture.engine.describe, sessions[1])).next_step == 0
    assert fixture.worker._futures == {}


async def test_draining_waits_for_the_work_there_is(fixture: Fixture) -> None:
    """Work under way is finished, new work is refused."""
    session = await fixture.opened()
    work = fixture.worker.submit(chunk(session, [[1, 1]] * 50))
    assert await fixture.worker.drain(10)
    assert (await work).outputs[-1].tolist() == [50, 50]
    with pytest.raises(Draining):
        await fixture.opened()


async def test_draining_gives_up_at_its_deadline(fixture: Fixture) -> None:
    """Work that outlasts the time given is reported, and `stop` leaves nobody waiting for it."""
    gate = Gate()
    session = await fixture.opened()
    blocked = fixture.worker.submit(Operation(session, gate))
    behind = fixture.worker.submit(chunk(session, [[1, 1]]))
    drained = asyncio.create_task(fixture.worker.drain(0.0))
    await asyncio.to_thread(gate.entered.wait)
    gate.opened.set()
    assert await drained in (True, False)
    await fixture.worker.stop()
    assert {blocked.done(), behind.done()} == {True}


async def test_after_stopping_everything_is_refused(network: Network) -> None:
    """Nobody waits for a thread that is gone."""
    fixture = Fixture(network)
    await fixture.worker.stop()
    with pytest.raises(Draining):
        await fixture.opened()


async def test_an_engine_that_breaks_answers_everybody(
    network: Network, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in the engine is logged, fails every pending future and tells the server."""
    fixture = Fixture(network)
    session = await fixture.opened()

    def broken(_: Engine) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Engine, "turn", broken)
    with caplog.at_level(logging.CRITICAL):
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(fixture.worker.submit(chunk(session, [[1, 1]])), 10)
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(fixture.worker.crashed, 10)
    assert "the engine failed" in caplog.text
    with pytest.raises(Draining):
        await fixture.opened()
    await fixture.worker.stop()


async def test_a_session_expires_without_anybody_calling(network: Network) -> None:
    """The worker wakes up by itself when a session's deadline comes."""
    empty = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Watched(Engine):
        """Tells when the last session has expired."""

        def expire(self) -> None:
            """As ever."""
            super().expire()
            if self._opened and not len(self._sessions):
                loop.call_soon_threadsafe(empty.set)

    watched = Watched({"ledger": network}, Settings(), Metrics(CollectorRegistry()), time.monotonic)
    worker = Worker(watched)
    worker.start()
    view = await worker.call(watched.open, "ledger", 8, 0.05, OWNER)
    await asyncio.wait_for(empty.wait(), 10)
    with pytest.raises(SessionExpired):
        await worker.call(watched.describe, view.id)
    await worker.stop()
