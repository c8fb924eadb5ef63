"""The Redis store on a cluster of three real servers: slots, moves, and nodes that go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from redis import exceptions

from service.settings import Settings
from service.stores.base import Saved, StoreUnavailable, name_of
from service.stores.opening import open_store
from service.stores.redis_store import PREFIX, RedisStore
from tests.support.valkey import SPARE_SECONDS, Cluster, Valkey

BATCH = [Saved(f"session {number}", 1, b"%d" % number * 1_000, 60.0) for number in range(50)]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three servers of the test's own, for it to mistreat."""
    nodes = Cluster(tmp_path)
    yield nodes
    nodes.stop()


@pytest.fixture
async def store(cluster: Cluster) -> AsyncIterator[RedisStore]:
    """A store that knows one of the nodes, as a setting names it."""
    url = cluster.url.replace("redis://", "valkey-cluster://")
    found = open_store(Settings(store=url, store_timeout_seconds=30.0))
    assert isinstance(found, RedisStore)
    yield found
    await found.close()


@asynccontextmanager
async def opened(url: str, timeout_seconds: float) -> AsyncIterator[RedisStore]:
    """A store that is closed at the end, whatever happens."""
    store = RedisStore(url, is_cluster=True, timeout_seconds=timeout_seconds)
    try:
        yield store
    finally:
        await store.close()


def home(cluster: Cluster, session_id: str) -> Valkey:
    """The node that keeps a session."""
    return cluster.node_of(PREFIX + name_of(session_id))


async def until_kept(store: RedisStore, batch: list[Saved]) -> None:
    """Save until it succeeds."""
    deadline = time.monotonic() + 30
    while True:
        try:
            assert await store.save(batch) == [True] * len(batch)
            return
        except StoreUnavailable:
            assert time.monotonic() < deadline


async def test_a_batch_goes_to_the_nodes_of_its_sessions(
    cluster: Cluster, store: RedisStore
) -> None:
    """Each keeps those of its slots, and claims and deletes find them."""
    assert await store.save(BATCH) == [True] * 50

    kept = [node.command("KEYS", "*") for node in cluster.nodes]
    assert all(kept)
    assert sum(map(len, kept)) == 50
    for each in BATCH:
        assert (
            PREFIX + name_of(each.session_id)
            in kept[cluster.nodes.index(home(cluster, each.session_id))]
        )
    claims = await asyncio.gather(*(store.claim(each.session_id) for each in BATCH))
    epochs = [claim[0] for claim in claims if claim is not None]
    assert [claim and claim[1] for claim in claims] == [each.record for each in BATCH]
    assert min(epochs) > 1
    assert await store.save(BATCH) == [False] * 50
    await asyncio.gather(
        *(
            store.delete(each.session_id, epoch, 60)
            for each, epoch in zip(BATCH, epochs, strict=True)
        )
    )
    assert await store.claim(BATCH[0].session_id) is None


async def test_connections_to_each_node_are_few(cluster: Cluster, store: RedisStore) -> None:
    """However much is asked at once, nothing is refused for it."""
    saves = await asyncio.gather(*(store.save(BATCH) for _ in range(40)))

    assert saves == [[True] * 50] * 40
    for node in cluster.nodes:
        clients = node.command("CLIENT", "LIST").splitlines()
        # And the one by which the nodes were learnt, and that of this command.
        assert 1 < len(clients) <= 8 + 2


