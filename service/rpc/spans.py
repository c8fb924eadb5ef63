"""Spans of calls, and of each chunk's wait and runs; the only user of OpenTelemetry."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.propagate import extract
from opentelemetry.trace import SpanKind, Status, StatusCode

from ntm import addresses
from ntm.addresses import AddressInvalid
from service import __version__
from service.engine.work import Chunk
from service.errors import NtmError
from service.settings import Settings
from service.telemetry.logs import session_tag

_NO_SPAN = nullcontext()


class Spans:
    """
    Makes spans, as children of the spans that clients name in `traceparent` metadata.

    Without an endpoint in the settings nothing is made.
    """

    def __init__(self, settings: Settings) -> None:
        """
        Prepare to send spans to the settings' endpoint, if there is one.

        Raises:
            RuntimeError: there is an endpoint, and the extra `otel` is not installed.
        """
        self._provider: Any = _provider(settings) if settings.otlp_endpoint else None
        if self._provider:
            self._tracer = self._provider.get_tracer("ntm", __version__)

    def call(
        self, method: str, metadata: Iterable[tuple[str, str | bytes]]
    ) -> AbstractContextManager[object]:
        """
        The span of a call, current within the context; an error that leaves the context is
        recorded. `method` is gRPC's path of it, /SERVICE/METHOD.
        """
        if not self._provider:
            return _NO_SPAN
        carrier = {key: value for key, value in metadata if isinstance(value, str)}
        # https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
        service, _, name = method.removeprefix("/").partition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
        return self._tracer.start_as_current_span(  # type: ignore[no-any-return]
            f"{service}/{name}",
            context=extract(carrier),
            kind=SpanKind.SERVER,
            attributes=attributes,
            record_exception=False,  # the server's log has errors that are not the client's
        )

    def parent(self) -> Context | None:
        """The parent of the spans of this call's chunks; None if they would not be sent."""
        if not self._provider:
            return None
        span = trace.get_current_span()
        return trace.set_span_in_context(span) if span.is_recording() else None

    def record(self, chunk: Chunk, parent: Context) -> None:
        """
        Make the spans of a finished or failed chunk: of the chunk itself, its wait, and its runs.

        A run is one call of onnxruntime, for some ticks of a batch with the chunk's session.
        """
        to_epoch = time.time_ns() - time.monotonic_ns()

        def nanoseconds(seconds: float) -> int:
            return int(seconds * 1e9) + to_epoch

        started = nanoseconds(chunk.submitted_seconds) if chunk.submitted_seconds else None
        attributes: dict[str, str | int] = {
            "ntm.session": session_tag(chunk.ref.id),
            "ntm.model": chunk.model,
            "ntm.steps": chunk.done,
        }
        span = self._tracer.start_span(
            "chunk", context=parent, start_time=started, attributes=attributes
        )
        if isinstance(chunk.error, NtmError):
            span.set_status(Status(StatusCode.ERROR, chunk.error.reason))
        inside = trace.set_span_in_context(span)
        if chunk.begun_seconds:
            wait = self._tracer.start_span("queue", context=inside, start_time=started)
            wait.end(nanoseconds(chunk.begun_seconds))
        for run in chunk.runs or ():
            made = self._tracer.start_span(
                "run",
                context=inside,
                start_time=nanoseconds(run.started_seconds),
                attributes={"ntm.ticks": run.ticks, "ntm.rows": run.rows},
            )
            made.end(nanoseconds(run.started_seconds + run.seconds))
        span.end(nanoseconds(chunk.finished_seconds) if chunk.finished_seconds else None)

    def close(self) -> None:
        """Send the spans that are left."""
        if self._provider:
            self._provider.shutdown()


def _options(endpoint: str) -> Any:
    """The options of a channel to a collector: no proxy if it is on this machine."""
    try:
        is_local = addresses.parse(endpoint.rpartition("://")[2].partition("/")[0]).is_local
    except AddressInvalid:  # something of gRPC's that the exporter takes
        is_local = False
    return (("grpc.enable_http_proxy", 0),) if is_local else ()


def _provider(settings: Settings) -> Any:
    """A provider that sends spans in batches, from a thread of its own."""
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise RuntimeError(
            f"--otlp-endpoint is {settings.otlp_endpoint!r}, but {error.name} is not installed; "
            "install the extra otel"
        ) from error
    provider = TracerProvider(
        resource=Resource.create({"service.name": "ntm-service", "service.version": __version__})
    )  # its sampler is as OTEL_TRACES_SAMPLER says
    insecure = not settings.otlp_endpoint.startswith("https://")
    exporter = OTLPSpanExporter(
        endpoint=settings.otlp_endpoint,
        insecure=insecure,
        channel_options=_options(settings.otlp_endpoint),
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
