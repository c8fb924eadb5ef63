"""The multiplexed stream over a real channel."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import numpy as np
import pytest

from ntm.v1 import ntm_pb2 as pb
from service.rpc.calls import Calls
from tests.conftest import Running, Serve
from tests.e2e.calls import Stream, chunk, opened, outputs, packed, raw, reason, stepped, until


def step(tag: int, session: str, inputs: list[list[float]], **more: object) -> pb.Operation:
    """A chunk as an operation."""
    return pb.Operation(tag=tag, step=chunk(session, inputs, **more))  # type: ignore[arg-type]


async def test_sessions_are_opened_stepped_and_closed_on_one_stream(running: Running) -> None:
    """
    Sessions are opened, stepped and closed on one stream; outcomes have their operations' tags.
    """
    stream = Stream(running)
    first, second = await stream.opened(), await stream.opened(locations=5)
    await stream.send(
        step(1, first, [[1, 1]]),
        step(2, second, [[2, 2]] * 2),
        pb.Operation(tag=3, close=first),
        step(4, second, [[3, 3]]),
    )
    outcomes = {outcome.tag: outcome for outcome in await stream.rest()}
    assert outputs(outcomes[1].reply).tolist() == [[1, 1]]
    assert outputs(outcomes[2].reply).tolist() == [[2, 2], [4, 4]]
    assert outcomes[3].closed == first
    assert outputs(outcomes[4].reply).tolist() == [[7, 7]]
    assert (await stepped(running, second, [[1, 1]])).tolist() == [[8, 8]]


async def test_outcomes_of_a_session_come_in_order_with_its_errors(running: Running) -> None:
    """An error takes its place among the replies, and the stream goes on."""
    stream = Stream(running)
    session = await stream.opened()
    await stream.send(
        step(1, session, [[1, 1]] * 50),
        pb.Operation(tag=2, step=pb.Chunk(session_id=session, inputs=b"abc")),
        pb.Operation(tag=3, step=pb.Chunk(session_id=session, inputs=packed([[1]]))),
        step(4, session, [[1, 1]], first_step=7),
        step(5, session, [[1, 1]], first_step=50),
        pb.Operation(tag=6, close=session),
        step(7, session, [[1, 1]]),
    )
    outcomes = await stream.rest()
    assert [
        (outcome.tag, outcome.WhichOneof("kind"), outcome.error.reason) for outcome in outcomes
    ] == [
        (1, "reply", ""),
        (2, "error", "INVALID_REQUEST"),
        (3, "error", "INVALID_REQUEST"),
        (4, "error", "STEP_INDEX_MISMATCH"),
        (5, "reply", ""),
        (6, "closed", ""),
        (7, "error", "SESSION_DELETED"),
    ]
    assert running.metric("ntm_errors_total", reason="INVALID_REQUEST") == 2


async def test_an_empty_operation_and_a_refused_opening_are_answered(serve: Serve) -> None:
    """
    Empty operations and refused openings are answered on the stream with code, reason and delay.
    """
    async with serve(max_sessions=1) as running:
        stream = Stream(running)
        await stream.opened()
        await stream.send(
            pb.Operation(tag=8), pb.Operation(tag=9, open=pb.CreateSessionRequest(model="ledger"))
        )
        outcomes = {outcome.tag: outcome.error for outcome in await stream.rest()}
        assert outcomes[8].code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert outcomes[9].code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert outcomes[9].retry_delay.ToSeconds() == 1


async def test_a_slow_session_does_not_hold_back_another(running: Running) -> None:
    """A short chunk sent behind a long one of another session is answered first."""
    stream = Stream(running)
    slow, quick = await stream.opened(), await stream.opened()
    await stream.send(step(1, slow, [[1, 1]] * 1000), step(2, quick, [[1, 1]]))
    assert [outcome.tag for outcome in await stream.rest()] == [2, 1]


async def test_replies_of_one_tick_share_a_message(running: Running) -> None:
    """Sixty-four sessions stepped together are answered in far fewer messages."""
    stream = Stream(running)
    sessions = [await stream.opened() for _ in range(64)]
    before = stream.messages
    await stream.send(*(step(tag, one, [[tag, 0]]) for tag, one in enumerate(sessions)))
    outcomes = await stream.rest()
    assert stream.messages - before <= 8
    assert {outcome.tag: outputs(outcome.reply)[0, 0] for outcome in outcomes} == {
        tag: float(tag) for tag in range(64)
    }


async def test_more_operations_than_may_wait_are_all_answered(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server stops reading at its limit and goes on as it answers."""
    monkeypatch.setattr("service.rpc.bidirectional.MAX_UNANSWERED", 4)
    async with serve() as running:
        stream = Stream(running)
        session = await stream.opened()
        await stream.send(*(step(tag, session, [[1, 1]]) for tag in range(100)))
        outcomes = await stream.rest()
        assert [outputs(outcome.reply)[0, 0] for outcome in outcomes] == list(range(1, 101))


