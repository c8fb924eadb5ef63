"""Around every unary call: its error as gRPC tells it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio

from service import status
from service.logs import call_fields
from service.metrics import Metrics
from service.observation import PREFIX

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class UnaryInterceptor(grpc.aio.ServerInterceptor):
    """Turns errors into status codes with details, and counts them."""

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
            self._wrapped(handler.unary_unary),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _wrapped(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        async def call(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> object:
            try:
                return await behaviour(request, context)
            except Exception as error:
                known = status.known(error)
                self._metrics.errors.labels(known.reason).inc()
                fields = call_fields.get()
                fields["reason"] = known.reason
                trailing = ((status.DETAILS_KEY, status.details(known, str(fields["request_id"]))),)
                await context.abort(status.code(known), known.message, trailing)

        return call
