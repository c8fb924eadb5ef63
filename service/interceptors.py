"""Around every unary call: its time and code, and its error as gRPC tells it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio

from service import status
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
        """Wrap our unary handlers; leave streams, health and reflection as they are."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(PREFIX) or handler.unary_unary is None:
            return handler
        return grpc.unary_unary_rpc_method_handler(
            self._wrapped(handler.unary_unary, method.removeprefix(PREFIX)),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _wrapped(self, behaviour: Callable[..., Any], method: str) -> Callable[..., Any]:
        async def call(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> object:
            started = time.perf_counter()
            code = grpc.StatusCode.OK
            try:
                return await behaviour(request, context)
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
