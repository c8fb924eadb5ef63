"""The client tells the latest epoch that it knows, and believes no answer of an earlier one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf.message import Message

from ntm.v1 import ntm_pb2 as pb
from ntm_client import procedures
from ntm_client.chunks import Limits
from ntm_client.conversion import model_from, session_from
from ntm_client.errors import SessionMoved, Unavailable
from ntm_client.fencing import fenced
from ntm_client.procedures import Attempt, Procedure, SessionRecord
from tests.client.fake_server import MODELS

LIMITS = Limits()
SESSION = pb.Session(id="ab" * 16, model="sums", epoch=3)


@pytest.fixture
def session() -> SessionRecord:
    """A session that its client knows in epoch 3."""
    return SessionRecord(model_from(MODELS["sums"]), session_from(SESSION))


def told(epoch: int) -> pb.Session:
    """The session as a replica describes it."""
    return pb.Session(id=SESSION.id, epoch=epoch)


def reading() -> Procedure[object]:
    """Reads the memory of the session, without a look at what comes."""
    response = yield pb.ReadMemoryRequest(session_id=SESSION.id)
    return response


Make = Callable[[SessionRecord], Procedure[object]]


@pytest.mark.parametrize(
    ("make", "answer"),
    [
        (procedures.reset, pb.ResetSessionResponse(session=told(4))),
        (procedures.checkpoint, pb.CheckpointSessionResponse(session=told(4))),
        (lambda each: procedures.restore(each, b"c"), pb.RestoreSessionResponse(session=told(4))),
        (procedures.describe, pb.GetSessionResponse(session=told(4))),
        (lambda _: reading(), pb.ReadMemoryResponse(epoch=4)),
        (
            lambda each: procedures.step(each, [[1, 2, 3]], (), 0, LIMITS),
            pb.StepResponse(reply=pb.Reply(outputs=bytes(12), epoch=4)),
        ),
    ],
)
def test_each_request_carries_what_the_answer_before_it_told(
    session: SessionRecord, make: Make, answer: Message
) -> None:
    """Steps in their chunk, all others in the request itself."""
    sent = []
    for _ in range(2):
        carried = fenced(session, make(session))
        request = next(carried)
        assert isinstance(request, Message)
        sent.append(request.chunk.epoch if isinstance(request, pb.StepRequest) else request.epoch)  # type: ignore[attr-defined]
        with pytest.raises(StopIteration):
            carried.send(answer)
    assert sent == [3, 4]


@pytest.mark.parametrize(
    ("make", "answer"),
    [
        (procedures.fork, pb.ForkSessionResponse(session=pb.Session(id="cd" * 16, epoch=9))),
        (procedures.delete, pb.DeleteSessionResponse()),
    ],
)
def test_requests_whose_answers_tell_nothing_carry_it_too(
    session: SessionRecord, make: Make, answer: Message
) -> None:
    """A fork's epoch is its own."""
    carried = fenced(session, make(session))
    request = next(carried)
    assert isinstance(request, pb.ForkSessionRequest | pb.DeleteSessionRequest)
    assert request.epoch == 3
    with pytest.raises(StopIteration):
        carried.send(answer)
    assert session.epoch == 3


def test_an_answer_of_an_earlier_epoch_is_not_believed(session: SessionRecord) -> None:
    """It is as if the replica had said that it was passed over."""
    carried = fenced(session, procedures.step(session, [[1, 2, 3]], (), 0, LIMITS))
    next(carried)

    with pytest.raises(SessionMoved, match="in epoch 2, and another one"):
        carried.send(pb.StepResponse(reply=pb.Reply(outputs=bytes(12), next_step=1, epoch=2)))
    assert (session.next_step, session.epoch) == (0, 3)


def test_what_the_store_has_confirmed_is_believed(session: SessionRecord) -> None:
    """As where it was set back to an earlier copy of itself: who asks can go on from there."""
    carried = fenced(session, procedures.describe(session))
    next(carried)
    with pytest.raises(StopIteration):
        carried.send(pb.GetSessionResponse(session=told(2)))
    assert session.epoch == 2


def test_a_server_without_a_store_tells_no_epoch(session: SessionRecord) -> None:
    """Nor is anything made of that."""
    carried = fenced(session, procedures.reset(session))
    next(carried)
    with pytest.raises(StopIteration):
        carried.send(pb.ResetSessionResponse(session=told(0)))
    assert session.epoch == 3


def test_a_request_that_is_tried_again_has_the_latest(session: SessionRecord) -> None:
    """And one for another session has none."""

    def retrying() -> Procedure[None]:
        request = pb.ResetSessionRequest(session_id=SESSION.id)
        with pytest.raises(Unavailable):
            yield request
        yield pb.GetSessionRequest(session_id=SESSION.id)
        yield Attempt(request, 0.0, 1.0)
        yield pb.DeleteSessionRequest(session_id="cd" * 16)

    carried = fenced(session, retrying())
    first = next(carried)
    carried.throw(Unavailable("lost"))
    again = carried.send(pb.GetSessionResponse(session=told(5)))
    assert isinstance(again, Attempt)
    assert again.request is first
    assert again.request.epoch == 5  # type: ignore[attr-defined]
    other = carried.send(pb.ResetSessionResponse(session=told(5)))
    assert isinstance(other, pb.DeleteSessionRequest)
    assert other.epoch == 0
