"""Checkpoints, forks and retries over a real channel: a session goes on as if nothing had been."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
import pytest

from ntm.v1 import ntm_pb2 as pb
from ntm_client import AsyncClient, Client
from service.spec import Float32
from tests.conftest import Running, Serve
from tests.e2e.calls import chunk, opened, outputs, reason, stepped
from tests.e2e.test_rpcs import refused
from tests.support.served import MODELS


def vectors(steps: int, width: int = 2, seed: int = 0) -> Float32:
    """Random inputs [steps, width]."""
    return np.random.default_rng(seed).random((steps, width), np.float32)


async def taken(running: Running, session: str) -> pb.CheckpointSessionResponse:
    """A checkpoint of a session."""
    request = pb.CheckpointSessionRequest(session_id=session)
    response: pb.CheckpointSessionResponse = await running.stub.CheckpointSession(request)
    return response


@pytest.mark.parametrize("model", ["copy-ntm-lstm", "copy-ntm-ff", "copy-lstm"])
async def test_a_session_goes_on_from_a_checkpoint_bit_for_bit(serve: Serve, model: str) -> None:
    """A session continues from a checkpoint on another server of the model, bit for bit."""
    inputs = (vectors(40, 9) > 0.5).astype(np.float32)
    async with serve(models_dir=MODELS, models=model) as first:
        session = await opened(first, model)
        await stepped(first, session, inputs[:17])
        checkpoint = (await taken(first, session)).checkpoint
        expected = await stepped(first, session, inputs[17:])
    async with serve(models_dir=MODELS, models=model) as second:
        request = pb.CreateSessionRequest(model=model, checkpoint=checkpoint)
        created = (await second.stub.CreateSession(request)).session
        assert created.next_step == 17
        found = await stepped(second, created.id, inputs[17:], first_step=17)
    assert found.tobytes() == expected.tobytes()


async def test_a_session_is_set_back_to_a_checkpoint(running: Running) -> None:
    """A restored session is at the checkpoint's step, and can make other steps from there."""
    session = await opened(running)
    await stepped(running, session, [[1, 1], [2, 2]])
    checkpoint = await taken(running, session)
    assert (await stepped(running, session, [[5, 5]], first_step=2)).tolist() == [[8, 8]]
    request = pb.RestoreSessionRequest(session_id=session, checkpoint=checkpoint.checkpoint)
    restored = await running.stub.RestoreSession(request)

    assert checkpoint.session.next_step == restored.session.next_step == 2
    assert (await stepped(running, session, [[7, 7]], first_step=2)).tolist() == [[10, 10]]


async def test_a_fork_goes_its_own_way(running: Running) -> None:
    """A session and its fork have the same past, and neither sees the other's later steps."""
    request = pb.CreateSessionRequest(model="ledger", locations=5)
    request.idle_timeout.FromSeconds(7)
    source = (await running.stub.CreateSession(request)).session.id
    await stepped(running, source, [[1, 1], [2, 2]])
    response = await running.stub.ForkSession(pb.ForkSessionRequest(session_id=source))
    fork = response.session

    assert (fork.next_step, fork.locations, fork.idle_timeout.seconds) == (2, 5, 7)
    assert fork.id != source
    assert (await stepped(running, fork.id, [[10, 10]])).tolist() == [[13, 13]]
    assert (await stepped(running, source, [[1, 1]])).tolist() == [[4, 4]]
    assert running.metric("ntm_sessions", model="ledger") == 2


async def test_a_fork_that_finds_no_room_or_no_session_leaves_nothing(serve: Serve) -> None:
    """A fork that fails leaves neither a session nor a slot."""
    async with serve(max_sessions=1) as running:
        source = await opened(running)
        full = await refused(running.stub.ForkSession(pb.ForkSessionRequest(session_id=source)))
        unknown = await refused(running.stub.ForkSession(pb.ForkSessionRequest(session_id="?")))
        assert (reason(full), reason(unknown)) == ("CAPACITY_EXCEEDED", "SESSION_UNKNOWN")
        assert running.metric("ntm_sessions", model="ledger") == 1


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda data: data[:-9], "CHECKPOINT_DAMAGED"),
        (lambda data: data[:60] + b"?" + data[61:], "CHECKPOINT_DAMAGED"),
        (lambda data: data[:4] + b"\xff\x00" + data[6:], "CHECKPOINT_TOO_NEW"),
        (lambda data: b"", "CHECKPOINT_DAMAGED"),
    ],
)
async def test_a_checkpoint_that_does_not_fit_is_refused(
    running: Running, damage: object, expected: str
) -> None:
    """
    A checkpoint that does not fit is refused with its own reason, and the session is unchanged.
    """
    session = await opened(running)
    await stepped(running, session, [[1, 1]])
    checkpoint = damage((await taken(running, session)).checkpoint)  # type: ignore[operator] # one of the lambdas above
    request = pb.RestoreSessionRequest(session_id=session, checkpoint=checkpoint)
    error = await refused(running.stub.RestoreSession(request))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason(error) == expected
    assert (await stepped(running, session, [[1, 1]], first_step=1)).tolist() == [[2, 2]]


