"""Around every call: its principal and scope, its request id, its error, its time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2

from ntm.v1 import ntm_pb2 as pb
from service.auth.principal import READ, STEP
from service.rpc import gate
from service.rpc.calls import Calls
from service.rpc.servicer import NtmServicer
from tests.conftest import Running, Serve
from tests.e2e.calls import Stream, info, opened, raw, reason, until
from tests.e2e.test_rpcs import refused
from tests.support.tokens import bearer, token_line

READERS = {
    "ListModels",
    "GetModel",
    "GetSession",
    "ListSessions",
    "CheckpointSession",
    "ReadMemory",
}
"""The RPCs that change nothing."""


def request_id(error: grpc.aio.AioRpcError) -> str:
    """The id of the request in a failed call's details."""
    trailing = dict(error.trailing_metadata() or ())
    found = error_details_pb2.RequestInfo()
    details = status_pb2.Status.FromString(trailing["grpc-status-details-bin"]).details
    assert details[1].Unpack(found)
    return str(found.request_id)


def test_every_rpc_says_which_scope_it_needs() -> None:
    """Those that change nothing need `read`, the others `step`."""
    rpcs = [method.name for method in pb.DESCRIPTOR.services_by_name["NtmService"].methods]
    assert gate.scopes(NtmServicer) == {name: READ if name in READERS else STEP for name in rpcs}


async def test_an_rpc_that_says_no_scope_is_refused_to_every_caller(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An RPC without a scope is refused to every caller, also without authentication."""
    known = gate.scopes(NtmServicer)
    del known["GetModel"]
    monkeypatch.setattr("service.server.scopes", lambda servicer: known)
    async with serve() as running:
        error = await refused(running.stub.GetModel(pb.GetModelRequest(name="ledger")))
        listed = await running.stub.ListModels(pb.ListModelsRequest())
    assert error.code() is grpc.StatusCode.INTERNAL
    assert error.details() == "GetModel names no scope that it needs, so it cannot be called"
    assert [model.name for model in listed.models] == ["ledger"]


async def test_a_token_without_the_scope_is_refused_before_the_request_is_read(
    serve: Serve, tmp_path: Path
) -> None:
    """So a request that cannot be decoded is refused for the scope as well."""
    file = tmp_path / "tokens.jsonl"
    file.write_text(token_line("alice", "tok-alice", READ))
    async with serve(tokens_file=str(file)) as running:
        call = raw(running, "ResetSession")
        error = await refused(call(b"\xff", metadata=bearer("tok-alice")))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert dict(info(error).metadata) == {"scope": STEP}
    assert error.details() == (
        "ResetSession needs the scope 'step', which 'token:alice' does not have"
    )


async def test_a_method_that_is_not_there_is_unimplemented(running: Running) -> None:
    """The gate knows no handler for it."""
    error = await refused(raw(running, "Unknown")(b""))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_bytes_that_are_no_request_are_an_invalid_argument(running: Running) -> None:
    """Of a unary call and of a stream; both are counted by their reason."""
    error = await refused(raw(running, "GetSession")(b"\xff"))
    call = raw(running, "StreamSteps")(iter([b"\xff\xff"]))
    streamed = await refused(call.read())
    for each, size in ((error, 1), (streamed, 2)):
        assert each.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert each.details() == (
            f"a request of {size} bytes cannot be decoded; is it of this method's type?"
        )
    assert running.metric("ntm_errors_total", reason="INVALID_REQUEST") == 2


async def test_an_error_that_is_not_the_clients_says_nothing_of_itself(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets INTERNAL; the log gets the error."""

    async def broken(*_: Any) -> None:
        raise ZeroDivisionError("of the server's own making")

    monkeypatch.setattr(Calls, "describe", broken)
    error = await refused(running.stub.GetSession(pb.GetSessionRequest(session_id="0" * 32)))
    assert (error.code(), reason(error)) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert error.details() == "internal error; the server's log has the details"
    assert "of the server's own making" in caplog.text


@pytest.mark.parametrize(
    ("given", "is_kept"), [("order-66.b_7", True), ("two words", False), ("x" * 65, False)]
)
async def test_a_request_id_that_is_safe_to_log_comes_back(
    running: Running, given: str, is_kept: bool
) -> None:
    """Any other is replaced by 16 hexadecimal digits."""
    call = running.stub.GetModel(
        pb.GetModelRequest(name="none"), metadata=(("x-request-id", given),)
    )
    found = request_id(await refused(call))
    if is_kept:
        assert found == given
    else:
        assert len(bytes.fromhex(found)) == 8


async def test_calls_are_timed_by_method_and_code_and_streams_are_counted(
    running: Running,
) -> None:
    """A stream lasts as long as its client likes, so that its time would say nothing."""
    await opened(running)
    await refused(running.stub.GetSession(pb.GetSessionRequest(session_id="0" * 32)))
    stream = Stream(running)
    await stream.opened()
    await stream.rest()

    def count(method: str, code: str) -> float:
        return running.metric("ntm_rpcs_ended_total", method=method, code=code)

    await until(lambda: running.metric("ntm_streams_ended_total", code="OK") == 1)
    assert count("CreateSession", "OK") == 1
    assert count("GetSession", "NOT_FOUND") == 1
    assert count("StreamSteps", "OK") == 0


async def test_calls_beyond_the_limit_are_refused_until_one_ends(serve: Serve) -> None:
    """Calls beyond the limit are refused with the name of the limit, until a call ends."""
    async with serve(max_calls=1) as running:
        stream = Stream(running)
        await stream.opened()
        error = await refused(running.stub.ListModels(pb.ListModelsRequest()))
        await stream.rest()
        await running.stub.ListModels(pb.ListModelsRequest())
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert dict(info(error).metadata) == {"limit": "max_calls"}
