"""
Fencing: who knows that a session was taken over is not answered from before that.

Each replica that takes a session over owns it in a later epoch. With its requests a client sends
the latest epoch that it was told, by which a replica that was passed over knows that it was. What
is answered in an earlier epoch all the same is not believed.
"""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.message import Message
from grpc import StatusCode

from ntm.v1 import ntm_pb2 as pb
from ntm_client.connection import session_of
from ntm_client.errors import NtmClientError, SessionMoved
from ntm_client.procedures import Attempt, Procedure, SessionRecord

T = TypeVar("T")


def fenced(session: SessionRecord, procedure: Procedure[T]) -> Procedure[T]:
    """
    The procedure, with the session's epoch in all its requests for the session.

    Each is changed as it goes out, so that also what is sent again has the latest. An answer of an
    earlier epoch becomes a SessionMoved.
    """
    try:
        wanted = next(procedure)
        while True:
            request = wanted.request if isinstance(wanted, Attempt) else wanted
            is_its = session_of(request) == session.id
            if is_its and session.epoch:
                chunk = request.chunk if isinstance(request, pb.StepRequest) else request
                chunk.epoch = session.epoch  # type: ignore[attr-defined] # all of a session have it
            try:
                response = yield wanted
                if is_its:
                    _learn(session, response)
            except NtmClientError as error:
                wanted = procedure.throw(error)
            else:
                wanted = procedure.send(response)
    except StopIteration as returned:
        result: T = returned.value
        return result


def _learn(session: SessionRecord, response: Message) -> None:
    """Take the session's epoch from an answer. Raises SessionMoved if it is an earlier one."""
    told = _epoch(response)
    if not told:
        return
    # The store has confirmed what GetSession answers, whatever was told before.
    if told < session.epoch and not isinstance(response, pb.GetSessionResponse):
        raise SessionMoved(
            f"session {session.id} was answered by a replica that owned it in epoch {told}, and "
            f"another one has taken it over since, in epoch {session.epoch}",
            code=StatusCode.NOT_FOUND,
            reason="SESSION_MOVED",
        )
    session.epoch = told


def _epoch(response: Any) -> int:
    """The epoch of the session asked about; 0 where the answer does not tell it."""
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
