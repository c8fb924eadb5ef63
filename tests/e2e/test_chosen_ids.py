"""Sessions and forks whose ids their clients choose, so that they may be asked for again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import wraps
from pathlib import Path
from secrets import token_hex
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from ntm.v1 import ntm_pb2 as pb
from ntm_client import AsyncClient, Resume
from service.auth.principal import READ, STEP
from service.engine.lifecycle import Lifecycle
from service.errors import NotStored, SessionUnknown
from service.rpc.servicer import NtmServicer
from service.stores.base import Saved, StoreUnavailable
from service.stores.directory import DirectoryStore
from tests.conftest import Running, Serve
from tests.e2e.calls import Stream, outputs, reason, stepped, until
from tests.e2e.test_rpcs import refused
from tests.support.tokens import bearer, token_line

NONE, ASYNCHRONOUS, SYNCHRONOUS = (
    pb.Durability(policy=pb.Durability.POLICY_NONE),
    pb.Durability(policy=pb.Durability.POLICY_ASYNCHRONOUS, every_steps=4),
    pb.Durability(policy=pb.Durability.POLICY_SYNCHRONOUS),
)
ALICE, BOB = bearer("tok-alice"), bearer("tok-bob")


def asking(session_id: str, **fields: Any) -> pb.CreateSessionRequest:
    """A request for a session of that id."""
    return pb.CreateSessionRequest(model="ledger", session_id=session_id, **fields)


async def created(running: Running, request: pb.CreateSessionRequest, who: Any = None) -> Any:
    """The session that a request is answered with."""
    return (await running.stub.CreateSession(request, metadata=who)).session


async def refusal(running: Running, request: Any, who: Any = None) -> tuple[Any, str, str]:
    """The code, reason and message of a request that opens no session."""
    error = await refused(running.stub.CreateSession(request, metadata=who))
    return error.code(), reason(error), error.details() or ""


async def taken(running: Running, request: Any, who: Any = None) -> bool:
    """Whether the id is refused as taken."""
    code, why, _ = await refusal(running, request, who)
    return (code, why) == (grpc.StatusCode.ALREADY_EXISTS, "SESSION_EXISTS")


def opened(running: Running) -> float:
    """How many sessions were opened."""
    return running.metric("ntm_sessions_opened_total", model="ledger")


async def checkpoint_after(running: Running, inputs: Sequence[Sequence[float]]) -> bytes:
    """A checkpoint after those inputs."""
    session = (await created(running, asking(token_hex(16)))).id
    await stepped(running, session, inputs)
    request = pb.CheckpointSessionRequest(session_id=session)
    return bytes((await running.stub.CheckpointSession(request)).checkpoint)


@pytest.fixture
def stored(tmp_path: Path) -> dict[str, Any]:
    """Settings of servers that share a store."""
    return {"store": f"directory:{tmp_path / 'store'}", "store_sync": "no"}


@pytest.fixture
def guarded(tmp_path: Path) -> dict[str, Any]:
    """Settings of servers that know Alice and Bob."""
    file = tmp_path / "tokens.jsonl"
    file.write_text(
        token_line("alice", "tok-alice", READ, STEP) + token_line("bob", "tok-bob", READ, STEP)
    )
    return {"tokens_file": str(file)}


async def test_the_same_request_opens_one_session(running: Running) -> None:
    """A repeated request opens one session under its id, and each answer describes that session."""
    request = asking("0123456789abcdef" * 2, locations=6, idle_timeout=Duration(seconds=90))
    first, again = await created(running, request), await created(running, request)
    assert first.id == again.id == request.session_id
    assert (again.locations, again.idle_timeout.seconds) == (6, 90)
    assert opened(running) == 1
    assert (await stepped(running, first.id, [[1, 2]])).tolist() == [[1, 2]]


async def test_many_at_once_open_one_session(running: Running) -> None:
    """Requests at the same time, also on a stream, wait for one opening and get one session."""
    request = asking(token_hex(16))
    stream = Stream(running)
    await stream.send(*(pb.Operation(tag=tag, open=request) for tag in range(8)))
    calls = await asyncio.gather(*(created(running, request) for _ in range(8)))
    outcomes = await stream.rest()
    ids = [session.id for session in calls] + [outcome.opened.id for outcome in outcomes]
    assert ids == [request.session_id] * 16
    assert opened(running) == 1


@pytest.mark.parametrize(
    "other",
    [{"locations": 9}, {"idle_timeout": Duration(seconds=91)}, {"content_hash": "ab" * 32}],
    ids=["locations", "idle timeout", "version"],
)
async def test_another_request_of_the_id_is_refused(
    running: Running, other: dict[str, Any]
) -> None:
    """
    A different request for an id is refused and changes nothing; unset fields fit any session.
    """
    session_id = token_hex(16)
    asked = {"locations": 6, "idle_timeout": Duration(seconds=90)}
    await created(running, asking(session_id, **asked))
    assert await taken(running, asking(session_id, **{**asked, **other}))
    assert (await created(running, asking(session_id))).locations == 6
    assert opened(running) == 1


async def test_another_durability_of_the_id_is_refused(
    serve: Serve, stored: dict[str, Any]
) -> None:
    """How often steps are stored is part of it, where the policy asks for that."""
    synchronous = pb.Durability(policy=pb.Durability.POLICY_SYNCHRONOUS, every_steps=9)
    often = pb.Durability(policy=pb.Durability.POLICY_ASYNCHRONOUS, every_steps=3)
    any_often = pb.Durability(policy=pb.Durability.POLICY_ASYNCHRONOUS)
    async with serve(**stored) as running:
        one, other = token_hex(16), token_hex(16)
        for _ in range(2):
            await created(running, asking(one, durability=ASYNCHRONOUS))
            await created(running, asking(other, durability=synchronous))
        await created(running, asking(one, durability=any_often))
        for wrong in (often, SYNCHRONOUS, NONE):
            assert await taken(running, asking(one, durability=wrong))
        assert opened(running) == 2


async def test_another_model_of_the_id_is_refused(running: Running) -> None:
    """A request for another model under the id is refused, also if that model is not served."""
    session_id = token_hex(16)
    await created(running, asking(session_id))
    assert await taken(running, pb.CreateSessionRequest(model="nothing", session_id=session_id))


async def test_a_session_that_has_made_steps_is_no_new_one(running: Running) -> None:
    """A request for an id whose session has made steps is refused, and the steps stay made."""
    request = asking(token_hex(16))
    session = (await created(running, request)).id
    await stepped(running, session, [[1, 2]])
    assert await taken(running, request)
    assert (await stepped(running, session, [[1, 2]], first_step=1)).tolist() == [[2, 4]]


async def test_a_checkpoint_is_part_of_the_request(running: Running) -> None:
    """A repeated request must have the same checkpoint; another checkpoint or none is refused."""
    one, other = [await checkpoint_after(running, [[n, n]]) for n in (1, 2)]
    session_id, before = token_hex(16), opened(running)
    first = await created(running, asking(session_id, checkpoint=one))
    again = await created(running, asking(session_id, checkpoint=one))
    assert (again.id, again.next_step) == (first.id, 1)
    assert await taken(running, asking(session_id, checkpoint=other))
    assert await taken(running, asking(session_id))
    assert opened(running) == before + 1
    assert (await stepped(running, session_id, [[1, 1]])).tolist() == [[2, 2]]


async def test_the_id_of_a_closed_session_is_not_used_again(running: Running) -> None:
    """The id of a closed session is refused with the reason of its closing."""
    deleted, expired = asking(token_hex(16)), asking(token_hex(16))
    await created(running, deleted)
    await running.stub.DeleteSession(pb.DeleteSessionRequest(session_id=deleted.session_id))
    expired.idle_timeout.FromMilliseconds(1)
    await created(running, expired)
    describing = pb.GetSessionRequest(session_id=expired.session_id)
    while await running.stub.GetSession(describing).code() is grpc.StatusCode.OK:
        pass
    for request, why in ((deleted, "SESSION_DELETED"), (expired, "SESSION_EXPIRED")):
        assert (await refusal(running, request))[:2] == (grpc.StatusCode.NOT_FOUND, why)
    assert opened(running) == 2


@pytest.mark.parametrize("text", ["f" * 31, "f" * 33, "F" * 32, "g" * 32, "x", "ф" * 32])
async def test_an_id_is_128_bits(running: Running, text: str) -> None:
    """
    An id that is not 128 bits in lower-case hexadecimal is refused by an error that has the id.
    """
    code, why, told = await refusal(running, asking(text))
    assert (code, why) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert repr(text) in told
    assert opened(running) == 0


async def test_a_refusal_leaves_the_id_free(serve: Serve) -> None:
    """After a refusal, a corrected or repeated request can use the same id."""
    async with serve(max_sessions=1) as running:
        filling, request = asking(token_hex(16)), asking(token_hex(16), locations=1)
        assert (await refusal(running, request))[1] == "INVALID_REQUEST"
        request.locations = 5
        await created(running, filling)
        assert (await refusal(running, request))[1] == "CAPACITY_EXCEEDED"
        await running.stub.DeleteSession(pb.DeleteSessionRequest(session_id=filling.session_id))
        assert (await created(running, request)).locations == 5


async def test_anothers_id_is_taken(serve: Serve, guarded: dict[str, Any]) -> None:
    """
    Another principal's id is refused in the words for an own id that is taken; nothing changes.
    """
    async with serve(**guarded) as running:
        mine, closed, own = (asking(token_hex(16)) for _ in range(3))
        for request, who in ((mine, ALICE), (closed, ALICE), (own, BOB)):
            await created(running, request, who)
        deleting = pb.DeleteSessionRequest(session_id=closed.session_id)
        await running.stub.DeleteSession(deleting, metadata=ALICE)
        other = asking(own.session_id, locations=9)
        expected = await refusal(running, other, BOB)
        for request in (mine, closed):
            told = str(await refusal(running, request, BOB))
            assert told.replace(request.session_id, own.session_id) == str(expected)
        assert (await created(running, mine, ALICE)).id == mine.session_id
        assert opened(running) == 3


@pytest.mark.parametrize("durability", [ASYNCHRONOUS, SYNCHRONOUS], ids=["async", "sync"])
async def test_another_replica_answers_with_the_same_session(
    serve: Serve, stored: dict[str, Any], durability: pb.Durability
) -> None:
    """Another replica answers a repeated request by taking the session over from the first one."""
    async with serve(**stored) as first, serve(**stored) as second:
        request = asking(token_hex(16), durability=durability)
        one = await created(first, request)
        other = await created(second, request)
        assert (other.id, other.create_time) == (one.id, one.create_time)
        assert other.epoch > one.epoch > 0
        assert opened(second) == 1  # and closed again, as it was there
        assert second.metric("ntm_sessions", model="ledger") == 1
        assert (await stepped(second, one.id, [[1, 1]], first_step=0)).tolist() == [[1, 1]]
        late = await first.stub.GetSession(pb.GetSessionRequest(session_id=one.id))
        assert late.session.epoch > other.epoch
        assert first.metric("ntm_sessions_closed_total", model="ledger", reason="moved") == 1


async def test_another_replica_refuses_what_the_store_has_otherwise(
    serve: Serve, stored: dict[str, Any], guarded: dict[str, Any]
) -> None:
    """Another replica refuses other fields, a session with steps, and another principal."""
    async with serve(**stored, **guarded) as first, serve(**stored, **guarded) as second:
        request = asking(token_hex(16), locations=6, durability=SYNCHRONOUS)
        session = (await created(first, request, ALICE)).id
        assert await taken(second, asking(session, locations=9), ALICE)
        assert await taken(second, request, BOB)
        for policy in (NONE, SYNCHRONOUS):
            assert await taken(second, asking(session, durability=policy), BOB)
        step = pb.StepRequest()
        step.chunk.session_id, step.chunk.inputs = session, b"\0\0\x80?" * 2
        reply = (await second.stub.Step(step, metadata=ALICE)).reply
        assert outputs(reply).tolist() == [[1, 1]]
        for running in (second, first):
            assert await taken(running, request, ALICE)
        reply = (await first.stub.Step(step, metadata=ALICE)).reply
        assert outputs(reply).tolist() == [[2, 2]]


async def test_two_replicas_asked_at_once_open_one_session(
    serve: Serve, stored: dict[str, Any]
) -> None:
    """Of two replicas asked at once both answer, and only one copy makes durable steps."""
    async with serve(**stored) as first, serve(**stored) as second:
        for _ in range(10):
            request = asking(token_hex(16), durability=SYNCHRONOUS)
            both = await asyncio.gather(*(created(each, request) for each in (first, second)))
            assert both[0].epoch != both[1].epoch
            assert both[0].create_time == both[1].create_time
            owner, other = (first, second) if both[0].epoch > both[1].epoch else (second, first)
            session = request.session_id
            assert (await stepped(owner, session, [[1, 1]], first_step=0)).tolist() == [[1, 1]]
            step = pb.StepRequest()
            step.chunk.session_id, step.chunk.inputs = session, b"\0\0\x80?" * 2
            assert reason(await refused(other.stub.Step(step))) == "SESSION_MOVED"


@pytest.mark.parametrize("durability", [NONE, SYNCHRONOUS], ids=["none", "sync"])
async def test_a_session_deleted_elsewhere_is_not_opened_again(
    serve: Serve, stored: dict[str, Any], durability: pb.Durability
) -> None:
    """A session that was deleted elsewhere is not opened while the store remembers the deletion."""
    async with serve(**stored) as first, serve(**stored) as second:
        session = (await created(first, asking(token_hex(16), durability=SYNCHRONOUS))).id
        await first.stub.DeleteSession(pb.DeleteSessionRequest(session_id=session))
        await until(lambda: first.metric("ntm_store_seconds_count", operation="delete"))
        told = await refusal(second, asking(session, durability=durability))
        assert told[:2] == (grpc.StatusCode.NOT_FOUND, "SESSION_DELETED")
        assert second.metric("ntm_sessions", model="ledger") == 0


async def test_a_session_without_durability_is_opened_once_at_its_replica(
    serve: Serve, stored: dict[str, Any]
) -> None:
    """A session without durability is opened once at its replica, also while it sleeps."""
    async with serve(**stored, max_awake_sessions=1) as running:
        request = asking(token_hex(16), durability=NONE)
        await created(running, request)
        assert running.metric("ntm_store_seconds_count", operation="save") == 0
        assert (await created(running, request)).id == request.session_id
        await created(running, asking(token_hex(16), durability=NONE))
        assert running.metric("ntm_sessions_asleep", model="ledger") == 1
        assert (await created(running, request)).id == request.session_id
        assert opened(running) == 2


@pytest.mark.parametrize("is_kept", [False, True], ids=["lost before", "lost after"])
@pytest.mark.parametrize("durability", [NONE, SYNCHRONOUS], ids=["none", "sync"])
async def test_a_store_that_did_not_answer_leaves_the_id_free(
    serve: Serve,
    stored: dict[str, Any],
    durability: pb.Durability,
    is_kept: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If the store did not answer, the same request opens the session later, here or elsewhere."""

    async def unanswered(store: DirectoryStore, session: Saved | str) -> Any:
        if is_kept and isinstance(session, Saved):
            await keep(store, session)
        raise StoreUnavailable("no answer")

    keep = DirectoryStore.open
    async with serve(**stored) as first, serve(**stored) as second:
        for running in (first, second):
            request = asking(token_hex(16), durability=durability)
            with monkeypatch.context() as silent:
                silent.setattr(DirectoryStore, "open", unanswered)
                silent.setattr(DirectoryStore, "epoch", unanswered)
                told = await refusal(first, request)
                assert told[:2] == (grpc.StatusCode.UNAVAILABLE, "NOT_STORED")
            assert first.metric("ntm_sessions", model="ledger") == (running is second)
            session = (await created(running, request)).id
            assert (await stepped(running, session, [[1, 1]])).tolist() == [[1, 1]]


