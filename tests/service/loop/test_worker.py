"""The worker: every future gets an answer, whatever happens."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import onnxruntime
import pytest
from prometheus_client import CollectorRegistry

from service.engine.engine import Engine
from service.engine.lifecycle import Lifecycle
from service.engine.turn import Turn
from service.engine.work import Work
from service.errors import Draining, SessionDeleted, SessionExpired, SessionUnknown
from service.loop.worker import Worker
from service.models import bound_run
from service.models.device import Device, DeviceThread
from service.models.runtime import Network
from service.session_ref import SessionRef
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.conftest import Clock
from tests.support.devices import memory_apart
from tests.support.driving import LEDGER, OWNER, chunk, engine
from tests.support.tiny_models import ledger


class Fixture:
    """A worker and its engine."""

    def __init__(self, network: Network, parallel_runs: int = 1) -> None:
        """Start the worker."""
        self.engine = engine(network, Clock(), parallel_runs + 1, max_burst=1)
        self.worker = Worker(self.engine, parallel_runs)
        self.worker.start()

    async def opened(self, locations: int = 8) -> SessionRef:
        """A new session, as its owner names it."""
        view = await self.worker.call(self.engine.lifecycle.open, LEDGER, locations, None, OWNER)
        return SessionRef(view.id, OWNER, 0)


@pytest.fixture
async def fixture(network: Network) -> AsyncIterator[Fixture]:
    """A running worker."""
    fixture = Fixture(network)
    yield fixture
    await fixture.worker.stop()


class Gate:
    """Holds every run of a network until it is opened, and notes the threads that ran."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Closed; every turn counts as long from now on, so that the worker's thread runs it."""
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.threads: set[str] = set()
        run = Turn.run

        def held(turn: Turn) -> None:
            self.threads.add(threading.current_thread().name)
            self.entered.set()
            assert self.opened.wait(10)
            run(turn)

        monkeypatch.setattr(Turn, "run", held)
        monkeypatch.setattr("service.engine.engine.SHORT_TURN_BYTES", -1)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """A closed gate."""
    return Gate(monkeypatch)


async def test_calls_and_work_come_back(fixture: Fixture) -> None:
    """A call gives its result, work its outcome, and errors are raised where they are awaited."""
    session = await fixture.opened()
    outcome = await fixture.worker.ask(chunk(session, [[1, 2], [3, 4]]))
    assert outcome.outputs.tolist() == [[1, 2], [4, 6]]
    with pytest.raises(SessionUnknown):
        await fixture.worker.call(fixture.engine.lifecycle.describe, SessionRef("nobody", OWNER, 0))
    with pytest.raises(SessionUnknown):
        await fixture.worker.ask(chunk(SessionRef("nobody", OWNER, 0), [[1, 2]]))


async def test_the_event_loop_runs_while_a_network_does(fixture: Fixture, gate: Gate) -> None:
    """A long run holds up neither the event loop nor what is submitted meanwhile."""
    sessions = [await fixture.opened() for _ in range(2)]
    first = fixture.worker.ask(chunk(sessions[0], [[1, 1]]))
    await asyncio.to_thread(gate.entered.wait)
    second = fixture.worker.ask(chunk(sessions[1], [[2, 2]]))
    await asyncio.sleep(0)
    assert (first.done(), second.done()) == (False, False)
    gate.opened.set()
    assert (await first).outputs.tolist() == [[1, 1]]
    assert (await second).outputs.tolist() == [[2, 2]]
    assert gate.threads == {"runs-0"}


