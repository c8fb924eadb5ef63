"""Authentication over real channels: tokens, signed tokens, scopes, and what is logged of them."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ntm.v1 import ntm_pb2 as pb
from service.auth.principal import READ, STEP
from service.rpc import gate
from service.rpc.gate import scopes
from service.rpc.servicer import NtmServicer
from service.telemetry.logs import JsonFormatter
from tests.conftest import Running, Serve
from tests.e2e.calls import Lines, chunk, info, outputs, reason, until
from tests.e2e.test_rpcs import refused
from tests.support.tiny_models import RUN_FAILS
from tests.support.tokens import bearer, token_line, write

METHODS = pb.DESCRIPTOR.services_by_name["NtmService"].methods

SCOPES = scopes(NtmServicer)

BOTH, READER, STEPPER = "tok-both", "tok-reader", "tok-stepper"


@pytest.fixture
def tokens_file(tmp_path: Path) -> Path:
    """A file of tokens of three principals."""
    file = tmp_path / "tokens.jsonl"
    file.write_text(
        token_line("alice", BOTH, READ, STEP)
        + token_line("reader", READER, READ)
        + token_line("stepper", STEPPER, STEP)
    )
    return file


@pytest.fixture
async def guarded(serve: Serve, tokens_file: Path) -> AsyncIterator[Running]:
    """A server that accepts these tokens."""
    async with serve(tokens_file=str(tokens_file)) as running:
        yield running


def called(running: Running, method: str, metadata: Any) -> Any:
    """Call any RPC with an empty request."""
    if method == "StreamSteps":
        return running.stub.StreamSteps(iter(()), metadata=metadata)
    request = getattr(pb, next(m.input_type.name for m in METHODS if m.name == method))()
    return getattr(running.stub, method)(request, metadata=metadata)


async def code_of(running: Running, method: str, token: str) -> grpc.StatusCode:
    """The status code of a call with this token."""
    found: grpc.StatusCode = await called(running, method, bearer(token)).code()
    return found


@pytest.mark.parametrize("method", [method.name for method in METHODS])
async def test_nobody_calls_without_a_valid_token(guarded: Running, method: str) -> None:
    """Every RPC answers each wrong token with the same message, and counts it."""
    wrong: list[tuple[tuple[str, str], ...]] = [
        (),
        bearer(""),
        bearer(BOTH[:-1]),
        bearer(BOTH + "x"),
        bearer("a.b.c"),
        (("authorization", BOTH),),
        (("authorization", f"Basic {BOTH}"),),
        (*bearer(BOTH), *bearer(READER)),
        (("x-token", BOTH),),
    ]
    told = set()
    for metadata in wrong:
        call = called(guarded, method, metadata)
        error = await refused(call.read() if method == "StreamSteps" else call)
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert (reason(error), dict(info(error).metadata)) == ("UNAUTHENTICATED", {})
        told.add(error.details())
    assert len(told) == 1
    assert guarded.metric("ntm_errors_total", reason="UNAUTHENTICATED") == len(wrong)
    if method != "StreamSteps":
        labels = {"method": method, "code": "UNAUTHENTICATED"}
        counted = partial(guarded.metric, "ntm_rpcs_ended_total", **labels)
        await until(lambda: counted() >= len(wrong))
        assert counted() == len(wrong)


@pytest.mark.parametrize("method", [method.name for method in METHODS])
async def test_a_token_does_what_its_scopes_allow(guarded: Running, method: str) -> None:
    """A token does nothing else, and the refusal names the missing scope."""
    may, may_not = (READER, STEPPER) if SCOPES[method] == READ else (STEPPER, READER)
    for token in (may, BOTH):
        assert await code_of(guarded, method, token) not in (
            grpc.StatusCode.UNAUTHENTICATED,
            grpc.StatusCode.PERMISSION_DENIED,
        )
    call = called(guarded, method, bearer(may_not))
    error = await refused(call.read() if method == "StreamSteps" else call)
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert reason(error) == "PERMISSION_DENIED"
    assert dict(info(error).metadata) == {"scope": SCOPES[method]}
    assert guarded.metric("ntm_errors_total", reason="PERMISSION_DENIED") == 1


async def test_the_scheme_is_written_as_one_likes(guarded: Running) -> None:
    """The scheme Bearer may be in lower case, as in HTTP."""
    metadata = (("authorization", f"bearer {READER}"),)
    assert await called(guarded, "ListModels", metadata).code() is grpc.StatusCode.OK


async def test_a_token_is_let_in_and_out_as_the_file_changes(
    guarded: Running, tokens_file: Path
) -> None:
    """A changed file counts without a restart; a wrong file changes nothing."""
    write(tokens_file, token_line("carol", "tok-new", READ))
    assert await code_of(guarded, "ListModels", "tok-new") is grpc.StatusCode.OK
    assert await code_of(guarded, "ListModels", BOTH) is grpc.StatusCode.UNAUTHENTICATED
    write(tokens_file, '{"principal": "alice", ')
    assert await code_of(guarded, "ListModels", "tok-new") is grpc.StatusCode.OK
    write(tokens_file, "")
    assert await code_of(guarded, "ListModels", "tok-new") is grpc.StatusCode.UNAUTHENTICATED


async def test_health_is_open_and_reflection_is_not(guarded: Running) -> None:
    """Health checks need no token; reflection needs any valid one."""
    health = health_pb2_grpc.HealthStub(guarded.channel)
    answer = await health.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(guarded.channel)
    call = reflection.ServerReflectionInfo()
    assert (await refused(call.read())).code() is grpc.StatusCode.UNAUTHENTICATED
    call = reflection.ServerReflectionInfo(metadata=bearer(STEPPER))
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    assert len((await call.read()).list_services_response.service) == 4
    await call.done_writing()


async def test_a_stream_ends_when_its_token_is_withdrawn(
    guarded: Running, tokens_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does one whose token has lost its scope, and no other."""
    monkeypatch.setattr(gate, "LOOK_SECONDS", 0.05)
    tokens = ("tok-kept", "tok-less", "tok-gone")
    lines = {token: token_line("alice", token, READ, STEP) for token in tokens}
    write(tokens_file, "".join(lines.values()))
    request = pb.CreateSessionRequest(model="ledger")
    created = await guarded.stub.CreateSession(request, metadata=bearer("tok-kept"))
    stepping = pb.Operation(step=chunk(created.session.id, [[1, 2]]))
    calls = [guarded.stub.StreamSteps(metadata=bearer(token)) for token in tokens]
    for call in calls:
        await call.write(pb.StreamStepsRequest(operations=[stepping]))
        await call.read()

    write(tokens_file, lines["tok-kept"] + token_line("alice", "tok-less", READ))
    for call in calls[1:]:
        error = await asyncio.wait_for(refused(call.read()), 10)
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert "no longer valid" in (error.details() or "")
    await calls[0].write(pb.StreamStepsRequest(operations=[stepping]))
    assert outputs((await calls[0].read()).outcomes[0].reply).tolist() == [[4, 8]]
    await calls[0].done_writing()


