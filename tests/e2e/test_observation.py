"""The traces of each call: its request id, its line in the log, and its spans."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

from ntm.v1 import ntm_pb2 as pb
from ntm_client import AsyncClient, StepIndexMismatch
from service.auth.principal import READ, STEP
from service.inference.v2 import inference_pb2
from service.rpc.calls import Calls
from service.rpc.spans import Spans
from service.settings import Settings
from service.telemetry.logs import session_tag
from tests.conftest import Running, Serve
from tests.e2e.calls import Lines, Stream, chunk, opened
from tests.e2e.test_rpcs import refused
from tests.support.ports import free_port
from tests.support.tokens import bearer, token_line

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = ("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01")


async def test_a_failed_call_can_be_found_in_the_log(running: Running, lines: Lines) -> None:
    """The log line and the error have the request id that the client chose."""
    request = pb.GetSessionRequest(session_id="nobody's")
    metadata = (("x-request-id", "order-66"),)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await running.stub.GetSession(request, metadata=metadata)

    trailing = dict(failed.value.trailing_metadata() or ())
    details = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    told = error_details_pb2.RequestInfo()
    assert details.details[1].Unpack(told)
    assert told.request_id == "order-66"
    (line,) = await lines.written(1)
    assert (line["request_id"], line["method"]) == ("order-66", "GetSession")
    assert (line["code"], line["reason"]) == ("NOT_FOUND", "SESSION_UNKNOWN")
    assert line["session"] == session_tag("nobody's")
    assert "nobody's" not in json.dumps(line)


async def test_a_step_that_fails_on_a_stream_can_be_found_in_the_log(
    running: Running, lines: Lines
) -> None:
    """As a call that fails: the client's error has the request id of the line."""
    async with AsyncClient(running.address) as client:
        session = await client.create_session("ledger")
        await session.step([1, 2])
        other = await client.session(session.id)
        await other.step([1, 2])
        with pytest.raises(StepIndexMismatch) as failed:
            await session.step([3, 4])

    written = await lines.written(5)
    (line,) = [each for each in written if each["code"] != "OK"]
    assert line["request_id"] == failed.value.request_id
    assert (line["code"], line["reason"]) == ("ABORTED", "STEP_INDEX_MISMATCH")
    assert line["session"] == session_tag(session.id)


@pytest.mark.parametrize("given", ["", "two words", "x" * 65, "a\u200bb".encode().hex() + "$"])
async def test_a_request_id_that_cannot_be_logged_is_replaced(
    running: Running, lines: Lines, given: str
) -> None:
    """The server replaces it by 16 hexadecimal digits."""
    await running.stub.ListModels(pb.ListModelsRequest(), metadata=(("x-request-id", given),))

    (line,) = await lines.written(1)
    assert len(line["request_id"]) == 16
    int(line["request_id"], 16)


async def test_the_log_has_a_line_for_a_stream_and_no_session_id(
    running: Running, lines: Lines
) -> None:
    """The line is written at the end and has the time for which the stream was open."""
    stream = Stream(running)
    session = await stream.opened()
    await stream.send(pb.Operation(step=chunk(session, [[1, 2]])))
    await stream.next()
    await stream.rest()

    (line,) = await lines.written(1)
    assert (line["method"], line["code"]) == ("StreamSteps", "OK")
    assert line["seconds"] > 0
    assert session not in json.dumps(lines.fields)


