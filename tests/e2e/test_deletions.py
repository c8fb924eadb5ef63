"""Sessions that end while the store does not answer, and servers that are killed meanwhile."""

from __future__ import annotations

import asyncio
import fcntl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ntm.v1 import ntm_pb2 as pb
from ntm_client import (
    AsyncClient,
    AsyncSession,
    Durability,
    NotStored,
    SessionExpired,
    SessionUnknown,
)
from service.stores.base import StoreUnavailable, name_of
from service.stores.directory import DirectoryStore
from tests.conftest import Serve
from tests.e2e.calls import Stream, opened, until
from tests.e2e.test_process import ports, started

KINDS = ("call", "stream")


@asynccontextmanager
async def server(
    models_dir: Path, store: Path
) -> AsyncIterator[tuple[subprocess.Popen[str], AsyncClient]]:
    """A server of its own process with this store, and a client that tries once."""
    flags = [f"--models-dir={models_dir}", "--device=cpu", "--port=0", "--metrics-port=0"]
    flags += [f"--store=directory:{store}", "--store-sync=no", "--store-timeout-seconds=0.5"]
    with started("-m", "service", *flags) as process:
        address, _ = await asyncio.to_thread(ports, process)
        async with AsyncClient(address, resume=None) as client:
            yield process, client


@contextmanager
def without_answer(store: Path, session_id: str) -> Iterator[None]:
    """The store does not answer about this session."""
    folder = store / name_of(session_id)[:2]
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@asynccontextmanager
async def stepped(
    client: AsyncClient, kind: str, idle_timeout: timedelta | None = None
) -> AsyncIterator[AsyncSession]:
    """A session with durable steps, whose requests are calls or are sent on a stream."""
    how: Any = {"durability": Durability("synchronous"), "idle_timeout": idle_timeout}
    async with client.stream() as stream:
        if kind == "stream":
            session = await stream.open("ledger", **how)
        else:
            session = await client.create_session("ledger", **how)
        await session.step([[1, 1]] * 3)
        yield session


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
async def test_a_deletion_that_is_answered_outlives_its_server(
    models_dir: Path, tmp_path: Path, kind: str
) -> None:
    """
    A deletion that the store has not done is refused, also if it is asked for again. Once it is
    answered, no other server finds the session, though its own is killed.
    """
    async with (
        server(models_dir, tmp_path) as (process, client),
        stepped(client, kind) as session,
    ):
        with without_answer(tmp_path, session.id):
            for _ in range(2):
                with pytest.raises(NotStored, match="is closed, but the store does not answer"):
                    await session.delete()
            process.kill()  # with the deletion still to be told
            process.wait()
    async with server(models_dir, tmp_path) as (process, client), client.stream() as stream:
        opener = stream if kind == "stream" else client
        found = await opener.session(session.id)
        assert found.next_step == 3
        await found.delete()
        process.kill()
        process.wait()
    async with server(models_dir, tmp_path) as (_, client):
        with pytest.raises(SessionUnknown):
            await client.session(session.id)


@pytest.mark.slow
async def test_a_session_that_expired_unseen_by_the_store_is_found_elsewhere(
    models_dir: Path, tmp_path: Path
) -> None:
    """
    If its server is killed before the store answers, an expired session goes on from its record.
    """
    async with (
        server(models_dir, tmp_path) as (process, client),
        stepped(client, "call", timedelta(seconds=2)) as session,
    ):
        with without_answer(tmp_path, session.id):
            with pytest.raises(SessionExpired):
                await until_it_is_gone(session)
            process.kill()
            process.wait()
    async with server(models_dir, tmp_path) as (_, client):
        found = await client.session(session.id)
        assert (await found.step([[1, 1]])).array.tolist() == [[4, 4]]


async def test_outcomes_behind_a_close_keep_their_order(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A stream answers a close once the store has answered, in its place among the outcomes of its
    session, and other sessions do not wait for it.
    """
    asked, released = asyncio.Event(), asyncio.Event()
    delete = DirectoryStore.delete

    async def slow(store: DirectoryStore, session_id: str, epoch: int, seconds: float) -> None:
        asked.set()
        await released.wait()
        if fails:
            raise StoreUnavailable("it is down")
        await delete(store, session_id, epoch, seconds)

    monkeypatch.setattr(DirectoryStore, "delete", slow)
    inputs = b"\0\0\x80?" * 2
    async with serve(store=f"directory:{tmp_path}", store_sync="no") as running:
        for fails in (True, False):
            asked.clear()
            released.clear()
            stream = Stream(running)
            session, other = await opened(running), await opened(running)
            close = pb.Operation(tag=2, close=session)
            steps = [pb.Chunk(session_id=each, inputs=inputs) for each in (session, other)]
            await stream.send(
                pb.Operation(tag=1, step=steps[0]), close, pb.Operation(tag=3, step=steps[0])
            )
            await asked.wait()
            await stream.send(pb.Operation(tag=4, step=steps[1]))
            tags = {(await outcome(stream)).tag for _ in range(2)}
            assert tags == {1, 4}
            released.set()
            closed, behind = await outcome(stream), await outcome(stream)
            assert (closed.tag, behind.tag) == (2, 3)
            assert closed.error.reason == ("NOT_STORED" if fails else "")
            assert behind.error.reason == "SESSION_DELETED"
            assert await stream.rest() == []
        await until(lambda: not running.metric("ntm_undeleted_sessions"))


async def until_it_is_gone(session: AsyncSession) -> None:
    """Read the session's memory, which does not keep it alive, until there is an error."""
    while True:
        await session.read_memory()


async def outcome(stream: Stream) -> pb.Outcome:
    """The next outcome."""
    found = await stream.next()
    assert found is not None
    return found
