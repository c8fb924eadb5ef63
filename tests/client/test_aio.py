"""The asynchronous client and its stream."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from ntm_client import (
    AsyncClient,
    AsyncSession,
    CapacityExceeded,
    ModelUnknown,
    SessionDeleted,
    StepIndexMismatch,
    StreamBroken,
    TimedOut,
    Unavailable,
)
from tests.client.conftest import Running
from tests.client.fake_server import FakeServer, refuse

INPUTS = np.arange(30, dtype=np.float32).reshape(10, 3)
SUMS = INPUTS.cumsum(0)


async def received(fake: FakeServer) -> None:
    """Wait until a message of a stream has reached the server."""
    assert await asyncio.to_thread(fake.received.wait, 10)


async def test_calls_are_those_of_the_blocking_client(async_client: AsyncClient) -> None:
    """Every method of a client and a session does its work and returns the same values."""
    async with await async_client.create_session("sums", locations=5) as session:
        result = await session.step(INPUTS, traces=["write_weighting"], top_k=1)
        memory = await session.read_memory()
        same = await async_client.session(session.id)
        await session.reset()
        info = await session.describe()
        listed = await async_client.sessions()

    assert np.array_equal(SUMS, result.array)
    assert (np.arange(10) % 5).tolist() == result.locations["write_weighting"].ravel().tolist()
    assert (memory.next_step, same.next_step, session.next_step) == (10, 10, 0)
    assert [info] == listed
    assert len(await async_client.models()) == 3
    assert (await async_client.model("copy")).task == "copy"


async def test_leaving_the_block_deletes_the_session(
    async_client: AsyncClient, fake: FakeServer
) -> None:
    """
    Leaving an `async with` block deletes the session, and a session deleted before is no error.
    """
    async with await async_client.create_session("sums") as session:
        await session.delete()

    assert {session.id} == fake.deleted


async def test_a_session_that_can_not_be_deleted(
    async_trying_once: AsyncClient, running: Running
) -> None:
    """As of the blocking client."""
    first = await async_trying_once.create_session("sums")
    second = await async_trying_once.create_session("sums")
    with pytest.raises(Unavailable):
        async with first:
            running.stop()

    with pytest.raises(KeyError):
        async with second:
            raise KeyError


async def test_errors_of_calls(async_client: AsyncClient, fake: FakeServer) -> None:
    """Failed calls raise the same errors as those of the blocking client."""
    with pytest.raises(ModelUnknown, match="no model 'tetris'"):
        await async_client.create_session("tetris")
    async with await async_client.create_session("sums") as session:
        fake.sessions[session.id].inputs.append(INPUTS[0])
        with pytest.raises(StepIndexMismatch) as raised:
            await session.step(INPUTS)

    assert raised.value.expected == 1


async def test_steps_of_one_session_wait_for_each_other(async_client: AsyncClient) -> None:
    """Tasks that step one session at once make their steps one after the other."""
    async with await async_client.create_session("sums") as session:
        results = await asyncio.gather(*(session.step(values) for values in INPUTS))

    assert np.array_equal(SUMS, [result.array for result in results])


async def test_many_tasks_on_one_stream(async_client: AsyncClient) -> None:
    """Each session's results are its own, in order, whatever else is on the stream."""

    async def use(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        async with await stream.open("sums") as session:
            results = [await session.step(INPUTS[i : i + 2] * number) for i in range(0, 10, 2)]
        return np.concatenate([result.outputs for result in results])

    async with async_client.stream() as stream:
        outputs = await asyncio.gather(*(use(number) for number in range(40)))

    assert np.array_equal([SUMS * number for number in range(40)], outputs)


async def test_operations_begun_together_share_a_message(
    async_client: AsyncClient, fake: FakeServer
) -> None:
    """What tasks begin in one turn of the event loop goes out in one message."""
    async with async_client.stream() as stream:
        sessions = await asyncio.gather(*(stream.open("sums") for _ in range(10)))
        await asyncio.gather(*(session.step(INPUTS) for session in sessions))

    assert fake.message_sizes == [10, 10]


async def test_a_message_holds_no_more_than_fits(
    async_client: AsyncClient, fake: FakeServer
) -> None:
    """Operations that together exceed what every server takes go out in several messages."""
    inputs = np.ones((256, 3), np.float32)  # 3,072 bytes, of 65,536
    fake.max_message_bytes = 65_536
    async with async_client.stream() as stream:
        sessions = await asyncio.gather(*(stream.open("sums") for _ in range(24)))
        fake.message_sizes.clear()
        results = await asyncio.gather(*(session.step(inputs) for session in sessions))

    assert fake.message_sizes == [20, 4]
    assert all(result.array[-1, 0] == 256 for result in results)


async def test_what_could_be_too_large_for_a_stream_is_a_call(
    async_client: AsyncClient, fake: FakeServer
) -> None:
    """A message that a server might refuse goes alone, since the refusal would end the stream."""
    async with async_client.stream() as stream:
        await stream.open("sums", checkpoint=bytes(65_000))
        assert [method for method, _ in fake.routes] == ["StreamSteps", "GetModel"]
        await stream.open("sums", checkpoint=bytes(66_000))

    assert fake.routes[2:] == [("CreateSession", stream.route)]


async def test_an_operation_that_fails_leaves_the_stream(
    async_client: AsyncClient, fake: FakeServer
) -> None:
    """One failure raises in its own task; the stream and the session go on."""
    refused = refuse(8, "CAPACITY_EXCEEDED", "too many steps wait", limit="4096")
    refused.error.retry_delay.FromSeconds(2)
    async with async_client.stream() as stream:
        session = await stream.open("sums")
        fake.failures.append(refused)
        with pytest.raises(CapacityExceeded, match="too many steps wait") as raised:
            await session.step(INPUTS)
        with pytest.raises(ModelUnknown):
            await stream.open("tetris")
        result = await session.step(INPUTS)
        await session.delete()
        with pytest.raises(SessionDeleted):
            await session.step(INPUTS)

    assert np.array_equal(SUMS, result.array)
    assert (raised.value.retry_delay_seconds, raised.value.metadata) == (2, {"limit": "4096"})
    assert raised.value.code.name == "RESOURCE_EXHAUSTED"


async def test_sessions_outlive_their_stream(async_client: AsyncClient) -> None:
    """A session is continued on another stream; what no stream carries goes by calls."""
    async with async_client.stream() as stream:
        session = await stream.open("sums")
        await session.step(INPUTS[:5])
    async with async_client.stream() as stream:
        same = await stream.session(session.id)
        result = await same.step(INPUTS[5:])
        memory = await same.read_memory()

    assert np.array_equal(SUMS[5:], result.array)
    assert memory.next_step == 10


@pytest.mark.parametrize(
    ("fault", "message"),
    [("abort_streams", "the fake broke the stream"), ("end_streams", "the server ended")],
)
async def test_a_broken_stream_fails_everything_pending(
    async_trying_once: AsyncClient, fake: FakeServer, fault: str, message: str
) -> None:
    """When a stream breaks, pending and later operations fail with the reason."""
    async with async_trying_once.stream() as stream:
        sessions = [await stream.open("sums") for _ in range(5)]
        setattr(fake, fault, True)
        steps = (session.step(INPUTS) for session in sessions)
        errors = await asyncio.gather(*steps, return_exceptions=True)
        with pytest.raises(StreamBroken, match=message):
            await sessions[0].step(INPUTS)

    assert [StreamBroken] * 5 == [type(error) for error in errors]
    assert all(message in str(error) for error in errors)


async def test_a_stream_to_no_server() -> None:
    """Opening a session where no server answers fails with the address."""
    async with AsyncClient("127.0.0.1:1") as client, client.stream() as stream:
        with pytest.raises(StreamBroken, match=r"no server answers at 127\.0\.0\.1:1"):
            await stream.open("sums")


async def test_closing_fails_what_is_pending(async_client: AsyncClient, fake: FakeServer) -> None:
    """A task that still waits when the stream is closed gets an error."""
    fake.released.clear()
    async with async_client.stream() as stream:
        waiting = asyncio.create_task(stream.open("sums"))
        await received(fake)
    fake.released.set()

    with pytest.raises(StreamBroken, match="the stream was closed"):
        await waiting


async def test_a_stream_is_used_inside_its_block(async_client: AsyncClient) -> None:
    """Operations on a stream fail before its block is entered."""
    with pytest.raises(StreamBroken, match="not entered"):
        await async_client.stream().open("sums")


async def test_a_cancelled_task_leaves_the_others(
    async_client: AsyncClient, fake: FakeServer
) -> None:
    """Cancelling one task of a message lets the others have their results."""
    async with async_client.stream() as stream:
        sessions = [await stream.open("sums") for _ in range(3)]
        fake.received.clear()
        fake.released.clear()
        tasks = [asyncio.create_task(session.step(INPUTS)) for session in sessions]
        await received(fake)
        tasks[1].cancel()
        fake.released.set()
        results = [await tasks[0], await tasks[2]]
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]

    assert all(np.array_equal(SUMS, result.array) for result in results)