async def test_a_call_that_is_cancelled_leaves_the_id_free(
    serve: Serve, stored: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a cancelled call, the next request opens the session or finds it."""
    began, keep = asyncio.Event(), DirectoryStore.open

    async def slow(store: DirectoryStore, session: Saved) -> Any:
        kept = await keep(store, session)
        began.set()
        await asyncio.Event().wait()
        return kept

    async with serve(**stored) as running:
        request = asking(token_hex(16), durability=SYNCHRONOUS)
        with monkeypatch.context() as patched:
            patched.setattr(DirectoryStore, "open", slow)
            call = running.stub.CreateSession(request)
            await asyncio.wait_for(began.wait(), 10)
            call.cancel()
        assert (await created(running, request)).id == request.session_id
        assert (await stepped(running, request.session_id, [[1, 1]])).tolist() == [[1, 1]]


async def test_a_client_whose_answer_is_lost_gets_the_session_that_was_opened(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks again under the same id, which load balancers see from the first call on."""
    seen: list[tuple[str, Any]] = []
    create = NtmServicer.CreateSession

    @wraps(create)  # which says its scope
    async def losing(self: NtmServicer, request: Any, context: Any) -> Any:
        response = await create(self, request, context)
        headers = dict(context.invocation_metadata())
        seen.append((response.session.id, headers["x-session-id"]))
        if len(seen) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the connection was lost")
        return response

    monkeypatch.setattr(NtmServicer, "CreateSession", losing)
    quick = Resume(first_backoff_seconds=0.01)
    async with serve() as running, AsyncClient(running.address, resume=quick) as client:
        await client.models()
        async with await client.create_session("ledger") as session:
            assert seen == [(session.id, session.id)] * 2
            assert (await session.step([1, 2])).array.tolist() == [1, 2]
        assert opened(running) == 1


def forking(session: str, fork: str, **fields: Any) -> pb.ForkSessionRequest:
    """A request for a fork of that id."""
    return pb.ForkSessionRequest(session_id=session, fork_id=fork, **fields)


async def forked(running: Running, request: pb.ForkSessionRequest, who: Any = None) -> pb.Session:
    """The fork that a request is answered with."""
    response: pb.ForkSessionResponse = await running.stub.ForkSession(request, metadata=who)
    return response.session


async def not_forked(running: Running, request: pb.ForkSessionRequest, who: Any = None) -> str:
    """The reason why a request is refused."""
    return reason(await refused(running.stub.ForkSession(request, metadata=who)))


async def stepped_session(running: Running, steps: int = 3, **fields: Any) -> str:
    """A session that has made steps."""
    session: str = (await created(running, asking(token_hex(16), **fields))).id
    await stepped(running, session, [[1, 1]] * steps)
    return session


async def test_the_same_request_makes_one_fork(running: Running) -> None:
    """A repeated request, also at the same time, makes one fork and gets it each time."""
    session = await stepped_session(running)
    request = forking(session, token_hex(16), idle_timeout=Duration(seconds=90))
    forks = await asyncio.gather(*(forked(running, request) for _ in range(8)))
    forks.append(await forked(running, request))
    assert {fork.id for fork in forks} == {request.fork_id}
    assert {(fork.next_step, fork.idle_timeout.seconds) for fork in forks} == {(3, 90)}
    assert opened(running) == 2
    assert (await stepped(running, request.fork_id, [[1, 1]])).tolist() == [[4, 4]]


async def test_another_fork_under_the_id_is_refused(
    serve: Serve, guarded: dict[str, Any], stored: dict[str, Any]
) -> None:
    """
    A request that the session with that id does not match is refused, and changes nothing: another
    timeout, other steps, the session itself, another's session.
    """
    async with serve(**guarded, **stored) as running:
        session = (await created(running, asking(token_hex(16)), ALICE)).id
        theirs = (await created(running, asking(token_hex(16)), BOB)).id
        request = forking(session, token_hex(16))
        await forked(running, request, ALICE)
        step = pb.StepRequest()
        step.chunk.session_id, step.chunk.inputs = request.fork_id, b"\0\0\x80?" * 2
        other = forking(session, request.fork_id, idle_timeout=Duration(seconds=9))
        for wrong in (other, forking(session, session), forking(session, theirs)):
            assert await not_forked(running, wrong, ALICE) == "SESSION_EXISTS"
        assert await not_forked(running, forking(session, "F" * 32), ALICE) == "INVALID_REQUEST"
        assert (await forked(running, request, ALICE)).id == request.fork_id
        await running.stub.Step(step, metadata=ALICE)
        assert await not_forked(running, request, ALICE) == "SESSION_EXISTS"
        deleting = pb.DeleteSessionRequest(session_id=request.fork_id)
        await running.stub.DeleteSession(deleting, metadata=ALICE)
        assert await not_forked(running, request, ALICE) == "SESSION_DELETED"


@pytest.mark.parametrize("durability", [ASYNCHRONOUS, SYNCHRONOUS], ids=["async", "sync"])
async def test_another_replica_answers_with_the_same_fork(
    serve: Serve, stored: dict[str, Any], durability: pb.Durability
) -> None:
    """Another replica answers a repeated request by taking both sessions over."""
    async with serve(**stored) as first, serve(**stored) as second:
        session = await stepped_session(first, 4, durability=durability)
        request = forking(session, token_hex(16))
        one, other = await forked(first, request), await forked(second, request)
        assert (other.id, other.create_time, other.next_step) == (one.id, one.create_time, 4)
        assert second.metric("ntm_sessions", model="ledger") == 2
        assert (await stepped(second, one.id, [[1, 1]], first_step=4)).tolist() == [[5, 5]]


@pytest.mark.parametrize("is_kept", [False, True], ids=["lost before", "lost after"])
async def test_a_store_that_did_not_answer_leaves_the_forks_id_free(
    serve: Serve, stored: dict[str, Any], is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the store did not answer, the same request makes the fork later, here or elsewhere."""

    async def unanswered(store: DirectoryStore, session: Saved) -> Any:
        if is_kept:
            await keep(store, session)
        raise StoreUnavailable("no answer")

    keep = DirectoryStore.open
    async with serve(**stored) as first, serve(**stored) as second:
        for running in (first, second):
            session = await stepped_session(first, durability=SYNCHRONOUS)
            request = forking(session, token_hex(16))
            with monkeypatch.context() as silent:
                silent.setattr(DirectoryStore, "open", unanswered)
                assert await not_forked(first, request) == "NOT_STORED"
            assert (await forked(running, request)).next_step == 3
            fork = request.fork_id
            assert (await stepped(running, fork, [[1, 1]])).tolist() == [[4, 4]]


async def test_a_fork_is_unknown_until_it_has_its_state(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps under its id are refused meanwhile, and after a failure the id is free."""
    session = await stepped_session(running)
    request = forking(session, token_hex(16))

    def meanwhile(self: Lifecycle, source: Any, fork: Any) -> Any:
        with pytest.raises(SessionUnknown):
            self.awake(fork)
        raise NotStored("no copy today")

    with monkeypatch.context() as patched:
        patched.setattr(Lifecycle, "fork", meanwhile)
        assert await not_forked(running, request) == "NOT_STORED"
    assert (await forked(running, request)).next_step == 3


async def test_a_client_whose_answer_is_lost_gets_the_fork_that_was_made(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks again under the same id."""
    seen: list[str] = []
    fork = NtmServicer.ForkSession

    @wraps(fork)  # which says its scope
    async def losing(self: NtmServicer, request: Any, context: Any) -> Any:
        response = await fork(self, request, context)
        seen.append(response.session.id)
        if len(seen) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the connection was lost")
        return response

    monkeypatch.setattr(NtmServicer, "ForkSession", losing)
    quick = Resume(first_backoff_seconds=0.01)
    async with serve() as running, AsyncClient(running.address, resume=quick) as client:
        async with await client.create_session("ledger") as session:
            await session.step([1, 2])
            async with await session.fork() as other:
                assert seen == [other.id] * 2
                assert (await other.step([1, 2])).array.tolist() == [2, 4]
        assert opened(running) == 2


async def test_a_session_that_expires_while_it_is_entered_is_not_called_deleted(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a session of a very short timeout can reach the store before its beginning."""
    enter = DirectoryStore.open

    async def late(store: DirectoryStore, session: Saved) -> Any:
        while not await store.epoch(session.session_id):
            pass
        return await enter(store, session)

    monkeypatch.setattr(DirectoryStore, "open", late)
    short = {"max_idle_timeout_seconds": 0.001, "default_idle_timeout_seconds": 0.001}
    async with serve(store=f"directory:{tmp_path}", store_sync="no", **short) as running:
        code, why, message = await refusal(running, asking(token_hex(16)))
    assert (code, why) == (grpc.StatusCode.NOT_FOUND, "SESSION_EXPIRED"), message