async def test_a_refused_call_never_reaches_its_handler_and_is_counted_and_logged(
    serve: Serve, tmp_path: Path, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line has the request's id, the code, the reason and the peer, and no principal."""
    reached: list[object] = []
    monkeypatch.setattr(Calls, "step", lambda *arguments: reached.append(arguments))
    file = tmp_path / "tokens.jsonl"
    file.write_text(token_line("alice", "tok-alice", READ, STEP))
    async with serve(tokens_file=str(file)) as running:
        metadata = (*bearer("tok-mallory"), ("x-request-id", "order-66"))
        error = await refused(running.stub.Step(pb.StepRequest(), metadata=metadata))
        (line,) = await lines.written(1)
        counted = running.metric("ntm_rpcs_ended_total", method="Step", code="UNAUTHENTICATED")
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert (reached, counted) == ([], 1)
    assert line["request_id"] == "order-66"
    assert (line["code"], line["reason"]) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
    assert line["peer"].startswith("ipv4:127.0.0.1:")
    assert "principal" not in line


async def test_each_call_has_the_principal_of_its_own_token(
    serve: Serve, tmp_path: Path, lines: Lines
) -> None:
    """Calls that share a handler do not share their callers."""
    file = tmp_path / "tokens.jsonl"
    file.write_text(
        token_line("alice", "tok-alice", READ, STEP) + token_line("bob", "tok-bob", READ, STEP)
    )
    async with serve(tokens_file=str(file), access_log_per_second=100.0) as running:

        async def create(name: str) -> str:
            request = pb.CreateSessionRequest(model="ledger")
            made = await running.stub.CreateSession(request, metadata=bearer(f"tok-{name}"))
            return str(made.session.id)

        names = ["alice", "bob"] * 5
        made = await asyncio.gather(*map(create, names))
        for name in ("alice", "bob"):
            listed = await running.stub.ListSessions(
                pb.ListSessionsRequest(), metadata=bearer(f"tok-{name}")
            )
            its = {one for one, of in zip(made, names, strict=True) if of == name}
            assert {session.id for session in listed.sessions} == its
        logged = [line["principal"] for line in await lines.written(12)]
    assert sorted(logged) == ["token:alice"] * 6 + ["token:bob"] * 6


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP receiver that keeps the spans it gets."""

    def __init__(self) -> None:
        """Keep none at first."""
        self.spans: list[trace_pb2.Span] = []

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - OTLP's name
        """Keep the spans of a request."""
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
async def collector() -> AsyncIterator[tuple[Collector, str]]:
    """A running receiver, and its endpoint."""
    server, collector = grpc.aio.server(), Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield collector, f"http://127.0.0.1:{port}"
    await server.stop(None)


def attributes(span: trace_pb2.Span) -> dict[str, str | int]:
    """The span's attributes."""
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_chunk_has_spans_under_its_clients(
    serve: Serve,
    collector: tuple[Collector, str],
    monkeypatch: pytest.MonkeyPatch,
    streamed: bool,
) -> None:
    """The spans of the call, the chunk, its wait and its runs are nested and in order."""
    received, endpoint = collector
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    async with serve(otlp_endpoint=endpoint, max_burst=2) as running:
        session = await opened(running)
        steps = chunk(session, [[1, 1]] * 3)
        if streamed:
            call = running.stub.StreamSteps(metadata=(TRACEPARENT,))
            await call.write(pb.StreamStepsRequest(operations=[pb.Operation(step=steps)]))
            await call.read()
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
        else:
            await running.stub.Step(pb.StepRequest(chunk=steps), metadata=(TRACEPARENT,))
        await asyncio.wait_for(running.stop(), 30)

    spans = {span.name: span for span in received.spans}
    method = "StreamSteps" if streamed else "Step"
    call_span = spans[f"ntm.v1.NtmService/{method}"]
    assert {span.trace_id.hex() for span in received.spans} == {TRACE_ID}
    assert call_span.parent_span_id.hex() == PARENT_ID
    assert spans["chunk"].parent_span_id == call_span.span_id
    assert attributes(spans["chunk"]) == {
        "ntm.session": session_tag(session),
        "ntm.model": "ledger",
        "ntm.steps": 3,
    }
    runs = [span for span in received.spans if span.name == "run"]
    assert [attributes(run)["ntm.ticks"] for run in runs] == [2, 1]
    assert {each.parent_span_id for each in (spans["queue"], *runs)} == {spans["chunk"].span_id}
    bounds = [
        spans["chunk"].start_time_unix_nano,
        spans["queue"].start_time_unix_nano,
        spans["queue"].end_time_unix_nano,
        runs[0].start_time_unix_nano,
        runs[0].end_time_unix_nano,
        runs[1].start_time_unix_nano,
        runs[1].end_time_unix_nano,
        spans["chunk"].end_time_unix_nano,
    ]
    assert bounds == sorted(bounds)


async def test_each_request_of_an_inference_stream_has_its_spans(
    serve: Serve, collector: tuple[Collector, str]
) -> None:
    """Also the one that starts its sequence, and the one that ends it."""
    received, endpoint = collector
    async with serve(otlp_endpoint=endpoint) as running:
        call = running.channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            inference_pb2.ModelInferRequest.SerializeToString,
            inference_pb2.ModelStreamInferResponse.FromString,
        )(metadata=(TRACEPARENT,))
        for number in range(3):
            request = inference_pb2.ModelInferRequest(model_name="ledger")
            request.parameters["sequence_id"].int64_param = 1
            request.parameters["sequence_start"].bool_param = number == 0
            request.parameters["sequence_end"].bool_param = number == 2
            request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
            request.raw_input_contents.append(bytes(8))
            await call.write(request)
            answer = await call.read()
            assert isinstance(answer, inference_pb2.ModelStreamInferResponse)
            assert not answer.error_message
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        await asyncio.wait_for(running.stop(), 30)

    (stream,) = [span for span in received.spans if span.parent_span_id.hex() == PARENT_ID]
    assert stream.name == "inference.GRPCInferenceService/ModelStreamInfer"
    chunks = [span for span in received.spans if span.name == "chunk"]
    assert [span.parent_span_id for span in chunks] == [stream.span_id] * 3
    runs = {span.parent_span_id for span in received.spans if span.name == "run"}
    assert runs == {span.span_id for span in chunks}


async def test_calls_without_a_decision_of_their_client_are_sampled_as_opentelemetry_says(
    serve: Serve, collector: tuple[Collector, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable OTEL_TRACES_SAMPLER decides; with parentbased_always_off there are no spans."""
    received, endpoint = collector
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    async with serve(otlp_endpoint=endpoint) as running:
        await opened(running)
        await asyncio.wait_for(running.stop(), 30)

    assert received.spans == []


async def test_spans_reach_a_collector_of_this_machine_whatever_proxy_is_named(
    collector: tuple[Collector, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy could not reach it, and this one does not even run."""
    received, endpoint = collector
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    spans = Spans(Settings(otlp_endpoint=endpoint))
    with spans.call("/ntm.v1.NtmService/Step", []):
        pass
    await asyncio.to_thread(spans.close)

    assert [span.name for span in received.spans] == ["ntm.v1.NtmService/Step"]
