"""
Cases that Triton's tests of sequences hold it to, held here to the same; each test names its case.

Those that other tests answer to, in Triton's names of `qa/L0_*`:

    test_simple_sequence, test_length1_sequence   test_rpcs.test_steps_and_memory_come_back
    test_half_batch, test_full_batch, skip_batch  test_invariance (same bits whatever the batch)
    test_ragged_batch                             test_engine.test_sessions_of_different_memory_...
    test_backlog_sequence_timeout                 test_rpcs.test_an_expired_session_says_so
    PreserveOrdering                              test_stream.test_outcomes_of_a_session_come_in_...
    growable_memory                               test_slab.test_growing_keeps_every_state
    CrashingScenario, in long                     tests.stress.chaos (clients killed)
    L0_sequence_stress                            tests.stress.chaos, test_interleavings
    oldest queued cancellation                    test_engine.test_cancelled_work_that_waits_is_...

What is not as there: ids are the server's or used once, and a batch belongs to no client.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import grpc
import grpc.aio
import numpy as np
import pytest

from ntm.v1 import ntm_pb2 as pb
from tests.conftest import Running, Serve
from tests.e2e.calls import Stream, chunk, opened, outputs, reason, stepped, until
from tests.e2e.test_rpcs import refused

LONG = np.ones((1000, 2), np.float32)


def step(session: str, steps: int = 1) -> pb.StepRequest:
    """A call for so many steps of ones, whichever comes next."""
    return pb.StepRequest(chunk=chunk(session, LONG[:steps]))


async def closed(running: Running, session: str) -> None:
    """Delete a session."""
    await running.stub.DeleteSession(pb.DeleteSessionRequest(session_id=session))


async def test_no_sequence_start(running: Running) -> None:
    """test_no_sequence_start, _start2: no step without an open session, nor after its end."""
    assert reason(await refused(running.stub.Step(step("ab" * 16)))) == "SESSION_UNKNOWN"
    session = await opened(running)
    await stepped(running, session, LONG[:3])
    await closed(running, session)
    assert reason(await refused(running.stub.Step(step(session)))) == "SESSION_DELETED"


async def test_no_correlation_id(running: Running) -> None:
    """test_no_correlation_id: a step without a session's id is refused, on a stream as well."""
    assert reason(await refused(running.stub.Step(step("")))) == "SESSION_UNKNOWN"
    stream = Stream(running)
    await stream.send(pb.Operation(step=step("").chunk))
    (outcome,) = await stream.rest()
    assert outcome.error.reason == "SESSION_UNKNOWN"


async def test_backlog(serve: Serve) -> None:
    """test_backlog: more sessions than a batch holds all run, and every value is right."""
    async with serve(max_batch=8, max_burst=1) as running:
        sessions = [await opened(running) for _ in range(20)]
        found = await asyncio.gather(
            *(
                stepped(running, session, LONG[:20] * (number + 1))
                for number, session in enumerate(sessions)
            )
        )
        for number, values in enumerate(found):
            assert values[:, 0].tolist() == [(number + 1) * (made + 1) for made in range(20)]


async def test_backlog_fill(serve: Serve) -> None:
    """test_backlog_fill, _fill_no_end: a place is refused while none is free, and then new."""
    async with serve(max_sessions=2) as running:
        sessions = [await opened(running) for _ in range(2)]
        await stepped(running, sessions[0], LONG[:7])
        assert reason(await refused(opened(running))) == "CAPACITY_EXCEEDED"
        await closed(running, sessions[0])
        again = await opened(running)
        assert (await stepped(running, again, LONG[:1])).tolist() == [[1, 1]]
        assert (await stepped(running, sessions[1], LONG[:1])).tolist() == [[1, 1]]


async def test_backlog_same_correlation_id(running: Running) -> None:
    """test_backlog_same_correlation_id: what comes after a session's end is not made."""
    session = await opened(running)
    stream = Stream(running)
    await stream.send(
        pb.Operation(tag=1, step=step(session, 9).chunk),
        pb.Operation(tag=2, close=session),
        pb.Operation(tag=3, step=step(session).chunk),
    )
    first, second, third = await stream.rest()
    assert outputs(first.reply)[-1].tolist() == [9, 9]
    assert (second.closed, third.error.reason) == (session, "SESSION_DELETED")


async def test_crashing_scenario(running: Running) -> None:
    """CrashingScenario: a client that dies amid its stream costs its sessions nothing."""
    left, other = await opened(running), await opened(running)
    async with grpc.aio.insecure_channel(running.address) as channel:
        mortal = Running(running.server, channel)
        stream = Stream(mortal)
        await stream.send(
            *(
                pb.Operation(tag=number, step=chunk(left, LONG[:10], 10 * number))
                for number in range(20)
            )
        )
        assert await stream.next() is not None
    assert (await stepped(running, other, LONG[:1])).tolist() == [[1, 1]]
    await until(lambda: not running.metric("ntm_streams"))
    at = (await running.stub.GetSession(pb.GetSessionRequest(session_id=left))).session.next_step
    assert at % 10 == 0  # a chunk with its index is made to its end
    assert (await stepped(running, left, LONG[:1])).tolist() == [[at + 1, at + 1]]


async def test_state_reset_after_cancel(running: Running) -> None:
    """test_state_reset_after_cancel: slots of cancelled and deleted sessions go to one each."""
    for _ in range(5):
        session = await opened(running)
        call = running.stub.Step(step(session, 1000))
        await asyncio.sleep(0)
        call.cancel()
        await closed(running, session)
        fresh = [await opened(running) for _ in range(2)]
        found = await asyncio.gather(
            *(stepped(running, each, LONG[:3] * n) for n, each in enumerate(fresh, 1))
        )
        assert [values[-1].tolist() for values in found] == [[3, 3], [6, 6]]
        await running.server.check_integrity()


