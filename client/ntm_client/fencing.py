"""
Fencing: a client rejects answers from a replica that no longer owns the session.

Each replica that takes a session over owns it in a later epoch. A client sends the latest epoch
that it has received with each request, so that an earlier owner learns that it no longer owns the
session. Should such an owner answer nevertheless, the client rejects its answer.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message
from grpc import StatusCode

from ntm.v1 import ntm_pb2 as pb
from ntm_client.connection import session_of
from ntm_client.conversion import limits_from
from ntm_client.errors import SessionMoved
from ntm_client.procedures import Attempt, BaseSession, Procedure


def fenced(session: BaseSession, wanted: Message | Attempt) -> Procedure[Any]:
    """
    Make one attempt at a request, with the session's epoch if it names the session, and return the
    response.

    Raises:
        SessionMoved: the answer is of an earlier epoch than the session's.
    """
    request = wanted.request if isinstance(wanted, Attempt) else wanted
    if not mark(session, request):
        return (yield wanted)
    response = yield wanted
    learn(session, response)
    return response


def mark(session: BaseSession, request: Message) -> bool:
    """Put the session's epoch on a request that names the session; returns whether it does."""
    if session_of(request) != session.id:
        return False
    if session.epoch:
        chunk = request.chunk if isinstance(request, pb.StepRequest) else request
        chunk.epoch = session.epoch  # type: ignore[attr-defined] # all of a session have it
    return True


def learn(session: BaseSession, response: Message) -> None:
    """
    Take the session's epoch, its replica and that replica's limits from an answer. Raises
    SessionMoved if the epoch is earlier.
    """
    _check_epoch(session, response)
    if isinstance(response, pb.StepResponse):
        session.replica = response.replica
        return
    described = getattr(response, "session", None)
    if isinstance(described, pb.Session):
        session.limits = limits_from(described)
        session.replica = session.limits_replica = described.replica


def _check_epoch(session: BaseSession, response: Message) -> None:
    epoch = _epoch(response)
    if not epoch:
        return
    # The store has confirmed the answer of GetSession, whatever epochs were received before.
    if epoch < session.epoch and not isinstance(response, pb.GetSessionResponse):
        raise SessionMoved(
            f"session {session.id} was answered by a replica that owned it in epoch {epoch}, and "
            f"another one has taken it over since, in epoch {session.epoch}",
            code=StatusCode.NOT_FOUND,
            reason="SESSION_MOVED",
        )
    session.epoch = epoch


def _epoch(response: Any) -> int:
    """The epoch in an answer; 0 if it has none."""
    match response:
        case pb.StepResponse():
            return response.reply.epoch
        case pb.ReadMemoryResponse():
            return response.epoch
        case pb.ForkSessionResponse() | pb.DeleteSessionResponse():
            return 0
        case _:
            epoch: int = response.session.epoch
            return epoch
