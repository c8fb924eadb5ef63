"""
Interceptors around every call: they observe it, find its principal, and convert its error.

`ObservingInterceptor` is the outer one. It sees the final code of every call, also of a call that
`CallInterceptor` refuses.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeAlias, TypeVar

import grpc
import grpc.aio

from service import codec
from service.auth.authentication import Authentication, Context
from service.auth.principal import PRINCIPAL, Principal
from service.errors import CapacityExceeded, NtmError, PermissionDenied, Unauthenticated
from service.rpc import status
from service.rpc.spans import Spans
from service.settings import Settings
from service.telemetry.logs import AccessLog, call_fields, session_tag
from service.telemetry.metrics import Metrics

PREFIX = "/ntm.v1.NtmService/"
HEALTH_PREFIX = "/grpc.health.v1.Health/"
STREAM = "StreamSteps"
"""The only RPC of our service that is not unary."""

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour: TypeAlias = Callable[..., Any]
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]"

B = TypeVar("B", bound=Behaviour)

_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)


def needs(scope: str) -> Callable[[B], B]:
    """
    Set the scope that a caller's token needs for an RPC. Every RPC of our service must have one.
    """

    def mark(behaviour: B) -> B:
        behaviour.scope = scope  # type: ignore[attr-defined]
        return behaviour

    return mark


def scopes(servicer: type) -> dict[str, str]:
    """The scope that each RPC of a servicer needs, by the RPC's name."""
    methods = vars(servicer).items()
    return {name: method.scope for name, method in methods if hasattr(method, "scope")}


class ObservingInterceptor(grpc.aio.ServerInterceptor):
    """Makes the span of every call, counts it and logs it; errors pass through unchanged."""

    def __init__(self, metrics: Metrics, access_log: AccessLog, spans: Spans) -> None:
        self._metrics = metrics
        self._access_log = access_log
        self._spans = spans

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
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
                    request = None  # gRPC keeps this frame in a cycle until it is collected
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
            self._metrics.rpc_seconds.labels(method).observe(seconds)
            self._metrics.rpcs_ended.labels(method, code).inc()


class CallInterceptor(grpc.aio.ServerInterceptor):
    """
    Admits callers with the right scope while there is room, and gives errors their code and
    details.

    Health checks are open to every caller. Reflection is open to every principal.
    """

    def __init__(
        self,
        authentication: Authentication,
        scopes: Mapping[str, str],
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        """An RPC of our service that is not in `scopes` is refused to every caller."""
        self._authentication = authentication
        self._scopes = scopes
        self._settings = settings
        self._metrics = metrics
        self._under_way = 0

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Wrap every handler but those of health checks; refuse before any request is read."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(HEALTH_PREFIX):
            return handler
        try:
            self._check_room()
            principal = self._authentication.by_token(handler_call_details.invocation_metadata)
            if method.startswith(PREFIX):
                self._check_scope(principal, method.removeprefix(PREFIX))
        except NtmError as error:
            return grpc.stream_stream_rpc_method_handler(self._refusal(error))
        # Our handlers get the bytes of a request and decode them: gRPC would answer bytes that it
        # cannot decode with UNKNOWN.
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
                content = b""  # gRPC keeps this frame in a cycle until it is collected
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
        """
        Find the principal of the call, from its token or else from its connection, and set
        `PRINCIPAL`.
        """
        caller = principal or self._authentication.by_connection(context)
        PRINCIPAL.set(caller)
        if caller.is_authenticated:
            call_fields.get()["principal"] = caller.name
        return caller

    def _check_room(self) -> None:
        maximum = self._settings.max_calls
        if self._under_way >= maximum:
            raise CapacityExceeded(
                f"{maximum} calls are under way, the most this server takes; try again later",
                limit="max_calls",
            )

    def _check_scope(self, principal: Principal | None, method: str) -> None:
        """
        Raise PermissionDenied for a token without the scope that the RPC needs. Other callers have
        every scope.
        """
        scope = self._scopes.get(method)
        if scope is None:
            raise NtmError(f"{method} names no scope that it needs, so it cannot be called")
        if principal is not None and scope not in principal.scopes:
            raise PermissionDenied(
                f"{method} needs the scope {scope!r}, which {principal.name[:64]!r} does not have",
                scope=scope,
            )

    async def _abort(self, context: Context, error: NtmError) -> NoReturn:
        self._metrics.errors.labels(error.reason).inc()
        fields = call_fields.get()
        fields["reason"] = error.reason
        trailing = ((status.DETAILS_KEY, status.details(error, str(fields["request_id"]))),)
        await context.abort(status.code(error), error.message, trailing)


def _session(request: object) -> str:
    """The id of the session that a request names; empty if it names none."""
    session_id: str = getattr(getattr(request, "chunk", request), "session_id", "")
    return session_id


async def _finished(running: Any, context: Context) -> None:
    """
    Wait for a stream's handler: a coroutine that writes its messages, or a generator of messages.
    """
    if not inspect.isasyncgen(running):
        await running
        return
    async for response in running:
        await context.write(response)


async def _while_valid(principal: Principal, running: Awaitable[None]) -> None:
    """Wait for a stream, at most until its principal's token expires."""
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


def _request_id(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The client's id of its request, if it is safe to log, else a new one."""
    for key, value in metadata:
        if key == "x-request-id" and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    return secrets.token_hex(8)
