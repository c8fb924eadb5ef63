"""The RPCs, each over a real channel: what is answered, field by field."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
import pytest

from ntm.v1 import ntm_pb2 as pb
from service import codec
from service.engine import checkpoint
from tests.conftest import Running, Serve
from tests.e2e.calls import Stream, chunk, opened, outputs, reason, stepped, until
from tests.e2e.test_rpcs import refused
from tests.service.rpc.test_stream import Turns
from tests.support.driving import LEDGER


async def test_a_model_is_found_by_name_or_by_version(running: Running) -> None:
    """Both are the one version that is there, and it is loaded."""
    by_name = (await running.stub.GetModel(pb.GetModelRequest(name="ledger"))).model
    request = pb.GetModelRequest(name="ledger", content_hash=LEDGER.content_hash)
    by_version = (await running.stub.GetModel(request)).model

    assert by_name == by_version
    assert [(each.content_hash, each.current) for each in by_name.versions] == [
        (LEDGER.content_hash, True)
    ]


async def test_another_version_of_a_model_is_not_found(running: Running) -> None:
    """The error names the versions that are there."""
    request = pb.GetModelRequest(name="ledger", content_hash="ab" * 32)
    error = await refused(running.stub.GetModel(request))

    assert (error.code(), reason(error)) == (grpc.StatusCode.NOT_FOUND, "MODEL_VERSION_UNKNOWN")
    assert LEDGER.content_hash in str(error.details())


async def test_a_session_is_described_reset_and_deleted(running: Running) -> None:
    """Its step goes up with the steps and back to 0; after its deletion it is gone."""
    session, stub = await opened(running, locations=5), running.stub
    await stepped(running, session, [[1, 2]] * 3)
    described = (await stub.GetSession(pb.GetSessionRequest(session_id=session))).session
    reset = (await stub.ResetSession(pb.ResetSessionRequest(session_id=session))).session
    await stub.DeleteSession(pb.DeleteSessionRequest(session_id=session))
    error = await refused(stub.GetSession(pb.GetSessionRequest(session_id=session)))

    assert (described.id, described.model, described.locations) == (session, "ledger", 5)
    assert (described.next_step, reset.next_step) == (3, 0)
    assert reason(error) == "SESSION_DELETED"


@pytest.mark.parametrize("is_draining", [False, True])
async def test_a_session_is_described_after_the_chunks_that_wait(
    running: Running, monkeypatch: pytest.MonkeyPatch, is_draining: bool
) -> None:
    """It is at the step that they lead to, also while the server finishes them to stop."""
    call = Stream(running)
    session = await call.opened()
    turns = Turns(running, monkeypatch)
    await call.send(*(pb.Operation(tag=n, step=chunk(session, [[1, 1]] * 9)) for n in (1, 2)))
    (here,) = running.server.worker.engine.lifecycle.sessions
    await until(lambda: len(here.waiting) == 2)
    if is_draining:
        running.server.worker.engine.lifecycle.drain()
    describing = asyncio.ensure_future(
        running.stub.GetSession(pb.GetSessionRequest(session_id=session))
    )
    await until(lambda: describing.done() or len(here.waiting) == 3)
    turns.left = 99

    assert (await describing).session.next_step == 18
    await call.rest()


async def test_a_checkpoint_is_restored(running: Running) -> None:
    """The session goes on from there, as if it had not made the steps since."""
    session, stub = await opened(running), running.stub
    await stepped(running, session, [[1, 2]] * 2)
    taken = await stub.CheckpointSession(pb.CheckpointSessionRequest(session_id=session))
    await stepped(running, session, [[9, 9]])
    request = pb.RestoreSessionRequest(session_id=session, checkpoint=taken.checkpoint)
    restored = (await stub.RestoreSession(request)).session

    assert checkpoint.decode(taken.checkpoint).next_step == 2
    assert (taken.session.next_step, restored.next_step) == (2, 2)
    assert (await stepped(running, session, [[1, 1]])).tolist() == [[3, 5]]


async def test_memory_is_read_by_location(running: Running) -> None:
    """One row for each location, and one weighting for each head."""
    session = await opened(running, locations=4)
    await stepped(running, session, [[1, 2], [3, 4]])
    memory = await running.stub.ReadMemory(pb.ReadMemoryRequest(session_id=session))

    rows = np.frombuffer(memory.memory, "<f4").reshape(memory.locations, memory.width)
    assert rows.tolist() == [[1, 2], [3, 4], [0, 0], [0, 0]]
    assert np.frombuffer(memory.read_weightings, "<f4").tolist() == [1, 0, 0, 0]
    assert np.frombuffer(memory.write_weightings, "<f4").tolist() == [0, 0, 1, 0]
    assert memory.next_step == 2


async def test_an_answer_too_large_for_a_message_says_so(serve: Serve) -> None:
    """With its size and the limit, instead of gRPC's own error."""
    async with serve(max_message_bytes=65_536, max_locations=10_000) as running:
        session = await opened(running, locations=10_000)
        for call, request, what in (
            (running.stub.ReadMemory, pb.ReadMemoryRequest, "memory"),
            (running.stub.CheckpointSession, pb.CheckpointSessionRequest, "checkpoint"),
        ):
            error = await refused(call(request(session_id=session)))
            assert reason(error) == "INVALID_REQUEST"
            words = str(error.details())
            assert words.startswith(f"the {what} of 10000 locations takes ")
            assert words.endswith(
                " bytes, more than a message may have, 65536; start the server with a larger "
                "--max-message-bytes"
            )


async def test_a_list_of_models_too_large_for_a_message_says_so(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its size and the limit, as any other answer."""
    large = pb.Model(task="x" * (4 << 20))
    monkeypatch.setattr(codec, "model", lambda *_, **__: large)
    error = await refused(running.stub.ListModels(pb.ListModelsRequest()))
    assert reason(error) == "INVALID_REQUEST"
    assert str(error.details()).startswith("the list of 1 models takes ")


async def test_sessions_are_listed_in_pages(running: Running) -> None:
    """A page says where the next one begins; the last says nothing."""
    sessions = [await opened(running) for _ in range(3)]
    first = await running.stub.ListSessions(pb.ListSessionsRequest(page_size=2))
    request = pb.ListSessionsRequest(page_size=2, page_token=first.next_page_token)
    second = await running.stub.ListSessions(request)

    assert [each.id for each in first.sessions] == sessions[:2]
    assert [each.id for each in second.sessions] == sessions[2:]
    assert second.next_page_token == ""


@pytest.mark.parametrize("token", ["-1", "1.5", "²", "9" * 20])
async def test_a_page_token_of_another_making_is_refused(running: Running, token: str) -> None:
    """Whatever is no number of a session."""
    error = await refused(running.stub.ListSessions(pb.ListSessionsRequest(page_token=token)))
    assert error.details() == f"page token {token!r} is none of this server's"


async def test_a_step_is_answered_with_its_place(running: Running) -> None:
    """The index of its first step and of the next one, with the outputs between."""
    session = await opened(running)
    inputs = np.array([[1, 2], [3, 4]], "<f4").tobytes()
    request = pb.StepRequest(chunk=pb.Chunk(session_id=session, inputs=inputs, first_step=0))
    reply = (await running.stub.Step(request)).reply

    assert (reply.session_id, reply.first_step, reply.next_step) == (session, 0, 2)
    assert outputs(reply).tolist() == [[1, 2], [4, 6]]