async def at_once(running: Running, session: str) -> bool:
    """Cancel before anything is sent."""
    call = running.stub.Step(step(session))
    return bool(call.cancel())


async def when_sent(running: Running, session: str) -> bool:
    """Cancel once the request has arrived."""
    call = running.stub.Step(step(session, 1000))
    await until(lambda: running.metric("ntm_received_input_bytes_total"))
    return bool(call.cancel() or call.done())


async def in_the_queue(running: Running, session: str) -> bool:
    """Cancel what waits behind another chunk, which is answered."""
    before = running.stub.Step(step(session, 1000))
    call = running.stub.Step(step(session, 1000))
    await until(lambda: running.metric("ntm_received_input_bytes_total") >= 8000)
    is_cancelled = bool(call.cancel() or call.done())
    assert outputs((await before).reply)[0].tolist() == [1, 1]
    return is_cancelled


async def in_its_run(running: Running, session: str) -> bool:
    """Cancel once steps have been made."""
    made = running.metric("ntm_steps_total", model="ledger")
    call = running.stub.Step(step(session, 1000))
    await until(lambda: running.metric("ntm_steps_total", model="ledger") > made)
    return bool(call.cancel() or call.done())


async def when_answered(running: Running, session: str) -> bool:
    """Cancel what was answered: it is too late."""
    call = running.stub.Step(step(session))
    await call
    return not call.cancel()


async def twice(running: Running, session: str) -> bool:
    """Cancel again what was cancelled."""
    call = running.stub.Step(step(session, 1000))
    return call.cancel() and not call.cancel()


CANCELLATIONS = [at_once, when_sent, in_the_queue, in_its_run, when_answered, twice]


@pytest.mark.parametrize("cancel", CANCELLATIONS)
async def test_cancellation_at_any_time(
    running: Running, cancel: Callable[[Running, str], Awaitable[bool]]
) -> None:
    """L0_request_cancellation, six timings: the session goes on from where it then is."""
    session = await opened(running)
    assert await cancel(running, session)
    at = None
    while at is None:
        described = await running.stub.GetSession(pb.GetSessionRequest(session_id=session))
        first = described.session.next_step
        try:
            found = await stepped(running, session, LONG[:1], first_step=first)
        except grpc.aio.AioRpcError as error:
            if reason(error) != "STEP_INDEX_MISMATCH":  # its last turn is made by now
                raise
            continue
        at = found[0].tolist()
    assert at == [first + 1, first + 1]
    await running.server.check_integrity()


async def ends_well(running: Running, session: str) -> None:
    """A call, and a stream, that end as they should."""
    await running.stub.Step(step(session, 50))
    stream = Stream(running)
    await stream.send(pb.Operation(step=step(session, 50).chunk))
    assert len(await stream.rest()) == 1


async def is_cancelled(running: Running, session: str) -> None:
    """Both are cancelled."""
    call = running.stub.Step(step(session, 1000))
    stream = Stream(running)
    await stream.send(pb.Operation(step=step(session, 1000).chunk))
    call.cancel()
    stream.call.cancel()


async def is_too_slow(running: Running, session: str) -> None:
    """Both have their deadlines behind them."""
    call = running.stub.Step(step(session, 1000), timeout=0.002)
    assert (await refused(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    stream = running.stub.StreamSteps(timeout=0.2)
    operations = [pb.Operation(step=step(session, 1000).chunk)] * 20
    with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):  # it may be over by now
        await stream.write(pb.StreamStepsRequest(operations=operations))
    assert await stream.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def is_refused(running: Running, session: str) -> None:
    """Both are answered with an error."""
    wrong = pb.StepRequest(chunk=chunk(session, LONG[:1], 999_999))
    assert reason(await refused(running.stub.Step(wrong))) == "STEP_INDEX_MISMATCH"
    stream = Stream(running)
    await stream.send(pb.Operation(step=wrong.chunk))
    (outcome,) = await stream.rest()
    assert outcome.error.reason == "STEP_INDEX_MISMATCH"


@pytest.mark.parametrize("end", [ends_well, is_cancelled, is_too_slow, is_refused])
async def test_grpc_state_cleanup(
    running: Running, end: Callable[[Running, str], Awaitable[None]]
) -> None:
    """L0_grpc_state_cleanup: however calls and streams end, nothing of them stays."""
    session = await opened(running)
    await end(running, session)
    await until(lambda: not running.metric("ntm_streams"))
    await until(lambda: not running.metric("ntm_waiting_sessions"))
    assert await running.server.worker.drain(5.0), "nothing is pending"


async def test_shutdown_sequence(serve: Serve) -> None:
    """shutdown_sequence: what a session waits for is finished, and nothing new is begun."""
    async with serve(drain_seconds=10.0) as running:
        session = await opened(running)
        calls = [running.stub.Step(chunk_of) for chunk_of in [step(session, 1000)] * 3]
        await until(lambda: running.metric("ntm_received_input_bytes_total") >= 24_000)
        await running.server.check_integrity()
        stopping = asyncio.create_task(running.stop())
        sums = [outputs((await call).reply)[-1][0] for call in calls]
        assert sorted(sums) == [1000, 2000, 3000]
        await stopping


async def test_shutdown_with_live_connection(serve: Serve) -> None:
    """shutdown_with_live_connection: an idle connection does not delay the end of a server."""
    async with serve(drain_seconds=10.0) as running:
        session = await opened(running)
        stream = Stream(running)
        await stream.send(pb.Operation(step=step(session).chunk))
        assert await stream.next() is not None
        began = time.monotonic()
        await running.stop()
        assert time.monotonic() - began < 8.0
        with pytest.raises(grpc.aio.AioRpcError):
            await stream.next()
