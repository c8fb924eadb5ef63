"""Around every unary call: its time and code, and its error as gRPC tells it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio

from service import codec, status
from service.metrics import Metrics

log = logging.getLogger(__name__)

PREFIX = "/ntm.v1.NtmService/"

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class UnaryInterceptor(grpc.aio.ServerInterceptor):
    """Turns errors into status codes with details; measures and logs each call of our service."""

    def __init__(self, metrics: Metrics) -> None:
        """Count in these metrics."""
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """
        Wrap our unary handlers; leave health and reflection as they are.

        Ours get the bytes of messages: what gRPC itself cannot decode it would tell as UNKNOWN.
        """
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(PREFIX):
            return handler
        if handler.unary_unary is None:
            stream: Any = handler.stream_stream
            return grpc.stream_stream_rpc_method_handler(stream, None, handler.response_serializer)
        return grpc.unary_unary_rpc_method_handler(
            self._wrapped(handler, method.removeprefix(PREFIX)),
            None,
            handler.response_serializer,
        )

    def _wrapped(self, handler: Handler, method: str) -> Callable[..., Any]:
        behaviour: Any = handler.unary_unary
        parse: Any = handler.request_deserializer

        async def call(content: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> object:
            started = time.perf_counter()
            code = grpc.StatusCode.OK
            try:
                return await behaviour(codec.request(parse, content), context)
            except asyncio.CancelledError:
                code = grpc.StatusCode.CANCELLED
                raise
            except Exception as error:
                known = status.known(error)
                code = status.code(known)
                self._metrics.errors.labels(known.reason).inc()
                trailing = ((status.DETAILS_KEY, status.details(known)),)
                await context.abort(code, known.message, trailing)
            finally:
                seconds = time.perf_counter() - started
                self._metrics.rpc_seconds.labels(method, code.name).observe(seconds)
                log.debug("call", extra={"method": method, "code": code.name, "seconds": seconds})

        return call
