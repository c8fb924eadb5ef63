"""The server of gRPC, with handlers of the test's own, over a real channel."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest

from service.rpc import queue_loop
from service.rpc.queue_loop import QueueLoop
from service.rpc.transport import Call, Transport
from tests.conftest import Clock

Code = grpc.StatusCode


class Handlers(grpc.GenericRpcHandler):
    """Handlers by method, all of bytes."""

    def __init__(self, **by_name: grpc.RpcMethodHandler[Any, Any]) -> None:
        """Each has the name of a method of the service `test`."""
        self._by_name = by_name
        self.asked: list[str] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of a method."""
        self.asked.append(details.method)
        return self._by_name.get(details.method.removeprefix("/test/"))


def unary(behaviour: Callable[..., Any]) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler of one request and one response."""
    return grpc.unary_unary_rpc_method_handler(behaviour, bytes, bytes)


def stream(behaviour: Callable[..., Any]) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler of many requests and responses."""
    return grpc.stream_stream_rpc_method_handler(behaviour, None, bytes)


@asynccontextmanager
async def served(
    handlers: Handlers, maximum_calls: int = 100
) -> AsyncIterator[tuple[Any, Transport]]:
    """A channel to a server with these handlers."""
    transport = Transport(maximum_calls, [])
    transport.add_generic_rpc_handlers([handlers])
    port = transport.add_port("127.0.0.1:0", None)
    await transport.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel, transport
    finally:
        await transport.stop(0.0)


async def failed(call: Any) -> tuple[Code, str]:
    """The code and the message with which a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), error.value.details() or ""


async def test_a_unary_call_gets_its_response() -> None:
    """And the handler sees metadata and peer of its call."""

    async def reverse(request: bytes, call: Call) -> bytes:
        assert ("key", "value") in call.invocation_metadata()
        assert call.peer().startswith("ipv4:127.0.0.1:")
        assert call.auth_context()["transport_security_type"] == [b"insecure"]
        return request[::-1]

    async with served(Handlers(reverse=unary(reverse))) as (channel, _):
        call = channel.unary_unary("/test/reverse")
        assert await call(b"abc", metadata=[("key", "value")]) == b"cba"


async def test_a_stream_may_be_a_generator_or_write_itself() -> None:
    """Both get the requests in their order, and end when the client does."""

    async def generator(requests: Call, call: Call) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    async def writer(requests: object, call: Call) -> None:
        while (request := await call.read()) is not grpc.aio.EOF:
            await call.write(request)

    def callbacks(requests: object, call: Call) -> asyncio.Future[None]:
        ended = asyncio.get_running_loop().create_future()

        def got(request: bytes | None) -> None:
            if request is None:
                ended.set_result(None)
            else:
                call.send(request, lambda: call.receive(got))

        call.receive(got)
        return ended

    kinds = {"generator": generator, "writer": writer, "callbacks": callbacks}
    requests = [b"%d" % number for number in range(300)]
    async with served(Handlers(**{k: stream(each) for k, each in kinds.items()})) as (channel, _):
        for kind in kinds:
            call = channel.stream_stream(f"/test/{kind}")(iter(requests))
            assert [response async for response in call] == requests


async def test_a_call_begins_only_while_its_loop_has_time(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So one that takes long begins in the next round, after events that came meanwhile."""
    times = SimpleNamespace(time=time.time, monotonic=clock)
    monkeypatch.setattr(queue_loop, "time", times)  # a busy machine could take it all
    loop = asyncio.get_running_loop()
    assert isinstance(loop, QueueLoop)
    had_time: list[bool] = []

    async def costly(request: bytes, call: Call) -> bytes:
        had_time.append(loop.has_time)
        clock.seconds += 0.006
        return request

    async with served(Handlers(costly=unary(costly))) as (channel, _):
        call = channel.unary_unary("/test/costly")
        await asyncio.gather(*(call(b"") for _ in range(32)))
    assert had_time == [True] * 32


async def test_a_method_that_is_none_is_unimplemented() -> None:
    """Also one whose name is no text."""
    handlers = Handlers()
    async with served(handlers) as (channel, _):
        ended = await failed(channel.unary_unary("/test/none")(b""))
        assert ended == (Code.UNIMPLEMENTED, "Method not found!")
        method: Any = b"/test/\xff"
        ended = await failed(channel.unary_unary(method)(b""))
        assert ended == (Code.UNIMPLEMENTED, "Method not found!")
    assert handlers.asked == ["/test/none", "/test/\ufffd"]


