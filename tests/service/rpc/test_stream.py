"""One StreamSteps call: operations in, outcomes out, over a real channel."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import numpy as np
import pytest

from ntm.v1 import ntm_pb2 as pb
from service import codec
from service.engine.turn import Turn
from service.engine.work import Chunk, ChunkOutcome, TraceRows
from service.rpc import stream
from service.session_ref import ANYBODY, SessionRef
from tests.conftest import Running, Serve
from tests.e2e.calls import Stream, chunk, opened, outputs, raw, reason, until
from tests.e2e.test_rpcs import refused


async def test_outcomes_carry_the_tags_of_their_operations(running: Running) -> None:
    """Those of one session come in the order of its operations."""
    call = Stream(running)
    session = await call.opened()
    await call.send(
        pb.Operation(tag=7, step=chunk(session, [[1, 2]])),
        pb.Operation(tag=7, step=chunk(session, [[3, 4]])),
        pb.Operation(tag=9, close=session),
    )
    outcomes = await call.rest()

    assert [outcome.tag for outcome in outcomes] == [7, 7, 9]
    assert [outputs(each.reply).tolist() for each in outcomes[:2]] == [[[1, 2]], [[4, 6]]]
    assert outcomes[2].closed == session


async def test_an_operation_that_asks_for_nothing_is_answered_with_what_to_set(
    running: Running,
) -> None:
    """An empty operation is answered with an error, counted, and the stream goes on."""
    call = Stream(running)
    await call.send(pb.Operation(tag=3))
    outcome = await call.next()
    assert outcome is not None
    assert (outcome.tag, outcome.error.reason) == (3, "INVALID_REQUEST")
    told = "the operation asks for nothing; set open, step, close or cancel"
    assert outcome.error.message == told
    assert await call.opened()
    await call.rest()
    assert running.metric("ntm_stream_operations_total", kind="none") == 1
    assert running.metric("ntm_stream_operations_total", kind="open") == 1


async def test_a_message_of_too_many_operations_ends_its_stream_alone(running: Running) -> None:
    """It is refused before it is decoded; as many as are allowed are all answered."""
    allowed = pb.StreamStepsRequest(operations=[pb.Operation()] * 65_536)
    call = running.stub.StreamSteps()
    await call.write(allowed)
    answered = 0
    while answered < 65_536:
        answered += len((await call.read()).outcomes)
    allowed.operations.add()
    await call.write(allowed)
    error = await refused(call.read())
    assert reason(error) == "INVALID_REQUEST"
    assert error.details() == (
        "StreamStepsRequest has 65537 operations; send at most 65536 in one message"
    )
    assert (await running.stub.ListModels(pb.ListModelsRequest())).models


async def test_errors_are_outcomes_and_end_no_stream(running: Running) -> None:
    """With the code, the reason and the metadata that a call would fail with."""
    call = Stream(running)
    session = await call.opened()
    await call.send(
        pb.Operation(tag=1, step=chunk(session, [[1, 1]], first_step=5)),
        pb.Operation(tag=2, step=chunk("0" * 32, [[1, 1]])),
        pb.Operation(tag=3, step=chunk(session, [[1, 1]])),
    )
    told = {outcome.tag: outcome for outcome in await call.rest()}

    assert (told[1].error.code, told[1].error.reason) == (10, "STEP_INDEX_MISMATCH")
    assert dict(told[1].error.metadata) == {"expected": "0", "actual": "5"}
    assert (told[2].error.code, told[2].error.reason) == (5, "SESSION_UNKNOWN")
    assert outputs(told[3].reply).tolist() == [[1, 1]]


async def test_a_message_holds_outcomes_up_to_its_size(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message holds outcomes up to its size, and at least one of any size."""
    monkeypatch.setattr(stream, "_LARGE_MESSAGE_BYTES", 300)
    async with serve() as running:
        call = Stream(running)
        session = await call.opened()
        before = call.messages
        await call.send(
            *(pb.Operation(step=chunk(session, [[1, 1]] * steps)) for steps in (1, 1, 1, 100))
        )
        outcomes = await call.rest()

    sizes = [outcome.reply.next_step - outcome.reply.first_step for outcome in outcomes]
    assert sizes == [1, 1, 1, 100]
    # An outcome counts 128 bytes and its outputs: two small ones fit, and a third does not.
    assert call.messages - before >= 3


