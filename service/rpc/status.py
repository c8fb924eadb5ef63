"""Converts errors to gRPC: the code and details of a call, and the Error of a stream's outcome."""

from __future__ import annotations

import logging
from datetime import timedelta

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from ntm.v1 import ntm_pb2
from service import errors

log = logging.getLogger(__name__)

DOMAIN = "ntm.v1"
DETAILS_KEY = "grpc-status-details-bin"
"""Trailing metadata of a failed call: a serialised google.rpc.Status."""

CODES: dict[type[errors.NtmError], grpc.StatusCode] = {
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ModelUnknown: grpc.StatusCode.NOT_FOUND,
    errors.ModelVersionUnknown: grpc.StatusCode.NOT_FOUND,
    errors.SessionUnknown: grpc.StatusCode.NOT_FOUND,
    errors.SessionExpired: grpc.StatusCode.NOT_FOUND,
    errors.SessionDeleted: grpc.StatusCode.NOT_FOUND,
    errors.SessionMoved: grpc.StatusCode.NOT_FOUND,
    errors.SessionExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.StepIndexMismatch: grpc.StatusCode.ABORTED,
    errors.CheckpointDamaged: grpc.StatusCode.INVALID_ARGUMENT,
    errors.CheckpointForeign: grpc.StatusCode.INVALID_ARGUMENT,
    errors.CheckpointTooNew: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NoMemory: grpc.StatusCode.FAILED_PRECONDITION,
    errors.SessionFailed: grpc.StatusCode.DATA_LOSS,
    errors.CapacityExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Cancelled: grpc.StatusCode.CANCELLED,
    errors.Draining: grpc.StatusCode.UNAVAILABLE,
    errors.NotStored: grpc.StatusCode.UNAVAILABLE,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.ModelInvalid: grpc.StatusCode.INTERNAL,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
}


def codes() -> list[str]:
    """The names of the gRPC codes that calls end with."""
    ended = {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL}
    return sorted(code.name for code in ended.union(CODES.values()))


def known(error: BaseException) -> errors.NtmError:
    """
    The error that a client may see. Our own errors stay as they are; any other is logged and
    hidden.
    """
    if isinstance(error, errors.NtmError):
        # The error's frames refer to the error and to the request. This cycle would keep a large
        # request.
        error.__traceback__ = error.__cause__ = error.__context__ = None
        return error
    log.error("unexpected error", exc_info=error)
    return errors.NtmError("internal error; the server's log has the details")


def code(error: errors.NtmError) -> grpc.StatusCode:
    """The gRPC code of an error."""
    return CODES.get(type(error), grpc.StatusCode.INTERNAL)


def details(error: errors.NtmError, request_id: str = "") -> bytes:
    """
    The value of `DETAILS_KEY`: a google.rpc.Status.

    It has an ErrorInfo, a RequestInfo if the request has an id, and a RetryInfo if the error has a
    delay.
    """
    parts = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    ]
    if request_id:
        parts.append(error_details_pb2.RequestInfo(request_id=request_id))
    if _delay(error) is not None:
        parts.append(error_details_pb2.RetryInfo(retry_delay=_delay(error)))
    status = status_pb2.Status(code=code(error).value[0], message=error.message)
    for part in parts:
        packed = any_pb2.Any()
        packed.Pack(part)
        status.details.append(packed)
    serialized: bytes = status.SerializeToString()
    return serialized


def message(error: errors.NtmError) -> ntm_pb2.Error:
    """The error as a stream's outcome."""
    return ntm_pb2.Error(
        code=code(error).value[0],
        reason=error.reason,
        message=error.message,
        metadata=error.metadata,
        retry_delay=_delay(error),
    )


def _delay(error: errors.NtmError) -> timedelta | None:
    seconds = error.retry_delay_seconds
    return None if seconds is None else timedelta(seconds=seconds)
