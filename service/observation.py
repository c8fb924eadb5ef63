"""Around every call of our service: its span, its time and code, and its line in the access log."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias

import grpc
import grpc.aio

from service.access import AccessLog
from service.logs import call_fields, session_tag
from service.metrics import Metrics
from service.spans import Spans

PREFIX = "/ntm.v1.NtmService/"

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour: TypeAlias = Callable[..., Any]

_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)


class ObservingInterceptor(grpc.aio.ServerInterceptor):
    """Observes calls from the outside; what goes wrong inside goes on unchanged."""

    def __init__(self, metrics: Metrics, access_log: AccessLog, spans: Spans) -> None:
        """Tell all three."""
        self._metrics = metrics
        self._access_log = access_log
        self._spans = spans

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wrap our handlers; leave health and reflection as they are."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(PREFIX):
            return handler
        name = method.removeprefix(PREFIX)
        coders = handler.request_deserializer, handler.response_serializer
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._observed(handler.unary_unary, name, self._count_call), *coders
            )
        assert handler.stream_stream is not None, "our service has no other kinds of calls"
        return grpc.stream_stream_rpc_method_handler(
            self._observed(handler.stream_stream, name, self._count_stream), *coders
        )

    def _observed(
        self, behaviour: Behaviour, method: str, count: Callable[[str, str, float], None]
    ) -> Behaviour:
        async def call(request: object, context: Context) -> object:
            started = time.perf_counter()
            metadata = context.invocation_metadata() or ()
            fields: dict[str, object] = {"request_id": _request_id(metadata)}
            call_fields.set(fields)
            code = grpc.StatusCode.OK
            try:
                with self._spans.call(method, metadata):
                    return await behaviour(request, context)
            except asyncio.CancelledError:
                code = grpc.StatusCode.CANCELLED
                raise
            except grpc.aio.AbortError:
                code = context.code()
                raise
            except Exception:
                code = grpc.StatusCode.UNKNOWN  # what gRPC makes of it
                raise
            finally:
                seconds = time.perf_counter() - started
                count(method, code.name, seconds)
                if session := _session(request):
                    fields["session"] = session_tag(session)
                self._access_log.note(
                    code.name, method=method, seconds=round(seconds, 6), peer=context.peer()
                )

        return call

    def _count_call(self, method: str, code: str, seconds: float) -> None:
        self._metrics.rpc_seconds.labels(method, code).observe(seconds)

    def _count_stream(self, method: str, code: str, seconds: float) -> None:
        self._metrics.streams_ended.labels(code).inc()


def _request_id(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """What the client calls its request, if that can be logged, else a new id."""
    for key, value in metadata:
        if key == "x-request-id" and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    return secrets.token_hex(8)


def _session(request: object) -> str:
    """Id of the session that a request names, or nothing."""
    session_id: str = getattr(getattr(request, "chunk", request), "session_id", "")
    return session_id
