"""A session is its owner's: to every other principal it is as if it had never been."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.duration_pb2 import Duration

from ntm.v1 import ntm_pb2 as pb
from service.auth.principal import READ, STEP
from service.engine.checkpoint import Checkpoint, encode
from service.session_ref import SessionRef
from tests.conftest import Running, Serve
from tests.e2e.calls import chunk, outputs, packed, reason
from tests.support.tokens import bearer, token_line

SERVICE = pb.DESCRIPTOR.services_by_name["NtmService"]

NAMES_A_SESSION = ("session_id", "close")
"""Fields of requests that hold the id of a session."""

NAMES_A_NEW_ONE = "CreateSessionRequest"
"""Its session_id is drawn by the client for a session that it opens; test_chosen_ids has it."""

ALICE, BOB = bearer("tok-alice"), bearer("tok-bob")
NEVER_OPENED = "f" * 32

Path = tuple[FieldDescriptor, ...]


def paths(message: Descriptor) -> list[Path]:
    """The ways through a request to each field that names a session that is open."""
    if message.name == NAMES_A_NEW_ONE:
        return []
    found: list[Path] = []
    for field in message.fields:
        if field.message_type is not None:
            found += [(field, *rest) for rest in paths(field.message_type)]
        elif field.name in NAMES_A_SESSION:
            found.append((field,))
    return found


@dataclass(frozen=True)
class Way:
    """An RPC, and a field by which its request names a session."""

    method: MethodDescriptor
    path: Path

    def __str__(self) -> str:
        """The test's name."""
        return ".".join([self.method.name, *(field.name for field in self.path)])

    def request(self, session: str) -> Any:
        """A request that names the session in this way, and is valid apart from that."""
        request = getattr(pb, self.method.input_type.name)()
        place = request
        for field in self.path[:-1]:
            inner = getattr(place, field.name)
            place = inner.add() if field.is_repeated else inner
        setattr(place, self.path[-1].name, session)
        if isinstance(place, pb.Chunk):
            place.inputs = packed([[1, 1]])
        if isinstance(place, pb.RestoreSessionRequest):
            place.checkpoint = encode(Checkpoint("ab" * 32, 5, 1, {}))
        return request


WAYS = [Way(method, path) for method in SERVICE.methods for path in paths(method.input_type)]


@dataclass
class Sessions:
    """A server with sessions of Alice: one open, one deleted, one expired."""

    running: Running
    open: str
    closed: tuple[str, str]

    async def told(self, way: Way, session: str, who: Any) -> tuple[int, str, str]:
        """Code, reason and sentence that a caller is told; (0, "", "") without an error."""
        call = getattr(self.running.stub, way.method.name)
        request = way.request(session)
        if way.method.client_streaming:
            error = (await call(iter([request]), metadata=who).read()).outcomes[0].error
            return error.code, error.reason, error.message
        try:
            await call(request, metadata=who)
        except grpc.aio.AioRpcError as error:
            return error.code().value[0], reason(error), str(error.details())
        return 0, "", ""


@pytest.fixture
async def sessions(serve: Serve, tmp_path: pathlib.Path) -> AsyncIterator[Sessions]:
    """Alice's sessions, on a server that knows Bob as well."""
    file = tmp_path / "tokens.jsonl"
    file.write_text(
        token_line("alice", "tok-alice", READ, STEP) + token_line("bob", "tok-bob", READ, STEP)
    )
    async with serve(tokens_file=str(file)) as running:
        create = running.stub.CreateSession

        async def opened(**fields: Any) -> str:
            request = pb.CreateSessionRequest(model="ledger", **fields)
            return str((await create(request, metadata=ALICE)).session.id)

        live, deleted = await opened(), await opened()
        expired = await opened(idle_timeout=Duration(nanos=1_000_000))
        await running.stub.DeleteSession(
            pb.DeleteSessionRequest(session_id=deleted), metadata=ALICE
        )
        describing = pb.GetSessionRequest(session_id=expired)
        while await running.stub.GetSession(describing, metadata=ALICE).code() is (
            grpc.StatusCode.OK
        ):
            pass
        yield Sessions(running, live, (deleted, expired))


