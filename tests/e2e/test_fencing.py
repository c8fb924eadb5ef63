"""A caller with a later epoch is never answered from a replica's old copy of a session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from ntm.v1 import ntm_pb2 as pb
from ntm_client import AsyncClient, Durability
from ntm_client.errors import SessionGone
from service.stores.base import StoreUnavailable
from service.stores.directory import DirectoryStore
from service.stores.redis_store import RedisStore
from tests.conftest import Running, Serve
from tests.e2e.calls import Stream, chunk, outputs, reason, until
from tests.e2e.test_rpcs import refused
from tests.support.valkey import Valkey

ONES = np.ones((1, 2), np.float32)


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server for all tests here."""
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    yield server
    server.stop()


@pytest.fixture(params=["directory", "valkey"])
async def two(
    request: pytest.FixtureRequest, serve: Serve, tmp_path: Path
) -> AsyncIterator[tuple[Running, Running]]:
    """Two replicas that share a store."""
    store = f"directory:{tmp_path / 'store'}"
    if request.param == "valkey":
        store = request.getfixturevalue("valkey").url
    stored: dict[str, Any] = {"store": store, "store_sync": "no", "checkpoint_every_steps": 1000}
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(serve(**stored))
        yield first, await stack.enter_async_context(serve(**stored))


async def passed_over(first: Running, second: Running) -> tuple[str, int, bytes]:
    """
    A session at step 0 in the first replica's old copy, restored at step 0 elsewhere.

    Its id, its epoch, and a checkpoint of step 0 at other sums, with which it was restored.
    """
    created = await first.stub.CreateSession(pb.CreateSessionRequest(model="ledger", locations=8))
    session = created.session.id
    other = await first.stub.CreateSession(pb.CreateSessionRequest(model="ledger", locations=8))
    step = pb.StepRequest(chunk=chunk(other.session.id, [[40, 2]], 0))
    await first.stub.Step(step)
    taken = await first.stub.CheckpointSession(
        pb.CheckpointSessionRequest(session_id=other.session.id)
    )
    # The old copy is at the same step as the checkpoint.
    await first.stub.Step(pb.StepRequest(chunk=chunk(session, ONES, 0)))
    await first.stub.GetSession(pb.GetSessionRequest(session_id=session))
    restore = pb.RestoreSessionRequest(session_id=session, checkpoint=taken.checkpoint)
    restored = await second.stub.RestoreSession(restore)
    assert restored.session.next_step == 1
    assert restored.session.epoch > created.session.epoch > 0
    return session, restored.session.epoch, taken.checkpoint


async def test_a_step_is_not_made_in_an_old_copy(two: tuple[Running, Running]) -> None:
    """A step with a later epoch makes the replica take the session over in its present state."""
    session, epoch, _ = await passed_over(*two)
    request = pb.StepRequest(chunk=chunk(session, ONES, 1))
    request.chunk.epoch = epoch

    reply = (await two[0].stub.Step(request)).reply
    assert outputs(reply).tolist() == [[41, 3]]
    assert reply.epoch > epoch
    assert two[0].metric("ntm_sessions_closed_total", model="ledger", reason="moved") == 1


async def test_a_step_on_a_stream_neither(two: tuple[Running, Running]) -> None:
    """
    On a stream too, steps and closes with a later epoch reach the session in its present state.
    """
    session, epoch, _ = await passed_over(*two)
    stream = Stream(two[0])
    step = chunk(session, ONES, 1)
    step.epoch = epoch
    await stream.send(
        pb.Operation(tag=1, step=step), pb.Operation(tag=2, close=session, epoch=epoch)
    )
    first, second = await stream.rest()
    assert outputs(first.reply).tolist() == [[41, 3]]
    assert second.closed == session
    deleted = {"operation": "delete"}
    await until(lambda: two[0].metric("ntm_store_seconds_count", **deleted))
    known = pb.GetSessionRequest(session_id=session, epoch=first.reply.epoch)
    assert reason(await refused(two[1].stub.GetSession(known))) == "SESSION_UNKNOWN"


Ask = Callable[[Running, str, int], Coroutine[Any, Any, Any]]