async def test_a_stream_ends_when_its_token_expires(guarded: Running, tokens_file: Path) -> None:
    """Its steps stay made, and its principal continues with another token."""
    request = pb.CreateSessionRequest(model="ledger")
    session = (await guarded.stub.CreateSession(request, metadata=bearer(BOTH))).session.id
    expires = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    lasting = token_line("alice", BOTH, READ, STEP)
    write(tokens_file, lasting + token_line("alice", "tok-short", STEP, expires=expires))
    call = guarded.stub.StreamSteps(metadata=bearer("tok-short"))
    stepping = pb.Operation(step=chunk(session, [[1, 2]]))
    await call.write(pb.StreamStepsRequest(operations=[stepping]))
    assert outputs((await call.read()).outcomes[0].reply).tolist() == [[1, 2]]
    error = await asyncio.wait_for(refused(call.read()), 10)
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "no longer valid" in (error.details() or "")
    assert reason(error) == "UNAUTHENTICATED"
    assert datetime.now(UTC).isoformat() >= expires
    await until(lambda: guarded.metric("ntm_streams") == 0)
    again = pb.StepRequest(chunk=chunk(session, [[1, 2]], first_step=1))
    assert outputs((await guarded.stub.Step(again, metadata=bearer(BOTH))).reply)[0, 0] == 2


