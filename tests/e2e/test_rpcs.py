"""The unary RPCs over a real channel."""

from __future__ import annotations

import asyncio
import gc
from types import FrameType
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ntm.v1 import ntm_pb2 as pb
from service.engine.work import Chunk
from tests.conftest import Running, Serve
from tests.e2e.calls import chunk, info, opened, outputs, packed, raw, reason, stepped
from tests.support.tiny_models import RUN_FAILS


async def refused(call: Any) -> grpc.aio.AioRpcError:
    """The error that a call fails with."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


async def test_models_are_described(running: Running) -> None:
    """Models are described in a list and by name, with the provider that they run on."""
    listed = await running.stub.ListModels(pb.ListModelsRequest())
    one = await running.stub.GetModel(pb.GetModelRequest(name="ledger"))
    assert list(listed.models) == [one.model]
    assert (one.model.input_width, one.model.output_width, one.model.default_locations) == (2, 2, 8)
    assert one.model.provider == "CPUExecutionProvider"
    assert [tuple(tensor.shape) for tensor in one.model.state] == [(2,), (2, -1), (2, -1)]


async def test_an_unknown_model_is_not_found(running: Running) -> None:
    """GetModel and CreateSession answer NOT_FOUND for an unknown model."""
    for call in (
        running.stub.GetModel(pb.GetModelRequest(name="x")),
        running.stub.CreateSession(pb.CreateSessionRequest(model="x")),
    ):
        error = await refused(call)
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert reason(error) == "MODEL_UNKNOWN"


async def test_a_session_says_what_the_server_chose(running: Running) -> None:
    """A new session's description has its locations, idle timeout, bytes and expiry."""
    created = (
        await running.stub.CreateSession(
            pb.CreateSessionRequest(
                model="ledger", locations=5, idle_timeout=Duration(seconds=7, nanos=500_000_000)
            )
        )
    ).session
    got = (await running.stub.GetSession(pb.GetSessionRequest(session_id=created.id))).session
    assert (got.locations, got.idle_timeout.ToSeconds(), got.next_step) == (5, 7, 0)
    assert got.state_bytes == 4 * (2 + 4 * 5)
    lasts = got.expire_time.ToDatetime() - got.create_time.ToDatetime()
    assert lasts.total_seconds() == pytest.approx(7.5, abs=0.1)
    default = (await running.stub.CreateSession(pb.CreateSessionRequest(model="ledger"))).session
    assert (default.locations, default.idle_timeout.ToSeconds()) == (8, 300)


async def test_steps_and_memory_come_back(running: Running) -> None:
    """Outputs are the running sums, and the memory has each input at its location."""
    session = await opened(running, locations=4)
    assert (await stepped(running, session, [[1, 2], [3, 4]])).tolist() == [[1, 2], [4, 6]]
    read = await running.stub.ReadMemory(pb.ReadMemoryRequest(session_id=session))
    memory = np.frombuffer(read.memory, np.float32).reshape(read.locations, read.width)
    assert memory.tolist() == [[1, 2], [3, 4], [0, 0], [0, 0]]
    assert np.frombuffer(read.write_weightings, np.float32).tolist() == [0, 0, 1, 0]
    assert read.next_step == 2


@pytest.mark.parametrize("sizes", [[12], [1] * 12, [5, 7], [3, 1, 8]])
async def test_any_split_into_chunks_gives_the_same_bytes(
    running: Running, sizes: list[int]
) -> None:
    """Twelve steps give the same bytes in one chunk and in many."""
    inputs = np.random.default_rng(3).normal(size=(12, 2)).clip(0, 3).astype(np.float32)
    whole = await stepped(running, await opened(running), inputs)
    session, parts, first = await opened(running), [], 0
    for size in sizes:
        part = inputs[first : first + size]
        parts.append(await stepped(running, session, part, first_step=first))
        first += size
    assert np.concatenate(parts).tobytes() == whole.tobytes()


async def test_a_reset_session_starts_over(running: Running) -> None:
    """A reset session has the initial state and the next step 0."""
    session = await opened(running)
    await stepped(running, session, [[1, 1]] * 3)
    reset = await running.stub.ResetSession(pb.ResetSessionRequest(session_id=session))
    assert reset.session.next_step == 0
    assert (await stepped(running, session, [[2, 2]], first_step=0)).tolist() == [[2, 2]]


async def test_an_index_gap_is_aborted_with_the_expected_index(running: Running) -> None:
    """A chunk at a wrong index is ABORTED with the expected index."""
    session = await opened(running)
    error = await refused(running.stub.Step(pb.StepRequest(chunk=chunk(session, [[1, 1]], 4))))
    assert error.code() is grpc.StatusCode.ABORTED
    assert dict(info(error).metadata) == {"expected": "0", "actual": "4"}


