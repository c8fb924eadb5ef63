"""The client sends the latest epoch that it received, and rejects answers of an earlier one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from google.protobuf.message import Message

from ntm.v1 import ntm_pb2 as pb
from ntm_client import procedures
from ntm_client.chunks import OwnLimits
from ntm_client.conversion import model_from, session_from
from ntm_client.errors import SessionMoved, Unavailable
from ntm_client.fencing import fenced
from ntm_client.procedures import Ask, Attempt, BaseSession, Procedure
from tests.client.fake_server import MODELS

LIMITS = OwnLimits()
SESSION = pb.Session(id="ab" * 16, model="sums", epoch=3)


@pytest.fixture
def session() -> BaseSession:
    """A session that its client knows in epoch 3."""
    return BaseSession(model_from(MODELS["sums"]), session_from(SESSION))


def told(epoch: int) -> pb.Session:
    """The session as a replica describes it."""
    return pb.Session(id=SESSION.id, epoch=epoch)


Make = Callable[[Ask, BaseSession], Procedure[object]]


@pytest.mark.parametrize(
    ("make", "answer"),
    [
        (procedures.reset, pb.ResetSessionResponse(session=told(4))),
        (procedures.checkpoint, pb.CheckpointSessionResponse(session=told(4))),
        (
            lambda ask, each: procedures.restore(ask, each, b"c"),
            pb.RestoreSessionResponse(session=told(4)),
        ),
        (procedures.describe, pb.GetSessionResponse(session=told(4))),
        (
            lambda ask, _: ask(pb.ReadMemoryRequest(session_id=SESSION.id)),
            pb.ReadMemoryResponse(epoch=4),
        ),
        (
            lambda ask, each: procedures.step(ask, each, [[1, 2, 3]], (), 0, LIMITS),
            pb.StepResponse(reply=pb.Reply(outputs=bytes(12), epoch=4)),
        ),
    ],
)
def test_each_request_carries_what_the_answer_before_it_told(
    session: BaseSession, make: Make, answer: Message
) -> None:
    """Steps carry the epoch in their chunk, and other requests in the request itself."""
    sent = []
    for _ in range(2):
        asking = make(partial(fenced, session), session)
        request = next(asking)
        assert isinstance(request, Message)
        sent.append(request.chunk.epoch if isinstance(request, pb.StepRequest) else request.epoch)  # type: ignore[attr-defined]
        with pytest.raises(StopIteration):
            asking.send(answer)
    assert sent == [3, 4]


@pytest.mark.parametrize(
    ("make", "answer"),
    [
        (procedures.fork, pb.ForkSessionResponse(session=pb.Session(id="cd" * 16, epoch=9))),
        (procedures.delete, pb.DeleteSessionResponse()),
    ],
)
def test_requests_whose_answers_tell_nothing_carry_it_too(
    session: BaseSession, make: Make, answer: Message
) -> None:
    """Forks and deletions carry the epoch too; a fork gets an epoch of its own."""
    asking = make(partial(fenced, session), session)
    request = next(asking)
    assert isinstance(request, pb.ForkSessionRequest | pb.DeleteSessionRequest)
    assert request.epoch == 3
    with pytest.raises(StopIteration):
        asking.send(answer)
    assert session.epoch == 3


def test_an_answer_of_an_earlier_epoch_is_not_believed(session: BaseSession) -> None:
    """An answer of an earlier epoch raises SessionMoved."""
    asking = procedures.step(partial(fenced, session), session, [[1, 2, 3]], (), 0, LIMITS)
    next(asking)

    with pytest.raises(SessionMoved, match="in epoch 2, and another one"):
        asking.send(pb.StepResponse(reply=pb.Reply(outputs=bytes(12), next_step=1, epoch=2)))
    assert (session.next_step, session.epoch) == (0, 3)


def test_what_the_store_has_confirmed_is_believed(session: BaseSession) -> None:
    """A description with an earlier epoch is accepted, because the store has confirmed it."""
    asking = procedures.describe(partial(fenced, session), session)
    next(asking)
    with pytest.raises(StopIteration):
        asking.send(pb.GetSessionResponse(session=told(2)))
    assert session.epoch == 2


def test_a_server_without_a_store_tells_no_epoch(session: BaseSession) -> None:
    """A server without a store sends no epoch, and its answers are accepted."""
    asking = procedures.reset(partial(fenced, session), session)
    next(asking)
    with pytest.raises(StopIteration):
        asking.send(pb.ResetSessionResponse(session=told(0)))
    assert session.epoch == 3


def test_a_request_that_is_tried_again_has_the_latest(session: BaseSession) -> None:
    """A repeated request has the latest epoch, and a request for another session has none."""

    request = pb.ResetSessionRequest(session_id=SESSION.id)
    first = fenced(session, request)
    next(first)
    with pytest.raises(Unavailable):
        first.throw(Unavailable("lost"))
    describing = procedures.describe(partial(fenced, session), session)
    next(describing)
    with pytest.raises(StopIteration):
        describing.send(pb.GetSessionResponse(session=told(5)))

    again = next(fenced(session, Attempt(request, 0.0, 1.0)))
    assert isinstance(again, Attempt)
    assert again.request is request
    assert request.epoch == 5
    other = next(fenced(session, pb.DeleteSessionRequest(session_id="cd" * 16)))
    assert isinstance(other, pb.DeleteSessionRequest)
    assert other.epoch == 0
