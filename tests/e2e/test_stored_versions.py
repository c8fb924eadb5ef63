"""Versions of models where sessions sleep, and move from one replica to another."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from ntm.v1 import ntm_pb2 as pb
from ntm_client import AsyncClient, ModelVersionUnknown, Resume
from tests.conftest import Running, Serve
from tests.e2e.calls import info, opened, reason, stepped, until
from tests.e2e.test_rpcs import refused
from tests.e2e.versions import NEW, OLD, loaded, look_often, put, settled, versions
from tests.support.tiny_models import doubling, ledger


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings of servers that share a store; they look at their folders often."""
    look_often(monkeypatch)
    return {
        "store": f"directory:{tmp_path / 'store'}",
        "store_sync": "no",
        "durability": "synchronous",
    }


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with the first version of the ledger."""
    put(tmp_path / "old", ledger())
    return tmp_path / "old"


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """A folder with its second version."""
    put(tmp_path / "new", doubling())
    return tmp_path / "new"


async def test_a_session_that_sleeps_wakes_on_its_version(
    serve: Serve, old: Path, stored: dict[str, Any]
) -> None:
    """A sleeping session's version stays loaded without its file, until the session has ended."""
    async with serve(models_dir=old, max_awake_sessions=1, **stored) as running:
        sleeper = await opened(running)
        await stepped(running, sleeper, [[1, 1]], first_step=0)
        put(old, doubling())
        await settled(running, "taken")
        other = await opened(running)
        await until(lambda: running.metric("ntm_sessions_asleep", model="ledger") == 1)
        assert await versions(running) == [(NEW, True, True), (OLD, False, True)]

        assert (await stepped(running, sleeper, [[2, 2]], first_step=1)).tolist() == [[3, 3]]
        assert (await stepped(running, other, [[2, 2]], first_step=0)).tolist() == [[4, 4]]
        await running.stub.DeleteSession(pb.DeleteSessionRequest(session_id=sleeper))
        await until(lambda: not loaded(running, OLD))
        assert await versions(running) == [(NEW, True, True)]


async def test_a_version_is_unloaded_when_its_session_expires_asleep(
    serve: Serve, old: Path, stored: dict[str, Any]
) -> None:
    """A version is unloaded when its last session expires asleep, without being woken."""
    async with serve(models_dir=old, max_awake_sessions=1, **stored) as running:
        request = pb.CreateSessionRequest(model="ledger")
        request.idle_timeout.FromMilliseconds(1500)
        await running.stub.CreateSession(request)
        put(old, doubling())
        await settled(running, "taken")
        await opened(running)
        await until(lambda: running.metric("ntm_sessions_asleep", model="ledger") == 1)
        assert loaded(running, OLD)
        await until(lambda: not loaded(running, OLD))
        assert running.metric("ntm_sessions_closed_total", model="ledger", reason="expired") == 1


async def moved(serve: Serve, folder: Path, stored: dict[str, Any]) -> str:
    """A session that has made a step on a replica of that folder, which has stopped."""
    async with serve(models_dir=folder, **stored) as first:
        session = await opened(first)
        await stepped(first, session, [[1, 1]], first_step=0)
    return session


async def test_a_replica_without_a_sessions_version_says_so(
    serve: Serve, old: Path, new: Path, stored: dict[str, Any]
) -> None:
    """The session stays in the store, and goes on there as soon as its file is put there."""
    session = await moved(serve, old, stored)
    async with serve(models_dir=new, **stored) as running:
        for call in (
            stepped(running, session, [[2, 2]], first_step=1),
            running.stub.ReadMemory(pb.ReadMemoryRequest(session_id=session)),
        ):
            error = await refused(call)
            assert error.code() is grpc.StatusCode.NOT_FOUND
            assert reason(error) == "MODEL_VERSION_UNKNOWN"
            assert dict(info(error).metadata) == {"model": "ledger", "content_hash": OLD}
        assert running.metric("ntm_errors_total", reason="MODEL_VERSION_UNKNOWN") == 2
        assert running.metric("ntm_sessions", model="ledger") == 0
        put(new, ledger(), place="versions/the-old-one.onnx")
        await settled(running, "taken")
        assert (await stepped(running, session, [[2, 2]], first_step=1)).tolist() == [[3, 3]]
    # Where it was refused before and after, it is still whole.
    async with serve(models_dir=old, **stored) as running:
        assert (await stepped(running, session, [[3, 3]], first_step=2)).tolist() == [[6, 6]]


async def test_a_client_waits_for_a_replica_that_has_the_version(
    serve: Serve, old: Path, new: Path, stored: dict[str, Any]
) -> None:
    """As long as it waits for a lost replica; to open a session on a version it does not wait."""
    session_id = await moved(serve, old, stored)
    async with (
        serve(models_dir=new, **stored) as running,
        AsyncClient(running.address, resume=Resume(seconds=60)) as client,
    ):
        with pytest.raises(ModelVersionUnknown):
            await client.create_session("ledger", content_hash=OLD)
        refusals = running.metric("ntm_errors_total", reason="MODEL_VERSION_UNKNOWN")
        finding = asyncio.create_task(client.session(session_id))
        await until(
            lambda: (
                running.metric("ntm_errors_total", reason="MODEL_VERSION_UNKNOWN") > refusals + 1
            )
        )
        put(new, ledger(), place="versions/old.onnx")
        session = await finding
        result = await session.step([[2, 2]])

        assert session.model.content_hash == OLD
        assert [version.content_hash for version in session.model.versions] == [NEW, OLD]
        assert result.array.tolist() == [[3, 3]]
        pinned = await client.create_session("ledger", content_hash=OLD)
        current = await client.create_session("ledger")
        assert (pinned.model.content_hash, current.model.content_hash) == (OLD, NEW)


async def test_replicas_are_replaced_one_by_one_and_no_session_is_lost(
    serve: Serve, old: Path, new: Path, stored: dict[str, Any]
) -> None:
    """While some have the new version as the other one, and some the old: both go everywhere."""
    put(old, doubling(), place="versions/next.onnx")
    put(new, ledger(), place="versions/last.onnx")

    async with serve(models_dir=new, **stored) as second:
        async with serve(models_dir=old, **stored) as first:
            before, after = await opened(first), await opened(second)
            for step in range(4):
                there, elsewhere = (first, second) if step % 2 else (second, first)
                sums = await went_on(there, before, step)
                doubles = await went_on(elsewhere, after, step)
                assert (sums, doubles) == (step + 1, 2 * step + 2)
        assert await went_on(second, before, 4) == 5
        assert await went_on(second, after, 4) == 10


async def went_on(running: Running, session: str, step: int) -> float:
    """The first output of a step of ones, made at a replica that may have lost the session."""
    while True:
        try:
            return float((await stepped(running, session, [[1, 1]], first_step=step))[0, 0])
        except grpc.aio.AioRpcError as error:
            if reason(error) != "SESSION_MOVED":
                raise