async def test_a_client_that_does_not_read_stops_being_read(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its unread replies are bounded, others are served meanwhile, and it still gets every one."""
    monkeypatch.setattr("service.rpc.bidirectional.MAX_UNANSWERED", 2)
    async with serve(max_message_bytes=1 << 20) as running:
        stream = Stream(running)
        session = await stream.opened(locations=4000)
        traced = {"names": ["read_weighting", "write_weighting"]}
        operations = [step(tag, session, [[0, 0]] * 30, **traced) for tag in range(40)]
        sending = asyncio.create_task(asyncio.wait_for(stream.send(*operations), 30))
        other = await opened(running)
        for number in range(20):
            assert (await stepped(running, other, [[1, 1]]))[0, 0] == number + 1
        read = running.metric("ntm_stream_operations_total", kind="step")
        assert read < 40
        await sending
        assert [outcome.tag for outcome in await stream.rest()] == list(range(40))


async def test_unread_replies_are_bounded_by_their_bytes(serve: Serve) -> None:
    """However many operations may be unanswered, two of the largest replies fill a stream."""
    async with serve(max_message_bytes=1 << 20) as running:
        stream = Stream(running)
        session = await stream.opened(locations=4000)
        traced = {"names": ["read_weighting", "write_weighting"]}
        operations = [step(tag, session, [[0, 0]] * 30, **traced) for tag in range(60)]
        sending = asyncio.create_task(asyncio.wait_for(stream.send(*operations), 30))
        other = await opened(running)
        for number in range(20):
            assert (await stepped(running, other, [[1, 1]]))[0, 0] == number + 1
        assert running.metric("ntm_stream_operations_total", kind="step") < 60
        await sending
        assert [outcome.tag for outcome in await stream.rest()] == list(range(60))


async def test_messages_stay_below_the_size_that_clients_accept(serve: Serve) -> None:
    """Large replies that are ready together are sent in several messages."""
    async with serve(max_message_bytes=65_536) as running:
        stream = Stream(running)
        sessions = [await stream.opened(locations=1000) for _ in range(8)]
        traced = {"names": ["read_weighting"]}
        await stream.send(
            *(step(n, one, [[0, 0]] * 10, **traced) for n, one in enumerate(sessions))
        )
        outcomes = await stream.rest()
        assert sorted(outcome.tag for outcome in outcomes) == list(range(8))


async def test_ending_a_stream_closes_no_session(running: Running) -> None:
    """The session can be stepped by another call."""
    stream = Stream(running)
    session = await stream.opened()
    assert await stream.rest() == []
    assert (await stepped(running, session, [[1, 1]])).tolist() == [[1, 1]]


async def test_losing_a_stream_leaves_nothing_pending(running: Running) -> None:
    """Its chunks are dropped, its sessions live, and other streams do not notice."""
    lost, kept = Stream(running), Stream(running)
    ours = [await lost.opened() for _ in range(4)]
    theirs = await kept.opened()
    await lost.send(*(step(0, session, [[1, 1]] * 1000) for session in ours * 4))
    await kept.send(step(1, theirs, [[1, 1]] * 1000))
    lost.call.cancel()
    outcome = await asyncio.wait_for(kept.next(), 30)
    assert outcome is not None
    assert outputs(outcome.reply)[-1].tolist() == [1000, 1000]
    for session in ours:
        got = await running.stub.GetSession(pb.GetSessionRequest(session_id=session))
        sums = await stepped(running, session, [[0, 0]])
        assert got.session.next_step <= sums[0, 0] < 4000
    await kept.rest()


async def test_stopping_the_server_answers_what_waits_and_ends_the_stream(serve: Serve) -> None:
    """Replies first, then UNAVAILABLE with reason DRAINING, which a client may retry elsewhere."""
    async with serve(drain_seconds=20.0) as running:
        stream = Stream(running)
        session = await stream.opened()
        await stream.send(step(1, session, [[1, 1]] * 1000))
        await stream.send(step(2, session, [[1, 1]] * 1000))
        while running.metric("ntm_stream_operations_total", kind="step") < 2:
            await stepped(running, await opened(running), [[0, 0]])
        stopping = asyncio.create_task(running.stop())
        replies = [await stream.next(), await stream.next()]
        assert [outputs(one.reply)[-1, 0] for one in replies if one] == [1000, 2000]
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stream.next()
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        assert reason(error.value) == "DRAINING"
        await stopping


async def test_traces_arrive_on_the_stream(running: Running) -> None:
    """Traces on a stream are those of the unary call."""
    stream = Stream(running)
    session = await stream.opened(locations=4)
    await stream.send(step(1, session, [[0, 0]] * 2, names=["write_weighting"], top_k=1))
    (outcome,) = await stream.rest()
    (trace,) = outcome.reply.traces
    assert (trace.heads, trace.width) == (1, 1)
    assert np.frombuffer(trace.locations, np.uint32).tolist() == [1, 2]
    assert np.frombuffer(trace.values, np.float32).tolist() == [1, 1]


async def test_more_calls_than_allowed_are_refused_and_the_others_go_on(serve: Serve) -> None:
    """With two streams open and two calls allowed, a third is RESOURCE_EXHAUSTED."""
    async with serve(max_calls=2) as running:
        first, second = Stream(running), Stream(running)
        session = await first.opened()
        await second.opened()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await opened(running)
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await first.send(step(1, session, [[1, 1]]))
        outcome = await first.next()
        assert outcome is not None
        assert outputs(outcome.reply).tolist() == [[1, 1]]
        await second.rest()
        await first.rest()


async def test_how_streams_end_is_counted(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is ended by its client, one cancelled before its answer, one cut by the server's stop."""

    async def never(*_: object) -> pb.Session:
        await asyncio.Event().wait()
        raise AssertionError("it is cancelled")

    async with serve() as running:
        ended, cancelled, left = Stream(running), Stream(running), Stream(running)
        for stream in (ended, cancelled, left):
            await stream.opened()
        await ended.rest()
        # With an answer due, the stream cannot end by itself before gRPC reports the cancellation.
        monkeypatch.setattr(Calls, "open", never)
        await cancelled.send(pb.Operation(open=pb.CreateSessionRequest(model="ledger")))
        await until(lambda: running.metric("ntm_stream_operations_total", kind="open") == 4)
        cancelled.call.cancel()
        await until(lambda: running.metric("ntm_streams") == 1)
        await running.stop()
        for code in ("OK", "CANCELLED", "UNAVAILABLE"):
            assert running.metric("ntm_streams_ended_total", code=code) == 1
        assert running.metric("ntm_streams") == 0
        assert running.metric("ntm_draining") == 1
        assert running.metric("ntm_serving") == 0


async def test_replies_are_timed_until_grpc_has_them(running: Running) -> None:
    """The time until gRPC has a reply is measured on streams and for unary calls."""
    stream = Stream(running)
    session = await stream.opened()
    await stream.send(pb.Operation(step=chunk(session, [[1, 2]])))
    await stream.next()
    await stepped(running, session, [[1, 2]])
    await stream.rest()

    assert running.metric("ntm_chunk_reply_seconds_count", model="ledger") == 2
    assert running.metric("ntm_serving") == 1


async def test_a_message_that_cannot_be_decoded_ends_its_stream_alone(running: Running) -> None:
    """A message that cannot be decoded ends its stream with a reason, after earlier outcomes."""
    session = await opened(running)
    request = pb.StreamStepsRequest(operations=[step(1, session, [[1, 1]])])
    messages = iter([request.SerializeToString(), b"\0 is no tag"])
    call = raw(running, "StreamSteps")(messages)
    answer = pb.StreamStepsResponse.FromString(await call.read())
    assert outputs(answer.outcomes[0].reply).tolist() == [[1, 1]]
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call.read()
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason(error.value) == "INVALID_REQUEST"
    assert running.metric("ntm_errors_total", reason="INVALID_REQUEST") == 1
    assert (await stepped(running, session, [[1, 1]])).tolist() == [[2, 2]]
