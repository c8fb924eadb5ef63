"""Around every call: who makes it, whether there is room, and its error as gRPC tells it."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeAlias

import grpc
import grpc.aio

from service import codec
from service.auth.authentication import Authentication
from service.auth.principal import PRINCIPAL, READ, STEP, Principal
from service.errors import CapacityExceeded, NtmError, PermissionDenied, Unauthenticated
from service.rpc import status
from service.rpc.observation import HEALTH_PREFIX, PREFIX
from service.settings import Settings
from service.telemetry.logs import call_fields, session_tag
from service.telemetry.metrics import Metrics

SCOPES = {
    "ListModels": READ,
    "GetModel": READ,
    "CreateSession": STEP,
    "GetSession": READ,
    "ListSessions": READ,
    "ResetSession": STEP,
    "CheckpointSession": READ,
    "RestoreSession": STEP,
    "ForkSession": STEP,
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
            return grpc.stream_stream_rpc_method_handler(self._refusal(error))
        # Ours get the bytes of messages: what gRPC cannot decode it would tell as UNKNOWN.
        if handler.unary_unary is not None:
            unary = self._unary(handler, principal)
            return grpc.unary_unary_rpc_method_handler(unary, None, handler.response_serializer)
        assert handler.stream_stream is not None, f"{method} is of a kind that is not wrapped"
        stream = self._stream(handler.stream_stream, principal)
        parse = None if method.startswith(PREFIX) else handler.request_deserializer
        return grpc.stream_stream_rpc_method_handler(stream, parse, handler.response_serializer)

    def _unary(self, handler: Handler, principal: Principal | None) -> Behaviour:
        behaviour: Any = handler.unary_unary
        parse: Any = handler.request_deserializer

        async def call(content: bytes, context: Context) -> object:
            self._under_way += 1
            try:
                self._admit(principal, context)
                request = codec.request(parse, content)
                if session := _session(request):
                    call_fields.get()["session"] = session_tag(session)
                return await behaviour(request, context)
            except Exception as error:
                content = b""  # gRPC keeps this frame, in a circle, until it is collected
                await self._abort(context, status.known(error))
            finally:
                self._under_way -= 1

        return call

    def _stream(self, behaviour: Behaviour, principal: Principal | None) -> Behaviour:
        async def call(requests: object, context: Context) -> None:
            self._under_way += 1
            try:
                caller = self._admit(principal, context)
                await _while_valid(caller, _finished(behaviour(requests, context), context))
            except Exception as error:
                await self._abort(context, status.known(error))
            finally:
                self._under_way -= 1

        return call

    def _refusal(self, error: NtmError) -> Behaviour:
        async def call(requests: object, context: Context) -> None:
            await self._abort(context, error)

        return call

    def _admit(self, principal: Principal | None, context: Context) -> Principal:
        """Note who makes the call, as its connection says unless its token did."""
        caller = principal or self._authentication.by_connection(context)
        PRINCIPAL.set(caller)
        if caller.is_authenticated:
            call_fields.get()["principal"] = caller.name
        return caller

    def _check_room(self) -> None:
        most = self._settings.max_calls
        if self._under_way >= most:
            raise CapacityExceeded(
                f"{most} calls are under way, the most this server takes; try again later",
                limit="max_calls",
            )

    async def _abort(self, context: Context, error: NtmError) -> NoReturn:
        self._metrics.errors.labels(error.reason).inc()
        fields = call_fields.get()
        fields["reason"] = error.reason
        trailing = ((status.DETAILS_KEY, status.details(error, str(fields["request_id"]))),)
        await context.abort(status.code(error), error.message, trailing)


def _check_scope(principal: Principal | None, method: str, scope: str | None) -> None:
    """Only tokens have scopes; who is known by its connection may do everything."""
    if principal is not None and scope is not None and scope not in principal.scopes:
        raise PermissionDenied(
            f"{method} needs the scope {scope!r}, which {principal.name[:64]!r} does not have",
            scope=scope,
        )


def _session(request: object) -> str:
    """Id of the session that a request names, or nothing."""
    session_id: str = getattr(getattr(request, "chunk", request), "session_id", "")
    return session_id


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
