"""Sessions in a store: they survive their server, sleep, move, and never lose what was told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from ntm.v1 import ntm_pb2 as pb
from service.spec import Float32
from service.stores.base import Saved
from service.stores.directory import DirectoryStore
from tests.conftest import Running, Serve
from tests.e2e.calls import Stream, chunk, opened, outputs, reason, stepped, until
from tests.e2e.test_rpcs import refused
from tests.support.ports import free_port

NONE, ASYNCHRONOUS, SYNCHRONOUS = (
    pb.Durability.POLICY_NONE,
    pb.Durability.POLICY_ASYNCHRONOUS,
    pb.Durability.POLICY_SYNCHRONOUS,
)


@pytest.fixture
def stored(tmp_path: Path) -> dict[str, Any]:
    """Settings of servers that share a store."""
    return {"store": f"directory:{tmp_path / 'store'}", "store_sync": "no"}


async def created(
    running: Running, policy: pb.Durability.Policy, every_steps: int = 0, locations: int = 8
) -> str:
    """The id of a new session with that durability."""
    request = pb.CreateSessionRequest(
        model="ledger",
        locations=locations,
        durability=pb.Durability(policy=policy, every_steps=every_steps),
    )
    response: pb.CreateSessionResponse = await running.stub.CreateSession(request)
    return response.session.id


async def reply(running: Running, session: str, inputs: Any, first: int) -> pb.Reply:
    """The reply to a chunk."""
    request = pb.StepRequest(chunk=chunk(session, inputs, first))
    response: pb.StepResponse = await running.stub.Step(request)
    return response.reply


async def described(running: Running, session: str) -> pb.Session:
    """A session as the server describes it."""
    request = pb.GetSessionRequest(session_id=session)
    response: pb.GetSessionResponse = await running.stub.GetSession(request)
    return response.session


async def test_what_has_not_happened_is_counted_as_none(
    serve: Serve, stored: dict[str, Any]
) -> None:
    """Failures are counted from 0, so that rates show the first."""
    async with serve(**stored) as running:
        for name, label, values in (
            ("ntm_store_errors_total", "operation", ("save", "claim", "delete")),
            ("ntm_checkpoints_total", "outcome", ("stored", "refused", "failed")),
        ):
            for value in values:
                assert running.server.registry.get_sample_value(name, {label: value}) == 0


def ones(steps: int) -> Float32:
    """Inputs whose sums count the steps."""
    return np.ones((steps, 2), np.float32)


async def test_a_synchronous_reply_means_durable(serve: Serve, stored: dict[str, Any]) -> None:
    """
    After a synchronous reply another server continues at that step, and repeats the last reply.
    """
    async with serve(**stored) as first:
        session = await created(first, SYNCHRONOUS)
        told = await reply(first, session, ones(5), 0)
        assert told.durable_step == 5
        async with serve(**stored) as second:
            again = await reply(second, session, ones(5), 0)
            assert again.outputs == told.outputs
            assert outputs(await reply(second, session, ones(1), 5)).tolist() == [[6, 6]]
            assert second.metric("ntm_wakes_total", model="ledger", source="elsewhere") == 1
            assert second.metric("ntm_steps_total", model="ledger") == 1


async def test_the_old_owner_of_a_session_is_refused(serve: Serve, stored: dict[str, Any]) -> None:
    """After a takeover the earlier owner's steps are refused as SESSION_MOVED."""
    async with serve(**stored) as first, serve(**stored) as second:
        session = await created(first, SYNCHRONOUS)
        await reply(first, session, ones(1), 0)
        await reply(second, session, ones(1), 1)
        error = await refused(first.stub.Step(pb.StepRequest(chunk=chunk(session, ones(1), 1))))
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert reason(error) == "SESSION_MOVED"
        assert first.metric("ntm_sessions_closed_total", model="ledger", reason="moved") == 1
        # Whoever asks the first server for it again makes it the owner again.
        assert outputs(await reply(first, session, ones(1), 2)).tolist() == [[3, 3]]


async def test_an_asynchronous_session_is_stored_now_and_then(
    serve: Serve, stored: dict[str, Any]
) -> None:
    """Every four steps; from the last checkpoint another server goes on with the same outputs."""
    async with serve(**stored, max_burst=1) as first:
        session = await created(first, ASYNCHRONOUS, 4)
        for step in range(10):
            await reply(first, session, ones(1), step)
        await until(lambda: first.metric("ntm_checkpoints_total", outcome="stored") >= 2)
        async with serve(**stored) as second:
            behind = await refused(reply(second, session, ones(1), 10))
            assert reason(behind) == "STEP_INDEX_MISMATCH"
            at = (await described(second, session)).next_step
            assert 4 <= at < 10
            again = await reply(second, session, ones(10 - at), at)
            assert outputs(again)[-1].tolist() == [10, 10]


