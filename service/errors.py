"""
The errors that the server reports to clients and operators, independent of the transport.

    NtmError
    ├── InvalidRequest            the request cannot succeed as it is written
    │   ├── ModelUnknown
    │   ├── ModelVersionUnknown   the model is served, but not in this version
    │   ├── SessionUnknown        never opened here, or closed too long ago to remember
    │   ├── SessionExpired
    │   ├── SessionDeleted
    │   ├── SessionMoved          another replica has taken the session over
    │   ├── SessionExists         the id chosen for a new session is in use
    │   ├── StepIndexMismatch
    │   ├── CheckpointDamaged
    │   ├── CheckpointForeign     the checkpoint is of another model
    │   ├── CheckpointTooNew      a later server wrote the checkpoint
    │   └── NoMemory
    ├── SessionFailed             the session's state is lost
    ├── CapacityExceeded          try again later
    ├── Cancelled                 the client did not want it any more
    ├── Draining                  try another replica
    ├── NotStored                 try again: the store did not answer
    ├── Unauthenticated           the caller has no valid token or certificate
    ├── PermissionDenied          the caller lacks a scope
    ├── ModelInvalid              a model file cannot be served
    └── FileInvalid               a file that a setting names is missing or wrong

`service.rpc.status.CODES` maps each class to a gRPC code.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

RETRY_DELAY_SECONDS = 1.0
"""How long clients wait at a limit before they try again."""

_LONGEST_LINE = 500


def one_line(error: BaseException) -> str:
    """
    What an error of a library says, in one line of bounded length; its class if it says nothing.
    """
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot read {error.filename}: {error.strerror}"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_LINE else f"{text[:_LONGEST_LINE]}..."


def missing_package(error: ImportError) -> str:
    """
    What to install if a package of the server cannot be imported. Raises the error again if it is
    of the server's own code.
    """
    if (error.name or "service").partition(".")[0] == "service":
        raise error
    return (
        f"{error.name} cannot be loaded ({one_line(error)}), and the server needs it; install the "
        "server with `pip install ./client .` in a checkout of the project"
    )


class NtmError(Exception):
    """Base of all errors: a message for people, and a reason and metadata for programs."""

    reason: ClassVar[str] = "INTERNAL"
    """Word that names the error for programs, also as a label of ntm_errors_total."""

    def __init__(self, message: str, **metadata: object) -> None:
        """Metadata are values for programs, such as the expected index of a step."""
        super().__init__(message)
        self.message = message
        self.metadata = {key: str(value) for key, value in metadata.items()}
        self.retry_delay_seconds: float | None = None


class InvalidRequest(NtmError):
    """The request has a wrong value; sending it again cannot succeed."""

    reason = "INVALID_REQUEST"


class ModelUnknown(InvalidRequest):
    """The server has no model of this name."""

    reason = "MODEL_UNKNOWN"


class ModelVersionUnknown(InvalidRequest):
    """The server has no version of the model with the content hash that was asked for."""

    reason = "MODEL_VERSION_UNKNOWN"


class SessionUnknown(InvalidRequest):
    """The server remembers no session of this id."""

    reason = "SESSION_UNKNOWN"


class SessionExpired(InvalidRequest):
    """The session was closed after it made no step for its idle timeout."""

    reason = "SESSION_EXPIRED"


class SessionDeleted(InvalidRequest):
    """A client deleted the session."""

    reason = "SESSION_DELETED"


class SessionMoved(InvalidRequest):
    """Another replica has taken the session over."""

    reason = "SESSION_MOVED"


class SessionExists(InvalidRequest):
    """The id chosen for a new session belongs to another session."""

    reason = "SESSION_EXISTS"


class StepIndexMismatch(InvalidRequest):
    """The chunk does not start at the session's next step. No step was made."""

    reason = "STEP_INDEX_MISMATCH"


class CheckpointDamaged(InvalidRequest):
    """The bytes are not a checkpoint, or differ from the checkpoint that was written."""

    reason = "CHECKPOINT_DAMAGED"


class CheckpointForeign(InvalidRequest):
    """The checkpoint and the session are of different models."""

    reason = "CHECKPOINT_FOREIGN"


class CheckpointTooNew(InvalidRequest):
    """The checkpoint has a format that only a later server can read."""

    reason = "CHECKPOINT_TOO_NEW"


class NoMemory(InvalidRequest):
    """The model has no memory to read."""

    reason = "NO_MEMORY"


class SessionFailed(NtmError):
    """A run of the network failed or made the state infinite or NaN. The session is closed."""

    reason = "SESSION_FAILED"


class CapacityExceeded(NtmError):
    """
    A limit of the server is reached, or its memory. Nothing has changed, unless the metadata have
    `next_step`: the steps before it were made.
    """

    reason = "CAPACITY_EXCEEDED"

    def __init__(
        self,
        message: str,
        *,
        retry_delay_seconds: float = RETRY_DELAY_SECONDS,
        **metadata: object,
    ) -> None:
        """The client should wait for the delay before it tries again."""
        super().__init__(message, **metadata)
        self.retry_delay_seconds = retry_delay_seconds


class Cancelled(NtmError):
    """The client cancelled a chunk on a stream, and its steps or the last of them were not made."""

    reason = "CANCELLED"


class Draining(NtmError):
    """The server is stopping and accepts no new steps or sessions."""

    reason = "DRAINING"


class Unauthenticated(NtmError):
    """The call has no valid token or certificate; the message does not say why."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(NtmError):
    """The caller is authenticated, but lacks the scope that the call needs."""

    reason = "PERMISSION_DENIED"


class NotStored(NtmError):
    """The store did not answer. The steps were made, but they may not be durable yet."""

    reason = "NOT_STORED"


class ModelInvalid(NtmError):
    """The file of a model cannot be served, or its network cannot be loaded now."""

    reason = "MODEL_INVALID"


class FileInvalid(NtmError):
    """A file that a setting names is missing or wrong; the message names it and the reason."""

    reason = "FILE_INVALID"


def kinds(base: type[NtmError] = NtmError) -> Iterator[type[NtmError]]:
    """Every class of error, each after its base."""
    yield base
    for below in base.__subclasses__():
        yield from kinds(below)
