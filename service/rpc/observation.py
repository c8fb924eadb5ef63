"""Around every call but health checks: its span, its time and code, its line in the log."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias

import grpc
import grpc.aio

from service.rpc.spans import Spans
from service.telemetry.logs import AccessLog, call_fields
from service.telemetry.metrics import Metrics

PREFIX = "/ntm.v1.NtmService/"
HEALTH_PREFIX = "/grpc.health.v1.Health/"
STREAM = "StreamSteps"
"""The one call of our service that is not unary."""

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
        """Wrap every handler but those of health checks."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(HEALTH_PREFIX):
            return handler
        name = method.removeprefix(PREFIX)
        coders = handler.request_deserializer, handler.response_serializer
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._observed(handler.unary_unary, name), *coders
            )
        assert handler.stream_stream is not None, f"{method} is of a kind that is not wrapped"
        return grpc.stream_stream_rpc_method_handler(
            self._observed(handler.stream_stream, name), *coders
        )

    def _observed(self, behaviour: Behaviour, method: str) -> Behaviour:
        async def call(request: object, context: Context) -> object:
            started = time.perf_counter()
            metadata = context.invocation_metadata() or ()
            call_fields.set({"request_id": _request_id(metadata)})
            code = grpc.StatusCode.OK
            try:
                with self._spans.call(method, metadata):
                    answer = behaviour(request, context)
                    request = None  # gRPC keeps this frame, in a circle, until it is collected
                    return await answer
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
                self._count(method, code.name, seconds)
                self._access_log.note(
                    code.name, method=method, seconds=round(seconds, 6), peer=context.peer()
                )

        return call

    def _count(self, method: str, code: str, seconds: float) -> None:
        if method == STREAM:
            self._metrics.streams_ended.labels(code).inc()
        else:
            self._metrics.rpc_seconds.labels(method, code).observe(seconds)


def _request_id(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """What the client calls its request, if that can be logged, else a new id."""
    for key, value in metadata:
        if key == "x-request-id" and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    return secrets.token_hex(8)
