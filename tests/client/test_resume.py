"""Clients whose server, connection or answers are lost, over real gRPC."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from ntm_client import (
    AsyncClient,
    AsyncSession,
    Client,
    Draining,
    Durability,
    Resume,
    SessionUnknown,
    StreamBroken,
    StreamClosed,
    TimedOut,
    Unavailable,
    Unreachable,
)
from tests.client.conftest import Running
from tests.client.fake_server import CANCELLED, NOT_FOUND, UNAVAILABLE, FakeServer, refuse

INPUTS = np.arange(60, dtype=np.float32).reshape(20, 3)
SUMS = INPUTS.cumsum(0)
EVERY_16 = Durability("asynchronous", every_steps=16)
QUICK = Resume(seconds=20, first_backoff_seconds=0.1, largest_backoff_seconds=0.2)


def lose(kind: str) -> Callable[[Running], None]:
    """Have the next call or message be lost so."""
    return lambda running: running.fake.losses.append(kind)


def refused(code: int, reason: str) -> Callable[[Running], None]:
    """Have the next chunk be refused so."""
    return lambda running: running.fake.failures.append(refuse(code, reason))


def die(running: Running) -> None:
    """Have the server die and come back, at the same address, with what was stored."""
    running.stop()
    running.fake.lose()
    running.restart()


LOSSES = [lose("before"), lose("after")]

INTERRUPTIONS = [
    pytest.param(LOSSES[0], 0, id="lost before it was made"),
    pytest.param(LOSSES[1], 0, id="lost after it was made"),
    pytest.param(refused(UNAVAILABLE, "DRAINING"), 0, id="draining"),
    pytest.param(refused(UNAVAILABLE, "NOT_STORED"), 0, id="not stored"),
    pytest.param(refused(NOT_FOUND, "SESSION_MOVED"), 0, id="moved"),
    pytest.param(lambda running: running.fake.lose(), 5, id="taken over"),
    pytest.param(die, 5, id="restarted"),
]


@pytest.fixture(params=["calls", "shared"])
def is_shared(request: pytest.FixtureRequest, fake: FakeServer) -> bool:
    """Whether steps go on a stream that sessions share. A server without a name gets calls."""
    if request.param == "calls":
        fake.replica = ""
    return bool(request.param == "shared")


@pytest.fixture(params=["alone", "stream"])
def by_stream(request: pytest.FixtureRequest) -> bool:
    """Whether a session travels on a stream of the user's."""
    return bool(request.param == "stream")


def resumptions(interrupt: Callable[[Running], None], is_shared: bool) -> int:
    """
    How often a session's user is told of a loss: never if only the shared stream was lost, whose
    chunks then are made by calls.
    """
    return 0 if is_shared and interrupt in LOSSES else 1


@pytest.mark.parametrize(("interrupt", "replayed"), INTERRUPTIONS)
def test_a_blocking_session_goes_on(
    running: Running, is_shared: bool, interrupt: Callable[[Running], None], replayed: int
) -> None:
    """The outputs are those of a session that nothing happened to, and the session tells."""
    with Client(running.address, resume=QUICK) as client:
        session = client.create_session("sums", durability=EVERY_16)
        first = session.step(INPUTS[:5])
        interrupt(running)
        second = session.step(INPUTS[5:], traces=["read_vector"])

    assert np.array_equal(SUMS, np.concatenate([first.outputs, second.outputs]))
    assert np.array_equal(SUMS[5:], second.traces["read_vector"][:, 0])
    told = resumptions(interrupt, is_shared)
    assert (session.resumptions, session.replayed_steps) == (told, replayed)
    assert (session.next_step, session.durable_step) == (20, 20)
    assert (session.last_interruption is not None) == told


@pytest.mark.parametrize(("interrupt", "replayed"), INTERRUPTIONS)
async def test_an_asynchronous_session_goes_on(
    running: Running,
    is_shared: bool,
    by_stream: bool,
    interrupt: Callable[[Running], None],
    replayed: int,
) -> None:
    """As a blocking one, on a stream as well, which is begun anew where it broke."""
    async with (
        AsyncClient(running.address, resume=QUICK) as client,
        client.stream() as stream,
    ):
        opening = stream.open if by_stream else client.create_session
        session: AsyncSession = await opening("sums", durability=EVERY_16)
        first = await session.step(INPUTS[:5])
        await asyncio.to_thread(interrupt, running)
        second = await session.step(INPUTS[5:])

    assert np.array_equal(SUMS, np.concatenate([first.outputs, second.outputs]))
    told = resumptions(interrupt, is_shared and not by_stream)
    assert (session.resumptions, session.replayed_steps) == (told, replayed)


