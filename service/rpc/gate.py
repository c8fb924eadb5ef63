"""
The gate, through which every call comes: it finds the principal, decodes, observes, and converts
errors.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, NoReturn, TypeAlias, TypeVar

import grpc
import grpc.aio

from service import decoding
from service.auth.authentication import Authentication, Context
from service.auth.principal import PRINCIPAL, Principal
from service.errors import CapacityExceeded, NtmError, PermissionDenied, Unauthenticated
from service.rpc import status
from service.rpc.spans import Spans
from service.rpc.transport import finished
from service.settings import Settings
from service.telemetry.logs import AccessLog, CallFields, call_fields
from service.telemetry.metrics import Metrics

PREFIXES = ("/ntm.v1.NtmService/", "/inference.GRPCInferenceService/")
"""Of the methods of our services. No two methods have the same name."""

HEALTH_PREFIX = "/grpc.health.v1.Health/"
STREAMS = frozenset({"StreamSteps", "ModelStreamInfer"})
"""The RPCs of our services that are not unary."""

LOOK_SECONDS = 5.0
"""How often the token of a stream is looked at."""

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour: TypeAlias = Callable[..., Any]

B = TypeVar("B", bound=Behaviour)

_TOKENS: ContextVar[Principal | None] = ContextVar("token's")
"""The principal that the token of the current call names, if it has one."""


def needs(scope: str) -> Callable[[B], B]:
    """
    Set the scope that a caller's token needs for an RPC. Every RPC of our services must have one.
    """

    def mark(behaviour: B) -> B:
        behaviour.scope = scope  # type: ignore[attr-defined]
        return behaviour

    return mark


def scopes(servicer: type) -> dict[str, str]:
    """The scope that each RPC of a servicer needs, by the RPC's name."""
    methods = vars(servicer).items()
    return {name: method.scope for name, method in methods if hasattr(method, "scope")}


