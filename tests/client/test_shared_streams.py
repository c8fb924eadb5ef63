"""The sessions of a client share a stream for each replica, and nobody notices but the clock."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntm.v1 import ntm_pb2 as pb
from ntm_client import (
    AsyncClient,
    Client,
    ClientClosed,
    Resume,
    StreamBroken,
    TimedOut,
    Unavailable,
    aio,
    shared_streams,
)
from ntm_client import blocking_operations as blocking
from ntm_client.blocking_operations import Operations
from ntm_client.chunks import MAX_CHUNKS_AT_ONCE
from ntm_client.conversion import model_from, session_from
from ntm_client.operations import SAFE_MESSAGE_BYTES, message_bytes, operation_of
from ntm_client.procedures import BaseSession
from tests.client.conftest import Running
from tests.client.fake_server import MODELS, Balancer, FakeServer, refuse, serve
from tests.e2e.calls import until
from tests.support.ports import free_port

INPUTS = np.arange(60, dtype=np.float32).reshape(20, 3)
SUMS = INPUTS.cumsum(0)


@pytest.fixture(autouse=True)
async def threads() -> AsyncIterator[None]:
    """Threads for all blocking calls of a test at once."""
    with ThreadPoolExecutor(32) as pool:
        asyncio.get_running_loop().set_default_executor(pool)
        yield


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams are replaced at once, but where a test says otherwise."""
    monkeypatch.setattr(shared_streams, "NEXT_SECONDS", 0.0)


