"""Opening sessions and reaching them: once, at the right version, and never half."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ntm.v1 import ntm_pb2 as pb
from service.auth.principal import Principal
from service.engine.checkpoint import Checkpoint, encode
from service.engine.lifecycle import Lifecycle
from service.errors import NotStored
from service.loop.keeper import Keeper
from service.rpc.calls import session_ref
from service.session_ref import ANYBODY, Caller, SessionRef
from service.stores.directory import DirectoryStore
from tests.conftest import Running, Serve
from tests.e2e.calls import opened, reason, stepped
from tests.e2e.test_rpcs import refused

CHOSEN = "ab" * 16
"""The id that a client draws for a new session."""

SYNCHRONOUS = pb.Durability(policy=pb.Durability.POLICY_SYNCHRONOUS)


def creating(**fields: Any) -> pb.CreateSessionRequest:
    """A request for a session of the ledger."""
    return pb.CreateSessionRequest(model="ledger", **fields)


async def sessions(running: Running) -> list[str]:
    """The ids of all sessions that are open."""
    listed = await running.stub.ListSessions(pb.ListSessionsRequest())
    return [session.id for session in listed.sessions]


@pytest.mark.parametrize(
    ("principal", "caller"),
    [
        (Principal("token:alice"), "token:alice"),
        (Principal("ipv4:127.0.0.1", is_authenticated=False), ANYBODY),
    ],
)
def test_a_request_names_its_session_with_its_principal(
    principal: Principal, caller: Caller
) -> None:
    """By name, or as anybody where nobody is authenticated."""
    request = pb.GetSessionRequest(session_id=CHOSEN, epoch=3)
    assert session_ref(request, principal) == SessionRef(CHOSEN, caller, 3)


async def test_a_session_of_a_chosen_id_is_opened_once(running: Running) -> None:
    """Several requests with one chosen id, made at once, get the same session."""
    request = creating(session_id=CHOSEN, locations=5)
    answers = await asyncio.gather(*(running.stub.CreateSession(request) for _ in range(4)))

    assert {answer.session.create_time.ToNanoseconds() for answer in answers} == {
        answers[0].session.create_time.ToNanoseconds()
    }
    assert await sessions(running) == [CHOSEN]


@pytest.mark.parametrize("fields", [{"locations": 6}, {"checkpoint": b""}])
async def test_a_chosen_id_is_taken_by_a_session_that_is_not_as_asked(
    running: Running, fields: dict[str, Any]
) -> None:
    """By one with other fields, or by one that has made steps."""
    await running.stub.CreateSession(creating(session_id=CHOSEN, locations=5))
    await stepped(running, CHOSEN, [[1, 1]])
    error = await refused(running.stub.CreateSession(creating(session_id=CHOSEN, **fields)))

    assert reason(error) == "SESSION_EXISTS"
    assert f"session {CHOSEN!r} is there already" in str(error.details())


@pytest.mark.parametrize("session_id", ["short", "AB" * 16, "g" * 32])
async def test_an_id_that_is_not_128_random_bits_is_refused(
    running: Running, session_id: str
) -> None:
    """An id that is not 128 random bits is refused, and the error says what an id is."""
    error = await refused(running.stub.CreateSession(creating(session_id=session_id)))
    assert error.details() == (
        f"session_id is {session_id!r}; it must be 128 random bits as 32 hexadecimal digits in "
        "lower case"
    )


async def test_a_checkpoint_of_a_version_that_is_not_here_is_foreign(running: Running) -> None:
    """The error has the version that new sessions are on, and the checkpoint's."""
    taken = encode(Checkpoint("cd" * 32, 5, 1, {}))
    error = await refused(running.stub.CreateSession(creating(checkpoint=taken)))

    assert reason(error) == "CHECKPOINT_FOREIGN"
    assert await sessions(running) == []


async def test_a_session_that_cannot_be_stored_is_not_opened(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a new session cannot be stored, the call fails and no session is left."""

    async def unavailable(keeper: Keeper, session_id: str) -> None:
        raise NotStored(f"session {session_id!r} could not be stored; try again")

    async with serve(store=f"directory:{tmp_path}") as running:
        monkeypatch.setattr(Keeper, "keep", unavailable)
        error = await refused(running.stub.CreateSession(creating(durability=SYNCHRONOUS)))
        assert reason(error) == "NOT_STORED"
        assert await sessions(running) == []


async def test_a_fork_whose_source_fails_leaves_no_session(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slot that was taken for it is given back."""
    session = await opened(running)

    def broken(*_: Any, **__: Any) -> None:
        raise NotStored("no copy today")

    monkeypatch.setattr(Lifecycle, "fork", broken)
    error = await refused(running.stub.ForkSession(pb.ForkSessionRequest(session_id=session)))
    assert error.details() == "no copy today"
    assert await sessions(running) == [session]


async def test_a_fork_has_the_state_and_the_timeout_of_its_source(running: Running) -> None:
    """A fork has the state and the timeout of its source, and then steps independently."""
    session = await opened(running, locations=5)
    await stepped(running, session, [[1, 2]] * 2)
    request = pb.ForkSessionRequest(session_id=session)
    fork = (await running.stub.ForkSession(request)).session
    source = (await running.stub.GetSession(pb.GetSessionRequest(session_id=session))).session

    assert (fork.next_step, fork.locations) == (2, 5)
    assert fork.idle_timeout == source.idle_timeout
    assert (await stepped(running, fork.id, [[1, 1]])).tolist() == [[3, 5]]
    assert (await stepped(running, session, [[7, 7]])).tolist() == [[9, 11]]


async def test_a_session_that_another_replica_owns_is_claimed_before_it_is_described(
    serve: Serve, tmp_path: Path
) -> None:
    """The store says in which epoch it is owned; a view of an earlier one is not told."""
    async with serve(store=f"directory:{tmp_path}") as running:
        created = (await running.stub.CreateSession(creating(durability=SYNCHRONOUS))).session
        store = DirectoryStore(tmp_path, sync=False, timeout_seconds=5.0)
        claimed = await store.claim(created.id)
        await store.close()
        request = pb.GetSessionRequest(session_id=created.id)
        described = (await running.stub.GetSession(request)).session

    assert claimed is not None
    assert created.epoch < claimed[0] < described.epoch


async def test_a_step_counts_the_bytes_that_come_and_go(running: Running) -> None:
    """Inputs of 2 steps of 2 values, and as many outputs."""
    session = await opened(running)
    await stepped(running, session, [[1, 1]] * 2)

    assert running.metric("ntm_received_input_bytes_total") == 16
    assert running.metric("ntm_sent_output_bytes_total") == 16
