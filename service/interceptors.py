"""Around every call: who makes it, whether there is room, and its error as gRPC tells it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeAlias

import grpc
import grpc.aio

from service import codec, status
from service.authentication import Authentication, host
from service.errors import CapacityExceeded, NtmError, PermissionDenied, Unauthenticated
from service.metrics import Metrics
from service.principal import PRINCIPAL, READ, STEP, Principal
from service.settings import Settings

log = logging.getLogger(__name__)

PREFIX = "/ntm.v1.NtmService/"
HEALTH_PREFIX = "/grpc.health.v1.Health/"

SCOPES = {
    "ListModels": READ,
    "GetModel": READ,
    "CreateSession": STEP,
    "GetSession": READ,
    "ListSessions": READ,
    "ResetSession": STEP,
    "DeleteSession": STEP,
    "ReadMemory": READ,
    "Step": STEP,
    "StreamSteps": STEP,
}
"""The scope that each RPC needs; one that is not here cannot be called."""

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour: TypeAlias = Callable[..., Any]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """
    Lets in those who may call, while there is room, and turns errors into codes with details.

    Health checks are open to all. Reflection is for every principal, whatever its scopes.
    """

    def __init__(
        self, authentication: Authentication, settings: Settings, metrics: Metrics
    ) -> None:
        """Count in these metrics."""
        self._authentication = authentication
        self._settings = settings
        self._metrics = metrics
        self._under_way = 0

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wrap every handler but those of health checks; refuse before any request is read."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(HEALTH_PREFIX):
            return handler
        name = method.removeprefix(PREFIX)
        scope = SCOPES[name] if method.startswith(PREFIX) else None
        try:
            self._check_room()
            principal = self._authentication.by_token(handler_call_details.invocation_metadata)
            _check_scope(principal, name, scope)
        except NtmError as error:
            refusal = self._refusal(error, name, is_unary=handler.unary_unary is not None)
            return grpc.stream_stream_rpc_method_handler(refusal)
        # Ours get the bytes of messages: what gRPC cannot decode it would tell as UNKNOWN.
        if handler.unary_unary is not None:
            unary = self._unary(handler, name, principal)
            return grpc.unary_unary_rpc_method_handler(unary, None, handler.response_serializer)
        assert handler.stream_stream is not None, f"{method} is of a kind that is not wrapped"
        stream = self._stream(handler.stream_stream, name, principal)
        parse = None if method.startswith(PREFIX) else handler.request_deserializer
        return grpc.stream_stream_rpc_method_handler(stream, parse, handler.response_serializer)

    def _unary(self, handler: Handler, method: str, principal: Principal | None) -> Behaviour:
        behaviour: Any = handler.unary_unary
        parse: Any = handler.request_deserializer

        async def call(content: bytes, context: Context) -> object:
            started = time.perf_counter()
            code = grpc.StatusCode.OK
            self._under_way += 1
            try:
                PRINCIPAL.set(principal or self._authentication.by_connection(context))
                return await behaviour(codec.request(parse, content), context)
            except asyncio.CancelledError:
                code = grpc.StatusCode.CANCELLED
                raise
            except Exception as error:
                known = status.known(error)
                code = status.code(known)
                content = b""  # gRPC keeps this frame, in a circle, until it is collected
                await self._abort(context, method, known)
            finally:
                self._under_way -= 1
                self._count(method, code, time.perf_counter() - started)

        return call

    def _stream(self, behaviour: Behaviour, method: str, principal: Principal | None) -> Behaviour:
        async def call(requests: object, context: Context) -> None:
            self._under_way += 1
            try:
                caller = principal or self._authentication.by_connection(context)
                PRINCIPAL.set(caller)
                await _while_valid(caller, _finished(behaviour(requests, context), context))
            except Exception as error:
                await self._abort(context, method, status.known(error))
            finally:
                self._under_way -= 1

        return call

    def _refusal(self, error: NtmError, method: str, *, is_unary: bool) -> Behaviour:
        async def call(requests: object, context: Context) -> None:
            if is_unary:
                self._count(method, status.code(error), 0.0)
            await self._abort(context, method, error)

        return call

    def _check_room(self) -> None:
        most = self._settings.max_calls
        if self._under_way >= most:
            raise CapacityExceeded(
                f"{most} calls are under way, the most this server takes; try again later",
                retry_delay_seconds=self._settings.retry_delay_seconds,
                limit="max_calls",
            )

    def _count(self, method: str, code: grpc.StatusCode, seconds: float) -> None:
        self._metrics.rpc_seconds.labels(method, code.name).observe(seconds)
        log.debug("call", extra={"method": method, "code": code.name, "seconds": seconds})

    async def _abort(self, context: Context, method: str, error: NtmError) -> NoReturn:
        self._metrics.errors.labels(error.reason).inc()
        if isinstance(error, (Unauthenticated, PermissionDenied)):
            refused = {"method": method, "reason": error.reason, "host": host(context)}
            log.info("call refused", extra=refused)
        trailing = ((status.DETAILS_KEY, status.details(error)),)
        await context.abort(status.code(error), error.message, trailing)


def _check_scope(principal: Principal | None, method: str, scope: str | None) -> None:
    """Only tokens have scopes; who is known by its connection may do everything."""
    if principal is not None and scope is not None and scope not in principal.scopes:
        raise PermissionDenied(
            f"{method} needs the scope {scope!r}, which {principal.name!r} does not have",
            scope=scope,
        )


async def _finished(running: Any, context: Context) -> None:
    """Wait for a handler of a stream: a coroutine that writes itself, or a generator."""
    if not inspect.isasyncgen(running):
        await running
        return
    async for response in running:
        await context.write(response)


async def _while_valid(principal: Principal, running: Awaitable[None]) -> None:
    """Wait for a stream, but no longer than its principal's token is valid."""
    expires = principal.expires_unix_seconds
    seconds = None if expires is None else max(0.0, expires - time.time())
    try:
        async with asyncio.timeout(seconds) as timeout:
            await running
    except TimeoutError:
        if not timeout.expired():
            raise
        raise Unauthenticated(
            "the token of this stream is no longer valid; open another stream with a new token"
        ) from None