async def test_a_session_nobody_waits_for_is_closed(
    async_client: AsyncClient, fake: FakeServer
) -> None:
    """A session that opens after its task was cancelled is closed again."""
    fake.released.clear()
    async with async_client.stream() as stream:
        task = asyncio.create_task(stream.open("sums"))
        await received(fake)
        task.cancel()
        fake.released.set()
        first = await stream.open("sums")
        second: AsyncSession = await stream.open("sums")

    assert {first.id, second.id} == set(fake.sessions)
    assert len(fake.deleted) == 1


async def test_an_operation_cancelled_before_it_is_sent_never_is(
    async_client: AsyncClient, fake: FakeServer
) -> None:
    """A task cancelled in the turn in which it began sends nothing."""
    async with async_client.stream() as stream:
        session = await stream.open("sums")
        task = asyncio.create_task(session.step(INPUTS))
        asyncio.get_running_loop().call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        await session.step(INPUTS)

    assert len(fake.chunks) == 1


async def test_an_answer_too_late(async_trying_once: AsyncClient, fake: FakeServer) -> None:
    """An operation of a stream fails when its timeout has passed, and others go on."""
    async with async_trying_once.stream() as stream:
        session = await stream.open("sums")
        fake.released.clear()
        with pytest.raises(TimedOut, match=r"did not answer in 0\.05 s"):
            await session.step(INPUTS, timeout_seconds=0.05)
        fake.released.set()
        info = await (await stream.open("sums")).describe()

    assert info.next_step == 0
