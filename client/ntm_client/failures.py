"""Converts failed calls and failed operations of a stream into the client's errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import grpc
from google.rpc import error_details_pb2, status_pb2

from ntm.v1 import ntm_pb2 as pb
from ntm_client.errors import (
    BY_CODE,
    BY_REASON,
    ClientClosed,
    InvalidRequest,
    NtmClientError,
    StreamBroken,
    StreamClosed,
    Unavailable,
    Unreachable,
)

DETAILS_KEY = "grpc-status-details-bin"
CODES = {code.value[0]: code for code in grpc.StatusCode}
NO_CONNECTION = (
    "failed to connect to all addresses",
    "connections to all backends failing",
    "resolution failed",
    "errors resolving",
    "empty address list",
)
"""
gRPC's messages when it could not connect. If gRPC changes them, such a failure counts as a lost
connection, after which a request that must not be repeated is not repeated.
"""

TOO_LARGE = "essage larger than max"
"""In gRPC's messages about a message that is larger than the server takes."""

CLOSED_HERE = "Channel closed!"
"""gRPC's message for a call that was under way when its client was closed."""

CANCELLED_HERE = "Locally cancelled by application!"
"""gRPC's message for a call that this client cancelled."""


def call_error(error: grpc.RpcError, target: str) -> NtmClientError:
    """The client's error for a failed call to the server at `target`."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    request = error_details_pb2.RequestInfo()
    for detail in _status(error).details:
        detail.Unpack(info)
        detail.Unpack(retry)
        detail.Unpack(request)
    if not info.reason:
        return _without_reason(error, target)
    return BY_REASON.get(info.reason, NtmClientError)(
        _advised(error.details() or "", info.metadata, info.reason),
        code=error.code(),
        reason=info.reason,
        metadata=dict(info.metadata),
        retry_delay_seconds=_seconds(retry, "retry_delay"),
        request_id=request.request_id,
    )


def outcome_error(error: pb.Error, request_id: str = "") -> NtmClientError:
    """
    The client's error for a failed operation of a stream that itself goes on; the id is the
    stream's.
    """
    return BY_REASON.get(error.reason, NtmClientError)(
        _advised(error.message, error.metadata, error.reason),
        code=CODES.get(error.code, grpc.StatusCode.UNKNOWN),
        reason=error.reason,
        metadata=dict(error.metadata),
        retry_delay_seconds=_seconds(error, "retry_delay"),
        request_id=request_id,
    )


def no_answer(target: str, time: str) -> str:
    """The message of a `TimedOut`; `time` is how long the client waited, such as 5 s."""
    return f"the server at {target} did not answer in {time}; allow more with `timeout_seconds`"


def stream_broken(cause: NtmClientError) -> StreamBroken:
    """The error of an operation that was not answered when its stream broke."""
    kind = StreamClosed if isinstance(cause, StreamClosed) else StreamBroken
    error = kind(
        f"the stream broke before this was answered: {cause.message}",
        code=cause.code,
        reason=cause.reason,
        metadata=cause.metadata,
        retry_delay_seconds=cause.retry_delay_seconds,
    )
    error.__cause__ = cause
    return error


def _advised(message: str, metadata: Mapping[str, str], reason: str) -> str:
    """The server's message, with what the user of this client can do."""
    if reason != "STEP_INDEX_MISMATCH" or "expected" not in metadata:
        return message
    return (
        f"{message}; another client steps the session too, it was reset, or steps went with a "
        f"server that had not stored them: `describe` sets next_step to {metadata['expected']}, to "
        "go on from there"
    )


def _status(error: grpc.RpcError) -> status_pb2.Status:
    # Blocking and asynchronous calls have different types for metadata; both yield pairs.
    trailing = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    for key, value in trailing:
        if key == DETAILS_KEY and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    return status_pb2.Status()


def _without_reason(error: grpc.RpcError, target: str) -> NtmClientError:
    code, details = error.code(), error.details() or ""
    if details == CLOSED_HERE:
        return ClientClosed(f"the client of {target} was closed before the server answered")
    if code is grpc.StatusCode.CANCELLED and details != CANCELLED_HERE:
        return Unavailable(f"the server at {target} stopped; try another replica", code=code)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and TOO_LARGE in details:
        return InvalidRequest(
            f"the request is larger than the server at {target} takes ({details}); start the "
            "server with a larger --max-message-bytes, or send less at once",
            code=code,
            metadata={"limit": "max_message_bytes"},
        )
    if code is grpc.StatusCode.UNAVAILABLE:
        message = (
            f"no server answers at {target} ({details}); start one with `python -m service`, "
            f"or give the address of one that runs"
        )
        if any(text in details for text in NO_CONNECTION):
            return Unreachable(message)
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
        message = no_answer(target, "time")
    else:
        message = f"the server at {target} answered {code.name}: {details}"
    return BY_CODE.get(code, NtmClientError)(message, code=code)


def _seconds(message: error_details_pb2.RetryInfo | pb.Error, field: str) -> float | None:
    if not message.HasField(field):
        return None
    return float(getattr(message, field).ToTimedelta().total_seconds())
