"""A balancer: hands each connection of a client to the next replica, and may hurt it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import suppress

from tests.stress.chaos.replica import Replica

_PIECE_BYTES = 65_536
_CONNECT_SECONDS = 1.0


class Balancer:
    """Chooses among replicas in turn, without those that it is told to avoid."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        """Balance over these."""
        self._replicas = replicas
        self._turn = itertools.count()
        self.avoided: set[Replica] = set()
        self.connections: set[Connection] = set()

    async def connect(
        self,
    ) -> tuple[Replica, asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection to the next replica that takes one; None if none does."""
        first = next(self._turn)
        for number in range(len(self._replicas)):
            replica = self._replicas[(first + number) % len(self._replicas)]
            if replica in self.avoided:
                continue
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(_CONNECT_SECONDS):
                    return replica, *await asyncio.open_connection("127.0.0.1", replica.port)
        return None

    def leave(self, replica: Replica) -> None:
        """Cut all connections to a replica."""
        for connection in list(self.connections):
            if connection.replica is replica:
                connection.cut()


class Connection:
    """A client's connection to a replica, through us."""

    def __init__(
        self, replica: Replica, client: asyncio.StreamWriter, server: asyncio.StreamWriter
    ) -> None:
        """Both ends are connected."""
        self.replica = replica
        self.loses_answers = False
        """Whether what the replica sends is lost."""
        self.loses_all = False
        """Whether the client talks to nobody, and does not know."""
        self.flowing = asyncio.Event()
        """Cleared while it is stalled."""
        self.flowing.set()
        self._client = client
        self._server = server

    def cut(self) -> None:
        """End it without a word."""
        self.flowing.set()
        for writer in (self._client, self._server):
            writer.transport.abort()

    def hang_up(self) -> None:
        """End it for the replica, while the client still thinks that it is there."""
        self.loses_all = True
        self._server.transport.abort()

    async def pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        """Carry one direction until its end."""
        with suppress(OSError):
            while data := await reader.read(_PIECE_BYTES):
                await self.flowing.wait()
                if not self.loses_all and not (answers and self.loses_answers):
                    writer.write(data)
                    await writer.drain()
        if not self.loses_all:
            self.cut()


class Way:
    """A port of its own for each client, since gRPC shares connections to the same address."""

    def __init__(self, balancer: Balancer) -> None:
        """Nothing listens yet."""
        self._balancer = balancer
        self.connections: set[Connection] = set()
        self.target = ""

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.target = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """Listen no more, and cut what is connected."""
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Cut every connection."""
        for connection in list(self.connections):
            connection.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found = await self._balancer.connect()
        if found is None:
            writer.transport.abort()
            return
        replica, answers, server = found
        connection = Connection(replica, writer, server)
        self.connections.add(connection)
        self._balancer.connections.add(connection)
        try:
            await asyncio.gather(
                connection.pump(reader, server, answers=False),
                connection.pump(answers, writer, answers=True),
            )
        finally:
            self.connections.discard(connection)
            self._balancer.connections.discard(connection)
            connection.cut()