class Gate(grpc.GenericRpcHandler):
    """
    Gives gRPC the handler of each call. What it does, in order:

    1. Before the request is read, it refuses a call beyond the limit, without a valid token, or
       whose token lacks the scope.
    2. It sets `PRINCIPAL`, and decodes the request.
    3. It gives an error of ours its code and its details, and hides any other.
    4. It counts and times every call, logs it, and makes its span.

    Health checks pass by all of this. Reflection is open to every principal.

    gRPC's interceptors could do the same, but they would make a handler anew for each call.
    """

    def __init__(
        self,
        authentication: Authentication,
        scopes: Mapping[str, str],
        settings: Settings,
        metrics: Metrics,
        access_log: AccessLog,
        spans: Spans,
    ) -> None:
        """An RPC of our services that is not in `scopes` is refused to every caller."""
        self._authentication = authentication
        self._scopes = scopes
        self._settings = settings
        self._metrics = metrics
        self._access_log = access_log
        self._spans = spans
        self._services: list[grpc.GenericRpcHandler] = []
        self._handlers: dict[str, Handler] = {}
        """The handlers so far by method, each with what it needs around it."""
        self._under_way = 0

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add a service, as its generated code does with what it takes for gRPC's server."""
        self._services += handlers

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """
        Do nothing with the handlers that the generated code gives once more, by their methods.

        gRPC's server would pass the gate by. It would also wait for a call of each method apart,
        which makes every call dearer.
        """

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """The handler of a call that has arrived, its own or one that refuses it."""
        method = handler_call_details.method
        handler = self._handlers.get(method) or self._found(handler_call_details)
        if handler is None or method.startswith(HEALTH_PREFIX):
            return handler
        metadata = handler_call_details.invocation_metadata or ()
        call_fields.set(CallFields(metadata))
        try:
            self._check_room()
            principal = self._authentication.by_token(metadata)
            if method.startswith(PREFIXES):
                self._check_scope(principal, _name(method))
        except NtmError as error:
            refusal = self._observed(self._refusal(error), method)
            return grpc.stream_stream_rpc_method_handler(refusal)
        _TOKENS.set(principal)
        return handler

    def _found(self, details: grpc.HandlerCallDetails) -> Handler | None:
        """A method's handler, with what it needs around it; None if there is no such method."""
        found = (service.service(details) for service in self._services)
        handler = next((each for each in found if each is not None), None)
        if handler is None:
            return None
        method = details.method
        if not method.startswith(HEALTH_PREFIX):
            handler = self._wrapped(handler, method)
        self._handlers[method] = handler
        return handler

    def _wrapped(self, handler: Handler, method: str) -> Handler:
        # Our handlers get the bytes of a request and decode them: gRPC would answer bytes that it
        # cannot decode with UNKNOWN.
        if handler.unary_unary is not None:
            unary = self._observed(self._unary(handler), method)
            return grpc.unary_unary_rpc_method_handler(unary, None, handler.response_serializer)
        assert handler.stream_stream is not None, f"{method} is of a kind that is not wrapped"
        stream = self._observed(self._stream(handler.stream_stream, _name(method)), method)
        parse = None if method.startswith(PREFIXES) else handler.request_deserializer
        return grpc.stream_stream_rpc_method_handler(stream, parse, handler.response_serializer)

    def _observed(self, behaviour: Behaviour, method: str) -> Behaviour:
        """A behaviour that aborts the call if it fails; the call is counted, logged and spanned."""
        name = _name(method)
        count = self._counting(name)

        async def call(request: object, context: Context) -> object:
            started = time.perf_counter()
            code = "OK"
            try:
                with self._spans.call(method, call_fields.get().metadata):
                    answer = behaviour(request, context)
                    request = None  # gRPC keeps this frame in a cycle until it is collected
                    return await answer
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except grpc.aio.AbortError:
                code = context.code().name
                raise
            except Exception:
                code = "UNKNOWN"  # what gRPC makes of it
                raise
            finally:
                seconds = time.perf_counter() - started
                count(code, seconds)
                self._access_log.note(
                    code,
                    lambda: {
                        "method": name,
                        "seconds": round(seconds, 6),
                        "peer": context.peer(),
                    },
                )

        return call

    def _counting(self, name: str) -> Callable[[str, float], None]:
        """A function that counts a call of a method by its code and its seconds."""
        if name in STREAMS:
            return lambda code, seconds: self._metrics.streams_ended.labels(code).inc()
        timed = self._metrics.rpc_seconds.labels(name)
        ended = self._metrics.rpcs_ended
        by_code = {"OK": ended.labels(name, "OK")}

        def count(code: str, seconds: float) -> None:
            timed.observe(seconds)
            (by_code.get(code) or ended.labels(name, code)).inc()

        return count

    def _unary(self, handler: Handler) -> Behaviour:
        behaviour: Any = handler.unary_unary
        # The class of the requests: its method FromString is what generated code gives.
        kind: Any = handler.request_deserializer.__self__  # type: ignore[union-attr]

        async def call(content: bytes, context: Context) -> object:
            self._under_way += 1
            try:
                fields = call_fields.get()
                self._admit(context)
                request = decoding.request(kind, content)
                fields.session_id = _session(request)
                return await behaviour(request, context)
            except Exception as error:
                content = b""  # gRPC keeps this frame in a cycle until it is collected
                await self._abort(context, status.known(error))
            finally:
                self._under_way -= 1

        return call

    def _stream(self, behaviour: Behaviour, name: str) -> Behaviour:
        async def call(requests: object, context: Context) -> None:
            self._under_way += 1
            try:
                caller = self._admit(context)
                await self._while_valid(
                    caller, name, finished(behaviour(requests, context), context.write)
                )
            except Exception as error:
                await self._abort(context, status.known(error))
            finally:
                self._under_way -= 1

        return call

    async def _while_valid(self, principal: Principal, name: str, running: Awaitable[None]) -> None:
        """
        Wait for a stream, at most until its token expires, is withdrawn or loses the scope, which
        is looked at now and then.
        """
        if _TOKENS.get() is None:
            await running
            return
        metadata, loop = call_fields.get().metadata, asyncio.get_running_loop()

        timer: asyncio.TimerHandle | None = None

        def look_later() -> None:
            nonlocal timer
            expires = principal.expires_unix_seconds or math.inf
            timer = loop.call_later(min(LOOK_SECONDS, max(0.0, expires - time.time())), look)

        def look() -> None:
            try:
                self._check_scope(self._authentication.by_token(metadata), name)
            except NtmError:
                timeout.reschedule(loop.time())
            else:
                look_later()

        look_later()
        try:
            async with asyncio.timeout(None) as timeout:
                await running
        except TimeoutError:
            if not timeout.expired():
                raise
            raise Unauthenticated(
                "the token of this stream is no longer valid; open another stream with a new token"
            ) from None
        finally:
            if timer is not None:
                timer.cancel()

    def _refusal(self, error: NtmError) -> Behaviour:
        async def call(requests: object, context: Context) -> None:
            await self._abort(context, error)

        return call

    def _admit(self, context: Context) -> Principal:
        """
        Find the principal of the call, from its token or else from its connection, and set
        `PRINCIPAL`.
        """
        caller = _TOKENS.get() or self._authentication.by_connection(context)
        PRINCIPAL.set(caller)
        if caller.is_authenticated:
            call_fields.get().principal = caller.name
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
        fields.reason = error.reason
        trailing = ((status.DETAILS_KEY, status.details(error, fields.request_id)),)
        await context.abort(status.code(error), error.message, trailing)


def _name(method: str) -> str:
    """The name of a method for metrics and logs: without the prefix if it is one of ours."""
    return method.rpartition("/")[2] if method.startswith(PREFIXES) else method


def _session(request: object) -> str:
    """The id of the session that a request names; empty if it names none."""
    session_id: str = getattr(getattr(request, "chunk", request), "session_id", "")
    return session_id