async def test_signed_tokens_are_let_in(serve: Serve, tmp_path: Path) -> None:
    """They are valid beside the tokens of the file, until their keys are replaced."""
    keys, file = tmp_path / "keys.pem", tmp_path / "tokens.jsonl"
    file.write_text(token_line("alice", BOTH, READ))
    old, new = (ed25519.Ed25519PrivateKey.generate() for _ in range(2))

    def trust(private: ed25519.Ed25519PrivateKey) -> None:
        encoding = serialization.Encoding.PEM
        layout = serialization.PublicFormat.SubjectPublicKeyInfo
        keys.write_bytes(private.public_key().public_bytes(encoding, layout))

    def token(private: ed25519.Ed25519PrivateKey, scope: str) -> str:
        exp = int(time.time()) + 60
        said = {"sub": "dave", "iss": "issuer", "aud": "ntm", "exp": exp, "scope": scope}
        return jwt.encode(said, private, "EdDSA")

    trust(old)
    configured = {"jwt_keys": str(keys), "jwt_issuer": "issuer", "jwt_audience": "ntm"}
    async with serve(tokens_file=str(file), **configured) as running:
        assert await code_of(running, "ListModels", BOTH) is grpc.StatusCode.OK
        assert await code_of(running, "ListModels", token(old, READ)) is grpc.StatusCode.OK
        denied = await code_of(running, "ListModels", token(old, STEP))
        assert denied is grpc.StatusCode.PERMISSION_DENIED
        forged = await code_of(running, "ListModels", token(new, READ))
        assert forged is grpc.StatusCode.UNAUTHENTICATED
        trust(new)
        assert await code_of(running, "ListModels", token(new, READ)) is grpc.StatusCode.OK
        old_now = await code_of(running, "ListModels", token(old, READ))
        assert old_now is grpc.StatusCode.UNAUTHENTICATED


async def test_without_authentication_a_token_changes_nothing(running: Running) -> None:
    """A server without authentication accepts calls with a token."""
    assert await code_of(running, "ListModels", "whatever") is grpc.StatusCode.OK


async def test_a_principal_has_a_limit_of_its_own(serve: Serve, tokens_file: Path) -> None:
    """The refusal names the limit; other principals have room, and a delete makes room."""
    async with serve(tokens_file=str(tokens_file), max_sessions_per_principal=1) as running:
        opening = pb.CreateSessionRequest(model="ledger")
        first = await running.stub.CreateSession(opening, metadata=bearer(BOTH))
        error = await refused(running.stub.CreateSession(opening, metadata=bearer(BOTH)))
        assert (error.code(), reason(error)) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "CAPACITY_EXCEEDED",
        )
        assert dict(info(error).metadata) == {"limit": "max_sessions_per_principal"}
        await running.stub.CreateSession(opening, metadata=bearer(STEPPER))
        deleting = pb.DeleteSessionRequest(session_id=first.session.id)
        await running.stub.DeleteSession(deleting, metadata=bearer(BOTH))
        await running.stub.CreateSession(opening, metadata=bearer(BOTH))
        assert running.metric("ntm_errors_total", reason="CAPACITY_EXCEEDED") == 1


async def test_no_log_line_holds_a_token_or_a_session_id(
    guarded: Running, tokens_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At level debug, no line has a token or a session id that a reader could use."""
    with caplog.at_level(logging.DEBUG):
        me = bearer(BOTH)
        opening = pb.CreateSessionRequest(model="ledger")
        ids = [
            (await guarded.stub.CreateSession(opening, metadata=me)).session.id for _ in range(2)
        ]
        for inputs in ([[1, 1]], [[RUN_FAILS, 0]], [[1, 1]]):
            request = pb.StepRequest(chunk=chunk(ids[0], inputs))
            await guarded.stub.Step(request, metadata=me).code()
        call = guarded.stub.StreamSteps(metadata=me)
        operations = [pb.Operation(step=chunk(ids[1], [[1, 1]])), pb.Operation(close=ids[1])]
        await call.write(pb.StreamStepsRequest(operations=[*operations, *operations]))
        await call.done_writing()
        async for _ in call:
            pass
        for token in ("tok-guessed", STEPPER, READER):
            for method in SCOPES:
                await code_of(guarded, method, token)
        for session in ids:
            describing = pb.GetSessionRequest(session_id=session)
            await guarded.stub.GetSession(describing, metadata=bearer(READER)).code()
        write(tokens_file, "broken")
        await code_of(guarded, "ListModels", BOTH)
        await guarded.stop()
    lines = [JsonFormatter().format(record) for record in caplog.records]
    assert {"call", "files not taken over"} <= {json.loads(line)["message"] for line in lines}
    for secret in (BOTH, READER, STEPPER, "tok-guessed", *ids):
        assert [line for line in lines if secret in line] == []


async def test_a_refusal_is_logged_with_the_host(guarded: Running, lines: Lines) -> None:
    """An operator sees the host of refused calls."""
    await code_of(guarded, "ListModels", "tok-guessed")
    await code_of(guarded, "ListModels", STEPPER)
    refusals = await lines.written(2)
    assert [(each["method"], each["reason"]) for each in refusals] == [
        ("ListModels", "UNAUTHENTICATED"),
        ("ListModels", "PERMISSION_DENIED"),
    ]
    assert all(each["peer"].startswith("ipv4:127.0.0.1:") for each in refusals)