async def test_wrong_inputs_leave_the_session_as_it_was(running: Running) -> None:
    """Half a float, a wrong width, a NaN or an unknown trace is refused without any step."""
    session = await opened(running)
    for wrong in (
        pb.Chunk(session_id=session, inputs=b"abc"),
        pb.Chunk(session_id=session, inputs=packed([[1]])),
        pb.Chunk(session_id=session, inputs=packed([[np.nan, 0]])),
        chunk(session, [[1, 1]], names=["nothing"]),
    ):
        error = await refused(running.stub.Step(pb.StepRequest(chunk=wrong)))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert reason(error) == "INVALID_REQUEST"
    assert (await stepped(running, session, [[1, 1]])).tolist() == [[1, 1]]
    assert running.metric("ntm_errors_total", reason="INVALID_REQUEST") == 4


async def test_deleted_unknown_and_failed_sessions_are_told_apart(running: Running) -> None:
    """Each has its own reason, and each refusal is counted."""
    deleted, failed = await opened(running), await opened(running)
    await running.stub.DeleteSession(pb.DeleteSessionRequest(session_id=deleted))
    run = await refused(running.stub.Step(pb.StepRequest(chunk=chunk(failed, [[RUN_FAILS, 0]]))))
    assert run.code() is grpc.StatusCode.DATA_LOSS
    for session, expected, code in (
        (deleted, "SESSION_DELETED", grpc.StatusCode.NOT_FOUND),
        ("f" * 32, "SESSION_UNKNOWN", grpc.StatusCode.NOT_FOUND),
        (failed, "SESSION_FAILED", grpc.StatusCode.DATA_LOSS),
    ):
        for call in (
            running.stub.GetSession(pb.GetSessionRequest(session_id=session)),
            running.stub.ResetSession(pb.ResetSessionRequest(session_id=session)),
            running.stub.DeleteSession(pb.DeleteSessionRequest(session_id=session)),
            running.stub.ReadMemory(pb.ReadMemoryRequest(session_id=session)),
        ):
            error = await refused(call)
            assert (error.code(), reason(error)) == (code, expected)
        assert running.metric("ntm_errors_total", reason=expected) >= 4


async def test_an_expired_session_says_so(running: Running) -> None:
    """A client that comes too late learns why."""
    request = pb.CreateSessionRequest(model="ledger", idle_timeout=Duration(nanos=1_000_000))
    session = (await running.stub.CreateSession(request)).session.id
    call = running.stub.GetSession(pb.GetSessionRequest(session_id=session))
    while await call.code() is grpc.StatusCode.OK:  # looking at a session does not keep it alive
        call = running.stub.GetSession(pb.GetSessionRequest(session_id=session))
    assert reason(await refused(call)) == "SESSION_EXPIRED"
    assert running.metric("ntm_sessions_closed_total", model="ledger", reason="expired") == 1


async def test_a_full_server_refuses_at_once_with_a_delay(serve: Serve) -> None:
    """A full server answers RESOURCE_EXHAUSTED with a delay, and the open session goes on."""
    async with serve(max_sessions=1) as running:
        session = await opened(running)
        request = pb.CreateSessionRequest(model="ledger")
        error = await refused(running.stub.CreateSession(request))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason(error) == "CAPACITY_EXCEEDED"
        assert (await stepped(running, session, [[1, 1]])).tolist() == [[1, 1]]


async def test_sessions_are_listed_page_by_page(running: Running) -> None:
    """In order of creation; the last page has no token; a made-up token is refused."""
    sessions = [await opened(running) for _ in range(5)]
    found: list[str] = []
    token = ""
    while True:
        page = await running.stub.ListSessions(
            pb.ListSessionsRequest(page_size=2, page_token=token)
        )
        found += [session.id for session in page.sessions]
        assert len(page.sessions) <= 2
        token = page.next_page_token
        if not token:
            break
    assert found == sessions
    wrong = pb.ListSessionsRequest(page_token="made up")
    error = await refused(running.stub.ListSessions(wrong))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_memory_too_large_for_a_message_is_refused(serve: Serve) -> None:
    """A memory too large for a message is refused with its size, and the session goes on."""
    async with serve(max_message_bytes=65_536) as running:
        session = await opened(running, locations=10_000)
        error = await refused(running.stub.ReadMemory(pb.ReadMemoryRequest(session_id=session)))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "more than a message may have, 65536" in (error.details() or "")