async def test_all_sessions_of_a_stream_go_on(running: Running) -> None:
    """Those that lost their stream together come back together, each with its own outputs."""
    async with AsyncClient(running.address, resume=QUICK) as client, client.stream() as stream:
        sessions = [await stream.open("sums", durability=EVERY_16) for _ in range(20)]
        await asyncio.gather(*(session.step(INPUTS[:5]) for session in sessions))
        await asyncio.to_thread(die, running)
        results = await asyncio.gather(
            *(session.step(INPUTS[5:] * (1 + n)) for n, session in enumerate(sessions))
        )

    for n, result in enumerate(results):
        assert np.array_equal(SUMS[4] + (SUMS[5:] - SUMS[4]) * (1 + n), result.array)


def test_a_chunk_that_takes_too_long_is_sent_again(running: Running) -> None:
    """After a timeout the same chunk goes out again, and is made once."""
    with Client(running.address, resume=QUICK) as client:
        session = client.create_session("sums")
        running.fake.released.clear()
        threading.Timer(0.5, running.fake.released.set).start()
        result = session.step(INPUTS, timeout_seconds=0.2)

    assert np.array_equal(SUMS, result.array)
    assert isinstance(session.last_interruption, TimedOut)


@pytest.mark.parametrize("synchronous", [True, False])
def test_what_is_kept_depends_on_the_durability(running: Running, synchronous: bool) -> None:
    """A synchronous session loses nothing; the description has what was asked for."""
    durability = Durability("synchronous") if synchronous else EVERY_16
    with Client(running.address, resume=QUICK) as client:
        session = client.create_session("sums", durability=durability)
        session.step(INPUTS[:5])
        running.fake.lose()
        info = session.describe()

    assert (info.durability, info.durable_step) == (durability, 5 if synchronous else 0)
    assert (info.next_step, session.replayed_steps) == (5, 0 if synchronous else 5)