async def test_a_unary_call_without_a_request_is_refused() -> None:
    """The handler is not called."""

    async def never(request: bytes, call: Call) -> bytes:
        raise AssertionError

    async with served(Handlers(never=unary(never))) as (channel, _):
        call = channel.stream_unary("/test/never")(iter([]))
        assert await failed(call) == (Code.UNIMPLEMENTED, "a request is missing")


async def test_an_abort_sends_code_message_and_metadata() -> None:
    """Binary metadata too, and text that is not ASCII."""

    async def abort(request: bytes, call: Call) -> bytes:
        await call.abort(Code.ABORTED, "zu spät", [("details-bin", b"\0\xff")])

    async with served(Handlers(abort=unary(abort))) as (channel, _):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await channel.unary_unary("/test/abort")(b"")
    assert (error.value.code(), error.value.details()) == (Code.ABORTED, "zu spät")
    assert dict(error.value.trailing_metadata())["details-bin"] == b"\0\xff"


async def test_an_unexpected_error_ends_its_call_alone(caplog: pytest.LogCaptureFixture) -> None:
    """The client does not see its text, which the log has; the next call is served."""

    async def fail(request: bytes, call: Call) -> bytes:
        if request:
            return request
        raise ValueError("secret")

    async with served(Handlers(fail=unary(fail))) as (channel, _):
        method = channel.unary_unary("/test/fail")
        assert await failed(method(b"")) == (Code.UNKNOWN, "unexpected ValueError")
        assert await method(b"x") == b"x"
    assert "secret" in caplog.text


@pytest.mark.parametrize("how", ["cancel", "deadline", "close"])
async def test_a_call_that_ends_early_cancels_its_handler(how: str) -> None:
    """Whether the client cancels it, its deadline passes, or the connection breaks."""
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(request: bytes, call: Call) -> bytes:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return b""

    async with served(Handlers(wait=unary(wait))) as (channel, _):
        call = channel.unary_unary("/test/wait")(b"", timeout=0.2 if how == "deadline" else None)
        await begun.wait()
        if how == "cancel":
            call.cancel()
        elif how == "close":
            await channel.close()
        await cancelled.wait()


async def test_calls_beyond_the_most_are_refused() -> None:
    """They are served again once others have ended."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(request: bytes, call: Call) -> bytes:
        begun.set()
        await go_on.wait()
        return request

    async with served(Handlers(wait=unary(wait)), maximum_calls=1) as (channel, _):
        method = channel.unary_unary("/test/wait")
        first = method(b"1")
        await begun.wait()
        assert await failed(method(b"2")) == (Code.RESOURCE_EXHAUSTED, "too many calls at once")
        go_on.set()
        assert await first == b"1"
        assert await method(b"3") == b"3"


async def test_stopping_lets_calls_end_and_cancels_the_rest() -> None:
    """A call that ends within the time given gets its response; another one does not."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def end(request: bytes, call: Call) -> bytes:
        begun.set()
        await go_on.wait()
        return b"done"

    async with served(Handlers(end=unary(end))) as (channel, transport):
        call = channel.unary_unary("/test/end")(b"")
        await begun.wait()
        stopping = asyncio.create_task(transport.stop(60.0))
        await asyncio.sleep(0)
        go_on.set()
        assert await call == b"done"
        await channel.close()
        await stopping

    begun.clear()
    go_on.clear()
    async with served(Handlers(end=unary(end))) as (channel, transport):
        call = channel.unary_unary("/test/end")(b"")
        await begun.wait()
        await transport.stop(0.0)
        assert (await failed(call))[0] in (Code.UNAVAILABLE, Code.CANCELLED)


async def test_a_server_that_never_started_frees_its_ports() -> None:
    """A port that was added can be taken after `stop`."""
    transport = Transport(1, [])
    port = transport.add_port("127.0.0.1:0", None)
    await transport.stop(0.0)
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_another_loop_is_refused() -> None:
    """The message says what to run the server in."""

    async def make() -> None:
        Transport(1, [])

    with pytest.raises(RuntimeError, match="run it in a QueueLoop"):
        asyncio.run(make())