async def test_a_message_too_large_is_refused_by_grpc(serve: Serve) -> None:
    """GRPC refuses a message that is too large before it is decoded."""
    async with serve(max_message_bytes=65_536) as running:
        session = await opened(running)
        wrong = pb.Chunk(session_id=session, inputs=b"\0" * 100_000)
        error = await refused(running.stub.Step(pb.StepRequest(chunk=wrong)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await stepped(running, session, [[1, 1]])).tolist() == [[1, 1]]


async def test_a_request_that_cannot_be_decoded_is_refused_and_counted(running: Running) -> None:
    """A request that cannot be decoded is refused and counted with its reason."""
    for method in ("Step", "ListModels"):
        error = await refused(raw(running, method)(b"\0 is no tag"))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert reason(error) == "INVALID_REQUEST"
        assert "a request of 11 bytes cannot be decoded" in (error.details() or "")
    assert running.metric("ntm_errors_total", reason="INVALID_REQUEST") == 2


async def test_more_traces_than_any_model_has_are_refused(running: Running) -> None:
    """Too many trace names are refused before any is looked up, even if all are known."""
    session = await opened(running)
    names = ["read_weighting"] * 100_000
    error = await refused(
        running.stub.Step(pb.StepRequest(chunk=chunk(session, [[1, 1]], names=names)))
    )
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "100000 traces are selected; the limit is 64"


async def test_refused_requests_are_not_kept(running: Running) -> None:
    """What a refusal leaves behind for the garbage collector refers to no request."""
    session = await opened(running)
    wrong = pb.StepRequest(chunk=pb.Chunk(session_id=session, inputs=b"\0" * 100_000))
    gc.collect()
    gc.disable()
    try:
        for content in (wrong.SerializeToString(), b"\0" * 100_000):
            await refused(raw(running, "Step")(content))
        left = gc.get_objects()
        # By their types: some objects of other libraries pretend to be of others, and warn of it.
        assert [each for each in left if type(each) is Chunk] == []
        frames = [each for each in left if type(each) is FrameType]
        ours = [frame for frame in frames if "/service/" in frame.f_code.co_filename]
        held = [value for frame in ours for value in frame.f_locals.values()]
        sizes = (len(value) for value in held if isinstance(value, bytes))
        assert max(sizes, default=0) < 100_000
    finally:
        gc.enable()


async def test_a_cancelled_call_leaves_no_other_pending(running: Running) -> None:
    """Of many calls at once, every third is cancelled; the others get exactly their sums."""
    sessions = [await opened(running) for _ in range(12)]
    calls = [
        running.stub.Step(pb.StepRequest(chunk=chunk(session, [[1, 1]] * 200)))
        for session in sessions
    ]
    for call in calls[::3]:
        call.cancel()
    answers = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 30)
    for number, answer in enumerate(answers):
        if number % 3 == 0:
            assert isinstance(answer, asyncio.CancelledError)
        else:
            assert isinstance(answer, pb.StepResponse)
            assert outputs(answer.reply)[-1].tolist() == [200, 200]


async def test_a_call_past_its_deadline_stops_its_chunk(serve: Serve) -> None:
    """After a call's deadline the chunk stops, and the session is at the step that it reached."""
    async with serve(max_chunk_steps=100_000, max_waiting_steps=100_000) as running:
        session = await opened(running)
        request = pb.StepRequest(chunk=chunk(session, [[1, 1]] * 100_000))
        error = await refused(running.stub.Step(request, timeout=0.1))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        got = await running.stub.GetSession(pb.GetSessionRequest(session_id=session))
        reached = got.session.next_step
        assert reached < 100_000
        after = await stepped(running, session, [[1, 1]])
        assert after[0, 0] == reached + 1


async def test_health_and_reflection_answer(running: Running) -> None:
    """Health checks and reflection answer in gRPC's standard form."""
    health = health_pb2_grpc.HealthStub(running.channel)
    for service in ("", "ntm.v1.NtmService"):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    call = reflection_pb2_grpc.ServerReflectionStub(running.channel).ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = await call.read()
    names = [service.name for service in answer.list_services_response.service]
    assert "ntm.v1.NtmService" in names
    await call.done_writing()


async def test_no_method_answers_unimplemented(running: Running) -> None:
    """Every RPC of the proto is implemented."""
    for method in pb.DESCRIPTOR.services_by_name["NtmService"].methods:
        if method.name == "StreamSteps":
            continue
        request = getattr(pb, method.input_type.name)()
        call = getattr(running.stub, method.name)(request)
        assert await call.code() is not grpc.StatusCode.UNIMPLEMENTED