async def test_as_many_runs_are_made_at_once_as_there_are_threads(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two threads two long runs meet; the third turn that is ready waits for one of them."""
    fixture = Fixture(network, parallel_runs=2)
    met = threading.Barrier(2)
    threads: list[str] = []
    run = Turn.run

    def meeting(turn: Turn) -> None:
        threads.append(threading.current_thread().name)
        if len(threads) <= 2:
            met.wait(10)
        run(turn)

    monkeypatch.setattr(Turn, "run", meeting)
    monkeypatch.setattr("service.engine.engine.SHORT_TURN_BYTES", -1)
    # Of three slabs, so that there are three turns.
    sessions = [await fixture.opened(size) for size in (5, 6, 8)]
    works = [fixture.worker.ask(chunk(session, [[1, 1]] * 3)) for session in sessions]
    for outcome in await asyncio.wait_for(asyncio.gather(*works), 10):
        assert outcome.outputs.tolist() == [[1, 1], [2, 2], [3, 3]]
    assert set(threads[:2]) == {"runs-0", "runs-1"}
    assert len(threads) == 9
    await fixture.worker.stop()


async def test_a_short_run_is_made_in_place(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lone step wakes no other thread."""
    threads = []
    run = Turn.run

    def noted(turn: Turn) -> None:
        threads.append(threading.current_thread())
        run(turn)

    monkeypatch.setattr(Turn, "run", noted)
    await fixture.worker.ask(chunk(await fixture.opened(), [[1, 1]]))
    assert threads == [threading.main_thread()]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of sessions in each run so far."""
    found: list[int] = []
    run = Turn.run

    def noted(turn: Turn) -> None:
        found.append(len(turn.sessions))
        run(turn)

    monkeypatch.setattr(Turn, "run", noted)
    return found


async def test_what_arrives_together_is_stepped_together(
    fixture: Fixture, batches: list[int]
) -> None:
    """Chunks submitted one after another before the event loop goes on share one run."""
    sessions = [await fixture.opened() for _ in range(5)]
    await asyncio.gather(*(fixture.worker.ask(chunk(each, [[1, 1]])) for each in sessions))
    assert batches == [5]


async def test_work_that_comes_alone_is_begun_at_once(fixture: Fixture, batches: list[int]) -> None:
    """Its answer is there when it is submitted, if the work before came alone as well."""
    session = await fixture.opened()
    works = []
    for _ in range(3):
        works.append(fixture.worker.ask(chunk(session, [[1, 1]])))
        begun = list(batches)
        await works[-1]
        await asyncio.sleep(0)
    assert begun == [1, 1, 1]
    assert [work.result().outputs.tolist() for work in works] == [[[1, 1]], [[2, 2]], [[3, 3]]]


async def test_a_burst_after_lone_work_is_stepped_together_from_its_second_on(
    fixture: Fixture, batches: list[int]
) -> None:
    """The first of it goes alone, as the work before. The next burst is together again."""
    sessions = [await fixture.opened() for _ in range(4)]
    for _ in range(2):
        await fixture.worker.ask(chunk(sessions[0], [[1, 1]]))
        await asyncio.sleep(0)
    for _ in range(2):
        works = [fixture.worker.ask(chunk(each, [[1, 1]])) for each in sessions[1:]]
        await asyncio.gather(*works)
    assert batches == [1, 1, 1, 2, 3]


async def test_work_that_an_answer_brings_does_not_overtake_the_next_answer(
    fixture: Fixture, network: Network
) -> None:
    """The answers of a session keep the order of its work."""
    session = await fixture.opened()
    order: list[str] = []
    first, second, brought = (chunk(session, [[1, 1]]) for _ in range(3))
    done = asyncio.Event()

    def answered_first(_: Work) -> None:
        order.append("first")
        fixture.worker.submit([brought])

    def answered_last(_: Work) -> None:
        order.append("brought")
        done.set()

    first.answered, brought.answered = answered_first, answered_last
    second.answered = lambda _: order.append("second")
    first.error = second.error = SessionUnknown("told together")
    fixture.worker.submit([first, second])
    await asyncio.wait_for(done.wait(), 10)
    assert order == ["first", "second", "brought"]


async def test_a_call_waits_for_the_run_under_way(fixture: Fixture, gate: Gate) -> None:
    """Nothing is opened or closed beside a run; a call whose caller has gone is not made."""
    session = await fixture.opened()
    stepped = fixture.worker.ask(chunk(session, [[1, 1]]))
    await asyncio.to_thread(gate.entered.wait)
    deleted = asyncio.create_task(fixture.worker.call(fixture.engine.lifecycle.delete, session))
    abandoned = asyncio.create_task(fixture.opened())
    await asyncio.sleep(0)
    abandoned.cancel()
    await asyncio.sleep(0)
    assert not deleted.done()
    assert fixture.engine.lifecycle.describe(session).next_step == 0
    gate.opened.set()
    assert (await stepped).outputs.tolist() == [[1, 1]]
    await deleted
    with pytest.raises(SessionDeleted):
        fixture.engine.lifecycle.describe(session)
    assert fixture.engine.lifecycle._opened == 1


async def test_a_call_does_not_wait_for_all_steps_there_are(fixture: Fixture, gate: Gate) -> None:
    """While a call waits no more turns are begun, so it comes before the end of long chunks."""
    engine, worker = fixture.engine, fixture.worker
    # Of two slabs, so that there are two turns under way.
    sessions = [await fixture.opened(size) for size in (5, 8)]
    done: list[str] = []
    works = [worker.ask(chunk(session, [[1, 1]] * 50)) for session in sessions]
    await asyncio.to_thread(gate.entered.wait)
    called = asyncio.create_task(worker.call(engine.lifecycle.describe, sessions[0]))
    for future in works:
        future.add_done_callback(lambda _: done.append("chunk"))
    called.add_done_callback(lambda _: done.append("call"))
    await asyncio.sleep(0)
    gate.opened.set()
    await asyncio.gather(*works, called)
    assert done == ["call", "chunk", "chunk"]
    assert called.result().next_step < 50


async def test_a_cancelled_chunk_leaves_no_other_pending(fixture: Fixture, gate: Gate) -> None:
    """Of three chunks that run together the second is cancelled; the others get their results."""
    sessions = [await fixture.opened() for _ in range(4)]
    holder = fixture.worker.ask(chunk(sessions[3], [[1, 1]]))
    await asyncio.to_thread(gate.entered.wait)
    futures = [fixture.worker.ask(chunk(session, [[1, 1]] * 2)) for session in sessions[:3]]
    futures[1].cancel()
    gate.opened.set()
    await holder
    first, third = await asyncio.wait_for(asyncio.gather(futures[0], futures[2]), 10)
    assert first.outputs.tolist() == third.outputs.tolist() == [[1, 1], [2, 2]]
    assert (await fixture.worker.call(fixture.engine.lifecycle.describe, sessions[1])).next_step < 2
    assert fixture.worker._pending == set()


async def test_draining_waits_for_the_work_there_is(fixture: Fixture) -> None:
    """Work under way is finished, new work is refused."""
    session = await fixture.opened()
    work = fixture.worker.ask(chunk(session, [[1, 1]] * 50))
    assert await fixture.worker.drain(10)
    assert (await work).outputs[-1].tolist() == [50, 50]
    with pytest.raises(Draining):
        await fixture.opened()


async def test_draining_gives_up_at_its_deadline(fixture: Fixture, gate: Gate) -> None:
    """Work that outlasts the time given is reported, and `stop` leaves nobody waiting for it."""
    session = await fixture.opened()
    blocked = fixture.worker.ask(chunk(session, [[1, 1]]))
    behind = fixture.worker.ask(chunk(session, [[1, 1]]))
    await asyncio.to_thread(gate.entered.wait)
    assert not await fixture.worker.drain(0.0)
    gate.opened.set()
    await fixture.worker.stop()
    assert {type(each.exception()) for each in (blocked, behind)} == {Draining}


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

    monkeypatch.setattr(Engine, "schedule", broken)
    with caplog.at_level(logging.CRITICAL):
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(fixture.worker.ask(chunk(session, [[1, 1]])), 10)
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(fixture.worker.crashed, 10)
    assert "the engine failed" in caplog.text
    with pytest.raises(Draining):
        await fixture.opened()
    await fixture.worker.stop()


async def test_effects_reach_the_store_before_answers_are_given(network: Network) -> None:
    """Whatever an answer says of the store was asked of it before."""
    seen: list[str] = []
    ledgers = engine(network, Clock())
    worker = Worker(ledgers, 1)
    worker.start(lambda effects: seen.extend("store" for _ in effects.finished))
    view = await worker.call(ledgers.lifecycle.open, LEDGER, 8, None, OWNER)
    work = chunk(SessionRef(view.id, OWNER, 0), [[1, 1]])
    answered = asyncio.Event()

    def answer(_: Work) -> None:
        seen.append("client")
        answered.set()

    work.answered = answer
    worker.submit([work])
    await asyncio.wait_for(answered.wait(), 10)
    await worker.stop()

    assert seen == ["store", "client"]


async def test_a_session_expires_without_anybody_calling(network: Network) -> None:
    """The worker wakes up by itself when a session's deadline comes."""
    empty = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Watched(Lifecycle):
        """Tells when the last session has expired."""

        def expire(self) -> None:
            """As ever."""
            super().expire()
            if self._opened and not len(self.sessions):
                loop.call_soon_threadsafe(empty.set)

    settings = Settings()
    watched = Watched({LEDGER: network}, settings, Metrics(CollectorRegistry()), time.monotonic)
    worker = Worker(Engine(watched, settings), 1)
    worker.start()
    view = await worker.call(watched.open, LEDGER, 8, 0.05, OWNER)
    await asyncio.wait_for(empty.wait(), 10)
    with pytest.raises(SessionExpired):
        await worker.call(watched.describe, SessionRef(view.id, OWNER, 0))
    await worker.stop()


async def test_one_thread_makes_all_that_is_done_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run, allocation and copy, also while two threads of the worker ask for runs."""
    threads = set[str]()

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **named: Any) -> Any:
            threads.add(threading.current_thread().name)
            return function(*arguments, **named)

        return noted

    for owner, name, kind in (
        (onnxruntime.InferenceSession, "run_with_iobinding", noting),
        (onnxruntime.InferenceSession, "io_binding", noting),
        (onnxruntime.OrtValue, "update_inplace", noting),
        (onnxruntime.OrtValue, "ortvalue_from_shape_and_type", lambda f: staticmethod(noting(f))),
    ):
        monkeypatch.setattr(owner, name, kind(getattr(owner, name)))
    monkeypatch.setattr(bound_run, "memory", memory_apart)
    thread = DeviceThread()
    network = Network(ledger(), "cpu")
    network._device, network.on_cpu = Device("cpu", thread), False
    fixture = Fixture(network, parallel_runs=2)
    call, lifecycle = fixture.worker.call, fixture.engine.lifecycle
    sessions = [await fixture.opened(locations) for locations in (8, 5) for _ in range(9)]
    works = [chunk(session, [[1, 1]] * 4) for session in sessions]
    await asyncio.gather(*(fixture.worker.ask(work) for work in works))
    awake = lifecycle.awake(sessions[0])
    saved = await call(lifecycle.checkpoint, awake)
    await call(lifecycle.reset, awake)
    await call(lifecycle.restore, awake, saved[1])
    view = await call(partial(lifecycle.open, LEDGER, 8, None, OWNER, is_begun=False))
    await call(lifecycle.fork, awake, SessionRef(view.id, OWNER, 0))
    total = (await call(lifecycle.read, awake))[1]["total"].tolist()
    await fixture.worker.stop()
    thread.end()

    assert total == [4, 4]
    assert threads == {"device"}