async def test_a_server_that_stops_stores_every_session(
    serve: Serve, stored: dict[str, Any]
) -> None:
    """A server that stops stores every session, also those without durability."""
    async with serve(**stored) as first:
        sessions = [await created(first, policy) for policy in (NONE, ASYNCHRONOUS, SYNCHRONOUS)]
        for number, session in enumerate(sessions):
            await reply(first, session, ones(number + 1), 0)
        await first.stop()
    async with serve(**stored) as second:
        for number, session in enumerate(sessions):
            found = await reply(second, session, ones(1), number + 1)
            assert outputs(found).tolist() == [[number + 2] * 2]


async def test_more_sessions_than_places_sleep_and_wake(
    serve: Serve, stored: dict[str, Any]
) -> None:
    """Forty sessions in four places go on in turn, and none notices."""
    async with serve(**stored, max_awake_sessions=4) as running:
        sessions = [await created(running, NONE) for _ in range(40)]
        for step in range(3):
            for number, session in enumerate(sessions):
                found = await stepped(running, session, [[number, 1]], first_step=step)
                assert found.tolist() == [[number * (step + 1), step + 1]]
        awake = running.metric("ntm_sessions", model="ledger") - running.metric(
            "ntm_sessions_asleep", model="ledger"
        )
        assert awake <= 4
        assert running.metric("ntm_sessions", model="ledger") == 40
        assert running.metric("ntm_wakes_total", model="ledger", source="here") >= 70
        listed = await running.stub.ListSessions(pb.ListSessionsRequest())
        assert [each.id for each in listed.sessions] == sessions
        for session in sessions:
            await running.stub.DeleteSession(pb.DeleteSessionRequest(session_id=session))
        assert running.metric("ntm_sessions", model="ledger") == 0


