"""
Every error the server tells a client about, without a word of gRPC.

    NtmError
    ├── InvalidRequest            what was asked cannot be done as written
    │   ├── ModelUnknown
    │   ├── ModelVersionUnknown   the model is served, but not that version of it
    │   ├── SessionUnknown        never opened here, or closed too long ago to remember
    │   ├── SessionExpired
    │   ├── SessionDeleted
    │   ├── SessionMoved          another replica has it now
    │   ├── SessionExists         the id that was chosen for a new one is taken
    │   ├── StepIndexMismatch
    │   ├── CheckpointDamaged
    │   ├── CheckpointForeign     of another model
    │   ├── CheckpointTooNew      written by a later server
    │   └── NoMemory
    ├── SessionFailed             the state can no longer be trusted
    ├── CapacityExceeded          try again later
    ├── Draining                  try another replica
    ├── NotStored                 try again: the store did not answer
    ├── Unauthenticated           nobody knows who calls
    ├── PermissionDenied          the caller may not do that
    ├── ModelInvalid              a model file that must not be served
    └── FileInvalid               a file that a setting names is missing or wrong

The gRPC codes belong to `status.CODES`; the reasons are the classes' own.
"""

from __future__ import annotations

from typing import ClassVar


class NtmError(Exception):
    """Base of all errors below: a sentence for a person, a reason for a program."""

    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, **metadata: object) -> None:
        """Metadata are the values that a program needs to act, such as the expected index."""
        super().__init__(message)
        self.message = message
        self.metadata = {key: str(value) for key, value in metadata.items()}
        self.retry_delay_seconds: float | None = None


class InvalidRequest(NtmError):
    """A field has a value that no retry will make acceptable."""

    reason = "INVALID_REQUEST"


class ModelUnknown(InvalidRequest):
    """No model of that name is served here."""

    reason = "MODEL_UNKNOWN"


class ModelVersionUnknown(InvalidRequest):
    """The model has no version of that content hash here; the session or checkpoint needs it."""

    reason = "MODEL_VERSION_UNKNOWN"


class SessionUnknown(InvalidRequest):
    """No session of that id was opened here, as far back as this server remembers."""

    reason = "SESSION_UNKNOWN"


class SessionExpired(InvalidRequest):
    """The session made no step for its idle timeout and was closed."""

    reason = "SESSION_EXPIRED"


class SessionDeleted(InvalidRequest):
    """A client deleted the session."""

    reason = "SESSION_DELETED"


class SessionMoved(InvalidRequest):
    """Another replica has taken the session over."""

    reason = "SESSION_MOVED"


class SessionExists(InvalidRequest):
    """The id chosen for a new session has one already, which is not what was asked for."""

    reason = "SESSION_EXISTS"


class StepIndexMismatch(InvalidRequest):
    """The chunk does not start at the session's next step; nothing was computed."""

    reason = "STEP_INDEX_MISMATCH"


class CheckpointDamaged(InvalidRequest):
    """The bytes are no checkpoint, or no longer the one that was written."""

    reason = "CHECKPOINT_DAMAGED"


class CheckpointForeign(InvalidRequest):
    """The checkpoint is of another model than the session."""

    reason = "CHECKPOINT_FOREIGN"


class CheckpointTooNew(InvalidRequest):
    """The checkpoint's layout is of a version that this server does not know."""

    reason = "CHECKPOINT_TOO_NEW"


class NoMemory(InvalidRequest):
    """The model has no memory to read."""

    reason = "NO_MEMORY"


class SessionFailed(NtmError):
    """The network's run failed or left the session's state not finite; the session is closed."""

    reason = "SESSION_FAILED"


class CapacityExceeded(NtmError):
    """A limit of the server is reached; nothing was changed."""

    reason = "CAPACITY_EXCEEDED"

    def __init__(self, message: str, *, retry_delay_seconds: float, **metadata: object) -> None:
        """The delay is how long the client should wait before it asks again."""
        super().__init__(message, **metadata)
        self.retry_delay_seconds = retry_delay_seconds


class Draining(NtmError):
    """The server is stopping and takes no new work."""

    reason = "DRAINING"


class Unauthenticated(NtmError):
    """The call shows no token or certificate that is valid; what is wrong with it is not told."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(NtmError):
    """The caller is known and lacks the scope that the call needs."""

    reason = "PERMISSION_DENIED"


class NotStored(NtmError):
    """The store did not answer: the steps were made, and may not be durable yet."""

    reason = "NOT_STORED"


class ModelInvalid(NtmError):
    """A model file breaks the contract; the message says where."""

    reason = "MODEL_INVALID"


class FileInvalid(NtmError):
    """A file that a setting names is missing or wrong; the message says which and why."""

    reason = "FILE_INVALID"