@pytest.mark.parametrize("name", ["Get", "Checkpoint", "Reset", "Fork", "Delete"])
async def test_nothing_else_is_done_with_an_old_copy(
    two: tuple[Running, Running], name: str
) -> None:
    """Every RPC with a later epoch is answered from the session in its present state."""
    session, epoch, taken = await passed_over(*two)
    message = getattr(pb, f"{name}SessionRequest")(session_id=session, epoch=epoch)
    response = await getattr(two[0].stub, f"{name}Session")(message)

    if name == "Checkpoint":
        assert response.checkpoint == taken
    elif name == "Fork":
        step = pb.StepRequest(chunk=chunk(response.session.id, ONES, 1))
        assert outputs((await two[0].stub.Step(step)).reply).tolist() == [[41, 3]]
    elif name == "Delete":
        await until(lambda: two[0].metric("ntm_store_seconds_count", operation="delete"))
        assert reason(await refused(two[1].stub.GetSession(message))) == "SESSION_UNKNOWN"
    else:
        assert response.session.epoch > epoch
    assert two[0].metric("ntm_sessions_closed_total", model="ledger", reason="moved") == 1


async def test_a_memory_is_not_read_of_an_old_copy(two: tuple[Running, Running]) -> None:
    """A memory is not read from an old copy, and the answer has the epoch."""
    session, epoch, _ = await passed_over(*two)
    request = pb.ReadMemoryRequest(session_id=session, epoch=epoch)

    response = await two[0].stub.ReadMemory(request)
    assert np.frombuffer(response.memory, "<f4").sum() == 42
    assert response.epoch > epoch


async def test_a_session_that_expired_in_an_old_copy_is_found(
    two: tuple[Running, Running],
) -> None:
    """A session that expired here, but that another replica has used, is found."""
    request = pb.CreateSessionRequest(model="ledger")
    request.idle_timeout.FromMilliseconds(800)
    session = (await two[0].stub.CreateSession(request)).session.id
    expired = {"model": "ledger", "reason": "expired"}
    step, epoch = 0, 0
    while not two[0].metric("ntm_sessions_closed_total", **expired):
        asked = pb.StepRequest(chunk=chunk(session, ONES, step))
        asked.chunk.epoch = epoch
        epoch = (await two[1].stub.Step(asked)).reply.epoch
        step += 1
    unknowing = pb.StepRequest(chunk=chunk(session, ONES, step))
    assert reason(await refused(two[0].stub.Step(unknowing))) == "SESSION_EXPIRED"
    described = await two[0].stub.GetSession(pb.GetSessionRequest(session_id=session, epoch=epoch))
    assert described.session.epoch > epoch


async def test_an_epoch_that_never_was_is_no_reason_to_claim_for_ever(
    two: tuple[Running, Running],
) -> None:
    """A caller with an epoch that never was is answered with the session's own epoch."""
    created = await two[0].stub.CreateSession(pb.CreateSessionRequest(model="ledger"))
    request = pb.StepRequest(chunk=chunk(created.session.id, ONES, 0))
    request.chunk.epoch = 2**64 - 1

    reply = (await two[0].stub.Step(request)).reply
    assert created.session.epoch < reply.epoch < 2**53


async def test_the_client_goes_to_and_fro_without_a_word(two: tuple[Running, Running]) -> None:
    """A session restored at one replica and stepped at the other, at the same step index."""
    first, second = (AsyncClient(each.address) for each in two)
    async with first, second:
        session = await first.create_session("ledger", durability=Durability("asynchronous", 1000))
        await session.step([[1, 1]])
        taken = await session.checkpoint()
        await session.step([[1, 1]])
        moved = await second.session(session.id)
        session._caller = second
        await session.restore(taken)
        session._caller = first
        assert (await session.step([[5, 5]])).array.tolist() == [[6, 6]]
        assert session.epoch > moved.epoch
        await session.delete()
        with pytest.raises(SessionGone):
            await second.session(session.id)


