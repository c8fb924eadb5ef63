"""What a StreamSteps call carries: operations, each with its outcome. Does no I/O."""

from __future__ import annotations

from google.protobuf.message import Message

from ntm.v1 import ntm_pb2 as pb
from ntm_client.procedures import BaseSession

SAFE_MESSAGE_BYTES = 65_536
"""Every server takes messages of this size; a larger one could break the stream."""

_MAX_MESSAGE_BYTES = 1 << 20
"""The largest message where the server takes larger ones, so that no operation waits for long."""

IDLE_SECONDS = 30.0
"""A stream that sessions share ends after this time without an operation."""

CLOSE_SECONDS = 1.0
"""The time in which the server must end a stream on which no operation is pending."""

REQUEST_HEADER = "x-request-id"
"""Metadata key of the id under which the server logs a call."""

LENGTH_BYTES = 8
"""An upper bound for the bytes of an operation's length in a message."""

_TAG_BYTES = 11
"""An upper bound for the bytes of an operation's tag."""


def message_bytes(session: BaseSession, replica: str) -> int:
    """The size of a message that this replica certainly takes, as far as the session knows it."""
    if not replica or session.limits_replica != replica:
        return SAFE_MESSAGE_BYTES
    return max(SAFE_MESSAGE_BYTES, min(session.limits.max_message_bytes, _MAX_MESSAGE_BYTES))


def operation_of(request: Message, max_bytes: int = SAFE_MESSAGE_BYTES) -> pb.Operation | None:
    """
    The operation that does what a unary request asks for; None if it has to be a call, also since
    it would be larger than a message may be: that could break the stream for all sessions.
    """
    match request:
        case pb.StepRequest():
            operation = pb.Operation(step=request.chunk)
        case pb.CreateSessionRequest():
            operation = pb.Operation(open=request)
        case pb.DeleteSessionRequest():
            operation = pb.Operation(close=request.session_id, epoch=request.epoch)
        case _:
            return None
    if operation.ByteSize() + _TAG_BYTES + LENGTH_BYTES > max_bytes:
        return None
    return operation


def response_of(outcome: pb.Outcome, replica: str) -> Message:
    """The response that the unary call of the same kind would have given."""
    match outcome.WhichOneof("kind"):
        case "reply":
            return pb.StepResponse(reply=outcome.reply, replica=replica)
        case "opened":
            return pb.CreateSessionResponse(session=outcome.opened)
        case _:
            return pb.DeleteSessionResponse()