async def made(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What a blocking or an asynchronous call returns."""
    if inspect.iscoroutinefunction(call):
        return await call(*arguments, **named)
    return await asyncio.to_thread(call, *arguments, **named)


def started(call: Callable[..., Any], *arguments: Any, **named: Any) -> asyncio.Task[Any]:
    """A blocking or an asynchronous call, which goes on."""
    return asyncio.create_task(made(call, *arguments, **named))


@pytest.fixture(params=[Client, AsyncClient])
def kind(request: pytest.FixtureRequest) -> Any:
    """Each kind of client."""
    return request.param


@pytest.fixture
async def client(running: Running, kind: Any) -> AsyncIterator[Any]:
    """A client of the fake that fails when the first attempt does, whatever stream breaks."""
    client = kind(running.address, timeout_seconds=20, resume=None)
    yield client
    running.fake.let_go()
    await made(client.close)


async def opened(client: Any, number: int) -> list[Any]:
    """So many sessions that share a stream: it is known where it leads."""
    sessions = [await made(client.create_session, "sums") for _ in range(number)]
    await made(sessions[0].step, np.zeros(3))
    return sessions


async def step_all(sessions: list[Any], *, times: int = 1) -> None:
    """Each makes steps of its own, together with the others; all outputs are right."""
    before = [session.next_step for session in sessions]

    async def step(number: int, session: Any) -> None:
        for turn in range(times):
            result = await made(session.step, np.full((2, 3), 1 + number))
            made_before = before[number] + 2 * turn
            assert result.first_step == made_before
            assert result.outputs[1, 0] - result.outputs[0, 0] == 1 + number

    await asyncio.gather(*(step(number, session) for number, session in enumerate(sessions)))


async def test_many_sessions_share_one_stream(client: Any, fake: FakeServer) -> None:
    """However many sessions step at once, there is one call."""
    sessions = await opened(client, 12)
    await step_all(sessions, times=5)

    assert fake.calls("StreamSteps") == 1
    assert fake.calls("Step") == 0
    assert sum(fake.message_sizes) == 1 + 12 * 5


async def test_sessions_join_once_it_is_known_where_the_stream_leads(
    client: Any, fake: FakeServer
) -> None:
    """Until its first answer, a stream has the steps of the session that it is routed by."""
    first, second = [await made(client.create_session, "sums") for _ in range(2)]
    fake.hold(first.id)
    stepping = started(first.step, INPUTS)
    await until(lambda: fake.arrived)
    assert np.array_equal((await made(second.step, INPUTS)).outputs, SUMS)
    assert (fake.calls("StreamSteps"), fake.calls("Step")) == (1, 1)
    fake.let_go()
    assert np.array_equal((await stepping).outputs, SUMS)
    await step_all([first, second])
    assert (fake.calls("StreamSteps"), fake.calls("Step")) == (1, 1)


async def test_what_tasks_begin_together_is_one_message(
    async_client: AsyncClient, fake: FakeServer
) -> None:
    """Steps that begin in one turn of the event loop leave together."""
    sessions = await opened(async_client, 10)
    fake.message_sizes.clear()
    await step_all(sessions)

    assert fake.message_sizes == [10]


class ByHand:
    """A stub whose one call is written and answered by the test."""

    def __init__(self) -> None:
        """Nothing is asked and answered yet."""
        self.messages: Iterator[pb.StreamStepsRequest]
        self.answers: SimpleQueue[pb.StreamStepsResponse | grpc.RpcError | None] = SimpleQueue()

    def StreamSteps(self, messages: Any, metadata: Any) -> Iterator[Any]:  # noqa: N802
        """The call."""
        self.messages = messages
        return self

    def __iter__(self) -> Iterator[pb.StreamStepsResponse]:
        return self

    def __next__(self) -> pb.StreamStepsResponse:
        answer = self.answers.get()
        if answer is None:
            self.answers.put(None)
            raise StopIteration
        assert isinstance(answer, pb.StreamStepsResponse)
        return answer

    def cancel(self) -> None:
        """End it."""
        self.answers.put(None)


@pytest.fixture
def by_hand() -> ByHand:
    """A call by hand."""
    return ByHand()


@pytest.fixture
def operations(by_hand: ByHand) -> Iterator[Operations]:
    """The operations of a call by hand."""
    operations = Operations(by_hand, (), "somewhere")  # type: ignore[arg-type]
    yield operations
    operations.close()


def step_of(session: str, size: int = 0) -> pb.Operation:
    """A chunk."""
    return pb.Operation(step=pb.Chunk(session_id=session, inputs=bytes(size)))


def answer_to(*tags: int) -> pb.StreamStepsResponse:
    """A message with the replies to these."""
    outcomes = [pb.Outcome(tag=tag, reply=pb.Reply(next_step=tag)) for tag in tags]
    return pb.StreamStepsResponse(outcomes=outcomes, replica="somewhere")


def test_what_threads_begin_during_a_write_is_one_message(
    by_hand: ByHand, operations: Operations
) -> None:
    """A lone step leaves at once, and those that begin until gRPC takes the next one together."""
    operations.begin(step_of("1"))
    assert [one.tag for one in next(by_hand.messages).operations] == [1]
    for _ in range(3):
        operations.begin(step_of("1"))
    assert [one.tag for one in next(by_hand.messages).operations] == [2, 3, 4]


def test_messages_hold_no_more_than_fits(by_hand: ByHand, operations: Operations) -> None:
    """What is together larger than a message goes in several, in order."""
    for _ in range(5):
        operations.begin(step_of("1", 30_000))
    tags = [[one.tag for one in next(by_hand.messages).operations] for _ in range(3)]
    assert tags == [[1, 2], [3, 4], [5]]


def test_what_is_given_up_before_it_is_sent_is_not_sent(
    by_hand: ByHand, operations: Operations
) -> None:
    """A chunk that nobody waits for any more leaves no trace, but for the cancellation."""
    first, _ = operations.begin(step_of("1")), operations.begin(step_of("1"))
    operations.cancel(first)
    sent = next(by_hand.messages).operations
    assert [one.tag for one in sent if one.HasField("step")] == [2]
    by_hand.answers.put(answer_to(2))


def rest(by_hand: ByHand) -> list[list[pb.Operation]]:
    """The operations of the messages that are left; they have to end soon."""
    left: list[list[pb.Operation]] = []
    reading = threading.Thread(
        target=lambda: left.extend(list(each.operations) for each in by_hand.messages)
    )
    reading.start()
    reading.join(10)
    assert not reading.is_alive()
    return left


def test_what_is_left_on_a_stream_that_ends_can_be_cancelled(
    by_hand: ByHand, operations: Operations
) -> None:
    """Messages go on until all is answered, and then end."""
    first, second = operations.begin(step_of("1")), operations.begin(step_of("1"))
    assert len(next(by_hand.messages).operations) == 2
    operations.end()
    operations.cancel(first)
    assert [one.cancel for one in next(by_hand.messages).operations] == [first.tag]
    by_hand.answers.put(answer_to(first.tag, second.tag))
    assert rest(by_hand) == []


def test_a_stream_on_which_nothing_is_left_ends_at_once(
    by_hand: ByHand, operations: Operations
) -> None:
    """The server sees the end of the messages."""
    pending = operations.begin(step_of("1"))
    assert len(next(by_hand.messages).operations) == 1
    by_hand.answers.put(answer_to(pending.tag))
    operations.answer(pending, 10)
    operations.end()
    assert rest(by_hand) == []


def test_a_stream_ends_whose_last_operation_was_never_sent(
    by_hand: ByHand, operations: Operations
) -> None:
    """It was given up, after all others were answered."""
    first = operations.begin(step_of("1"))
    assert len(next(by_hand.messages).operations) == 1
    second = operations.begin(step_of("1"))
    operations.end()
    operations.cancel(second)
    by_hand.answers.put(answer_to(first.tag))
    assert first.answered.acquire(timeout=10)
    assert [[one.cancel for one in message] for message in rest(by_hand)] == [[second.tag]]


def test_nothing_begins_on_a_stream_that_has_ended(by_hand: ByHand, operations: Operations) -> None:
    """It would never be answered."""
    operations.end()
    with pytest.raises(StreamBroken, match="the stream was closed"):
        operations.begin(step_of("1"))
    assert rest(by_hand) == []


async def test_a_server_of_an_earlier_release_gets_calls(client: Any, fake: FakeServer) -> None:
    """Servers that do not name themselves are stepped as before."""
    fake.replica = ""
    sessions = await opened(client, 3)
    await step_all(sessions, times=2)
    result = await made(sessions[0].step, np.ones((1100, 3)))

    assert result.first_step + len(result.outputs) == 1 + 4 + 1100
    assert fake.calls("StreamSteps") == 0
    assert fake.calls("Step") == 1 + 6 + 5


@contextmanager
def balanced(*replicas: FakeServer) -> Iterator[tuple[str, Balancer]]:
    """The address of a balancer before these."""
    balancer, address = Balancer(*replicas), f"127.0.0.1:{free_port()}"
    stop = serve(balancer, address)
    try:
        yield address, balancer
    finally:
        for replica in replicas:
            replica.let_go()
        stop()


async def test_each_replica_has_a_stream(kind: Any) -> None:
    """Behind a balancer, sessions of one replica share a stream that leads there."""
    replicas = [FakeServer("one"), FakeServer("two")]
    with balanced(*replicas) as (address, balancer):
        client = kind(address, resume=None)
        sessions = [await made(client.create_session, "sums") for _ in range(8)]
        for session in sessions[1:3]:
            await made(session.step, np.ones(3))
        await step_all(sessions, times=3)
        await made(client.close)

        for replica in replicas:
            assert len(replica.sessions) > 2
            assert replica.calls("StreamSteps") == 1
            assert replica.calls("Step") == 0
            (route,) = [name for method, name in replica.routes if method == "StreamSteps"]
            assert balancer.of[route] is replica


async def test_a_stream_that_leads_elsewhere_is_not_joined(kind: Any) -> None:
    """
    Where a balancer brings a stream to another replica than its session's, only the sessions of
    that replica join it.
    """
    one, two = FakeServer("one"), FakeServer("two")
    two.sessions = one.sessions  # as with a store
    with balanced(one, two) as (address, balancer):
        balancer.of_streams = two
        client = kind(address, resume=None)
        sessions = [await made(client.create_session, "sums") for _ in range(6)]
        of_one = [each for each in sessions if balancer.of[each.id] is one]
        of_two = [each for each in sessions if balancer.of[each.id] is two]
        await made(of_one[0].step, np.ones(3))
        assert two.calls("StreamSteps") == 1
        assert of_one[0].replica == "two"
        balancer.of_streams = None
        await step_all(of_one[1:])
        await step_all(of_one[1:])
        await step_all(of_two, times=2)
        await step_all(of_one[1:])
        assert (two.calls("StreamSteps"), two.calls("Step")) == (1, 0), "they join it"
        await made(client.close)

        assert one.calls("StreamSteps") == 1
        assert ("StreamSteps", of_one[1].id) in one.routes


def lost_before(fake: FakeServer) -> None:
    """The next message is lost."""
    fake.losses.append("before")


def lost_after(fake: FakeServer) -> None:
    """The next message is lost after its chunks were made."""
    fake.losses.append("after")


def broken(fake: FakeServer) -> None:
    """Streams break by an error of the server or of a proxy."""
    fake.abort_streams = True


def not_let_in(fake: FakeServer) -> None:
    """Streams end as those whose token has expired."""
    fake.abort_streams, fake.abort_code = True, grpc.StatusCode.UNAUTHENTICATED


def unknown_there(fake: FakeServer) -> None:
    """Streams are refused by a proxy that knows only calls."""
    fake.abort_streams, fake.abort_code = True, grpc.StatusCode.UNIMPLEMENTED


def ended(fake: FakeServer) -> None:
    """Streams are ended."""
    fake.end_streams = True


BREAKING = [lost_before, lost_after, broken, not_let_in, unknown_there, ended]


@pytest.mark.parametrize("is_new", [False, True], ids=["begun", "new"])
@pytest.mark.parametrize("break_it", BREAKING)
async def test_a_stream_that_breaks_costs_nothing(
    client: Any, fake: FakeServer, break_it: Callable[[FakeServer], None], is_new: bool
) -> None:
    """Also without resuming, all steps are made, once, by calls."""
    sessions = [await made(client.create_session, "sums") for _ in range(6)]
    if not is_new:
        await made(sessions[0].step, np.zeros(3))
        await step_all(sessions)
    break_it(fake)
    await made(sessions[0].step, np.zeros(3))
    await step_all(sessions, times=3)
    result = await made(sessions[0].step, INPUTS)

    assert np.array_equal(result.outputs - result.outputs[0], SUMS - SUMS[0])
    assert all(session.resumptions == 0 for session in sessions)
    assert fake.calls("Step") > 0


async def test_a_long_input_goes_on_when_its_stream_breaks(client: Any, fake: FakeServer) -> None:
    """Chunks that were sent ahead are made once, whichever of them the server had made."""
    client.own_limits = type(client.own_limits)(chunk_steps=2)
    session = await made(client.create_session, "sums")
    for kind in ["", "after", "before"]:
        fake.losses += ["", "", kind]
        result = await made(session.step, INPUTS)
        assert np.array_equal(result.outputs - result.outputs[0], SUMS - SUMS[0])
        assert result.first_step + 20 == session.next_step == len(fake.sessions[session.id].inputs)


async def test_a_new_token_begins_another_stream(running: Running, kind: Any) -> None:
    """A token function's next token is sent from the next step on; the old stream ends."""
    fake, tokens = running.fake, ["first"]
    fake.token = "first"
    client = kind(running.address, resume=None, token=lambda: tokens[0])
    sessions = await opened(client, 3)
    tokens[0] = fake.token = "second"
    await made(sessions[0].step, np.ones(3))
    await step_all(sessions)
    assert fake.calls("StreamSteps") == 2
    await until(lambda: fake.ended == 1)
    assert fake.calls("Step") == 0
    await made(client.close)


async def test_a_token_for_each_call(
    running: Running, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token function may give another token each time; then steps are calls, not streams."""
    monkeypatch.setattr(shared_streams, "NEXT_SECONDS", 1000.0)
    tokens = iter(map(str, range(10_000)))
    client = kind(running.address, resume=None, token=lambda: next(tokens))
    sessions = await opened(client, 3)
    await step_all(sessions, times=3)
    assert running.fake.calls("StreamSteps") == 1
    assert running.fake.calls("Step") == 9
    await made(client.close)


async def test_a_proxy_that_knows_only_calls(
    client: Any, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where streams are never answered, few are begun."""
    monkeypatch.setattr(shared_streams, "NEXT_SECONDS", 1000.0)
    unknown_there(fake)
    sessions = [await made(client.create_session, "sums") for _ in range(3)]
    await made(sessions[0].step, np.zeros(3))
    await step_all(sessions, times=3)
    assert (fake.calls("StreamSteps"), fake.calls("Step")) == (1, 10)
    monkeypatch.setattr(shared_streams, "NEXT_SECONDS", 0.0)
    fake.abort_streams = False
    await made(sessions[0].step, np.zeros(3))
    await step_all(sessions)
    assert (fake.calls("StreamSteps"), fake.calls("Step")) == (2, 10)


async def test_a_token_that_expires_during_a_step(running: Running, kind: Any) -> None:
    """The stream is refused, and a call with the next token makes the step."""
    fake = running.fake
    fake.token = "first"
    client = kind(running.address, resume=None, token=lambda: fake.token)
    (session,) = await opened(client, 1)
    fake.hold(session.id)
    stepping = started(session.step, INPUTS)
    await until(lambda: len(fake.arrived) == 2)
    fake.token = "second"
    not_let_in(fake)
    fake.let_go()
    assert np.array_equal((await stepping).outputs, SUMS)
    assert fake.calls("Step") == 1
    await made(client.close)


async def test_a_server_that_dies_fails_steps_as_it_fails_calls(
    client: Any, running: Running
) -> None:
    """The errors are those of calls, and name no stream."""
    sessions = await opened(client, 3)
    running.fake.hold(*(session.id for session in sessions))
    stepping = [started(session.step, INPUTS) for session in sessions]
    await until(lambda: len(running.fake.arrived) == 4)
    running.fake.losses.extend(["before"] * 99)
    stopping = asyncio.create_task(asyncio.to_thread(running.stop))
    errors = await asyncio.gather(*stepping, return_exceptions=True)
    await stopping
    assert {type(error) for error in errors} <= {Unavailable, *Unavailable.__subclasses__()}
    assert not any("stream" in str(error) for error in errors)
    with pytest.raises(Unavailable) as raised:
        await made(sessions[0].step, INPUTS)
    assert "stream" not in str(raised.value)


@pytest.mark.parametrize("others_first", [False, True])
async def test_a_step_that_takes_too_long_is_cancelled(
    client: Any, fake: FakeServer, others_first: bool
) -> None:
    """
    It fails after its own time and is not made, and the others that wait on the stream go on,
    whichever of them reads.
    """
    late, *others = await opened(client, 4)
    fake.hold(*(each.id for each in (late, *others)))
    if others_first:
        stepping = [started(session.step, INPUTS) for session in others]
        await until(lambda: len(fake.arrived) == 4)
    timing_out = started(late.step, INPUTS, timeout_seconds=0.3)
    if not others_first:
        await until(lambda: len(fake.arrived) == 2)
        stepping = [started(session.step, INPUTS) for session in others]
    with pytest.raises(TimedOut, match=r"did not answer in 0\.3 s; allow more"):
        await timing_out
    await until(lambda: fake.cancelled or fake.ended)
    fake.let_go()
    for result in await asyncio.gather(*stepping):
        assert np.array_equal(result.outputs, SUMS)
    assert (await made(late.describe)).next_step == 1
    assert np.array_equal((await made(late.step, INPUTS)).outputs, SUMS)


async def test_short_and_long_times_on_one_stream(client: Any, fake: FakeServer) -> None:
    """Of many that wait, those with short times fail, each after its own, and no others do."""
    sessions = await opened(client, 12)
    fake.hold(*(each.id for each in sessions[1:]))
    times = [20 if number % 3 == 0 else 0.1 * number for number in range(1, 12)]
    stepping = [
        started(session.step, INPUTS, timeout_seconds=seconds)
        for session, seconds in zip(sessions[1:], times, strict=True)
    ]
    for task, seconds in zip(stepping, times, strict=True):
        if seconds < 20:
            with pytest.raises(TimedOut, match="did not answer in"):
                await task
    await until(lambda: len(fake.cancelled) + fake.ended >= 8 - fake.calls("Step"))
    fake.let_go()
    for task, seconds in zip(stepping, times, strict=True):
        if seconds == 20:
            assert np.array_equal((await task).outputs, SUMS)
    for session in sessions:
        await made(session.describe)
    await step_all(sessions)


async def test_a_stream_that_is_left_ends_after_its_last_answer(
    client: Any, fake: FakeServer
) -> None:
    """What waits on it is answered on it, and the server then sees its end."""
    (session,) = await opened(client, 1)
    fake.hold(session.id)
    stepping = started(session.step, INPUTS)
    await until(lambda: len(fake.arrived) == 2)
    client._shared.end()
    fake.let_go()
    assert np.array_equal((await stepping).outputs, SUMS)
    await until(lambda: fake.ended == 1)
    assert (fake.calls("StreamSteps"), fake.calls("Step")) == (1, 0)


def test_a_chunk_that_finds_its_stream_ended_is_a_call(running: Running) -> None:
    """Another thread may end a stream once it was found; the step is made all the same."""
    with Client(running.address, timeout_seconds=20, resume=None) as client:
        session = client.create_session("sums")
        session.step(np.zeros(3))
        find: Callable[[BaseSession], Operations | None] = client._shared.of

        def found(session: BaseSession) -> Operations | None:
            if stream := find(session):
                stream.end()
            return stream

        client._shared.of = found  # type: ignore[method-assign]
        assert np.array_equal(session.step(INPUTS).array, SUMS)
        assert (running.fake.calls("StreamSteps"), running.fake.calls("Step")) == (1, 1)


async def test_a_task_that_is_cancelled_cancels_its_chunk(
    async_client: AsyncClient, fake: FakeServer
) -> None:
    """The server is told, makes no step of it, and the others on the stream go on."""
    gone, other = await opened(async_client, 2)
    fake.hold(gone.id, other.id)
    stepping = [started(each.step, INPUTS) for each in (gone, other)]
    await until(lambda: len(fake.arrived) == 3)
    stepping[0].cancel()
    await until(lambda: len(fake.cancelled) == 1)
    fake.let_go()
    assert np.array_equal((await stepping[1]).outputs, SUMS)
    assert stepping[0].cancelled()
    assert (await gone.describe()).next_step == 1
    assert fake.calls("StreamSteps") == 1


async def test_all_chunks_of_a_cancelled_task_are_cancelled(
    async_client: AsyncClient, fake: FakeServer
) -> None:
    """Those that were sent ahead too."""
    async_client.own_limits = type(async_client.own_limits)(chunk_steps=2)
    (gone,) = await opened(async_client, 1)
    fake.hold(gone.id)
    stepping = started(gone.step, INPUTS)
    await until(lambda: len(fake.arrived) == 1 + MAX_CHUNKS_AT_ONCE)
    stepping.cancel()
    await until(lambda: len(fake.cancelled) == MAX_CHUNKS_AT_ONCE)
    fake.let_go()
    assert (await gone.describe()).next_step == 1


async def test_closing_a_client_fails_all_that_wait(running: Running, kind: Any) -> None:
    """Each of many steps that wait ends with the error that says so."""
    client = kind(running.address, resume=None)
    sessions = await opened(client, 5)
    running.fake.hold(*(each.id for each in sessions))
    stepping = [started(each.step, INPUTS) for each in sessions]
    await until(lambda: len(running.fake.arrived) == 6)
    await made(client.close)
    for error in await asyncio.gather(*stepping, return_exceptions=True):
        assert isinstance(error, ClientClosed)
    with pytest.raises(ClientClosed):
        await made(sessions[0].step, INPUTS)


def streams_of_threads() -> list[threading.Thread]:
    """The threads of blocking streams."""
    return [each for each in threading.enumerate() if each.name == "ntm-stream"]


async def test_a_client_that_is_dropped_leaves_no_threads(running: Running) -> None:
    """Also without `close`."""
    client = Client(running.address)
    sessions = await opened(client, 3)
    await step_all(sessions)
    assert len(streams_of_threads()) == 1
    del client, sessions
    gc.collect()
    await until(lambda: running.fake.ended == 1)
    await until(lambda: not streams_of_threads())


async def test_an_idle_stream_ends_and_another_begins(
    running: Running, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that does nothing for a while has no stream, and the next step begins one."""
    monkeypatch.setattr(blocking, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(aio, "IDLE_SECONDS", 0.05)
    fake = running.fake
    client = kind(running.address, resume=None)
    sessions = await opened(client, 2)
    await until(lambda: fake.ended == 1)
    await until(lambda: not streams_of_threads())
    await made(sessions[0].step, np.zeros(3))
    assert fake.calls("StreamSteps") == 2
    await made(client.close)


async def test_a_stream_with_a_step_is_not_idle(
    running: Running, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that takes longer than a stream may be idle is answered on the stream."""
    monkeypatch.setattr(blocking, "IDLE_SECONDS", 0.02)
    monkeypatch.setattr(aio, "IDLE_SECONDS", 0.02)
    fake = running.fake
    client = kind(running.address, resume=None)
    session = await made(client.create_session, "sums")
    fake.hold(session.id)
    stepping = started(session.step, INPUTS)
    await until(lambda: fake.arrived)
    await asyncio.sleep(0.1)  # for the code to do what it must not do
    stream = next(iter(client._shared._shared.values())).stream
    assert stream.broken is None
    fake.let_go()
    assert np.array_equal((await stepping).outputs, SUMS)
    assert (fake.calls("StreamSteps"), fake.calls("Step")) == (1, 0)
    await made(client.close)


@pytest.mark.parametrize(
    ("limits", "at_once"),
    [
        ({}, MAX_CHUNKS_AT_ONCE),
        ({"max_replay_bytes": 2 * 5 * 12}, 2),  # chunks of five steps, outputs of 12 bytes
        ({"max_replay_bytes": 0}, 1),
        ({"max_waiting_steps": 15}, 3),
        ({"max_waiting_steps": 3}, 1),
    ],
)
async def test_long_inputs_are_sent_ahead(
    client: Any, fake: FakeServer, limits: dict[str, int], at_once: int
) -> None:
    """As many chunks are on their way as the server keeps and queues, in order, each once."""
    for name, limit in limits.items():
        setattr(fake, name, limit)
    client.own_limits = type(client.own_limits)(chunk_steps=5)
    (session,) = await opened(client, 1)
    fake.arrived.clear()
    fake.hold(session.id)
    inputs = np.ones((200, 3), np.float32)
    stepping = started(session.step, inputs)
    await until(lambda: len(fake.arrived) == at_once)
    fake.let_go()
    result = await stepping

    assert np.array_equal(result.outputs, inputs.cumsum(0))
    assert fake.most_unanswered == at_once
    firsts = [chunk.first_step for chunk in fake.arrived]
    assert firsts == sorted(set(firsts))
    assert fake.calls("Step") == 0


async def test_a_session_is_routed_by_itself_after_a_while(client: Any, fake: FakeServer) -> None:
    """
    A call asks its balancer where it belongs, also amid a long input: once nothing is ahead of it.
    """
    client.own_limits = type(client.own_limits)(chunk_steps=2)
    (session,) = await opened(client, 1)
    session.routed_seconds -= 300  # five minutes
    await made(session.step, np.zeros(3))
    assert fake.calls("Step") == 1
    fake.hold(session.id)
    stepping = started(session.step, INPUTS)
    await until(lambda: len(fake.arrived) == 1 + MAX_CHUNKS_AT_ONCE)
    session.routed_seconds -= 300  # five minutes
    fake.let_go()
    assert np.array_equal((await stepping).outputs, SUMS)
    assert fake.calls("Step") == 2
    firsts = [chunk.first_step for chunk in fake.chunks]
    assert firsts == sorted(set(firsts))


async def test_with_large_traces_one_chunk_is_on_its_way(client: Any, fake: FakeServer) -> None:
    """The server could not give their replies again after a loss."""
    fake.max_replay_bytes = 5 * 2 * (3 * 4 + 8 * 4) - 1
    client.own_limits = type(client.own_limits)(chunk_steps=5)
    (session,) = await opened(client, 1)
    result = await made(session.step, INPUTS, traces=["read_weighting"])

    assert np.array_equal(result.outputs, SUMS)
    assert result.traces["read_weighting"].shape == (20, 1, 8)
    assert fake.most_unanswered == 1


@pytest.mark.parametrize(
    ("failure", "is_raised"),
    [
        (refuse(14, "DRAINING"), False),
        (refuse(14, "NOT_STORED"), False),
        (refuse(8, "CAPACITY_EXCEEDED"), True),
    ],
)
@pytest.mark.parametrize("number", [1, 3])
async def test_a_chunk_in_the_middle_that_fails(
    running: Running, kind: Any, failure: Any, is_raised: bool, number: int
) -> None:
    """
    Those before stay made, none after it is made before it, and it goes on there: by itself, or
    when the user steps again.
    """
    fake = running.fake
    client = kind(running.address, chunk_steps=2)
    session = await made(client.create_session, "sums")
    fake.failures += [*[None] * number, failure]
    if is_raised:
        with pytest.raises(type(None) if not is_raised else Exception, match="refused"):
            await made(session.step, INPUTS)
        assert session.next_step == 2 * number
        result = await made(session.step, INPUTS[2 * number :])
        assert np.array_equal(result.outputs, SUMS[2 * number :])
    else:
        assert np.array_equal((await made(session.step, INPUTS)).outputs, SUMS)
    await made(client.close)


async def test_after_a_failure_chunks_are_sent_ahead_again_in_order(
    running: Running, kind: Any
) -> None:
    """One failure is one interruption, and does not slow the rest of a long input down."""
    fake = running.fake
    client = kind(running.address, chunk_steps=2)
    session = await made(client.create_session, "sums")
    inputs = np.ones((400, 3), np.float32)
    fake.failures += [None, refuse(14, "DRAINING")]
    result = await made(session.step, inputs)
    await made(client.close)

    assert np.array_equal(result.outputs, inputs.cumsum(0))
    asked = [chunk.first_step for chunk in fake.chunks]
    # Only what had been sent ahead of the failure arrives twice.
    assert len(asked) <= 200 + MAX_CHUNKS_AT_ONCE
    assert asked[10:] == sorted(asked[10:])


async def test_limits_that_change_in_between(running: Running, kind: Any) -> None:
    """A replica that takes smaller chunks gets smaller ones from then on, ahead as well."""
    fake = running.fake
    client = kind(running.address, chunk_steps=5, resume=None)
    (session,) = await opened(client, 1)
    fake.max_chunk_steps = 3
    assert np.array_equal((await made(session.step, INPUTS)).outputs, SUMS)
    sizes = [len(chunk.inputs) // 12 for chunk in fake.chunks]
    assert sizes[-6:] == [3, 3, 3, 3, 3, 3] or sizes[-7:] == [3, 3, 3, 3, 3, 3, 2]
    await made(client.close)


def test_large_messages_only_where_the_limit_is_known() -> None:
    """A message that a replica might refuse would end the stream; a chunk that large is a call."""
    fake = FakeServer("one")
    fake.max_message_bytes = 100_000
    info = session_from(fake.open(pb.CreateSessionRequest(model="sums")))
    session = BaseSession(model_from(MODELS["sums"]), info)
    assert message_bytes(session, "one") == 100_000
    assert message_bytes(session, "another") == SAFE_MESSAGE_BYTES
    assert message_bytes(session, "") == SAFE_MESSAGE_BYTES

    request = pb.StepRequest(chunk=pb.Chunk(inputs=bytes(70_000)))
    assert operation_of(request, message_bytes(session, "one")) is not None
    assert operation_of(request, message_bytes(session, "another")) is None


async def test_a_large_chunk_travels_on_the_stream(client: Any, fake: FakeServer) -> None:
    """It is larger than what every server takes, and this one is known to take it."""
    fake.max_chunk_steps = fake.max_waiting_steps = 10_000
    fake.step = lambda chunk: pb.Reply(  # type: ignore[method-assign]
        first_step=chunk.first_step,
        next_step=chunk.first_step + len(chunk.inputs) // 12,
        outputs=chunk.inputs,
    )
    client.own_limits = type(client.own_limits)(chunk_steps=10_000)
    (session,) = await opened(client, 1)
    inputs = np.arange(30_000, dtype=np.float32).reshape(10_000, 3)
    assert np.array_equal((await made(session.step, inputs)).outputs, inputs)
    assert (fake.calls("StreamSteps"), fake.calls("Step")) == (1, 0)
    assert [len(chunk.inputs) for chunk in fake.arrived] == [12, 120_000]


def wait_until(condition: Callable[[], object]) -> None:
    """As `until`, for threads."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("is_reader", [True, False])
def test_an_interrupt_cancels_the_chunk(running: Running, is_reader: bool) -> None:
    """Ctrl-C in a thread that waits, whether it reads or another does; the others go on."""
    fake = running.fake
    with Client(running.address, timeout_seconds=20, resume=None) as client:
        mine, other = client.create_session("sums"), client.create_session("sums")
        mine.step(np.zeros(3))
        other.step(np.zeros(3))
        fake.hold(mine.id, other.id)
        results: list[Any] = []
        others = threading.Thread(target=lambda: results.append(other.step(INPUTS)))

        def interrupt() -> None:
            wait_until(lambda: mine.id in {chunk.session_id for chunk in fake.arrived[2:]})
            if is_reader:
                others.start()
                wait_until(lambda: len(fake.arrived) == 4)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        if not is_reader:
            others.start()
            wait_until(lambda: len(fake.arrived) == 3)
        interrupting = threading.Thread(target=interrupt)
        interrupting.start()
        with pytest.raises(KeyboardInterrupt):
            mine.step(INPUTS)
        interrupting.join()
        wait_until(lambda: fake.ended if is_reader else fake.cancelled)
        fake.let_go()
        others.join()

        assert np.array_equal(results[0].outputs, SUMS)
        assert mine.describe().next_step == 1
        assert np.array_equal(mine.step(INPUTS).array, SUMS)
        assert fake.calls("StreamSteps") == (2 if is_reader else 1)


FORKING = """
import os, sys
import numpy as np
from ntm_client import Client

client = Client(sys.argv[1], timeout_seconds=20)
session = client.create_session("sums")
session.step(np.ones(3))
child = os.fork()
if child == 0:
    if sys.argv[2] == "new":
        client = Client(sys.argv[1], timeout_seconds=20)
        session = client.create_session("sums")
        session.step(np.ones(3))
    assert session.step(np.ones(3)).outputs.tolist() == [2, 2, 2]
    assert session.step(np.ones(3)).outputs.tolist() == [3, 3, 3]
    client.close()
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
session.describe()
assert session.step(np.ones(3)).outputs[0] == (2 if sys.argv[2] == "new" else 4)
client.close()
print("both went on")
"""


@pytest.mark.parametrize("which", ["old", "new"])
async def test_a_process_may_fork(running: Running, which: str) -> None:
    """
    The child steps with a client that was made before, or with another, and both go on. gRPC
    promises it with its support of forks only: else a thread that is in gRPC may spoil the child.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FORKING, running.address, which),
        env={**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        output, errors = await process.communicate()
    assert output == b"both went on\n", errors.decode()


def test_streams_do_not_wait_for_a_lock_of_before_a_fork(running: Running) -> None:
    """A thread of the parent that held the lock is not in the child to release it."""
    with Client(running.address) as client:
        session = client.create_session("sums")
        session.step(np.zeros(3))
        shared = client._shared
        with shared._lock:
            shared._process = -1
            shared.end()
            assert client.begin(session, pb.StepRequest()) is None
            shared._process = os.getpid()


async def test_streams_that_are_never_answered_are_given_up(client: Any, fake: FakeServer) -> None:
    """
    A server that is connected and dead holds no call for each step that timed out, once nobody
    waits for anything on its stream.
    """
    sessions = await opened(client, 3)
    fake.released.clear()
    for _ in range(3):
        stepping = [started(each.step, INPUTS, timeout_seconds=0.1) for each in sessions]
        for error in await asyncio.gather(*stepping, return_exceptions=True):
            assert isinstance(error, TimedOut)
    await until(lambda: not streams_of_threads())
    await until(lambda: fake.ended == fake.calls("StreamSteps"))
    fake.released.set()


def test_a_stream_that_goes_on_for_nobody_is_cancelled(
    by_hand: ByHand, operations: Operations
) -> None:
    """It was to end after its last answer, which nobody waits for and which may never come."""
    pending = operations.begin(step_of("1"))
    assert next(by_hand.messages)
    operations.end()
    operations.cancel(pending)
    operations._own.join(10)
    assert not operations._own.is_alive()


async def test_a_step_has_its_time_once(client: Any, fake: FakeServer) -> None:
    """A call after a stream that broke has what is left of the step's time."""
    given: list[float] = []
    call = client.call

    def calling(request: Any, seconds: float) -> Any:
        given.append(seconds)
        return call(request, seconds)

    (session,) = await opened(client, 1)
    client.call = calling
    fake.hold(session.id)
    stepping = started(session.step, INPUTS, timeout_seconds=15)
    await until(lambda: len(fake.arrived) == 2)
    await asyncio.sleep(0.1)  # of its time
    fake.end_streams = True
    fake.let_go()
    assert np.array_equal((await stepping).outputs, SUMS)
    (left,) = given
    assert 0 < left < 14.95


def test_a_client_may_be_collected_anywhere(by_hand: ByHand, operations: Operations) -> None:
    """Also in a thread that is just beginning something on its stream."""
    with operations._lock:
        operations.end()
    assert operations.broken is not None


def test_answers_that_nobody_waits_for_are_read(
    by_hand: ByHand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operation whose thread was interrupted before it waited does not keep its stream."""
    monkeypatch.setattr(blocking, "IDLE_SECONDS", 0.01)
    operations = Operations(by_hand, (), "somewhere")  # type: ignore[arg-type]
    pending = operations.begin(step_of("1"))
    assert len(next(by_hand.messages).operations) == 1
    by_hand.answers.put(answer_to(pending.tag))
    assert list(by_hand.messages) == []
    by_hand.answers.put(None)
    operations._own.join(10)
    assert not operations._own.is_alive()


RESUMING = Resume(seconds=20, first_backoff_seconds=0.001, largest_backoff_seconds=0.002)

Faults = list[tuple[str, Any]]

FAULTS: list[tuple[str, Any]] = [
    ("loss", ""),
    ("loss", "before"),
    ("loss", "after"),
    ("failure", None),
    ("failure", (14, "DRAINING")),
    ("failure", (14, "NOT_STORED")),
    ("failure", (5, "SESSION_MOVED")),
]


async def stepped_together(
    client: Any, fake: FakeServer, plans: list[list[int]], faults: Faults
) -> None:
    """Each session steps as planned while these faults are met, and each output is right."""
    sessions = [await made(client.create_session, "sums") for _ in plans]
    for what, fault in faults:
        if what == "loss":
            fake.losses.append(fault)
        else:
            fake.failures.append(refuse(*fault) if fault else None)

    async def step(number: int, plan: list[int]) -> None:
        total = np.zeros(3)
        for steps in plan:
            inputs = np.random.default_rng([number, steps]).integers(-9, 9, (steps, 3))
            result = await made(sessions[number].step, inputs)
            assert np.array_equal(result.outputs, total + inputs.cumsum(0))
            total = total + inputs.sum(0)
        assert sessions[number].next_step == sum(plan)
        assert len(fake.sessions[sessions[number].id].inputs) == sum(plan)

    await asyncio.gather(*(step(number, plan) for number, plan in enumerate(plans)))
    fake.losses.clear()
    fake.failures.clear()


def test_whatever_breaks_each_step_is_made_once(running: Running, kind: Any) -> None:
    """
    Threads or tasks with a session each, on one stream, between losses of messages, of calls and
    of answers: each output is the sum of the inputs so far, each once.
    """

    async def opening() -> Any:
        return kind(running.address, resume=RESUMING, chunk_steps=3)

    with asyncio.Runner() as runner, ThreadPoolExecutor(8) as pool:
        runner.get_loop().set_default_executor(pool)
        client = runner.run(opening())

        @settings(max_examples=40, deadline=None)
        @given(
            st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=4), min_size=1, max_size=5),
            st.lists(st.sampled_from(FAULTS), max_size=12),
        )
        def check(plans: list[list[int]], faults: Faults) -> None:
            runner.run(stepped_together(client, running.fake, plans, faults))

        check()
        runner.run(made(client.close))
