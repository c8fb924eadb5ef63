"""A session is its owner's: to every other principal it is as if it had never been."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.duration_pb2 import Duration

from ntm.v1 import ntm_pb2 as pb
from service.auth.principal import READ, STEP
from service.engine.checkpoint import Checkpoint, encode
from tests.conftest import Running, Serve
from tests.e2e.calls import chunk, outputs, reason
from tests.e2e.test_rpcs import refused
from tests.support.tokens import bearer, token_line

METHODS = pb.DESCRIPTOR.services_by_name["NtmService"].methods

NAME_NO_SESSION = {"ListModels", "GetModel", "CreateSession", "ListSessions"}
"""RPCs whose requests name no session; every other one has to be tried here."""

ALICE, BOB = bearer("tok-alice"), bearer("tok-bob")
NEVER_OPENED = "f" * 32


def requests(method: MethodDescriptor, session: str) -> list[Any]:
    """Every way to name a session in a request of that RPC; fails for one that is not known."""
    made = getattr(pb, method.input_type.name)
    if method.name == "RestoreSession":
        return [made(session_id=session, checkpoint=encode(Checkpoint("ab" * 32, 5, 1, {})))]
    if "session_id" in method.input_type.fields_by_name:
        return [made(session_id=session)]
    if method.name == "Step":
        return [made(chunk=chunk(session, [[1, 1]]))]
    if method.name == "StreamSteps":
        kinds = {field.name for field in pb.Operation.DESCRIPTOR.oneofs_by_name["kind"].fields}
        operations = {
            "step": pb.Operation(step=chunk(session, [[1, 1]])),
            "close": pb.Operation(close=session),
        }
        assert kinds == {"open", *operations}, "try the new operation with another's session"
        return [made(operations=[operation]) for operation in operations.values()]
    pytest.fail(f"say how a request of {method.name} names a session, or that it names none")


@dataclass
class Sessions:
    """A server with sessions of Alice: one open, one deleted, one expired."""

    running: Running
    open: str
    closed: tuple[str, str]

    async def error(self, method: MethodDescriptor, request: Any, who: Any) -> tuple[Any, ...]:
        """Code, reason and sentence of what a call is told."""
        if method.client_streaming:
            call = getattr(self.running.stub, method.name)(iter([request]), metadata=who)
            error = (await call.read()).outcomes[0].error
            return error.code, error.reason, error.message, dict(error.metadata)
        error = await refused(getattr(self.running.stub, method.name)(request, metadata=who))
        return error.code().value[0], reason(error), error.details()


@pytest.fixture
async def sessions(serve: Serve, tmp_path: Path) -> AsyncIterator[Sessions]:
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


@pytest.mark.parametrize(
    "method", [m for m in METHODS if m.name not in NAME_NO_SESSION], ids=lambda m: str(m.name)
)
async def test_anothers_session_is_unknown(sessions: Sessions, method: MethodDescriptor) -> None:
    """Open or closed, on every RPC: code, reason and words are those of an id never opened."""
    never = [
        await sessions.error(method, request, BOB) for request in requests(method, NEVER_OPENED)
    ]
    assert all(told[:2] == (5, "SESSION_UNKNOWN") for told in never)
    for session in (sessions.open, *sessions.closed):
        told = [await sessions.error(method, each, BOB) for each in requests(method, session)]
        assert str(told).replace(session, NEVER_OPENED) == str(never)
    for session, expected in zip(sessions.closed, ("DELETED", "EXPIRED"), strict=True):
        for request in requests(method, session):
            told_alice = await sessions.error(method, request, ALICE)
            assert told_alice[1] == f"SESSION_{expected}"
    # Nothing that Bob tried has touched it: it is where it was, and its owner's.
    request = pb.StepRequest(chunk=chunk(sessions.open, [[1, 2]], first_step=0))
    reply = (await sessions.running.stub.Step(request, metadata=ALICE)).reply
    assert outputs(reply).tolist() == [[1, 2]]


async def test_each_lists_its_own(sessions: Sessions) -> None:
    """Both are on one host, and Bob sees nothing of Alice's."""
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
    method = next(m for m in METHODS if m.name == "Step")
    for request in requests(method, session):
        assert (await sessions.error(method, request, ALICE))[1] == "SESSION_UNKNOWN"


async def test_without_authentication_who_knows_an_id_uses_the_session(running: Running) -> None:
    """From whichever connection: the id is all that there is to show."""
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