async def test_sleepers_wake_on_a_stream_in_order(serve: Serve, stored: dict[str, Any]) -> None:
    """Several chunks of each of many sessions in one message, with places for few."""
    async with serve(**stored, max_awake_sessions=3) as running:
        sessions = [await created(running, NONE) for _ in range(12)]
        stream = Stream(running)
        await stream.send(
            *(
                pb.Operation(tag=10 * number + part, step=chunk(session, ones(2), 2 * part))
                for part in range(3)
                for number, session in enumerate(sessions)
            )
        )
        sums: dict[int, list[float]] = {}
        for outcome in await stream.rest():
            assert not outcome.error.reason, outcome
            sums.setdefault(outcome.tag // 10, []).append(outputs(outcome.reply)[-1][0])
        assert sums == {number: [2, 4, 6] for number in range(12)}


async def test_a_sleeping_session_expires_and_is_forgotten(
    serve: Serve, stored: dict[str, Any]
) -> None:
    """A sleeping session expires in the server's table and in the store."""
    async with serve(**stored, sleep_after_seconds=0.01) as running:
        request = pb.CreateSessionRequest(model="ledger")
        request.idle_timeout.FromMilliseconds(1500)
        session = (await running.stub.CreateSession(request)).session.id
        await until(lambda: running.metric("ntm_sessions_asleep", model="ledger"))
        assert (await described(running, session)).id == session
        assert running.metric("ntm_wakes_total", model="ledger", source="here") == 0
        expired = {"model": "ledger", "reason": "expired"}
        await until(lambda: running.metric("ntm_sessions_closed_total", **expired))
        assert reason(await refused(described(running, session))) == "SESSION_EXPIRED"
        assert running.metric("ntm_sessions", model="ledger") == 0


async def test_a_deleted_session_is_nowhere(serve: Serve, stored: dict[str, Any]) -> None:
    """A deleted session is not in the store either."""
    async with serve(**stored) as first, serve(**stored) as second:
        session = await created(first, SYNCHRONOUS)
        await first.stub.DeleteSession(pb.DeleteSessionRequest(session_id=session))
        await until(lambda: first.metric("ntm_store_seconds_count", operation="delete"))
        assert reason(await refused(described(second, session))) == "SESSION_UNKNOWN"


async def test_a_session_that_is_nowhere_is_unknown(serve: Serve, stored: dict[str, Any]) -> None:
    """A session that never was is unknown in calls and on streams, whatever its id."""
    async with serve(**stored) as running:
        for session in ("ab" * 16, "no id"):
            assert reason(await refused(described(running, session))) == "SESSION_UNKNOWN"
            stream = Stream(running)
            await stream.send(pb.Operation(step=chunk(session, ones(1))))
            (outcome,) = await stream.rest()
            assert outcome.error.reason == "SESSION_UNKNOWN"


async def test_a_server_that_stops_sends_clients_elsewhere(
    serve: Serve, stored: dict[str, Any]
) -> None:
    """A stopping server answers DRAINING for sessions that are asleep or elsewhere, not unknown."""
    async with serve(**stored, sleep_after_seconds=0.01) as running, serve(**stored) as other:
        asleep, elsewhere = await created(running, NONE), await created(other, SYNCHRONOUS)
        await until(lambda: running.metric("ntm_sessions_asleep", model="ledger"))
        await running.server.worker.drain(1.0)
        for session in (asleep, elsewhere):
            assert reason(await refused(reply(running, session, ones(1), 0))) == "DRAINING"
        assert reason(await refused(described(running, elsewhere))) == "DRAINING"


async def test_sleepers_are_deleted_though_there_is_one_place(
    serve: Serve, stored: dict[str, Any]
) -> None:
    """All at once: each has to wake for it, and may be put to sleep again before its turn."""
    async with serve(**stored, max_awake_sessions=1) as running:
        sessions = [await created(running, NONE) for _ in range(20)]
        await asyncio.gather(
            *(
                running.stub.DeleteSession(pb.DeleteSessionRequest(session_id=session))
                for session in sessions
            )
        )
        assert running.metric("ntm_sessions", model="ledger") == 0


async def test_a_cancelled_call_stops_no_saving(
    serve: Serve, stored: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that waits for room; the session that makes room is stored and sleeps all the same."""
    saving, may_save, save = asyncio.Event(), asyncio.Event(), DirectoryStore.save

    async def slow(store: DirectoryStore, sessions: Sequence[Saved]) -> list[bool]:
        saving.set()
        await may_save.wait()
        return await save(store, sessions)

    async with serve(**stored, max_awake_sessions=1) as running:
        session = await created(running, NONE)
        await reply(running, session, ones(1), 0)
        monkeypatch.setattr(DirectoryStore, "save", slow)
        opening = running.stub.CreateSession(pb.CreateSessionRequest(model="ledger"))
        await asyncio.wait_for(saving.wait(), 10)
        opening.cancel()
        cancelled = {"method": "CreateSession", "code": "CANCELLED"}
        await until(lambda: running.metric("ntm_rpcs_ended_total", **cancelled))
        may_save.set()
        await until(lambda: running.metric("ntm_sessions_asleep", model="ledger"))


async def test_durability_without_a_store_is_refused(running: Running) -> None:
    """A durable session is refused by a server without a store."""
    error = await refused(created(running, SYNCHRONOUS))
    assert reason(error) == "INVALID_REQUEST"
    assert "no store" in (error.details() or "")
    await opened(running)


async def test_another_principals_sleeping_session_is_unknown(
    serve: Serve, stored: dict[str, Any], tmp_path: Path
) -> None:
    """Another principal's sleeping session is unknown and is not woken."""
    tokens = tmp_path / "tokens"
    lines = [
        {"principal": name, "scopes": ["read", "step"], "sha256": sha256(name.encode()).hexdigest()}
        for name in ("alice", "mallory")
    ]
    tokens.write_text("\n".join(map(json.dumps, lines)))
    alice, mallory = ((("authorization", f"Bearer {name}"),) for name in ("alice", "mallory"))
    async with serve(**stored, tokens_file=str(tokens), sleep_after_seconds=0.01) as running:
        request = pb.CreateSessionRequest(model="ledger")
        created = await running.stub.CreateSession(request, metadata=alice)
        step = pb.StepRequest(chunk=chunk(created.session.id, ones(1)))
        await until(lambda: running.metric("ntm_sessions_asleep", model="ledger"))
        assert reason(await refused(running.stub.Step(step, metadata=mallory))) == "SESSION_UNKNOWN"
        assert running.metric("ntm_sessions_asleep", model="ledger") == 1
        response = await running.stub.Step(step, metadata=alice)
        assert outputs(response.reply).tolist() == [[1, 1]]


async def test_a_session_that_went_elsewhere_is_not_described_as_it_was(
    serve: Serve, stored: dict[str, Any]
) -> None:
    """A replica that no longer owns a session takes it over before it describes it."""
    async with serve(**stored) as first, serve(**stored) as second:
        session = await created(first, SYNCHRONOUS)
        await reply(first, session, ones(1), 0)
        await reply(second, session, ones(1), 1)
        assert (await described(first, session)).next_step == 2


async def test_a_store_that_does_not_answer_is_in_the_log_at_the_start(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """The server serves, and warns once before any session needs the store."""
    settings = {"store": f"redis://127.0.0.1:{free_port()}", "store_timeout_seconds": 0.1}
    async with serve(**settings) as running:
        await until(
            lambda: (
                [each.message for each in caplog.records if each.levelname == "WARNING"]
                == ["the store does not answer"]
            )
        )
        # An increase would not show what is counted before the first scrape.
        assert running.metric("ntm_store_errors_total", operation="epoch") == 0
        await running.stub.ListModels(pb.ListModelsRequest())


async def test_a_stored_session_is_listed_once_a_replica_holds_it(
    serve: Serve, stored: dict[str, Any]
) -> None:
    """After a restart its id continues it, and the list has it from then on."""

    async def listed(running: Running) -> list[str]:
        response = await running.stub.ListSessions(pb.ListSessionsRequest())
        return [session.id for session in response.sessions]

    async with serve(**stored) as running:
        session = await created(running, ASYNCHRONOUS)
        await reply(running, session, ones(3), 0)
        assert await listed(running) == [session]
    async with serve(**stored) as running:
        assert await listed(running) == []
        assert outputs(await reply(running, session, ones(1), 3)).tolist() == [[4, 4]]
        assert await listed(running) == [session]
