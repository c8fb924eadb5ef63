"""
gRPC's server on the event loop `QueueLoop`, with as much of grpc.aio's server as is used here.

Both are made of the same parts of grpcio, which are private; a check of CI runs the tests with the
oldest and the newest grpcio that the server takes.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any, NamedTuple, NoReturn

import grpc
import grpc.aio
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from service.rpc.queue_loop import QueueLoop

log = logging.getLogger(__name__)

_NO_FLAGS = 0

_AWAITED_CALLS = 64
"""The number of calls that may come at once; with one, each comes a round of the loop later."""

_CODES = {code: code.value[0] for code in grpc.StatusCode}

Metadata = Sequence[tuple[str, str | bytes]]


class CallDetails(NamedTuple):
    """What is known of a call before its handler is."""

    method: str
    invocation_metadata: Metadata


class Call:
    """
    A call, as its handler sees it: the context, and for a stream also the requests.

    When the call ends early, because the client cancels it, its deadline passes or its connection
    breaks, the handler's task is cancelled.
    """

    def __init__(self, event: Any, loop: QueueLoop) -> None:
        self._event = event
        self._call = event.call
        self._loop = loop
        self._handler: Any = None
        self._has_begun = False
        self._code: grpc.StatusCode | None = None

    async def read(self) -> Any:
        """The next request, or `grpc.aio.EOF` if the client sends no more."""
        content = await self._batch(cygrpc.ReceiveMessageOperation(_NO_FLAGS))
        if content is None:
            return grpc.aio.EOF
        parse = self._handler.request_deserializer
        return content if parse is None else parse(content)

    async def write(self, message: Any) -> None:
        """Send a response of a stream; return when gRPC has taken it."""
        serialize = self._handler.response_serializer
        content = message if serialize is None else serialize(message)
        await self._batch(*self._beginning(), cygrpc.SendMessageOperation(content, _NO_FLAGS))

    def receive(self, got: Callable[[bytes | None], None]) -> None:
        """
        Have `got` called with the bytes of the next request, or with None if the client sends no
        more. It is not called if the call ends early.
        """
        self._begin_batch(
            (cygrpc.ReceiveMessageOperation(_NO_FLAGS),),
            lambda event: got(event.batch_operations[0].message()),
        )

    def send(self, content: bytes, sent: Callable[[], None], *, has_more: bool = False) -> None:
        """
        Send the bytes of a response of a stream. `sent` is called when gRPC has taken it, and not
        if the call ends early. With `has_more` another response follows at once, and both leave
        together.
        """
        flags = cygrpc.WriteFlag.buffer_hint if has_more else _NO_FLAGS
        operation = cygrpc.SendMessageOperation(content, flags)
        self._begin_batch((*self._beginning(), operation), lambda event: sent())

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()
    ) -> NoReturn:
        """End the call with an error. Raises AbortError, which the handler must let through."""
        self.end(code, details, trailing_metadata)
        raise grpc.aio.AbortError("Locally aborted.")

    def end(
        self,
        code: grpc.StatusCode = grpc.StatusCode.OK,
        details: str = "",
        trailing_metadata: Metadata = (),
        content: bytes | None = None,
    ) -> None:
        """Send the status, after the response of a unary call; only the first status is sent."""
        if self._code is not None:
            return
        self._code = code
        operations = self._beginning()
        if content is not None:
            operations += (cygrpc.SendMessageOperation(content, _NO_FLAGS),)
        status = cygrpc.SendStatusFromServerOperation(
            tuple(trailing_metadata), _CODES[code], details.encode(), _NO_FLAGS
        )
        self._call.start_server_batch((*operations, status), _nothing)

    def code(self) -> grpc.StatusCode | None:
        """The code with which the call was ended; None before that."""
        return self._code

    def peer(self) -> str:
        """The address of the client, such as ipv4:127.0.0.1:40318 or unix:."""
        return str(self._call.peer().decode())

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """What the connection tells of the client, such as the names in its certificate."""
        shown = cygrpc.auth_context(self._call) or {}
        return {key.decode(): values for key, values in shown.items()}

    def invocation_metadata(self) -> Metadata:
        """The metadata with which the call came."""
        return self._event.invocation_metadata or ()

    def __aiter__(self) -> Call:
        """The requests of a stream."""
        return self

    async def __anext__(self) -> Any:
        request = await self.read()
        if request is grpc.aio.EOF:
            raise StopAsyncIteration
        return request

    async def turn(self) -> None:
        """Wait until this call may take long without keeping others waiting for many such calls."""
        await self._loop.turn()

    def call_in_turn(self, callback: Callable[..., object], *arguments: Any) -> None:
        """Call `callback` soon, when it may take long."""
        self._loop.call_in_turn(callback, *arguments)

    def _beginning(self) -> tuple[Any, ...]:
        """What is sent before anything else."""
        if self._has_begun:
            return ()
        self._has_begun = True
        return (cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS),)

    def _begin_batch(self, operations: tuple[Any, ...], done: Callable[[Any], None]) -> None:
        """
        Begin operations, and call `done`, which must not raise, in the present context when they
        are done.

        It is called at the event itself. A round of the event loop more for each message would
        cost a fifth of the steps of 64 streams.
        """
        run = copy_context().run
        self._call.start_server_batch(
            operations, lambda event: run(done, event) if event.success else None
        )

    async def _batch(self, *operations: Any) -> Any:
        """
        Do operations, and return the message if the last one receives one.

        They fail only on a call that has ended; then this waits until the task is cancelled.
        """
        done = self._loop.create_future()
        self._call.start_server_batch(operations, partial(_resolve, done))
        event = await done
        if not event.success:
            await self._loop.create_future()
        last = event.batch_operations[-1]
        return last.message() if last.type() == cygrpc.OperationType.receive_message else None


class Transport:
    """
    A server of gRPC on the loop that runs: add ports and handlers, `start` it, then `stop` it.

    Only what generated code and this server need of `grpc.aio.Server`.
    """

    def __init__(self, maximum_calls: int, options: Iterable[tuple[str, Any]]) -> None:
        """Beyond `maximum_calls` at once, calls are refused without a look at them."""
        loop = asyncio.get_running_loop()
        if not isinstance(loop, QueueLoop):
            raise RuntimeError("the server needs an event loop of its kind: run it in a QueueLoop")
        self._loop = loop
        self._maximum_calls = maximum_calls
        self._server = cygrpc.Server(tuple(options), False)
        self._server.register_completion_queue(loop.queue)
        self._services: list[Any] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_open = False
        self._has_stopped = False

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add services."""
        self._services += handlers

    def add_port(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        """
        Listen on an address, with TLS if there are credentials, and return the port.

        Raises RuntimeError if the system does not let the server listen there.
        """
        native: Any = credentials
        port: int = (
            self._server.add_http2_port(address.encode(), native._credentials)
            if native
            else self._server.add_http2_port(address.encode())
        )
        if not port:
            raise RuntimeError("gRPC cannot listen there")
        return port

    async def start(self) -> None:
        """Answer calls."""
        self._server.start()
        self._is_open = True
        for _ in range(_AWAITED_CALLS):
            self._take_next()

    async def stop(self, grace: float) -> None:
        """
        Take no more calls, give those under way `grace` seconds, cancel the rest, and close the
        ports.
        """
        if self._has_stopped:
            return
        self._has_stopped = True
        if not self._is_open:
            self._server.start()  # gRPC can close the ports only of a server that has started
        self._is_open = False
        closed = self._loop.create_future()
        self._server.shutdown(self._loop.queue, partial(_resolve, closed))
        await asyncio.wait([closed], timeout=grace)
        if not closed.done():
            self._server.cancel_all_calls()
            await closed
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._server.destroy()

    def _take_next(self) -> None:
        queue = self._loop.queue
        self._server.request_call(queue, queue, self._take)

    def _take(self, event: Any) -> None:
        """Begin the call that has come."""
        if not event.success or not self._is_open:
            return
        self._take_next()
        call = Call(event, self._loop)
        if len(self._tasks) >= self._maximum_calls:
            event.call.start_server_batch(
                (cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),), _nothing
            )
            call.end(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls at once")
            return
        details = CallDetails(
            event.call_details.method.decode(errors="replace"), call.invocation_metadata()
        )
        task = self._loop.create_task(self._serve(call, details))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        event.call.start_server_batch(
            (cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),), partial(_close, task)
        )

    async def _serve(self, call: Call, details: CallDetails) -> None:
        try:
            found = (service.service(details) for service in self._services)
            handler = next((each for each in found if each is not None), None)
            if handler is None:
                call.end(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
                return
            await _handle(call, handler)
        except grpc.aio.AbortError:
            pass
        except asyncio.CancelledError:
            call.end(grpc.StatusCode.CANCELLED)
        except Exception as error:  # whatever a handler raises ends its own call only
            log.exception("unexpected error")
            call.end(grpc.StatusCode.UNKNOWN, f"unexpected {type(error).__name__}")


async def _handle(call: Call, handler: Any) -> None:
    call._handler = handler
    if handler.stream_stream is not None:
        await finished(handler.stream_stream(call, call), call.write)
        call.end()
        return
    request = await call.read()
    if request is grpc.aio.EOF:
        call.end(grpc.StatusCode.UNIMPLEMENTED, "a request is missing")
        return
    # Many costly calls that are ready together would keep a step waiting for all of them.
    await call.turn()
    if handler.unary_unary is not None:
        response = await handler.unary_unary(request, call)
        call.end(content=handler.response_serializer(response))
    else:
        await finished(handler.unary_stream(request, call), call.write)
        call.end()


async def finished(running: Any, write: Callable[[Any], Awaitable[None]]) -> None:
    """
    Wait for a stream's handler: a coroutine that writes its messages, or a generator of messages.
    """
    if not inspect.isasyncgen(running):
        await running
        return
    async for response in running:
        await write(response)


def _resolve(done: asyncio.Future[Any], event: Any) -> None:
    if not done.done():
        done.set_result(event)


def _close(task: asyncio.Task[None], event: Any) -> None:
    """Cancel the handler of a call that has ended early."""
    if event.batch_operations[0].cancelled():
        task.cancel()


def _nothing(event: object) -> None:
    """What is done at an event of which nothing is expected."""