async def test_a_slot_that_moves_is_found_where_it_is(cluster: Cluster, store: RedisStore) -> None:
    """Its session is claimed from there, and saved there from then on."""
    await store.save(BATCH)
    session = BATCH[7]
    key = PREFIX + name_of(session.session_id)
    old = home(cluster, session.session_id)
    new = next(node for node in cluster.nodes if node is not old)
    slot = old.command("CLUSTER", "KEYSLOT", key)
    old_id, new_id = old.command("CLUSTER", "MYID"), new.command("CLUSTER", "MYID")
    new.command("CLUSTER", "SETSLOT", slot, "IMPORTING", old_id)
    old.command("CLUSTER", "SETSLOT", slot, "MIGRATING", new_id)
    for moving in old.command("CLUSTER", "GETKEYSINSLOT", slot, 100):
        old.command("MIGRATE", "127.0.0.1", new.port, moving, 0, 5000)
        if moving == key:  # the slot itself has not moved yet
            claim = await store.claim(session.session_id)
            assert claim is not None
            assert claim[1] == session.record
    for node in (new, old):
        node.command("CLUSTER", "SETSLOT", slot, "NODE", new_id)

    claim = await store.claim(session.session_id)
    assert claim is not None
    assert claim[1] == session.record
    owned = session._replace(epoch=claim[0], record=b"new")
    assert await store.save([owned, BATCH[8]]) == [True, True]
    assert new.command("HGET", key, "record") == "new"


async def test_a_node_that_restarts_is_waited_for(cluster: Cluster, store: RedisStore) -> None:
    """Within the time that the store has, also for the scripts that it forgot."""
    await store.save(BATCH)
    node = home(cluster, BATCH[0].session_id)
    node.stop()
    save = asyncio.create_task(store.save(BATCH))
    await asyncio.sleep(0)
    await asyncio.to_thread(node.start)

    assert await save == [True] * 50
    claims = await asyncio.gather(*(store.claim(each.session_id) for each in BATCH))
    assert [record for _, record in filter(None, claims)] == [each.record for each in BATCH]


async def test_sessions_of_other_nodes_go_on_while_one_is_gone(
    cluster: Cluster,
) -> None:
    """Those of the node itself are told in time, and come back with it."""
    gone = cluster.nodes[0]
    at_home = [each for each in BATCH if home(cluster, each.session_id) is gone]
    others = [each for each in BATCH if each not in at_home]
    async with opened(cluster.nodes[1].url, timeout_seconds=1.0) as store:
        await until_kept(store, BATCH)
        gone.stop()
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await store.save(at_home)
            assert time.monotonic() - began < 1.0 + SPARE_SECONDS
            await until_kept(store, others)
        gone.start()
        await until_kept(store, BATCH)


async def test_a_node_that_hangs_is_told_in_time(cluster: Cluster) -> None:
    """When it goes on, no answer to what was given up is taken for another's."""
    async with opened(cluster.url, timeout_seconds=3.0) as store:
        await until_kept(store, BATCH)
        with home(cluster, BATCH[0].session_id).paused():
            began = time.monotonic()
            failed = await asyncio.gather(
                *(store.save(BATCH) for _ in range(20)), return_exceptions=True
            )
            assert time.monotonic() - began < 3.0 + SPARE_SECONDS
            assert all(isinstance(each, StoreUnavailable) for each in failed)

        await until_kept(store, BATCH)
        for batch in (BATCH[:25], BATCH[25:]):  # few enough at once for the time that there is
            claims = await asyncio.gather(*(store.claim(each.session_id) for each in batch))
            assert [record for _, record in filter(None, claims)] == [each.record for each in batch]


async def test_a_failure_at_the_moment_of_a_cancellation_does_not_undo_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither the store's own, when the time is over, nor its caller's: a save ends then."""
    entered = asyncio.Event()

    async def fails_instead(*arguments: object) -> list[object]:
        entered.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        raise exceptions.ConnectionError("a node is gone")

    monkeypatch.setattr(RedisStore, "_call", fails_instead)
    async with opened("redis://127.0.0.1:1", timeout_seconds=0.05) as store:
        with pytest.raises(StoreUnavailable, match="a node is gone"):
            await store.save(BATCH)
    entered.clear()
    async with opened("redis://127.0.0.1:1", timeout_seconds=60.0) as store:
        saving = asyncio.create_task(store.save(BATCH))
        await entered.wait()
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving


async def test_a_server_that_is_no_cluster_is_told(tmp_path: Path) -> None:
    """With what it lacks."""
    server = Valkey(tmp_path)
    try:
        async with opened(server.url, timeout_seconds=3.0) as store:
            with pytest.raises(StoreUnavailable, match="Cluster mode is not enabled on this node"):
                await store.save(BATCH)
    finally:
        server.stop()