def test_it_ends_after_the_time_allowed(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    """A server that stays away is an error in the end; the session can go on later."""
    caplog.set_level(logging.INFO, "client")
    resume = Resume(seconds=0.5, first_backoff_seconds=0.1, largest_backoff_seconds=0.1)
    with Client(running.address, resume=resume) as client:
        session = client.create_session("sums", durability=EVERY_16)
        session.step(INPUTS[:5])
        running.stop()
        began = time.monotonic()
        with pytest.raises(Unavailable, match="no server answers"):
            session.step(INPUTS[5:])
        assert 0.3 < time.monotonic() - began < 5
        assert session.next_step == 5
        running.fake.lose()
        running.restart()
        deadline = time.monotonic() + 20
        while session.next_step == 5 and time.monotonic() < deadline:
            try:
                result = session.step(INPUTS[5:])
            except Unavailable:
                continue  # gRPC has not connected again yet

    assert np.array_equal(SUMS[5:], result.array)
    assert "was interrupted at step 5" in caplog.text


def test_a_call_logs_one_interruption(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    """However many of its chunks are interrupted; the next call, of any kind, logs its own."""

    def logged() -> int:
        return len([one for one in caplog.records if "was interrupted" in one.message])

    fake = running.fake
    with Client(running.address, resume=QUICK, chunk_steps=2) as client:
        session = client.create_session("sums")
        for call in (1, 2):
            fake.failures += [refuse(UNAVAILABLE, "DRAINING"), *[None] * 5] * 3
            session.step(INPUTS)
            assert session.resumptions >= 2 * call
            assert logged() == call
            fake.failures.clear()
        fake.losses.append("before")
        session.checkpoint()
        assert logged() == 3


def test_operations_are_repeated(running: Running) -> None:
    """Resets, checkpoints, restores, memories and deletions come through a lost answer."""
    fake = running.fake
    with Client(running.address, resume=QUICK) as client:
        session = client.create_session("sums")
        session.step(INPUTS[:5])
        fake.losses.append("after")
        checkpoint = session.checkpoint()
        session.step(INPUTS[5:10])
        fake.losses.append("after")
        session.restore(checkpoint)
        assert np.array_equal(SUMS[5:], session.step(INPUTS[5:]).array)
        fake.losses.append("after")
        assert session.read_memory().next_step == 20
        fake.losses.append("after")
        session.reset()
        fake.losses.append("after")
        session.delete()

    assert fake.deleted == {session.id}
    assert session.resumptions == 5


@pytest.mark.parametrize("loss", ["before", "after"])
def test_a_session_is_opened_once(running: Running, loss: str) -> None:
    """Where the call or its answer is lost, or no server is there, it is asked for again."""
    fake = running.fake
    with Client(running.address, resume=QUICK) as client:
        client.models()
        fake.losses.append(loss)
        first = client.create_session("sums")
        assert list(fake.sessions) == [first.id]
        running.stop()
        threading.Timer(0.3, running.restart).start()
        second = client.create_session("sums")

    assert list(fake.sessions) == [first.id, second.id]


async def test_a_session_is_opened_once_by_a_stream(running: Running) -> None:
    """If a stream breaks before the answer, the next stream opens the same session once."""
    async with AsyncClient(running.address, resume=QUICK) as client, client.stream() as stream:
        await client.models()
        for loss in ("before", "after"):
            running.fake.losses.append(loss)
            session = await stream.open("sums")
            result = await session.step(INPUTS)
            assert np.array_equal(SUMS, result.array)

    assert len(running.fake.sessions) == 2
    assert running.fake.deleted == set()


async def test_an_answer_to_an_earlier_attempt_closes_no_session(running: Running) -> None:
    """The attempt timed out, and another one on the same stream opened the session."""
    async with AsyncClient(running.address, timeout_seconds=0.2, resume=QUICK) as client:
        await client.models()
        async with client.stream() as stream:
            running.fake.released.clear()
            threading.Timer(0.5, running.fake.released.set).start()
            session = await stream.open("sums")
            result = await session.step(INPUTS)
            assert np.array_equal(SUMS, result.array)

    assert list(running.fake.sessions) == [session.id]


def test_opening_ends_after_the_time_allowed(running: Running) -> None:
    """Opening ends with the last error; a session that was opened nevertheless expires."""
    resume = Resume(seconds=0.3, first_backoff_seconds=0.1, largest_backoff_seconds=0.1)
    with Client(running.address, resume=resume) as client:
        client.models()
        running.fake.losses.extend(["after"] * 100)
        # The last attempt gets the time that is left, which can be too short for an answer.
        with pytest.raises((Unavailable, TimedOut)) as told:
            client.create_session("sums")

    (note,) = told.value.__notes__
    assert re.fullmatch(r"gave up after \d+ attempts in \d+\.\d s", note)
    assert len(running.fake.sessions) == 1


def test_a_client_that_has_reached_nobody_fails_at_once() -> None:
    """A wrong address is an error at once, which says that nothing was sent."""
    began = time.monotonic()
    with Client("127.0.0.1:1") as client, pytest.raises(Unreachable):
        client.create_session("sums")

    assert time.monotonic() - began < 10


def test_a_call_that_the_server_cancels_is_made_again(running: Running) -> None:
    """A server that ends may cancel what it has not answered; nobody here cancels."""
    running.fake.replica = ""  # for calls
    with Client(running.address, resume=QUICK) as client:
        session = client.create_session("sums")
        running.fake.failures.append(refuse(CANCELLED, ""))
        np.testing.assert_array_equal(session.step(INPUTS).outputs, SUMS)
        assert isinstance(session.last_interruption, Unavailable)


def test_without_resume_the_first_failure_is_told(trying_once: Client, fake: FakeServer) -> None:
    """A client that tries once raises what happened."""
    session = trying_once.create_session("sums")
    fake.failures.append(refuse(UNAVAILABLE, "DRAINING"))
    with pytest.raises(Draining):
        session.step(INPUTS)


def test_a_session_that_is_gone_is_an_error(running: Running) -> None:
    """A server that came back without the session says so, at once."""
    with Client(running.address, resume=QUICK) as client:
        session = client.create_session("sums")
        running.fake.sessions.clear()
        with pytest.raises(SessionUnknown):
            session.step(INPUTS)


async def test_a_closed_stream_stays_closed(running: Running) -> None:
    """A stream whose block was left does not begin another call."""
    async with AsyncClient(running.address, resume=QUICK) as client:
        async with client.stream() as stream:
            session = await stream.open("sums")
        with pytest.raises(StreamClosed):
            await session.step(INPUTS)
        assert issubclass(StreamClosed, StreamBroken)


async def test_calls_name_their_session(running: Running) -> None:
    """Each call has its session in its metadata; a stream and its sessions' calls have a route."""
    running.fake.replica = ""  # for calls
    async with AsyncClient(running.address) as client:
        session = await client.create_session("sums")
        await session.step(INPUTS)
        await session.describe()
        async with client.stream("shard-1") as stream:
            same = await stream.session(session.id)
            await same.step(INPUTS)
        async with client.stream() as drawn:
            await (await drawn.open("sums")).describe()

    assert sorted(running.fake.routes) == sorted(
        [
            ("CreateSession", session.id),
            ("GetModel", ""),
            ("Step", session.id),
            ("GetSession", session.id),
            ("StreamSteps", "shard-1"),
            ("GetSession", "shard-1"),
            ("StreamSteps", drawn.route),
            ("GetSession", drawn.route),
        ]
    )
    assert len(drawn.route) == 32


@pytest.mark.parametrize(
    ("policy", "every_steps", "told"),
    [
        ("sometimes", 0, "sometimes"),
        ("synchronous", 4, "4 with synchronous"),
        ("asynchronous", -1, "-1"),
    ],
)
def test_senseless_durability_is_refused(policy: str, every_steps: int, told: str) -> None:
    """The error has the value that is wrong."""
    with pytest.raises(ValueError, match=told):
        Durability(policy, every_steps)  # type: ignore[arg-type]  # wrong on purpose
