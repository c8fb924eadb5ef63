"""What is done to replicas, their store and connections, when chance says so."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Sequence

from tests.stress.chaos.balancer import Balancer, Connection
from tests.stress.chaos.folder import Folder
from tests.stress.chaos.replica import Replica
from tests.stress.chaos.world import World
from tests.support.valkey import Valkey

_SKEW_SECONDS = 30.0
"""Less than the grace with which stores keep sessions: a folder goes by the replicas' calendars."""

Fault = Callable[[], Awaitable[None]]


class Faults:
    """Hurts one replica at a time, the store now and then, and connections all the time."""

    def __init__(
        self,
        world: World,
        balancer: Balancer,
        replicas: Sequence[Replica],
        store: Valkey | Folder,
    ) -> None:
        """All are whole."""
        self._world = world
        self._tally = world.tally
        self._balancer = balancer
        self._replicas = replicas
        self._store = store
        self._starting = asyncio.Lock()
        self._chance = world.chance("faults")

    async def run(self) -> None:
        """Until the run is over; then all are whole again."""
        timelines = [
            self._timeline("replicas", (0.5, 3.0), self._kill, self._stop, self._freeze),
            self._timeline("network", (0.1, 0.6), self._hurt_connection),
        ]
        store: tuple[Fault, ...] = (self._fill_store, self._lock_folders, self._hide_folder)
        if isinstance(self._store, Valkey):
            store = (self._kill_store, self._pause_store, self._fill_store)
        timelines.append(self._timeline("store", (2.0, 6.0), *store))
        await asyncio.gather(*timelines)

    async def _timeline(self, name: str, pause: tuple[float, float], *faults: Fault) -> None:
        chance = self._world.chance(name)
        while not self._world.is_over:
            await asyncio.sleep(chance.uniform(*pause))
            await chance.choice(faults)()

    def _replica(self) -> Replica:
        return self._chance.choice(self._replicas)

    async def _kill(self) -> None:
        replica = self._replica()
        self._count("replica killed")
        replica.kill()
        await asyncio.sleep(self._chance.uniform(0, 1))
        await self._start(replica)

    async def _stop(self) -> None:
        replica = self._replica()
        self._count("replica stopped")
        if wrong := await replica.stop():
            self._tally.others.append(wrong)
        else:
            self._tally.not_stored_at_stop += replica.not_stored_at_stop()
        await self._start(replica)

    async def _start(self, replica: Replica) -> None:
        if self._chance.random() < 0.5:
            self._count("replica's calendar jumped")
            replica.skew_seconds = self._chance.uniform(-_SKEW_SECONDS, _SKEW_SECONDS)
        async with self._starting:
            await replica.start()

    async def _freeze(self) -> None:
        replica = self._replica()
        replica.signal(signal.SIGSTOP)
        if self._chance.random() < 0.6:
            self._count("replica frozen, its sessions taken over")
            self._balancer.avoided.add(replica)
            self._balancer.leave(replica)
        else:
            self._count("replica frozen")
        await asyncio.sleep(self._chance.uniform(0.2, 5))
        replica.signal(signal.SIGCONT)
        self._balancer.avoided.discard(replica)

    async def _kill_store(self) -> None:
        assert isinstance(self._store, Valkey)
        self._count("store killed")
        self._store.stop()
        await asyncio.sleep(self._chance.uniform(0.1, 4))
        await asyncio.to_thread(self._store.start)

    async def _pause_store(self) -> None:
        assert isinstance(self._store, Valkey)
        self._count("store paused")
        with self._store.paused():
            await asyncio.sleep(self._chance.uniform(0.1, 4))

    async def _fill_store(self) -> None:
        if isinstance(self._store, Folder) and not self._store.is_mounted:
            self._count("store full: not injected, needs root")
            return
        self._count("store full")
        with self._store.full():
            await asyncio.sleep(self._chance.uniform(0.1, 3))

    async def _lock_folders(self) -> None:
        assert isinstance(self._store, Folder)
        self._count("store slow")
        with self._store.locked(self._chance):
            await asyncio.sleep(self._chance.uniform(0.1, 4))

    async def _hide_folder(self) -> None:
        assert isinstance(self._store, Folder)
        # A replica that started meanwhile would make a folder of its own.
        async with self._starting:
            self._count("store out of reach")
            with self._store.unusable():
                await asyncio.sleep(self._chance.uniform(0.1, 3))

    async def _hurt_connection(self) -> None:
        connections = sorted(self._balancer.connections, key=id)
        if not connections:
            return
        connection = self._chance.choice(connections)
        kind = self._chance.choice(["cut", "stalled", "answers lost", "half open"])
        self._count(f"connection {kind}")
        asyncio.get_running_loop().create_task(_hurt(connection, kind, self._chance))

    def _count(self, kind: str) -> None:
        self._tally.faults[kind] += 1


async def _hurt(connection: Connection, kind: str, chance: random.Random) -> None:
    if kind == "stalled":
        connection.flowing.clear()
        await asyncio.sleep(chance.uniform(0.1, 3))
        connection.flowing.set()
        return
    if kind == "answers lost":
        connection.loses_answers = True
        await asyncio.sleep(chance.uniform(0.05, 0.5))
    if kind == "half open":
        connection.hang_up()
        await asyncio.sleep(chance.uniform(0.5, 6))
    connection.cut()
