"""What one connection, or a flood of them, may do to the server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ntm.v1 import ntm_pb2 as pb
from ntm.v1 import ntm_pb2_grpc
from service.rpc import options
from tests.conftest import Running, Serve
from tests.e2e.calls import Stream, chunk, info, opened, reason, stepped
from tests.e2e.test_rpcs import refused


def connected(running: Running, options: Iterable[tuple[str, Any]] = ()) -> grpc.aio.Channel:
    """A channel with a connection of its own."""
    alone = ("grpc.use_local_subchannel_pool", 1)
    return grpc.aio.insecure_channel(running.address, options=[alone, *options])


async def test_too_many_calls_are_refused_and_counted(serve: Serve) -> None:
    """Unary calls and streams alike, with a reason and a delay; health checks are answered."""
    async with serve(max_calls=2) as running:
        session = await opened(running)
        streams = [Stream(running) for _ in range(2)]
        for stream in streams:
            await stream.opened()
        for call in (
            running.stub.Step(pb.StepRequest(chunk=chunk(session, [[1, 1]]))),
            running.stub.StreamSteps().read(),
        ):
            error = await refused(call)
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert reason(error) == "CAPACITY_EXCEEDED"
            assert dict(info(error).metadata) == {"limit": "max_calls"}
        assert running.metric("ntm_errors_total", reason="CAPACITY_EXCEEDED") == 2
        health = health_pb2_grpc.HealthStub(running.channel)
        assert await health.Check(health_pb2.HealthCheckRequest()).code() is grpc.StatusCode.OK
        await streams[0].rest()
        assert (await stepped(running, session, [[1, 1]])).tolist() == [[1, 1]]


async def test_calls_that_never_send_their_request_are_bounded(serve: Serve) -> None:
    """The interceptor does not see them, so gRPC refuses all that is more than twice the limit."""
    async with serve(max_calls=2) as running:
        silent: Any = running.channel.stream_unary("/ntm.v1.NtmService/Step")
        calls: list[Any] = [silent() for _ in range(5)]
        endings = [asyncio.create_task(call.code()) for call in calls]
        ended, _ = await asyncio.wait(endings, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        assert [ending.result() for ending in ended] == [grpc.StatusCode.RESOURCE_EXHAUSTED]
        listing = running.stub.ListModels(pb.ListModelsRequest())
        assert await listing.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for call in calls:
            call.cancel()
        await asyncio.gather(*endings)
        while await running.stub.ListModels(pb.ListModelsRequest()).code() is not (
            grpc.StatusCode.OK
        ):
            pass


async def test_a_flood_of_metadata_is_refused(running: Running) -> None:
    """A signed token fits; more than the limit reaches no handler."""
    request = pb.ListModelsRequest()
    fits = running.stub.ListModels(request, metadata=(("authorization", "Bearer " + "x" * 12_000),))
    assert await fits.code() is grpc.StatusCode.OK
    floods: list[Any] = [
        (("x-flood", "x" * options.METADATA_BYTES),),
        tuple((f"x-{number}", "x" * 100) for number in range(200)),
    ]
    for flood in floods:
        error = await refused(running.stub.ListModels(request, metadata=flood))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "metadata size exceeds" in (error.details() or "")
    assert await running.stub.ListModels(request).code() is grpc.StatusCode.OK


async def test_a_small_message_does_not_become_a_large_one(serve: Serve) -> None:
    """The limit on messages holds for the size after decompression."""
    async with serve(max_message_bytes=65_536) as running:
        large = pb.StepRequest(chunk=pb.Chunk(session_id="x", inputs=bytes(8 << 20)))
        options = [("grpc.max_send_message_length", -1)]
        async with connected(running, options) as channel:
            stub: Any = ntm_pb2_grpc.NtmServiceStub(channel)
            error = await refused(stub.Step(large, compression=grpc.Compression.Gzip))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "essage larger than max" in (error.details() or "")  # in the words of any gRPC


async def test_a_connection_has_so_many_calls_at_once(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    One call too many on a connection waits for another to end; other connections are not affected.
    """
    monkeypatch.setattr(options, "CALLS_OF_A_CONNECTION", 2)
    async with serve() as running:
        streams = [Stream(running) for _ in range(2)]
        for stream in streams:
            await stream.opened()
        third = running.stub.ListModels(pb.ListModelsRequest())
        async with connected(running) as channel:
            stub: Any = ntm_pb2_grpc.NtmServiceStub(channel)
            assert await stub.ListModels(pb.ListModelsRequest()).code() is grpc.StatusCode.OK
        assert not third.done()
        await streams[0].rest()
        assert await third.code() is grpc.StatusCode.OK


async def test_there_are_no_more_connections_than_calls_and_sessions(serve: Serve) -> None:
    """A connection beyond the limit is closed at once."""
    async with serve(max_calls=2, max_sessions=1) as running, AsyncExitStack() as stack:
        codes = []
        for _ in range(4):
            channel = await stack.enter_async_context(connected(running))
            call = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            codes.append(await call.code())
        assert codes == [grpc.StatusCode.OK] * 3 + [grpc.StatusCode.UNAVAILABLE]


async def test_a_connection_that_says_nothing_is_closed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that sends nothing is closed."""
    monkeypatch.setattr(options, "HANDSHAKE_SECONDS", 0.3)
    async with serve() as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.server.port)
        await asyncio.wait_for(reader.read(), 10)  # until the end
        writer.close()


async def test_a_client_that_pings_too_often_is_sent_away(running: Running) -> None:
    """A client that pings too often is disconnected, and may connect again."""
    fast = [
        ("grpc.keepalive_time_ms", 50),
        ("grpc.http2.min_time_between_pings_ms", 50),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    async with connected(running, fast) as channel:
        stub: Any = ntm_pb2_grpc.NtmServiceStub(channel)
        error = await asyncio.wait_for(refused(stub.StreamSteps().read()), 30)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "Too many pings" in (error.details() or "")
        assert await stub.ListModels(pb.ListModelsRequest()).code() is grpc.StatusCode.OK


async def test_an_old_connection_is_ended(serve: Serve) -> None:
    """Its streams get some time more; the sessions live on, for the next connection."""
    async with serve(max_connection_age_seconds=1, drain_seconds=0.5) as running:
        stream = Stream(running)
        session = await stream.opened()
        error = await asyncio.wait_for(refused(stream.next()), 20)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "max connection age" in (error.details() or "")
        assert (await stepped(running, session, [[1, 1]])).tolist() == [[1, 1]]


async def test_a_connection_without_calls_is_closed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client notices nothing: its next call makes another."""
    monkeypatch.setattr(options, "IDLE_SECONDS", 0.3)
    async with serve() as running:
        await opened(running)
        await asyncio.wait_for(
            running.channel.wait_for_state_change(grpc.ChannelConnectivity.READY), 20
        )
        await opened(running)
