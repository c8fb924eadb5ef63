"""A grpc.aio server that sends back every message and every request: the limit of the transport."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio

METHOD = "/bench.Echo/Echo"
UNARY_METHOD = "/bench.Echo/EchoOne"


async def _echo(requests: object, context: Any) -> None:
    while (message := await context.read()) is not grpc.aio.EOF:
        await context.write(message)


async def _echo_one(request: bytes, context: Any) -> bytes:
    return request


async def _serve() -> None:
    server = grpc.aio.server()
    handlers: dict[str, Any] = {
        "Echo": grpc.stream_stream_rpc_method_handler(_echo),
        "EchoOne": grpc.unary_unary_rpc_method_handler(_echo_one),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve())