async def test_a_deletion_is_answered_after_the_store_has_deleted(
    two: tuple[Running, Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that has its answer finds the session at no replica."""
    asked, released = asyncio.Event(), asyncio.Event()

    def held(delete: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def later(*arguments: Any) -> None:
            asked.set()
            await released.wait()
            await delete(*arguments)

        return later

    first, second = two
    created = await first.stub.CreateSession(pb.CreateSessionRequest(model="ledger"))
    deletion = pb.DeleteSessionRequest(session_id=created.session.id)
    for store in (DirectoryStore, RedisStore):
        monkeypatch.setattr(store, "delete", held(store.delete))
    deleting = asyncio.ensure_future(first.stub.DeleteSession(deletion))
    await asked.wait()
    # An answer that had been given would have arrived before that of a later call.
    await first.stub.ListModels(pb.ListModelsRequest())
    assert not deleting.done()

    released.set()
    await deleting
    asking = pb.GetSessionRequest(session_id=created.session.id)
    error = await refused(second.stub.GetSession(asking))
    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_who_has_a_session_is_not_guessed(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the store does not answer, only sessions that were never in it are described."""

    async def down(store: DirectoryStore, session_id: str) -> int:
        raise StoreUnavailable("it is down")

    none = pb.Durability(policy=pb.Durability.POLICY_NONE)
    async with serve(store=f"directory:{tmp_path / 'store'}", store_sync="no") as running:
        kept = await running.stub.CreateSession(pb.CreateSessionRequest(model="ledger"))
        never = await running.stub.CreateSession(
            pb.CreateSessionRequest(model="ledger", durability=none)
        )
        monkeypatch.setattr(DirectoryStore, "epoch", down)
        asked = running.stub.GetSession(pb.GetSessionRequest(session_id=kept.session.id))
        error = await refused(asked)
        assert (error.code(), reason(error)) == (grpc.StatusCode.UNAVAILABLE, "NOT_STORED")
        asked = running.stub.GetSession(pb.GetSessionRequest(session_id=never.session.id))
        assert (await asked).session.id == never.session.id


async def test_a_fork_stays_awake_until_it_is_one(serve: Serve, tmp_path: Path) -> None:
    """Though its source has to be woken, for which others are put to sleep."""
    store = f"directory:{tmp_path / 'store'}"
    async with serve(store=store, store_sync="no", max_awake_sessions=2) as running:
        sessions = []
        for number in range(3):
            created = await running.stub.CreateSession(pb.CreateSessionRequest(model="ledger"))
            sessions.append(created.session.id)
            step = pb.StepRequest(chunk=chunk(sessions[-1], [[number, 1]]))
            await running.stub.Step(step)
        for number, session in enumerate(sessions):
            fork = await running.stub.ForkSession(pb.ForkSessionRequest(session_id=session))
            step = pb.StepRequest(chunk=chunk(fork.session.id, [[0, 1]]))
            found = (await running.stub.Step(step)).reply
            assert outputs(found).tolist() == [[number, 2]]


async def test_a_deletion_is_told_when_the_store_is_back(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Until then it is refused and counted as still to be told. The same request tries again, and a
    server that stops tells it at last.
    """
    stored: dict[str, Any] = {"store": f"directory:{tmp_path / 'store'}", "store_sync": "no"}
    delete = DirectoryStore.delete

    async def down(store: DirectoryStore, session_id: str, epoch: int, seconds: float) -> None:
        raise StoreUnavailable("it is down")

    async with serve(**stored) as running, serve(**stored) as other:
        sessions = []
        for _ in range(70):
            created = await running.stub.CreateSession(pb.CreateSessionRequest(model="ledger"))
            sessions.append(created.session.id)
        monkeypatch.setattr(DirectoryStore, "delete", down)
        for session in sessions[1:]:
            deleting = pb.DeleteSessionRequest(session_id=session)
            for _ in range(2):
                error = await refused(running.stub.DeleteSession(deleting))
                assert reason(error) == "NOT_STORED"
        await until(lambda: running.metric("ntm_undeleted_sessions") == 69)
        assert running.metric("ntm_store_errors_total", operation="delete") >= 69
        monkeypatch.setattr(DirectoryStore, "delete", delete)
        deleting = pb.DeleteSessionRequest(session_id=sessions[1])
        code = await running.stub.DeleteSession(deleting).code()
        assert code in (grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND)  # it was told meanwhile
        await until(lambda: not running.metric("ntm_undeleted_sessions"))
        for session in sessions[1:3]:
            asked = other.stub.GetSession(pb.GetSessionRequest(session_id=session))
            assert reason(await refused(asked)) == "SESSION_UNKNOWN"

        monkeypatch.setattr(DirectoryStore, "delete", down)
        deleting = pb.DeleteSessionRequest(session_id=sessions[0])
        assert reason(await refused(running.stub.DeleteSession(deleting))) == "NOT_STORED"
        await until(lambda: running.metric("ntm_undeleted_sessions") == 1)
        monkeypatch.setattr(DirectoryStore, "delete", delete)
        await running.stop()
        asked = other.stub.GetSession(pb.GetSessionRequest(session_id=sessions[0]))
        error = await refused(asked)
        assert (error.code(), reason(error)) == (grpc.StatusCode.NOT_FOUND, "SESSION_UNKNOWN")