def test_every_rpc_that_names_a_session_is_tried() -> None:
    """A new RPC or operation is found by its fields; those left out name no session."""
    walked = {way.method.name for way in WAYS}
    assert {method.name for method in SERVICE.methods} - walked == {
        "ListModels",
        "GetModel",
        "CreateSession",
        "ListSessions",
    }
    assert {str(way) for way in WAYS if way.method.name == "StreamSteps"} == {
        "StreamSteps.operations.step.session_id",
        "StreamSteps.operations.close",
    }
    # Whatever else holds an id in a request would have another name: an id is a string.
    strings = {
        field.full_name.removeprefix("ntm.v1.")
        for method in SERVICE.methods
        for message in (method.input_type, pb.Operation.DESCRIPTOR, pb.Chunk.DESCRIPTOR)
        for field in message.fields
        if field.type == field.TYPE_STRING and field.name not in NAMES_A_SESSION
    }
    assert strings == {
        "CreateSessionRequest.content_hash",
        "CreateSessionRequest.model",
        "ForkSessionRequest.fork_id",  # of a session that is made: test_chosen_ids has it
        "GetModelRequest.content_hash",
        "GetModelRequest.name",
        "ListSessionsRequest.page_token",
    }


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_anothers_session_is_unknown(sessions: Sessions, way: Way) -> None:
    """Open or closed, on every RPC: code, reason and words are those of an id never opened."""
    never = await sessions.told(way, NEVER_OPENED, BOB)
    assert never[:2] == (5, "SESSION_UNKNOWN")
    for session in (sessions.open, *sessions.closed):
        code, why, words = await sessions.told(way, session, BOB)
        assert (code, why, words.replace(session, NEVER_OPENED)) == never
    for session, expected in zip(sessions.closed, ("DELETED", "EXPIRED"), strict=True):
        assert (await sessions.told(way, session, ALICE))[1] == f"SESSION_{expected}"
    # Nothing that Bob tried has touched it: it is where it was, and its owner's.
    request = pb.StepRequest(chunk=chunk(sessions.open, [[1, 2]], first_step=0))
    reply = (await sessions.running.stub.Step(request, metadata=ALICE)).reply
    assert outputs(reply).tolist() == [[1, 2]]


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_without_the_check_anothers_session_would_be_served(
    sessions: Sessions, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the check Bob is served, so the test above depends on the check of each RPC."""
    monkeypatch.setattr(SessionRef, "may_use", lambda ref, owner: True)
    _, why, _ = await sessions.told(way, sessions.open, BOB)
    # A checkpoint that fits the session is not needed to see that it was compared with it.
    assert why == ("CHECKPOINT_FOREIGN" if way.method.name == "RestoreSession" else "")
    assert (await sessions.told(way, sessions.closed[0], BOB))[1] == "SESSION_DELETED"


async def test_each_lists_its_own(sessions: Sessions) -> None:
    """Each principal lists its own sessions, also if both are on one host."""
    listed = {}
    for name, who in (("alice", ALICE), ("bob", BOB)):
        page = await sessions.running.stub.ListSessions(pb.ListSessionsRequest(), metadata=who)
        listed[name] = [session.id for session in page.sessions]
    assert listed == {"alice": [sessions.open], "bob": []}


async def test_a_session_opened_on_a_stream_has_an_owner_too(sessions: Sessions) -> None:
    """Bob may step what he opened, and Alice may not."""
    call = sessions.running.stub.StreamSteps(metadata=BOB)
    opening = pb.Operation(open=pb.CreateSessionRequest(model="ledger"))
    await call.write(pb.StreamStepsRequest(operations=[opening]))
    session = (await call.read()).outcomes[0].opened.id
    stepping = pb.Operation(step=chunk(session, [[1, 1]]))
    await call.write(pb.StreamStepsRequest(operations=[stepping]))
    assert outputs((await call.read()).outcomes[0].reply).tolist() == [[1, 1]]
    await call.done_writing()
    (way,) = (way for way in WAYS if way.method.name == "Step")
    assert (await sessions.told(way, session, ALICE))[1] == "SESSION_UNKNOWN"


async def test_without_authentication_who_knows_an_id_uses_the_session(running: Running) -> None:
    """Without authentication, a session can be used from any connection that has its id."""
    request = pb.CreateSessionRequest(model="ledger")
    session = (await running.stub.CreateSession(request)).session.id
    async with grpc.aio.insecure_channel(f"dns:///localhost:{running.server.port}") as channel:
        step = channel.unary_unary(
            "/ntm.v1.NtmService/Step",
            request_serializer=pb.StepRequest.SerializeToString,
            response_deserializer=pb.StepResponse.FromString,
        )
        response = await step(pb.StepRequest(chunk=chunk(session, [[3, 4]])))
    assert outputs(response.reply).tolist() == [[3, 4]]