async def test_the_end_of_the_server_is_the_end_of_its_streams(serve: Serve) -> None:
    """What was begun is answered, and the call then fails with UNAVAILABLE."""
    async with serve() as running:
        call = Stream(running)
        session = await call.opened()
        await call.send(pb.Operation(tag=4, step=chunk(session, [[5, 6]])))
        outcome = await call.next()
        stopping = asyncio.create_task(running.stop())
        error = await refused(call.call.read())
        await stopping

    assert outcome is not None
    assert outputs(outcome.reply).tolist() == [[5, 6]]
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "this server is stopping; open a stream to another replica"


async def test_a_cancelled_stream_drops_its_work_and_keeps_its_sessions(running: Running) -> None:
    """Nothing stays pending, and the session goes on by other calls."""
    session = await opened(running)
    call = Stream(running)
    await call.send(*(pb.Operation(step=chunk(session, [[1, 1]] * 100)) for _ in range(50)))
    call.call.cancel()
    assert await call.call.code() is grpc.StatusCode.CANCELLED
    request = pb.StepRequest(chunk=chunk(session, [[1, 1]]))
    reply = (await running.stub.Step(request)).reply

    # The outputs are sums of ones, so that they show how many steps were made.
    assert outputs(reply).tolist() == [[reply.next_step, reply.next_step]]
    assert reply.next_step <= 50 * 100 + 1
    assert running.server.worker.engine.lifecycle.sessions.usage.sessions == 1


