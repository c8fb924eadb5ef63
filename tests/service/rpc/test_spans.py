"""Spans of calls and chunks, as an exporter gets them."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from service.engine.engine import Engine
from service.models.runtime import Network
from service.rpc import spans
from service.rpc.spans import Spans
from service.settings import Settings
from service.telemetry.logs import session_tag
from tests.conftest import Clock
from tests.support.driving import chunk, engine, opened, stepped, submitted

TRACEPARENT = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    """Keeps the spans that it gets."""
    return InMemorySpanExporter()


@pytest.fixture
def traced(exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> Spans:
    """Spans that go to the exporter at once."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(spans, "_provider", lambda settings: provider)
    return Spans(Settings(otlp_endpoint="http://127.0.0.1:1"))


@pytest.fixture
def ledgers(network: Network, clock: Clock) -> Engine:
    """An engine of which a run makes at most two ticks."""
    return engine(network, clock, max_burst=2)


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """The spans so far."""
    return {span.name: span for span in exporter.get_finished_spans()}


def number(span: ReadableSpan) -> int:
    """The id of a span."""
    context: Any = span.get_span_context()
    return int(context.span_id)


def test_a_call_is_a_child_of_its_clients_span(
    traced: Spans, exporter: InMemorySpanExporter
) -> None:
    """By the traceparent in its metadata; metadata that is bytes is no parent."""
    with traced.call("/ntm.v1.NtmService/Step", [TRACEPARENT, ("other-bin", b"\x00")]):
        assert traced.parent() is not None
    (span,) = exporter.get_finished_spans()

    assert span.name == "ntm.v1.NtmService/Step"
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert dict(span.attributes or {}) == {
        "rpc.system": "grpc",
        "rpc.service": "ntm.v1.NtmService",
        "rpc.method": "Step",
    }


def test_a_chunk_has_spans_of_its_wait_and_its_runs(
    traced: Spans, exporter: InMemorySpanExporter, ledgers: Engine
) -> None:
    """Three steps in runs of at most two are two runs."""
    session = opened(ledgers)
    work = chunk(session, [[1, 1]] * 3)
    work.runs = []
    stepped(ledgers, work)
    with traced.call("/ntm.v1.NtmService/Step", []):
        parent = traced.parent()
        assert parent is not None
        traced.record(work, parent)
    found = by_name(exporter)
    runs = [span for span in exporter.get_finished_spans() if span.name == "run"]

    assert dict(found["chunk"].attributes or {}) == {
        "ntm.session": session_tag(session.id),
        "ntm.model": "ledger",
        "ntm.steps": 3,
    }
    assert [dict(run.attributes or {}) for run in runs] == [
        {"ntm.ticks": 2, "ntm.rows": 1},
        {"ntm.ticks": 1, "ntm.rows": 1},
    ]
    for inner in (found["queue"], *runs):
        assert inner.parent is not None
        assert inner.parent.span_id == number(found["chunk"])


def test_a_chunk_that_is_refused_has_the_reason_and_no_run(
    traced: Spans, exporter: InMemorySpanExporter, ledgers: Engine
) -> None:
    """Its span is an error."""
    work = chunk(opened(ledgers), [[1, 1]], first_step=4)
    work.runs = []
    submitted(ledgers, work)
    with traced.call("/ntm.v1.NtmService/Step", []):
        parent = traced.parent()
        assert parent is not None
        traced.record(work, parent)
    found = by_name(exporter)

    assert set(found) == {"chunk", "ntm.v1.NtmService/Step"}
    assert found["chunk"].status.status_code is StatusCode.ERROR
    assert found["chunk"].status.description == "STEP_INDEX_MISMATCH"


def test_without_an_endpoint_no_chunk_is_recorded() -> None:
    """A call then has no span under which a chunk's would belong."""
    quiet = Spans(Settings())
    with quiet.call("/ntm.v1.NtmService/Step", [TRACEPARENT]):
        assert quiet.parent() is None
    quiet.close()


def test_an_endpoint_without_the_library_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The extra, by name."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(RuntimeError, match="is not installed; install the extra otel"):
        Spans(Settings(otlp_endpoint="http://collector:4317"))