async def test_another_models_checkpoint_is_refused(serve: Serve) -> None:
    """A checkpoint of another model, or with other locations than the open session, is refused."""
    async with serve(models_dir=MODELS, models="copy-ntm-lstm,copy-ntm-ff") as running:
        lstm, small = (
            await opened(running, "copy-ntm-lstm"),
            await opened(running, "copy-ntm-ff", 16),
        )
        foreign = (await taken(running, lstm)).checkpoint
        other_size = (await taken(running, await opened(running, "copy-ntm-ff", 20))).checkpoint
        for checkpoint in (foreign, other_size):
            request = pb.RestoreSessionRequest(session_id=small, checkpoint=checkpoint)
            error = await refused(running.stub.RestoreSession(request))
            assert reason(error) == "CHECKPOINT_FOREIGN"
        create = pb.CreateSessionRequest(model="copy-ntm-ff", checkpoint=foreign)
        error = await refused(running.stub.CreateSession(create))
        assert reason(error) == "CHECKPOINT_FOREIGN"
        assert error.details() == (
            "the checkpoint is of model 'copy-ntm-lstm', and the session is to be of 'copy-ntm-ff'"
        )
        assert running.metric("ntm_sessions", model="copy-ntm-ff") == 2


@pytest.mark.parametrize("traces", [{}, {"names": ["add_vector", "write_weighting"], "top_k": 2}])
async def test_a_chunk_sent_again_gets_the_same_bytes(
    running: Running, traces: dict[str, object]
) -> None:
    """A repeated chunk gets the same bytes and is not made again, even after later steps."""
    session = await opened(running)
    request = pb.StepRequest(chunk=chunk(session, vectors(5), 0, **traces))
    first = await running.stub.Step(request)
    await stepped(running, session, vectors(3, seed=1), first_step=5)
    again = await running.stub.Step(request)

    assert again.SerializeToString() == first.SerializeToString()
    assert running.metric("ntm_steps_total", model="ledger") == 8
    assert running.metric("ntm_replayed_chunks_total", model="ledger") == 1
    # Times are counted from then on, not from when the machine started.
    assert running.metric("ntm_chunk_reply_seconds_count", model="ledger") == 3
    assert 0 < running.metric("ntm_chunk_reply_seconds_sum", model="ledger") < 60


async def test_only_the_same_chunk_is_answered_again(running: Running) -> None:
    """A chunk with other inputs, length, traces or start is ABORTED with the expected index."""
    session = await opened(running)
    inputs = vectors(4)
    await stepped(running, session, inputs, first_step=0)
    for different in (
        chunk(session, vectors(4, seed=1), 0),
        chunk(session, inputs[:3], 0),
        chunk(session, inputs[1:], 1),
        chunk(session, inputs, 0, names=["add_vector"]),
    ):
        error = await refused(running.stub.Step(pb.StepRequest(chunk=different)))
        assert reason(error) == "STEP_INDEX_MISMATCH"


async def test_what_is_kept_for_retries_is_bounded(serve: Serve) -> None:
    """With room for the outputs of three steps, the first of four is no longer kept for retries."""
    async with serve(max_replay_bytes=3 * 2 * 4) as running:
        session = await opened(running)
        for step in range(4):
            await stepped(running, session, [[step, step]], first_step=step)
        for step, kept in ((0, False), (1, True), (3, True)):
            request = pb.StepRequest(chunk=chunk(session, [[step, step]], step))
            if kept:
                total = sum(range(step + 1))
                reply = (await running.stub.Step(request)).reply
                assert outputs(reply).tolist() == [[total, total]]
            else:
                assert reason(await refused(running.stub.Step(request))) == "STEP_INDEX_MISMATCH"


async def test_a_reset_session_answers_nothing_of_its_past(running: Running) -> None:
    """After a reset, a repeated chunk at step 0 is made from the initial state."""
    session = await opened(running)
    await stepped(running, session, [[1, 1]], first_step=0)
    await running.stub.ResetSession(pb.ResetSessionRequest(session_id=session))
    await stepped(running, session, [[1, 1]], first_step=0)
    assert running.metric("ntm_steps_total", model="ledger") == 2
    assert running.metric("ntm_replayed_chunks_total", model="ledger") == 0


async def test_clients_take_restore_and_fork(running: Running) -> None:
    """Sessions of both clients can checkpoint, restore and fork."""
    async with AsyncClient(running.address) as client:
        session = await client.create_session("ledger")
        await session.step([[1, 1]])
        checkpoint = await session.checkpoint()
        fork = await session.fork()
        await session.step([[1, 1]])
        await session.restore(checkpoint)
        assert (session.next_step, fork.next_step) == (1, 1)
        assert (await session.step([[5, 5]])).array.tolist() == [[6, 6]]
        assert (await fork.step([[7, 7]])).array.tolist() == [[8, 8]]

    def blocking() -> list[list[float]]:
        with Client(running.address) as client:
            session = client.create_session("ledger", checkpoint=checkpoint)
            fork = session.fork()
            session.step([[1, 1]])
            session.restore(session.checkpoint())
            return [*session.step([[1, 1]]).array.tolist(), *fork.step([2, 2]).array.tolist()]

    assert await asyncio.to_thread(blocking) == [[3, 3], 3, 3]