class Turns:
    """The turns of a server, which are made when a test lets them."""

    def __init__(self, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let no turn be made from now on."""
        engine = running.server.worker.engine
        schedule = engine.schedule
        self.left = 0

        def scheduled() -> Turn | None:
            if self.left <= 0 or (turn := schedule()) is None:
                return None
            self.left -= 1
            return turn

        monkeypatch.setattr(engine, "schedule", scheduled)


async def next_step(running: Running, session: str) -> int:
    """Where the session is."""
    found = await running.stub.GetSession(pb.GetSessionRequest(session_id=session))
    return int(found.session.next_step)


async def test_a_chunk_that_waits_is_cancelled(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes no step and fails with CANCELLED, and what is before and behind it is made."""
    call = Stream(running)
    session = await call.opened()
    turns = Turns(running, monkeypatch)
    await call.send(*(pb.Operation(tag=n, step=chunk(session, [[1, 1]])) for n in (1, 2, 3)))
    await call.send(pb.Operation(tag=4, cancel=2))
    outcome = await call.next()
    assert outcome is not None
    assert (outcome.tag, outcome.cancelled) == (4, 2)
    turns.left = 99
    outcomes = await call.rest()

    assert [each.tag for each in outcomes] == [1, 2, 3]
    error = outcomes[1].error
    assert (error.code, error.reason) == (grpc.StatusCode.CANCELLED.value[0], "CANCELLED")
    assert error.message == "the chunk was cancelled after 0 of its steps"
    assert outputs(outcomes[2].reply).tolist() == [[2, 2]]
    assert running.metric("ntm_stream_operations_total", kind="cancel") == 1
    assert running.metric("ntm_errors_total", reason="CANCELLED") == 1


async def test_a_chunk_is_cancelled_by_the_message_that_has_it(running: Running) -> None:
    """Only the chunks with that tag; a tag that no chunk has is answered alike."""
    call = Stream(running)
    session, other = await call.opened(), await call.opened()
    await call.send(
        pb.Operation(tag=1, step=chunk(session, [[1, 1]])),
        pb.Operation(tag=2, step=chunk(session, [[1, 1]])),
        pb.Operation(tag=2, step=chunk(other, [[1, 1]])),
        pb.Operation(tag=3, cancel=2),
        pb.Operation(tag=4, cancel=77),
        pb.Operation(tag=5, step=chunk(session, [[1, 1]])),
        pb.Operation(tag=6, cancel=1 << 63),
    )
    outcomes = await call.rest()
    told = {outcome.tag: outcome for outcome in outcomes}

    assert [told[tag].cancelled for tag in (3, 4, 6)] == [2, 77, 1 << 63]
    assert [each.error.reason for each in outcomes if each.tag == 2] == ["CANCELLED"] * 2
    assert outputs(told[1].reply).tolist() == [[1, 1]]
    assert outputs(told[5].reply).tolist() == [[2, 2]]
    assert await next_step(running, other) == 0


@pytest.mark.parametrize("can_be_sent_again", [False, True])
async def test_a_chunk_that_has_begun_is_cancelled(
    running: Running, monkeypatch: pytest.MonkeyPatch, can_be_sent_again: bool
) -> None:
    """
    It stops between two turns, unless it states its first step: it may be sent again, and then has
    its reply.
    """
    call = Stream(running)
    session = await call.opened()
    turns = Turns(running, monkeypatch)
    asked = chunk(session, [[1, 1]] * 100, 0 if can_be_sent_again else None)
    turns.left = 1
    await call.send(pb.Operation(tag=1, step=asked))
    await until(lambda: not turns.left)
    await call.send(pb.Operation(tag=2, cancel=1))
    assert (await call.next()) == pb.Outcome(tag=2, cancelled=1)
    turns.left = 999
    (outcome,) = await call.rest()

    assert outcome.tag == 1
    if can_be_sent_again:
        assert outcome.reply.next_step == 100
        reply = (await running.stub.Step(pb.StepRequest(chunk=asked))).reply
        assert reply.outputs == outcome.reply.outputs
    else:
        made = await next_step(running, session)
        assert 0 < made < 100
        # The turn under way was made to its end, and one more that was scheduled.
        assert outcome.error.reason == "CANCELLED"
        assert outcome.error.message == f"the chunk was cancelled after {made} of its steps"


async def test_the_first_message_names_the_replica(running: Running) -> None:
    """As sessions and replies do; the messages after it leave it out."""
    call = Stream(running)
    session = await call.opened()
    first = call.replica
    await call.send(pb.Operation(step=chunk(session, [[1, 1]])))
    await call.next()
    await call.rest()
    found = await running.stub.GetSession(pb.GetSessionRequest(session_id=session))
    reply = await running.stub.Step(pb.StepRequest(chunk=chunk(session, [[1, 1]])))

    assert first
    assert found.session.replica == reply.replica == first
    assert call.replica == ""


async def test_operations_in_many_messages_and_in_one_are_the_same(running: Running) -> None:
    """The outputs are the running sums either way."""
    session, other = await opened(running), await opened(running)
    one = pb.StreamStepsRequest(
        operations=[pb.Operation(step=chunk(session, [[1, 1]])) for _ in range(5)]
    )
    many = [
        pb.StreamStepsRequest(operations=[pb.Operation(step=chunk(other, [[1, 1]]))])
        for _ in range(5)
    ]
    found = []
    for messages in ([one], many):
        call = raw(running, "StreamSteps")(iter([each.SerializeToString() for each in messages]))
        outcomes: list[pb.Outcome] = []
        while isinstance(content := await call.read(), bytes):
            outcomes += pb.StreamStepsResponse.FromString(content).outcomes
        found.append([outputs(outcome.reply).tolist() for outcome in outcomes])

    assert found[0] == found[1] == [[[n, n]] for n in range(1, 6)]


def test_the_size_of_an_outcome_is_never_underestimated() -> None:
    """Many traces with small values and long names take more than their values."""
    rows = np.zeros((1, 1, 1), np.float32)
    places = np.zeros((1, 1, 1), np.uint32)
    work = Chunk(SessionRef("ab" * 16, ANYBODY, 0), np.zeros(2, np.float32), 0)
    work.tag = 2**63
    traces = tuple(TraceRows(f"{number:_<40}", rows, places) for number in range(20))
    work.outcome = ChunkOutcome(2**40, np.zeros((1, 2), np.float32), traces)
    outcome = pb.Outcome(tag=work.tag)
    codec.write_reply(work, outcome.reply)
    assert stream._size(work) >= pb.StreamStepsResponse(outcomes=[outcome]).ByteSize()
